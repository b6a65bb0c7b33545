# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Simulated observations to train on: coadds of random skies, and the truth."""

from __future__ import annotations

__all__ = ("Sample", "draw_sample", "majorize_minimize", "write_samples")

import concurrent.futures
import dataclasses
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.fft
import scipy.ndimage

from ..restoration.network_input import MAX_FACTOR, NO_DATA_NOISE, PENALTY, STEPS, starting_image
from ..restoration.target_psf import TARGET_FWHM, convolution_kernels, deconvolution_kernels, target_kernel
from ..stack.coadd_filters import coadd_filters
from ..stack.saturated_stars import find_saturated_stars
from .skies import draw_sky

_KERNEL_SIZE = 25

# Minimum brightness of saturated pixels, in units of the noise.
_FAINTEST_SATURATED = 300.0

# Width of the stamp of the true PSF, pixels: bright stars have wings beyond the
# kernels.
_TRUE_SIZE = 65


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """One observation of a random sky, in units of the sky noise.

    Parameters
    ----------
    planes : `numpy.ndarray`
        Shape ``(5, size, size)``, `numpy.float32`: the white-noise coadd (the
        model in pixels without data), the start of the restoration at the
        target resolution, the noise, a mask of pixels with data (1 or 0), and
        the true sky at the target resolution.
    kernels : `numpy.ndarray`
        Shape ``(2, k, k)``: from the target resolution to the coadd's PSF, and
        back (`convolution_kernels`, `deconvolution_kernels`).
    """

    planes: np.ndarray
    kernels: np.ndarray


def draw_sample(rng: np.random.Generator, size: int) -> Sample:
    """Simulate an observation.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Random numbers.
    size : `int`
        Height and width, pixels.

    Returns
    -------
    sample : `Sample`
        The observation and its truth.
    """
    psf, true_psf, seeing = _draw_psf(rng)
    sky = draw_sky(rng, size, TARGET_FWHM, seeing)
    clean = _convolve(convolution_kernels(true_psf), sky)
    share = _draw_coverage(rng, size)
    electrons = 10 ** rng.uniform(0.3, 3.0)
    variance = (1.0 + np.maximum(clean, 0.0) / electrons) / np.maximum(share, 1e-6)
    noise = rng.standard_normal(sky.shape)
    if rng.random() < 0.3:
        # Resampled exposures have less noise at high frequencies.
        noise = scipy.ndimage.gaussian_filter(noise, rng.uniform(0.2, 0.5))
    observed = clean + np.where(share > 0.0, np.sqrt(variance), 0.0) * noise
    if clean.max() > _FAINTEST_SATURATED and rng.random() < 0.5:
        saturation = max(_FAINTEST_SATURATED, clean.max() * 10 ** rng.uniform(-1.5, 0.0))
        core = scipy.ndimage.binary_dilation(clean > saturation, iterations=int(rng.integers(0, 3)))
        if rng.random() < 0.5:  # bleed trails
            trail = np.ones((int(rng.integers(3, 60)), 1), bool)
            core |= scipy.ndimage.binary_dilation(clean > 3.0 * saturation, trail)
        share = np.where(core, 0.0, share)

    valid = share > 0.0
    # Photon noise as estimated from the exposures, not the true one.
    smooth = np.maximum(scipy.ndimage.gaussian_filter(np.where(valid, observed, 0.0), 1.0), 0.0)
    variance = (1.0 + smooth / electrons) / np.maximum(share, 1e-6)
    weight = np.where(valid, 1.0 / variance, 0.0)
    latent = majorize_minimize(np.where(valid, observed, 0.0), weight, psf)
    start = _convolve(target_kernel(), latent)
    coadd = np.where(valid, observed, _convolve(psf, latent))
    noise_map = np.where(valid, np.minimum(np.sqrt(variance), NO_DATA_NOISE), NO_DATA_NOISE)
    return Sample(
        planes=np.stack([coadd, start, noise_map, valid, sky]).astype(np.float32),
        kernels=np.stack([convolution_kernels(psf), deconvolution_kernels(psf)]),
    )


def write_samples(
    path: Path, number: int, size: int, seed: int, workers: int, report: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate observations and write them to a file.

    Parameters
    ----------
    path : `pathlib.Path`
        File of the planes, which may exceed the memory; the caller removes it.
    number : `int`
        Number of observations.
    size : `int`
        Height and width, pixels.
    seed : `int`
        Seed of all observations.
    workers : `int`
        Number of processes.  The samples do not depend on it.
    report : `~collections.abc.Callable`
        Called with the number of finished observations.

    Returns
    -------
    planes, kernels : `numpy.ndarray`
        Those of all samples, shapes ``(number, 5, size, size)`` and ``(number,
        2, k, k)``; ``planes`` is mapped from the file.
    """
    planes = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(number, 5, size, size))
    kernels = np.empty((number, 2, _KERNEL_SIZE, _KERNEL_SIZE), np.float32)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        tasks = ((seed, index, size) for index in range(number))
        for index, sample in enumerate(pool.map(_numbered_sample, tasks, chunksize=4)):
            planes[index], kernels[index] = sample.planes, sample.kernels
            report(index + 1)
    planes.flush()
    return planes, kernels


def _numbered_sample(task: tuple[int, int, int]) -> Sample:
    seed, index, size = task
    return draw_sample(np.random.default_rng((seed, index)), size)


def _draw_psf(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Draw the modeled and the true PSF of a white-noise coadd, and the median
    seeing of its exposures.
    """
    seeing = rng.uniform(2.2, 5.2) if rng.random() < 0.8 else np.exp(rng.uniform(*np.log((1.9, 9.0))))
    number = rng.integers(1, 9)
    widths = np.maximum(seeing * np.exp(rng.normal(0, rng.uniform(0, 0.2), number)), 1.9)
    beta, ellipticity = rng.uniform(2.3, 5.0), rng.normal(0, 0.03, (number, 2))
    kernels = np.array([_moffat(w, beta, e, _KERNEL_SIZE) for w, e in zip(widths, ellipticity, strict=True)])
    weights = rng.uniform(0.3, 1.0, number)
    filters, psf = coadd_filters(kernels, weights)
    # Errors of PSF models, common to all exposures; a network trained without
    # them makes rings around bright stars in real exposures.
    error = 1 + rng.choice((0.0, 0.008, 0.015)) * rng.normal()
    shift = rng.normal(0, 0.006, 2)
    true_psf = np.sum(
        [
            _convolve(kernel, _moffat(error * width, beta, e + shift, _TRUE_SIZE))
            for kernel, width, e in zip(filters, widths, ellipticity, strict=True)
        ],
        axis=0,
    )
    return psf, true_psf, float(np.median(widths))


def _moffat(fwhm: float, beta: float, ellipticity: np.ndarray, size: int) -> np.ndarray:
    """Draw a Moffat PSF, pixel response included, normalized to its total
    flux, shape ``(size, size)``.
    """
    import galsim

    # Width without the pixel response.
    before = np.sqrt(max(fwhm**2 - 0.9, 0.8))
    e1, e2 = np.clip(ellipticity, -0.3, 0.3)
    profile = galsim.Moffat(beta=beta, fwhm=before).shear(e1=e1, e2=e2)
    stamp = galsim.ImageD(size, size)
    profile.drawImage(stamp, scale=1.0)
    return stamp.array.astype(np.float32)


def _draw_coverage(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw the fraction of the weight that each pixel has: holes, masked
    columns and edges.
    """
    share = np.ones((size, size))
    if rng.random() < 0.5:
        for _ in range(rng.integers(1, 6)):  # columns
            first, width = rng.integers(size), rng.integers(1, 4)
            rows = slice(*np.sort(rng.integers(0, size, 2)))
            share[rows, first : first + width] = rng.choice((0.0, rng.uniform(0, 1)))
        for _ in range(rng.integers(0, 6)):  # clipped pixels
            row, column = rng.integers(0, size, 2)
            share[row : row + rng.integers(1, 12), column : column + rng.integers(1, 12)] *= rng.choice(
                (0.0, rng.uniform(0, 1))
            )
    if rng.random() < 0.3:  # a part with fewer exposures
        share[:, : rng.integers(size)] *= rng.uniform(0.2, 1.0)
    if rng.random() < 0.4:  # no data beyond an edge
        share[: rng.integers(1, size // 4)] = 0.0
    if rng.random() < 0.5:
        share = share.T
    return np.ascontiguousarray(np.rot90(share, rng.integers(4)))


def majorize_minimize(image: np.ndarray, weight: np.ndarray, psf: np.ndarray) -> np.ndarray:
    """Restore one image by the steps of `first_estimate`, with a quadratic
    loss.

    Parameters
    ----------
    image : `numpy.ndarray`
        Image in units of the sky noise, shape ``(height, width)``.
    weight : `numpy.ndarray`
        Inverse variance, same shape; 0 for pixels without data.
    psf : `numpy.ndarray`
        PSF kernel, shape ``(k, k)``.

    Returns
    -------
    latent : `numpy.ndarray`
        The estimate, flux per pixel, non-negative, same shape as the image.
    """
    kernel = np.maximum(psf, 0.0)
    blur, adjoint = _operator(kernel, image.shape), _operator(kernel[::-1, ::-1], image.shape)
    penalty = PENALTY * np.sqrt(np.maximum(_convolve(kernel[::-1, ::-1] ** 2, weight), 0.0))
    observed = np.maximum(adjoint(weight * image), 0.0)
    covered = adjoint(weight) > 0.01
    latent = starting_image(image.shape, find_saturated_stars(image, weight > 0.0, psf, 1.0), 1.0)
    latent = np.where(covered, latent, 0.0)
    previous = latent
    for step in range(STEPS):
        ahead = latent + step / (step + 3) * (latent - previous)
        previous = latent
        latent = np.maximum(ahead, latent / MAX_FACTOR)
        predicted = adjoint(weight * blur(latent)) + penalty
        factor = np.divide(observed, predicted, out=np.ones_like(latent), where=covered & (predicted > 0))
        latent = latent * np.clip(factor, 1 / MAX_FACTOR, MAX_FACTOR)
    return latent


def _operator(kernel: np.ndarray, shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """Return the convolution of images of a given shape with a kernel; pixels
    outside are zero.
    """
    half = len(kernel) // 2
    grid = [scipy.fft.next_fast_len(extent + 2 * half, real=True) for extent in shape]
    transfer = scipy.fft.rfft2(kernel.astype(np.float32), s=grid)

    def apply(image: np.ndarray) -> np.ndarray:
        spectrum = scipy.fft.rfft2(image.astype(np.float32), s=grid) * transfer
        return scipy.fft.irfft2(spectrum, s=grid)[half : half + shape[0], half : half + shape[1]]

    return apply


def _convolve(kernel: np.ndarray, image: np.ndarray) -> np.ndarray:
    return _operator(kernel, image.shape)(image)
