# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures of a sky that is given as an image, without a camera: Moffat PSFs
that do not vary, independent noise, no missing pixels.
"""

from __future__ import annotations

__all__ = ("CROWDED_BINS", "GAIN", "Scene", "crowded_scene", "empty_scene", "expose", "measure_scene")

import dataclasses
from typing import Any

import numpy as np
import scipy.fft
from scipy.spatial import cKDTree

from lsst.drp.restore.outputs.image_quality import psnr, sky_noise, ssim
from lsst.drp.restore.restoration.target_psf import TARGET_FWHM
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.kernel_shape import gaussian_kernel
from lsst.drp.restore.stack.reference_coadd import reference_coadd

from .hallucinations import find_false, find_peaks
from .photometry import aperture_flux, psf_flux, psf_stamp
from .robust import median, robust_scatter
from .shapes import COMMON_FWHM
from .sky_image import SkyImage
from .true_images import add_gaussian, bring_to

GAIN = 30.0
"""Electrons of a unit of flux (that of the sky's sigma in an exposure is 1)."""

CROWDED_BINS = ((10.0, 20.0), (20.0, 50.0), (50.0, 100.0), (100.0, np.inf))
"""Bins of the signal-to-noise ratio of stars in crowded fields."""

_VISITS = 16
_CELL = 64
_KERNEL_SIZE = 25
_FWHMS = (3.0, 4.5)  # of the exposures' PSFs, pixels
_BETA = 3.5
_OVERSAMPLING = 5
_SIGMA = TARGET_FWHM / float(np.sqrt(8 * np.log(2)))
# Of stars of crowded fields: S/N of the faintest that are looked for, and of
# those whose fluxes are measured; distance of a peak, and radii of apertures
# and of PSF fits, pixels.
_CROWDED_SNR = 10.0
_BRIGHT_SNR = 100.0
_MATCH_RADIUS = 1.0
_PSF_RADIUS = 6
_APERTURE = 3.0
_EDGE = 16
# Stars of a crowded field: number by flux falls as flux to this power.
_SLOPE = -1.7
_FLUXES = (8.0, 20000.0)
_STARS = 8000  # on 512x512 pixels


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Scene:
    """Exposures of a given image.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures, in units of the sky's standard deviation in each.
    truth : `numpy.ndarray`
        The sky at the target PSF (`TARGET_FWHM`), same unit, shape ``(height,
        width)``.
    softening : `float`
        Standard deviation of the sky on the reference coadd.
    x, y, flux, snr : `numpy.ndarray`
        Positions (pixels), fluxes, and signal-to-noise ratios on the
        reference coadd if they were alone, of stars; shape ``(n,)``, empty if
        no catalog is known.
    """

    stack: ExposureStack
    truth: np.ndarray
    softening: float
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    snr: np.ndarray


def moffat(width: float, e1: float, e2: float) -> np.ndarray:
    """Draw a Moffat PSF.

    Parameters
    ----------
    width : `float`
        FWHM before the pixel, pixels.
    e1, e2 : `float`
        Ellipticity along the axes and the diagonals.

    Returns
    -------
    kernel : `numpy.ndarray`
        Kernel of total flux 1 (inside and outside of it), shape ``(25, 25)``.
    """
    fine = _KERNEL_SIZE * _OVERSAMPLING
    offset = (np.arange(fine) - (fine - 1) / 2) / _OVERSAMPLING
    x, y = (1 - e1) * offset - e2 * offset[:, np.newaxis], (1 + e1) * offset[:, np.newaxis] - e2 * offset
    alpha = width / 2 / np.sqrt(2 ** (1 / _BETA) - 1)
    profile = (1 + (x**2 + y**2) / alpha**2) ** -_BETA
    profile *= (_BETA - 1) * (1 - e1**2 - e2**2) / (np.pi * alpha**2 * _OVERSAMPLING**2)
    return profile.reshape(_KERNEL_SIZE, _OVERSAMPLING, _KERNEL_SIZE, _OVERSAMPLING).sum(axis=(1, 3))


def expose(truth: np.ndarray, seed: int, visits: int = _VISITS) -> ExposureStack:
    """Take exposures of a sky.

    Parameters
    ----------
    truth : `numpy.ndarray`
        The sky at the target PSF, in units of the sky's standard deviation in
        an exposure, shape ``(height, width)``, multiples of 64.
    seed : `int`
        Seed of PSFs and noise.
    visits : `int`, optional
        Number of exposures.

    Returns
    -------
    stack : `ExposureStack`
        The exposures: the sky convolved with the quotient of their PSF and the
        target Gaussian, with white noise of 1 and photon noise of `GAIN`
        electrons a unit.
    """
    rng = np.random.default_rng([seed, 71])
    height, width = truth.shape
    # Flux that leaves the field does not come in at the other side.
    shape = [scipy.fft.next_fast_len(n + _KERNEL_SIZE, real=True) for n in truth.shape]
    sky = scipy.fft.rfft2(truth, s=shape)
    sampled = _transfer(gaussian_kernel(TARGET_FWHM, _KERNEL_SIZE), shape)
    grid = (height // _CELL, width // _CELL)
    images, variances, kernels = [], [], []
    for _ in range(visits):
        kernel = moffat(rng.uniform(*_FWHMS), *rng.normal(0, 0.03, 2))
        clean = scipy.fft.irfft2(sky * _transfer(kernel, shape) / sampled, s=shape)[:height, :width]
        variance = 1 + np.maximum(clean, 0) / GAIN
        images.append(clean + rng.normal(size=truth.shape) * np.sqrt(variance))
        variances.append(variance)
        kernels.append(np.broadcast_to(kernel, (*grid, *kernel.shape)))
    return ExposureStack(
        image=np.array(images, np.float32),
        variance=np.array(variances, np.float32),
        good=np.ones((visits, height, width), bool),
        kernels=np.array(kernels, np.float32),
        correlation=np.ones((visits, *grid), np.float32),
        cell_shape=(_CELL, _CELL),
        names=tuple(f"exposure {n}" for n in range(visits)),
    )


def make_scene(
    truth: np.ndarray,
    seed: int,
    x: np.ndarray | None = None,
    y: np.ndarray | None = None,
    flux: np.ndarray | None = None,
) -> Scene:
    """Take exposures of a sky and keep the truth.

    Parameters
    ----------
    truth, seed
        See `expose`.
    x, y, flux : `numpy.ndarray`, optional
        Positions (pixels) and fluxes of its stars, if they are known, shape
        ``(n,)``.

    Returns
    -------
    scene : `Scene`
        The exposures and the truth.
    """
    stack = expose(truth, seed)
    coadd = reference_coadd(stack)
    nothing = np.empty(0)
    fluxes = nothing if flux is None else flux
    # Of a star alone, sky noise only.
    kernel = coadd.kernels[0, 0].astype(float)
    sigma = np.sqrt(1 / stack.n_exposures / np.sum(kernel**2))
    return Scene(
        stack=stack,
        truth=truth,
        softening=sky_noise(coadd.image),
        x=nothing if x is None else x,
        y=nothing if y is None else y,
        flux=fluxes,
        snr=fluxes / sigma,
    )


def crowded_scene(seed: int, size: int = 512) -> Scene:
    """Make a field as crowded with stars as the bulge.

    Parameters
    ----------
    seed : `int`
        Seed of stars, PSFs and noise.
    size : `int`, optional
        Height and width, pixels, a multiple of 64.

    Returns
    -------
    scene : `Scene`
        8000 stars on 512x512 pixels, their number falling as flux to the
        power of -1.7 between 8 and 20000 times the sky's sigma in an exposure;
        some beyond the edges.
    """
    rng = np.random.default_rng([seed, 72])
    border = _EDGE
    n = rng.poisson(_STARS * ((size + 2 * border) / 512) ** 2)
    x, y = rng.uniform(-border, size - 1 + border, (2, n))
    # The integral of the power law, inverted.
    low, high = (end ** (_SLOPE + 1) for end in _FLUXES)
    flux = (low + rng.uniform(size=n) * (high - low)) ** (1 / (_SLOPE + 1))
    truth = np.zeros((size, size))
    for star in zip(x, y, flux, strict=True):
        add_gaussian(truth, *star, _SIGMA)
    return make_scene(truth, seed, x, y, flux)


def empty_scene(seed: int, size: int = 512) -> Scene:
    """Make a field of nothing but noise.

    Parameters
    ----------
    seed : `int`
        Seed of PSFs and noise.
    size : `int`, optional
        Height and width, pixels, a multiple of 64.

    Returns
    -------
    scene : `Scene`
        A sky of zero.
    """
    return make_scene(np.zeros((size, size)), seed)


def measure_scene(scene: Scene, sky: SkyImage, measured: SkyImage) -> dict[str, Any]:
    """Compare an image with the truth.

    Parameters
    ----------
    scene : `Scene`
        The scene.
    sky : `SkyImage`
        The image; if it states no PSF, its latent image is taken to have none.
    measured : `SkyImage`
        The proper coadd.

    Returns
    -------
    results : `dict` [`str`, `float`]
        ``target psnr``, ``target ssim``, ``common psnr``: after arcsinh in
        units of the reference coadd's noise, at the target PSF and at 2.5
        pixels (images that are less sharp as they are); of stars also those of
        `_measure_stars`; and those of `find_false`.
    """
    width = sky.stated_fwhm
    results: dict[str, Any] = {}
    for label, target in (("target", TARGET_FWHM), ("common", COMMON_FWHM)):
        images = bring_to(sky.image, width, target), bring_to(scene.truth, TARGET_FWHM, target)
        a, b = (np.arcsinh(pixels / scene.softening) for pixels in images)
        if scene.truth.any():
            results[f"{label} psnr"], results[f"{label} ssim"] = psnr(a, b), ssim(a, b)
    if len(scene.x):
        results |= _measure_stars(scene, sky, width)
    return results | find_false(sky.image, width, scene.truth, measured)


def _measure_stars(scene: Scene, sky: SkyImage, width: float) -> dict[str, float]:
    """Compare the peaks of an image with the stars of a crowded field.

    A peak that claims the flux of S/N over 10 is real if a star of half to
    twice its flux is within a pixel; a star is found if such a peak is there.
    Fluxes of stars of S/N over 100: PSF fits where the PSF is stated, else
    apertures of 3 pixels, both with a local background.
    """
    brought, width = bring_to(sky.image, width, TARGET_FWHM), max(width, TARGET_FWHM)
    faintest = _CROWDED_SNR * float(np.median(scene.flux / scene.snr))
    # Half as bright ones may be the stars' of the limit.
    peaks = find_peaks(brought / gaussian_kernel(width).max(), faintest / 2)
    stars = cKDTree(np.stack([scene.x, scene.y], axis=1))
    near = stars.query_ball_point(np.stack([peaks.columns, peaks.rows], axis=1), _MATCH_RADIUS)
    found, real = np.zeros(len(scene.x), bool), np.zeros(len(peaks.flux), bool)
    for n, (members, flux) in enumerate(zip(near, peaks.flux, strict=True)):
        alike = [m for m in members if 0.5 < flux / scene.flux[m] < 2]
        found[alike] = True
        real[n] = bool(alike)
    inside = np.ones(len(scene.x), bool)
    for place, end in zip((scene.x, scene.y), scene.truth.shape[::-1], strict=True):
        inside &= (place > _EDGE) & (place < end - 1 - _EDGE)
    claimed = peaks.flux > faintest
    results = {"false share": float(np.mean(~real[claimed])) if claimed.any() else np.nan}
    for low, high in CROWDED_BINS:
        chosen = inside & (scene.snr >= low) & (scene.snr < high)
        results[f"found {low:.0f}"] = float(found[chosen].mean())
    errors = []
    for star in np.flatnonzero(inside & (scene.snr > _BRIGHT_SNR)):
        x, y = float(scene.x[star]), float(scene.y[star])
        if sky.kernels is None:
            flux = float(aperture_flux(sky.image, x, y, _APERTURE, (4.0, 8.0))[0])
        else:
            stamp = psf_stamp(sky.kernels, scene.stack.cell_shape, x, y, _PSF_RADIUS)
            flux, _ = psf_flux(sky.image, np.ones_like(sky.image), x, y, stamp)
        errors.append(flux / scene.flux[star] - 1)
    return results | {"bias": median(np.array(errors)), "scatter": robust_scatter(np.array(errors))}


def _transfer(kernel: np.ndarray, shape: list[int]) -> np.ndarray:
    """Fourier-transform a kernel around pixel (0, 0) of an image."""
    size = len(kernel)
    padded = np.zeros(shape)
    padded[:size, :size] = kernel
    return scipy.fft.rfft2(np.roll(padded, (-(size // 2), -(size // 2)), axis=(0, 1)))
