# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Reads the PSF of an exposure from the files of other software."""

from __future__ import annotations

__all__ = ("read_psf",)

import itertools
import math
from pathlib import Path
from typing import Any

import astropy.io.fits
import numpy as np

from lsst.images import Box
from lsst.images.psfs import GaussianPointSpreadFunction, PiffWrapper, PointSpreadFunction

from .exposure_files import ExposureFileError, read_fits_image, split_extension
from .make_visit_image import kernel_psf, polynomial_terms
from .manifest import ManifestRow

# Width of the smallest kernel that is accepted, and of the smallest stamp that
# is drawn, pixels: that of the decoder's kernels.
_MIN_SIZE = 25

# Width of the stamps that are drawn of a Piff PSF, pixels.
_PIFF_SIZE = 51

# Standard deviations to the edge of a Gaussian's stamp.
_GAUSSIAN_EXTENT = 5.0

# Full width at half maximum of a Gaussian over its standard deviation.
_FWHM_PER_SIGMA = math.sqrt(8.0 * math.log(2.0))

# Highest order of the polynomial that stands for a Piff PSF; the error,
# relative to the peak, that is good enough for a lower order, and the largest
# that is accepted.
_MAX_ORDER = 4
_GOOD_ERROR = 1e-5
_MAX_ERROR = 1e-3


def read_psf(row: ManifestRow, folder: Path, bbox: Box, scale: float) -> PointSpreadFunction:
    """Read the PSF of one row of a manifest, as something that a visit image
    can be stored with.

    Parameters
    ----------
    row : `ManifestRow`
        Names the PSF.
    folder : `~pathlib.Path`
        What its file is relative to.
    bbox : `lsst.images.Box`
        Pixels of the image.
    scale : `float`
        Size of a pixel, arcsec.

    Returns
    -------
    psf : `lsst.images.psfs.PointSpreadFunction`
        A Gaussian or a Piff PSF.

    Raises
    ------
    ExposureFileError
        Raised if the file cannot be read, or is no PSF.
    """
    name = str(row.psf)
    if not name or (isinstance(row.psf, float) and not row.psf > 0.0):
        raise ExposureFileError()  # reported with the manifest
    psf: PointSpreadFunction
    match row.psf_kind:
        case "fwhm_pixel":
            return _gaussian(float(row.psf), bbox)
        case "fwhm_arcsec":
            return _gaussian(float(row.psf) / scale, bbox)
        case "kernel":
            psf = _kernel(folder, name, bbox)
        case "psfex":
            psf = _psfex(folder, name, bbox)
        case "piff":
            psf = _piff(folder, name, bbox, row.detector)
        case _:
            raise ExposureFileError()  # reported with the manifest
    _check(psf, name, bbox)
    return psf


def _check(psf: PointSpreadFunction, name: str, bbox: Box) -> None:
    """Refuse a PSF that cannot be drawn at the center and in the corners."""
    for y, x in [
        (bbox.y.center, bbox.x.center),
        *itertools.product((bbox.y.min, bbox.y.max), (bbox.x.min, bbox.x.max)),
    ]:
        try:
            kernel = psf.compute_kernel_image(x=x, y=y).array
        except Exception as error:  # GalSim's and Piff's errors are of many types
            raise ExposureFileError(f"{name}: cannot be drawn at ({x}, {y}): {error}") from error
        if not np.isfinite(kernel).all() or not kernel.max() > -kernel.min():
            raise ExposureFileError(f"{name}: what it draws at ({x}, {y}) is not a PSF")


def _gaussian(fwhm: float, bbox: Box) -> GaussianPointSpreadFunction:
    """Return a round Gaussian of a FWHM in pixels."""
    sigma = fwhm / _FWHM_PER_SIGMA
    size = max(_MIN_SIZE, 2 * math.ceil(_GAUSSIAN_EXTENT * sigma) + 1)
    return GaussianPointSpreadFunction(sigma, bounds=bbox, stamp_size=size)


def _kernel(folder: Path, name: str, bbox: Box) -> PiffWrapper:
    """Return the PSF of a kernel image."""
    kernel = read_fits_image(folder, name)[0].astype(np.float64)
    height, width = kernel.shape
    if height != width or width % 2 == 0 or width < _MIN_SIZE:
        raise ExposureFileError(
            f"{name}: a kernel of {width}x{height} pixels; it must be square with an odd size of at least "
            f"{_MIN_SIZE}"
        )
    if not np.isfinite(kernel).all():
        raise ExposureFileError(f"{name}: the kernel has pixels that are not finite")
    if not kernel.sum() > 0.0:
        raise ExposureFileError(f"{name}: the sum of the kernel is {kernel.sum():.3g}, not positive")
    return kernel_psf(kernel / kernel.sum(), bbox)


def _psfex(folder: Path, name: str, bbox: Box) -> PiffWrapper:
    """Return the PSF of a PSFEx file: a polynomial in the position of kernels
    on PSFEx's own grid, which Piff interpolates as PSFEx does.
    """
    path, extension = split_extension(folder, name)
    if not path.is_file():
        raise ExposureFileError(f"{name}: no such file")
    try:
        with astropy.io.fits.open(path, memmap=False) as hdus:
            hdu = hdus[1 if extension is None else extension]
            header: Any = hdu.header
            kernels = np.array(hdu.data["PSF_MASK"][0], dtype=np.float64)
            step = float(header["PSF_SAMP"])
            n_axes = int(header["POLNAXIS"])
            names = [str(header[f"POLNAME{axis + 1}"]) for axis in range(n_axes)]
            zeros = [float(header[f"POLZERO{axis + 1}"]) for axis in range(n_axes)]
            scales = [float(header[f"POLSCAL{axis + 1}"]) for axis in range(n_axes)]
            groups = [int(header[f"POLGRP{axis + 1}"]) for axis in range(n_axes)]
            order = int(header["POLDEG1"]) if n_axes else 0
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ExposureFileError(f"{name}: not a PSFEx model: {error}") from error
    is_position = [
        text.startswith(axis) and text.endswith("IMAGE") for text, axis in zip(names, "XY", strict=False)
    ]
    if n_axes not in (0, 2) or not all(is_position) or len(set(groups)) > 1:
        raise ExposureFileError(f"{name}: the PSF must depend on the position in the image, not on {names}")
    if kernels.ndim == 2:
        kernels = kernels[np.newaxis]
    # PSFEx counts the powers of x fastest.
    powers = [(i, j) for j in range(order + 1) for i in range(order + 1 - j)]
    if len(powers) != len(kernels):
        raise ExposureFileError(f"{name}: {len(kernels)} kernels for a polynomial of order {order}")
    kernels = kernels[[powers.index(term) for term in polynomial_terms(order)]]
    size = math.ceil(kernels.shape[-1] * step) | 1
    try:
        return kernel_psf(
            kernels,
            bbox,
            step=step,
            # The first pixel is (1, 1) there.
            origin=(zeros[0] - 1.0, zeros[1] - 1.0) if n_axes else (0.0, 0.0),
            scale=(scales[0], scales[1]) if n_axes else (1.0, 1.0),
            interpolant="Lanczos(3)",
            stamp_size=max(size, _MIN_SIZE),
        )
    except ValueError as error:
        raise ExposureFileError(f"{name}: {error}") from error


def _piff(folder: Path, name: str, bbox: Box, detector: int) -> PiffWrapper:
    """Return a polynomial of pixel kernels that is the same as the model of a
    Piff file.

    A visit image can be stored with neither the WCS that a Piff model usually
    has nor a model that was read from a file.
    """
    import piff

    path = folder / name
    if not path.is_file():
        raise ExposureFileError(f"{name}: no such file")
    try:
        psf = piff.read(str(path))
    except Exception as error:  # Piff's errors are of many types
        raise ExposureFileError(f"{name}: not a Piff model: {error}") from error
    others = [key for key in psf.interp_property_names if key not in ("x", "y", "u", "v")]
    if others:
        raise ExposureFileError(f"{name}: the PSF must depend on the position in the image, not on {others}")
    chips = sorted(int(chip) for chip in psf.wcs)
    chip = chips[0] if len(chips) == 1 else detector
    if chip not in chips:
        raise ExposureFileError(f"{name}: a model of the chips {chips}, none of which is detector {detector}")

    x, y = (grid.ravel() for grid in np.meshgrid(*(np.linspace(0, n - 1, 7) for n in bbox.shape[::-1])))
    try:
        # The first pixel is (1, 1) there.
        drawn = np.array(
            [
                psf.draw(a + 1.0, b + 1.0, chipnum=chip, stamp_size=_PIFF_SIZE, center=True).array.ravel()
                for a, b in zip(x, y, strict=True)
            ]
        )
    except Exception as error:  # GalSim's and Piff's errors are of many types
        raise ExposureFileError(f"{name}: cannot be drawn: {error}") from error
    drawn /= drawn.sum(axis=1, keepdims=True)
    origin = (bbox.x.center, bbox.y.center)
    scale = (bbox.x.size / 2, bbox.y.size / 2)
    u, v = (x - origin[0]) / scale[0], (y - origin[1]) / scale[1]
    for order in range(_MAX_ORDER + 1):
        matrix = np.stack([u**i * v**j for i, j in polynomial_terms(order)], axis=1)
        coefficients = np.linalg.lstsq(matrix, drawn, rcond=None)[0]
        residual = np.abs(matrix @ coefficients - drawn).max() / drawn.max()
        if residual < _GOOD_ERROR:
            break
    if not residual < _MAX_ERROR:
        raise ExposureFileError(
            f"{name}: varies more over the image than a polynomial of order {_MAX_ORDER} (error "
            f"{residual:.2g} of the peak, at most {_MAX_ERROR:g})"
        )
    kernels = coefficients.reshape(-1, _PIFF_SIZE, _PIFF_SIZE)
    return kernel_psf(kernels, bbox, origin=origin, scale=scale)
