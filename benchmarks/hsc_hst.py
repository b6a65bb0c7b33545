# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Real HSC coadds, restored from the coadd alone, beside HST images of the same
sky.
"""

from __future__ import annotations

__all__ = ("FIELDS", "RealField", "compare_with_hst", "read_field", "run_on_coadd")

import dataclasses
from pathlib import Path

import astropy.io.fits
import astropy.wcs
import numpy as np
import scipy.ndimage
import scipy.optimize
from scipy.signal import fftconvolve

from lsst.drp.restore.restoration.target_psf import TARGET_FWHM
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.kernel_shape import gaussian_kernel

from .methods import METHODS
from .morphologies import DATA_VARIABLE
from .peers import divide_kernels
from .sky_image import SkyImage
from .true_images import bring_to

FIELDS = ("", "1")
"""Endings of the names of the cutouts (`tuple`)."""

_BAND = 2  # i of g, r, i, z, y
_SIZE = 64  # of the stack, pixels: the cutout and pixels without data
_KERNEL_SIZE = 25
# Level of HSC's sky in i, in units of its noise in a pixel of the coadd: the
# photon noise of a source as bright doubles the variance.
_SKY_LEVEL = 100.0
# Pixels next to the edges of an image are not compared.
_EDGE = 3


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RealField:
    """A cutout of an HSC coadd and the HST image of the same sky.

    Parameters
    ----------
    stack : `ExposureStack`
        The coadd as a single exposure, its background subtracted, in its own
        unit, shape ``(1, 64, 64)``; pixels beyond the cutout are not good.
    hst : `numpy.ndarray`
        HST's image at the target PSF on the coadd's pixels, in HST's unit
        times the ratio of the pixels' areas, shape ``(64, 64)``; NaN where
        there is none.
    offset : `tuple` [`float`, `float`]
        By how much the images' headers disagree along x and y, pixels of the
        coadd: where HST's image at the coadd's PSF fits the coadd best.
    """

    stack: ExposureStack
    hst: np.ndarray
    offset: tuple[float, float]


def read_field(folder: Path, name: str) -> RealField:
    """Read a cutout.

    Parameters
    ----------
    folder : `pathlib.Path`
        Folder of the images.
    name : `str`
        Which, of `FIELDS`.

    Returns
    -------
    field : `RealField`
        The images.

    Raises
    ------
    FileNotFoundError
        Raised if one is missing.
    """
    hsc, hsc_header = _read(folder, f"Cut_HSC{name}.fits")
    hst, hst_header = _read(folder, f"Cut_HST{name}.fits")
    hsc_psf, hst_psf = (_read(folder, f"PSF_{camera}.fits")[0] for camera in ("HSC", "HST"))
    image = hsc[_BAND].astype(float)
    sky, sigma = _background(image)
    image = image - sky
    variance = sigma**2 * (1 + np.maximum(image, 0) / (_SKY_LEVEL * sigma))
    rows, columns = (slice(0, n) for n in image.shape)
    pixels, noise = np.zeros((1, _SIZE, _SIZE), np.float32), np.full((1, _SIZE, _SIZE), np.inf, np.float32)
    pixels[0, rows, columns], noise[0, rows, columns] = image, variance
    psf = hsc_psf[_BAND] / hsc_psf[_BAND].sum()
    cut = (len(psf) - _KERNEL_SIZE) // 2
    kernel = psf[cut : cut + _KERNEL_SIZE, cut : cut + _KERNEL_SIZE]
    stack = ExposureStack(
        image=pixels,
        variance=noise,
        good=np.isfinite(noise),
        kernels=kernel.astype(np.float32)[np.newaxis, np.newaxis, np.newaxis],
        correlation=np.ones((1, 1, 1), np.float32),
        cell_shape=(_SIZE, _SIZE),
        names=("HSC coadd",),
    )
    coadd_wcs, hst_wcs = (astropy.wcs.WCS(header, naxis=2) for header in (hsc_header, hst_header))
    scale = np.sqrt(np.linalg.det(coadd_wcs.pixel_scale_matrix) / np.linalg.det(hst_wcs.pixel_scale_matrix))
    smooth = _to_target(hst, hst_psf, scale)
    to_coadd = divide_kernels(kernel, gaussian_kernel(TARGET_FWHM, _KERNEL_SIZE))

    def mismatch(offset: np.ndarray) -> float:
        there = _resample(smooth, scale, hst_wcs, coadd_wcs, offset)
        valid = stack.good[0] & np.isfinite(there)
        blurred = fftconvolve(np.nan_to_num(there), to_coadd, mode="same")
        return -float(np.corrcoef(blurred[valid], stack.image[0][valid])[0, 1])

    options = {"initial_simplex": [[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]], "xatol": 0.01}
    offset = scipy.optimize.minimize(mismatch, np.zeros(2), method="Nelder-Mead", options=options).x
    return RealField(
        stack=stack,
        hst=_resample(smooth, scale, hst_wcs, coadd_wcs, offset),
        offset=(float(offset[0]), float(offset[1])),
    )


def compare_with_hst(field: RealField, sky: SkyImage) -> float:
    """Compare an image with HST's.

    Parameters
    ----------
    field : `RealField`
        The field.
    sky : `SkyImage`
        The image; brought to the target PSF where it is sharper.

    Returns
    -------
    correlation : `float`
        Pearson's, of the pixels that both have.
    """
    image = at_target(sky)
    valid = field.stack.good[0] & np.isfinite(field.hst) & np.isfinite(image)
    return float(np.corrcoef(image[valid], field.hst[valid])[0, 1])


def run_on_coadd(method: str, folder: Path, name: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Restore a coadd and compare it with HST's image.

    Parameters
    ----------
    method : `str`
        Key of `METHODS`.
    folder, name
        See `read_field`.

    Returns
    -------
    correlations : `dict` [`str`, `float`]
        Results of `compare_with_hst` by image.
    images : `dict` [`str`, `numpy.ndarray`]
        The images at the target PSF, and HST's, shape ``(64, 64)``, in units
        of the noise of the coadd's sky.
    """
    field = read_field(folder, name)
    unit = field.stack.median_sigma
    skies = METHODS[method](field.stack, None)
    images = {image: at_target(sky) / unit for image, sky in skies.items()}
    # HST's unit is another: its image gets the flux of the restored one.
    valid = np.isfinite(field.hst) & np.isfinite(images[next(iter(images))])
    flux = sum(float(image[valid].sum()) for image in images.values()) / len(images)
    images["HST"] = field.hst * (flux / float(field.hst[valid].sum()))
    return {image: compare_with_hst(field, sky) for image, sky in skies.items()}, images


def at_target(sky: SkyImage) -> np.ndarray:
    """Bring an image to the target PSF, where it is sharper (`numpy.ndarray`)."""
    return bring_to(sky.image, sky.stated_fwhm, TARGET_FWHM)


def _to_target(image: np.ndarray, psf: np.ndarray, scale: float) -> np.ndarray:
    """Bring HST's image to the target PSF, on its own pixels, of which
    ``scale`` are one of the coadd's along each axis.
    """
    kernel = divide_kernels(gaussian_kernel(scale * TARGET_FWHM, len(psf)), psf / psf.sum())
    sky, _ = _background(image)
    return scale**2 * fftconvolve(image - sky, kernel, mode="same")


def _resample(
    image: np.ndarray, scale: float, wcs: astropy.wcs.WCS, coadd_wcs: astropy.wcs.WCS, offset: np.ndarray
) -> np.ndarray:
    """Interpolate HST's image at the centers of the coadd's pixels, ``offset``
    (x, y) of them away from where the headers say; NaN where there is none.
    """
    rows, columns = np.indices((_SIZE, _SIZE))
    x, y = wcs.world_to_pixel(coadd_wcs.pixel_to_world(columns + offset[0], rows + offset[1]))
    edge = _EDGE * scale
    inside = (x > edge) & (x < image.shape[1] - 1 - edge) & (y > edge) & (y < image.shape[0] - 1 - edge)
    return np.where(inside, scipy.ndimage.map_coordinates(image, [y, x], order=3), np.nan)


def _background(image: np.ndarray) -> tuple[float, float]:
    """Measure level and noise of the sky, from the pixels fainter than the
    mode, iteratively clipped.
    """
    pixels = image.ravel()
    for _ in range(20):
        level, sigma = np.median(pixels), 1.4826 * np.median(np.abs(pixels - np.median(pixels)))
        pixels = pixels[np.abs(pixels - level) < 2.5 * sigma]
    return float(level), float(sigma)


def _read(folder: Path, name: str) -> tuple[np.ndarray, astropy.io.fits.Header]:
    """Read the pixels and the header of a FITS file."""
    if not (folder / name).is_file():
        raise FileNotFoundError(f"there is no {name} in {folder} ({DATA_VARIABLE} says where)")
    with astropy.io.fits.open(folder / name) as units:
        return np.asarray(units[0].data), units[0].header
