# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Images, variances, masks and WCSs of exposures, read from FITS files."""

from __future__ import annotations

__all__ = (
    "ExposureArrays",
    "ExposureFileError",
    "is_image",
    "read_exposure",
    "read_fits_image",
    "read_sky_projection",
    "split_extension",
)

import dataclasses
import math
import re
import warnings
from pathlib import Path
from typing import Any

import astropy.io.fits
import astropy.units as u
import numpy as np
from astropy.wcs import WCS, FITSFixedWarning

from lsst.images import Box, DetectorFrame, SkyProjection

from ..warping.projections import sky_projection_from_wcs
from .frame_estimates import estimate_frame
from .manifest import ManifestRow

# Fraction of pixels of a floating-point image from which those that are exactly
# zero have no data.
_PADDED_FRACTION = 1e-3


class ExposureFileError(ValueError):
    """Files of one exposure cannot be used.

    Parameters
    ----------
    *reasons : `str`
        Reasons, each beginning with the name of the file; none if they have
        been reported with the manifest.
    """

    def __init__(self, *reasons: str) -> None:
        self.reasons = reasons
        super().__init__("; ".join(reasons))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ExposureArrays:
    """The pixels of one exposure of one detector.

    Parameters
    ----------
    image, variance : `numpy.ndarray`
        Pixels, nJy and nJy**2, `numpy.float32`, shape ``(height, width)``.
        The variance is infinite for pixels of unknown variance.
    mask : `dict` [`str`, `numpy.ndarray`]
        Flagged pixels by mask plane, `bool`, same shape.
    sky_projection : `lsst.images.SkyProjection` [`lsst.images.DetectorFrame`]
        Maps pixels to the sky.
    gain, background, saturation, correlation : `float`
        As in a manifest, given or estimated; the gain is 0 where it is not
        known or not needed, the saturation infinite where there is none.
    sigma : `float`
        Median standard deviation of an empty pixel, nJy.
    """

    image: np.ndarray
    variance: np.ndarray
    mask: dict[str, np.ndarray]
    sky_projection: SkyProjection[DetectorFrame]
    gain: float
    background: float
    saturation: float
    correlation: float
    sigma: float


def read_exposure(
    row: ManifestRow, folder: Path, *, instrument: str, mask_planes: dict[str, list[int]] | None
) -> ExposureArrays:
    """Read image, variance, mask and WCS of one row of a manifest, and estimate
    what is not given.

    Parameters
    ----------
    row : `ManifestRow`
        Row with the file names.
    folder : `~pathlib.Path`
        Folder that the file names are relative to.
    instrument : `str`
        Name of the instrument.
    mask_planes : `dict` [`str`, `list` [`int`]] or `None`
        Bit numbers by mask plane; `None` if masks are non-zero for bad pixels.

    Returns
    -------
    arrays : `ExposureArrays`
        The pixels, in nJy.

    Raises
    ------
    ExposureFileError
        Raised with all problems of these files.
    """
    if not row.image:
        raise ExposureFileError()  # reported with the manifest
    counts, header, hdus = read_fits_image(folder, row.image)
    reasons: list[str] = []

    projection = None
    try:
        frame = DetectorFrame(
            instrument=instrument, visit=row.visit, detector=row.detector, bbox=Box.from_shape(counts.shape)
        )
        projection = read_sky_projection(header, hdus, frame)
    except ValueError as error:
        reasons.append(f"{row.image}: {error}")

    def read_companion(name: str) -> np.ndarray | None:
        try:
            array = read_fits_image(folder, name)[0]
        except ExposureFileError as error:
            reasons.extend(error.reasons)
            return None
        if array.shape != counts.shape:
            reasons.append(
                f"{name}: {array.shape[1]}x{array.shape[0]} pixels, but {row.image} has "
                f"{counts.shape[1]}x{counts.shape[0]}"
            )
            return None
        return array

    variance_name = row.variance or row.weight
    variance = read_companion(variance_name) if variance_name is not None else None
    missing = ~np.isfinite(counts)
    if variance_name is None:
        missing |= _padding(counts)
    known = ~missing
    if variance is not None:
        variance = variance.astype(np.float64)
        known = np.isfinite(variance) & (variance > 0.0)
        if not known.any():
            reasons.append(f"{variance_name}: not one positive pixel")
        if row.variance is None:
            np.divide(1.0, variance, out=variance, where=known)
        variance = np.where(known, variance, np.inf)
    if missing.all():
        reasons.append(f"{row.image}: not one finite pixel")

    mask: dict[str, np.ndarray] = {}
    if row.mask is not None:
        flags = read_companion(row.mask)
        if flags is not None:
            try:
                mask = _mask_by_plane(flags, mask_planes)
            except ValueError as error:
                reasons.append(f"{row.mask}: {error}")
    if projection is None or reasons or not math.isfinite(row.zero_point):
        raise ExposureFileError(*reasons)

    saturation = row.saturation
    if saturation is None and row.mask is not None:
        saturation = math.inf
    good = ~missing & known
    for plane in mask.values():
        good &= ~plane
    if not good.any():
        raise ExposureFileError(f"{row.image}: not one pixel is finite, of known variance and not masked")
    estimate = estimate_frame(
        counts,
        good,
        variance=variance,
        gain=row.gain,
        background=row.background,
        saturation=saturation,
        correlation=row.correlation,
    )
    if not estimate.sigma > 0.0:
        raise ExposureFileError(f"{row.image}: the sky has no scatter, so that no variance can be estimated")
    nanojansky = (row.zero_point * u.ABmag).to_value(u.nJy)
    mask["NO_DATA"] = mask.get("NO_DATA", False) | missing | ~known
    if estimate.saturated.any():
        mask["SATURATED"] = mask.get("SATURATED", False) | estimate.saturated
    return ExposureArrays(
        image=(estimate.image * nanojansky).astype(np.float32),
        variance=np.where(known, estimate.variance * nanojansky**2, np.inf).astype(np.float32),
        mask=mask,
        sky_projection=projection,
        gain=estimate.gain,
        background=estimate.background,
        saturation=estimate.saturation,
        correlation=estimate.correlation,
        sigma=estimate.sigma * nanojansky,
    )


def read_fits_image(
    folder: Path, name: str
) -> tuple[np.ndarray, astropy.io.fits.Header, astropy.io.fits.HDUList]:
    """Read a two-dimensional image of a FITS file.

    Parameters
    ----------
    folder : `~pathlib.Path`
        Folder that the file name is relative to.
    name : `str`
        File name, followed by ``[1]``, ``[SCI]`` or ``[SCI,2]`` to choose an
        extension.

    Returns
    -------
    array : `numpy.ndarray`
        The pixels, shape ``(height, width)``.
    header : `astropy.io.fits.Header`
        The image's header.
    hdus : `astropy.io.fits.HDUList`
        The closed file, for WCSs that need other extensions; data that have
        not been read are not available.

    Raises
    ------
    ExposureFileError
        Raised if there is no such image.
    """
    path, extension = split_extension(folder, name)
    if not path.is_file():
        raise ExposureFileError(f"{name}: no such file")
    try:
        with astropy.io.fits.open(path, memmap=False) as hdus:
            if extension is None:
                extension = next((n for n, hdu in enumerate(hdus) if is_image(hdu)), None)
                if extension is None:
                    raise ExposureFileError(f"{name}: no extension with a two-dimensional image")
            try:
                hdu = hdus[extension]
            except (KeyError, IndexError) as error:
                raise ExposureFileError(f"{name}: no extension {extension}") from error
            if not is_image(hdu):
                raise ExposureFileError(f"{name}: extension {extension} is not a two-dimensional image")
            # FITS is big-endian; convert to the byte order of the machine.
            array = np.asarray(hdu.data)
            return array.astype(array.dtype.newbyteorder("=")), hdu.header, hdus
    except OSError as error:
        raise ExposureFileError(f"{name}: cannot be read: {error}") from error


def split_extension(folder: Path, name: str) -> tuple[Path, int | str | tuple[str, int] | None]:
    """Split a file name and the choice of an extension.

    Parameters
    ----------
    folder : `~pathlib.Path`
        Folder that the file name is relative to.
    name : `str`
        File name, followed by ``[...]`` if an extension is chosen.

    Returns
    -------
    path : `~pathlib.Path`
        The file.
    extension : `int`, `str`, `tuple` [`str`, `int`] or `None`
        Number, name, or name and version of the extension; `None` if none is
        chosen.
    """
    match = re.fullmatch(r"(.+)\[([^\[\]]+)\]", name)
    if match is None or (folder / name).exists():
        return folder / name, None
    path, chosen = folder / match[1], match[2].strip()
    if chosen.isdigit():
        return path, int(chosen)
    extension, comma, version = chosen.partition(",")
    if comma and version.strip().isdigit():
        return path, (extension.strip(), int(version))
    return path, chosen


def is_image(hdu: Any) -> bool:
    """Whether a FITS extension holds a two-dimensional image.

    Parameters
    ----------
    hdu
        The extension, of any class of `astropy.io.fits`.

    Returns
    -------
    is_image : `bool`
        Whether it has two axes, neither of length 0.
    """
    return bool(hdu.is_image) and len(hdu.shape) == 2 and all(hdu.shape)


def read_sky_projection(
    header: astropy.io.fits.Header, hdus: astropy.io.fits.HDUList, frame: DetectorFrame
) -> SkyProjection[DetectorFrame]:
    """Read the sky projection of a FITS header.

    Parameters
    ----------
    header : `astropy.io.fits.Header`
        Header of the image.
    hdus : `astropy.io.fits.HDUList`
        The file, for WCSs that need other extensions.
    frame : `lsst.images.DetectorFrame`
        Frame of the pixels.

    Returns
    -------
    projection : `lsst.images.SkyProjection` [`lsst.images.DetectorFrame`]
        Maps pixels to the sky.

    Raises
    ------
    ValueError
        Raised if there is no celestial WCS, or it cannot be represented.
    """
    with warnings.catch_warnings():
        # Fixes concern dates and units, not the coordinates.
        warnings.simplefilter("ignore", FITSFixedWarning)
        try:
            wcs = WCS(header, fobj=hdus)
        except Exception as error:  # wcslib's own errors are of many types
            raise ValueError(f"the WCS cannot be read: {error}") from error
    if not wcs.has_celestial:
        raise ValueError("no celestial WCS")
    return sky_projection_from_wcs(wcs, frame)


def _padding(counts: np.ndarray) -> np.ndarray:
    """Return the pixels without data of a resampled image, which are zero."""
    zero = counts == 0.0
    is_padded = np.issubdtype(counts.dtype, np.floating) and zero.mean() > _PADDED_FRACTION
    return zero if is_padded else np.zeros_like(zero)


def _mask_by_plane(flags: np.ndarray, mask_planes: dict[str, list[int]] | None) -> dict[str, np.ndarray]:
    """Return the flagged pixels by mask plane."""
    if mask_planes is None:
        return {"BAD": flags != 0}
    if not np.issubdtype(flags.dtype, np.integer):
        raise ValueError(f"a bit mask must hold integers, not {flags.dtype}")
    flags = flags.astype(np.int64)
    return {name: (flags & sum(1 << bit for bit in set(bits))) != 0 for name, bits in mask_planes.items()}
