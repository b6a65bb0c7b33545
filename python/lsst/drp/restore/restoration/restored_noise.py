# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Noise of a restored image, from restorations of the same sky with new noise."""

from __future__ import annotations

__all__ = ("RestoredNoise", "restore_noise")

import dataclasses

import numpy as np
import scipy.ndimage

from ..stack import memory_map
from ..stack.exposure_stack import ExposureStack
from .restoration import Restoration
from .seeds import Seeds

# Smallest standard deviation that is stated, in units of the median sigma of
# the exposures: weights must be finite even where the image is always zero.
_SMALLEST_SIGMA = 1e-3

# Widths (sigma, pixels) of the Gaussians over which the variance is averaged: relative to the brightness on
# sources, and in empty sky.
_SOURCE_SCALE = 1.5
_SKY_SCALE = 10.0

# Ratios of a pixel to its stated error between which errors are calibrated
# together, and the number of pixels that this takes.
_SIGNAL_EDGES = np.array([0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
_MIN_GROUP = 200

# Width (sigma, pixels) of the Gaussian that the calibrated variance is averaged
# over: about that of the PSF.
_CORRELATION = 1.0


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RestoredNoise:
    """Noise of a latent image.

    Parameters
    ----------
    variance : `numpy.ndarray`
        Variance of the latent image, nJy**2, positive, `numpy.float32`, shape
        of the patch in latent pixels.
    realizations : `list` [`numpy.ndarray`]
        Noise realizations of mean zero, nJy, same shape and type.
    pedestal : `float`
        Mean level of the latent image in empty sky due to noise alone, nJy per
        pixel: the bias of non-negativity.
    """

    variance: np.ndarray
    realizations: list[np.ndarray]
    pedestal: float


def restore_noise(
    stack: ExposureStack,
    restoration: Restoration,
    significant: np.ndarray,
    *,
    n_draws: int,
    n_kept: int,
    seeds: Seeds,
    n_threads: int = 1,
) -> RestoredNoise:
    """Restore the restored image with new noise.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures that were restored.
    restoration : `Restoration`
        The restored image.
    significant : `numpy.ndarray`
        `bool`, shape of the latent image: `True` on sources.
    n_draws : `int`
        Draws of the noise, at least two.
    n_kept : `int`
        Number of noise realizations to return.
    seeds : `Seeds`
        Seeds of the noise.
    n_threads : `int`, optional
        CPU threads to use.

    Returns
    -------
    noise : `RestoredNoise`
        The variance, noise realizations and the pedestal.
    """
    from .forward_model import ForwardModel

    number, patch = n_draws, stack.latent_patch
    sky = restoration.latent
    if restoration.error is None:
        # An image of points has its noise in it: the sky would have it twice.
        sky = np.where(significant, sky, np.float32(0))
    model = restoration.model
    pixels = memory_map.empty_like(model.image)
    other = dataclasses.replace(model, image=pixels)
    forward_model = ForwardModel(other, n_threads=n_threads)
    mean = np.zeros(sky[patch].shape, np.float64)
    squares = np.zeros(sky[patch].shape, np.float64)
    kept = []
    for index in range(number):
        rng = seeds.generator("characterize", index)
        for rows, columns, predicted in forward_model.predictions(sky):
            sigma = np.sqrt(model.noise_variance(rows, columns))
            noisy = predicted + sigma * rng.standard_normal(sigma.shape, dtype=np.float32)
            pixels[:, rows, columns] = np.where(model.good[:, rows, columns], noisy, 0.0)
        latent = restoration.fitted.restore(other)[patch]
        # Differences to the first guess, so that no digits are lost.
        difference = latent - sky[patch]
        mean += difference
        squares += difference.astype(np.float64) ** 2
        if index < n_kept:
            kept.append(difference)
    mean /= number
    squares /= number
    scatter = np.maximum(squares - mean**2, 0.0) * number / (number - 1)
    # A realization's difference from their mean, which it is part of, is
    # smaller than from the true one.
    grow = np.sqrt(number / (number - 1))
    realizations = [((noise - mean) * grow).astype(np.float32) for noise in kept]

    empty = ~significant[patch] & stack.latent_seen
    pedestal = float(mean[empty].mean()) if empty.any() else 0.0
    smallest = _SMALLEST_SIGMA * stack.median_sigma / stack.oversampling**2
    if restoration.error is None:
        brightness = sky[patch] + max(pedestal, smallest)
        variance = _variance_of_points(stack, scatter, brightness, empty)
    else:
        variance = _variance_of_network(stack, restoration.error[patch], squares, sky[patch], empty)
    return RestoredNoise(
        variance=np.maximum(variance, smallest**2).astype(np.float32),
        realizations=realizations,
        pedestal=pedestal,
    )


def _variance_of_network(
    stack: ExposureStack,
    error: np.ndarray,
    squares: np.ndarray,
    sky: np.ndarray,
    empty: np.ndarray,
) -> np.ndarray:
    """Bring the error that a network states to the scale of those that
    were found.
    """
    stated = error.astype(np.float64) ** 2
    scale = _SOURCE_SCALE * stack.oversampling
    variance = stated * _smooth(squares, scale) / _smooth(stated, scale)
    np.copyto(variance, _calibrated_variance(error, squares, sky, empty), where=empty)
    # Errors are correlated over the PSF.  Where a source's wings are as good as zero, so would be their
    # variance, and fits with the inverse variance as weight would see nothing but wings.
    return scipy.ndimage.gaussian_filter(variance, _CORRELATION, mode="nearest")


def _variance_of_points(
    stack: ExposureStack, scatter: np.ndarray, brightness: np.ndarray, empty: np.ndarray
) -> np.ndarray:
    """Average the scatter of an image of points over its neighborhood."""
    on_sources, in_sky = (
        _SOURCE_SCALE * stack.oversampling,
        _SKY_SCALE * stack.oversampling,
    )
    # The variance follows the brightness, to which it is a smooth ratio.
    variance = brightness * _smooth(scatter, on_sources)
    variance /= _smooth(brightness, on_sources)
    weight = _smooth(empty.astype(np.float64), in_sky)
    of_sky = _smooth(np.where(empty, scatter, 0.0), in_sky)
    np.divide(of_sky, weight, out=variance, where=empty)
    return variance


def _calibrated_variance(
    error: np.ndarray, squares: np.ndarray, sky: np.ndarray, seen: np.ndarray
) -> np.ndarray:
    """Bring a stated error to the scale of the errors that were found.

    Parameters
    ----------
    error : `numpy.ndarray`
        Standard deviation as the network states it, nJy.
    squares : `numpy.ndarray`
        Mean squared errors of a few restorations of a known sky, nJy**2, same
        shape.
    sky : `numpy.ndarray`
        That sky, nJy, same shape.
    seen : `numpy.ndarray`
        `bool`, same shape: the pixels to compare.

    Returns
    -------
    variance : `numpy.ndarray`
        ``error**2`` times a factor that depends on ``sky / error``, nJy**2.
    """
    signal = sky / error
    groups = np.digitize(signal, _SIGNAL_EDGES)
    count = np.bincount(groups[seen], minlength=len(_SIGNAL_EDGES) + 1)
    found, stated, place = (
        np.bincount(groups[seen], values[seen], minlength=len(count))
        for values in (squares, error.astype(np.float64) ** 2, np.log1p(signal))
    )
    known = count >= _MIN_GROUP
    if not known.any():
        return error.astype(np.float64) ** 2
    centers = place[known] / count[known]
    factors = np.log(np.maximum(found[known], np.finfo(float).tiny) / stated[known])
    return error.astype(np.float64) ** 2 * np.exp(np.interp(np.log1p(signal), centers, factors))


def _smooth(image: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve with a Gaussian; outside of the image there is nothing."""
    return scipy.ndimage.gaussian_filter(image, sigma, mode="constant")
