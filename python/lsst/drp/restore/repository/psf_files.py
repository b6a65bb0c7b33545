# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSFs of exposures, read from files of other software."""

from __future__ import annotations

__all__ = ("read_psf",)

import itertools
import math
from pathlib import Path

import astropy.io.fits
import numpy as np
from astropy.stats import gaussian_sigma_to_fwhm

from lsst.images import Box
from lsst.images.psfs import GaussianPointSpreadFunction, PiffWrapper, PointSpreadFunction

from .exposure_files import ExposureFileError, read_fits_image, split_extension
from .make_visit_image import kernel_psf, polynomial_terms
from .manifest import ManifestRow

# Minimum width of kernels and of stamps, pixels: the width of the PSF kernels in
# a restoration.
_MIN_SIZE = 25

# Width of the stamps of a Piff PSF, pixels.
_PIFF_SIZE = 51

# Distance from the center to the edge of a Gaussian's stamp, standard
# deviations.
_GAUSSIAN_EXTENT = 5.0

# Header of a PSFEx file without position dependence as that of a polynomial of
# order 0, which GalSim requires.
_PSFEX_CONSTANT = {"POLNAXIS": 2, "POLNGRP": 1, "POLDEG1": 0} | {
    f"{key}{axis}": value
    for axis, name in enumerate(("X_IMAGE", "Y_IMAGE"), start=1)
    for key, value in {"POLGRP": 1, "POLNAME": name, "POLZERO": 0.0, "POLSCAL": 1.0}.items()
}

# Highest order of the polynomial that approximates a Piff PSF; maximum error,
# relative to the peak, at which a lower order is chosen, and at which the
# highest order is accepted.
_MAX_ORDER = 4
_GOOD_ERROR = 1e-5
_MAX_ERROR = 1e-3


def read_psf(row: ManifestRow, folder: Path, bbox: Box, scale: float) -> PointSpreadFunction:
    """Read the PSF of one row of a manifest, as a model that a visit image can
    be stored with.

    Parameters
    ----------
    row : `ManifestRow`
        Row with the kind and the file, or FWHM, of the PSF.
    folder : `~pathlib.Path`
        Folder that the file name is relative to.
    bbox : `lsst.images.Box`
        Pixels of the image.
    scale : `float`
        Pixel scale of the image, arcsec.

    Returns
    -------
    psf : `lsst.images.psfs.PointSpreadFunction`
        A Gaussian or a Piff PSF.

    Raises
    ------
    ExposureFileError
        Raised if the file cannot be read or is not a PSF model.
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
    """Raise if a PSF cannot be drawn at the center and in the corners."""
    for y, x in [
        (bbox.y.center, bbox.x.center),
        *itertools.product((bbox.y.min, bbox.y.max), (bbox.x.min, bbox.x.max)),
    ]:
        try:
            kernel = psf.compute_kernel_image(x=x, y=y).array
        except Exception as error:  # GalSim's and Piff's errors are of many types
            raise ExposureFileError(f"{name}: cannot be drawn at ({x}, {y}): {error}") from error
        if not np.isfinite(kernel).all() or not kernel.max() > -kernel.min():
            raise ExposureFileError(f"{name}: the kernel at ({x}, {y}) is not that of a PSF")


def _gaussian(fwhm: float, bbox: Box) -> GaussianPointSpreadFunction:
    """Return a round Gaussian of a FWHM in pixels."""
    sigma = float(fwhm / gaussian_sigma_to_fwhm)
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

    GalSim reads the file.  Its kernels at a position are not used: a visit
    image can be stored with a Piff model only.
    """
    import galsim.des

    path, extension = split_extension(folder, name)
    if not path.is_file():
        raise ExposureFileError(f"{name}: no such file")
    try:
        with astropy.io.fits.open(path, memmap=False) as hdus:
            hdu = hdus[1 if extension is None else extension]
            if hdu.header["POLNAXIS"] == 0:
                hdu.header.update(_PSFEX_CONSTANT)
            model = galsim.des.DES_PSFEx(hdu)
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ExposureFileError(
            f"{name}: not a PSFEx model of a PSF that varies only with the position in the image (made with "
            "PSFVAR_KEYS X_IMAGE,Y_IMAGE)"
        ) from error
    # PSFEx counts the powers of x fastest.
    order = model.fit_order
    powers = [(i, j) for j in range(order + 1) for i in range(order + 1 - j)]
    kernels = model.basis[[powers.index(term) for term in polynomial_terms(order)]]
    size = math.ceil(kernels.shape[-1] * model.sample_scale) | 1
    try:
        return kernel_psf(
            kernels,
            bbox,
            step=model.sample_scale,
            # The first pixel is (1, 1) there.
            origin=(model.x_zero - 1.0, model.y_zero - 1.0),
            scale=(model.x_scale, model.y_scale),
            interpolant="Lanczos(3)",
            stamp_size=max(size, _MIN_SIZE),
        )
    except ValueError as error:
        raise ExposureFileError(f"{name}: {error}") from error


def _piff(folder: Path, name: str, bbox: Box, detector: int) -> PiffWrapper:
    """Return a polynomial of pixel kernels that approximates the model of a
    Piff file.

    A visit image can be stored neither with the celestial WCS of most Piff
    models nor with a model that was read from a file.
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
