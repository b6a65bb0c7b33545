# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Check of the files of a manifest before they are ingested."""

from __future__ import annotations

__all__ = ("CheckedRow", "check_exposures", "table_of_values")

import dataclasses
import logging
import math

import astropy.table
import numpy as np

import lsst.utils.logging
from lsst.images import Box
from lsst.images.psfs import PointSpreadFunction
from lsst.sphgeom import ConvexPolygon

from ..stack.kernel_shape import fwhm
from ..warping.projections import pixel_scale, sky_region
from .exposure_files import ExposureArrays, ExposureFileError, read_exposure
from .frame_psf import TooFewStarsError, measure_star_psf
from .manifest import PSF_STARS, Manifest, ManifestRow
from .psf_files import read_psf

_LOG = logging.getLogger(__name__)

# Time between progress messages, s.
_LOG_INTERVAL = 5.0

# Mask planes of pixels that are not to be seen in a PSF.
_BAD_PLANES = ("BAD", "NO_DATA", "SATURATED", "COSMIC_RAY", "INTERPOLATED", "SUSPECT")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class CheckedRow:
    """A row whose files can be read.

    Parameters
    ----------
    given : `ManifestRow`
        The row of the manifest.
    row : `ManifestRow`
        The same with all values that were estimated.
    region : `lsst.sphgeom.ConvexPolygon`
        Region on the sky.
    sigma : `float`
        Median standard deviation of an empty pixel, nJy.
    psf : `lsst.images.psfs.PointSpreadFunction` or `None`
        PSF that was measured from stars; `None` if it is read from the
        manifest's file.
    fwhm : `float`
        FWHM of the PSF in the middle of the image, pixels.
    n_stars : `int`
        Number of stars to which it was fitted, 0 if it was given.
    """

    given: ManifestRow
    row: ManifestRow
    region: ConvexPolygon
    sigma: float
    psf: PointSpreadFunction | None
    fwhm: float
    n_stars: int


def check_exposures(
    manifest: Manifest, rows: list[ManifestRow], instrument: str
) -> tuple[list[CheckedRow], list[str]]:
    """Read all files once and estimate what is not given.

    Parameters
    ----------
    manifest : `Manifest`
        The manifest.
    rows : `list` [`ManifestRow`]
        Its rows to check.
    instrument : `str`
        Name of the instrument.

    Returns
    -------
    checked : `list` [`CheckedRow`]
        The valid rows.
    problems : `list` [`str`]
        Problems, each with the row and the name of the file.
    """
    checked: list[CheckedRow] = []
    problems: list[str] = []
    periodic = lsst.utils.logging.PeriodicLogger(_LOG, interval=_LOG_INTERVAL)
    for count, row in enumerate(rows):
        periodic.log("Checked %d of %d images.", count, len(rows))
        arrays = None
        try:
            arrays = read_exposure(
                row, manifest.path.parent, instrument=instrument, mask_planes=manifest.mask_planes
            )
        except ExposureFileError as error:
            problems.extend(f"{row.label}: {reason}" for reason in error.reasons)
        try:
            item = _check_psf(manifest, row, arrays)
        except ExposureFileError as error:
            problems.extend(f"{row.label}: {reason}" for reason in error.reasons)
        else:
            checked += [item] if item is not None else []
    return checked, problems


def _check_psf(manifest: Manifest, row: ManifestRow, arrays: ExposureArrays | None) -> CheckedRow | None:
    """Read or measure the PSF of a row; return the row if it is valid."""
    folder = manifest.path.parent
    # Without an image, the PSF is checked at an arbitrary pixel.
    bbox = arrays.sky_projection.pixel_frame.bbox if arrays is not None else Box.from_shape((1, 1))
    scale = pixel_scale(arrays.sky_projection, bbox) if arrays is not None else 1.0
    measured, n_stars = None, 0
    if row.psf_kind == PSF_STARS:
        if arrays is None:
            return None
        bad = np.zeros(arrays.image.shape, dtype=bool)
        for plane in _BAD_PLANES:
            bad |= arrays.mask.get(plane, False)
        try:
            star_psf = measure_star_psf(arrays.image, arrays.variance, bad, bbox)
        except TooFewStarsError as error:
            raise ExposureFileError(
                f"{row.image}: its PSF cannot be measured: {error}; write a manifest with --write-manifest "
                "and give psf_kind 'fwhm_arcsec' and the FWHM as psf, or the file of a PSF"
            ) from error
        measured, width, n_stars = star_psf.psf, star_psf.fwhm, star_psf.n_stars
    else:
        psf = read_psf(row, folder, bbox, scale)
        width = fwhm(psf.compute_kernel_image(x=bbox.x.center, y=bbox.y.center).array)
    if arrays is None:
        return None
    return CheckedRow(
        given=row,
        row=dataclasses.replace(
            row,
            gain=arrays.gain,
            background=arrays.background,
            saturation=arrays.saturation,
            correlation=arrays.correlation,
        ),
        region=sky_region(arrays.sky_projection, bbox),
        sigma=arrays.sigma,
        psf=measured,
        fwhm=width,
        n_stars=n_stars,
    )


def table_of_values(checked: list[CheckedRow], manifest: Manifest) -> astropy.table.Table:
    """Make a table of the values of images and their origins.

    Parameters
    ----------
    checked : `list` [`CheckedRow`]
        The images.
    manifest : `Manifest`
        Their manifest.

    Returns
    -------
    table : `astropy.table.Table`
        Texts: a row per image, and values followed by a letter for their
        origin: ``h`` (header), ``g`` (given in a manifest), ``e``
        (estimated).  The gain is ``unknown`` where the variance therefore
        lacks the photons of sources.  ``sigma`` (nJy) is that of an empty pixel, and ``fwhm``
        (pixels) is followed by the number of stars.
    """
    given = manifest.origin[0]

    def cell(item: CheckedRow, name: str, digits: str) -> str:
        value = getattr(item.row, name)
        if getattr(item.given, name) is not None:
            return f"{value:{digits}} {given}"
        if name == "gain" and value == 0.0:
            return "none" if _has_variance(item.row) else "unknown"
        if name == "background" and value == 0.0:
            return "none"
        return f"{value:{digits}} e" if math.isfinite(value) else "none e"

    rows = [
        {
            "visit": str(item.row.visit),
            "image": item.row.image,
            "band": item.row.band,
            "time": item.row.begin.utc.strftime("%Y-%m-%dT%H:%M:%S"),
            "exposure": f"{item.row.exposure_time:g} {given}",
            "zero point": f"{item.row.zero_point:.3f} {given}",
            "gain": cell(item, "gain", ".3g"),
            "background": cell(item, "background", ".0f"),
            "saturation": cell(item, "saturation", ".4g"),
            "sigma": f"{item.sigma:.4g} {given if _has_variance(item.row) else 'e'}",
            "correlation": cell(item, "correlation", ".2f"),
            "fwhm": f"{item.fwhm:.2f} " + (f"e ({item.n_stars} stars)" if item.n_stars else given),
        }
        for item in checked
    ]
    return astropy.table.Table(rows)


def _has_variance(row: ManifestRow) -> bool:
    return row.variance is not None or row.weight is not None
