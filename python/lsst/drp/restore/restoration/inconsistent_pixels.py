# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pixels where the exposures are inconsistent with a restored image."""

from __future__ import annotations

__all__ = ("find_inconsistent",)

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.ndimage
import scipy.stats

from ..stack.exposure_stack import ExposureStack
from .restoration import Restoration

# Fraction of the weight of the smoothing kernel that must be on good pixels
# for an exposure to count in the test of consistency.
_MIN_WEIGHT = 0.2


def find_inconsistent(
    stack: ExposureStack,
    restoration: Restoration,
    pixels: np.ndarray,
    *,
    probability: float,
    n_threads: int = 1,
) -> np.ndarray:
    """Find pixels where the exposures are inconsistent with a restored image.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures that were restored.
    restoration : `Restoration`
        The restored image.
    pixels : `numpy.ndarray`
        Buffer of the shape of the exposures; overwritten.
    probability : `float`
        Probability that noise alone makes a pixel inconsistent.
    n_threads : `int`, optional
        CPU threads to use.

    Returns
    -------
    inconsistent : `numpy.ndarray`
        `bool`, shape of the patch.
    """
    from .forward_model import ForwardModel

    other = dataclasses.replace(stack, image=pixels)
    forward_model = ForwardModel(other, kernels=restoration.kernels, n_threads=n_threads)
    for rows, columns, predicted in forward_model.predictions(restoration.latent):
        variance = stack.noise_variance(rows, columns)
        residual = stack.image[:, rows, columns] - predicted
        pixels[:, rows, columns] = np.divide(
            residual, np.sqrt(variance), out=np.zeros_like(residual), where=variance > 0.0
        )
    chi2 = np.zeros(stack.shape, np.float32)
    count = np.zeros(stack.shape, np.intp)
    with ThreadPoolExecutor(n_threads) as pool:
        # As many exposures at a time as there are threads: each takes some images of memory.
        for first in range(0, stack.n_exposures, n_threads):
            exposures = range(first, min(first + n_threads, stack.n_exposures))
            for squared, used in pool.map(lambda t: _squared_residual(other, t), exposures):
                chi2 += squared
                count += used
            other.release()
    limits = scipy.stats.chi2.isf(probability, np.arange(stack.n_exposures + 1))
    limits[0] = np.inf
    return chi2 > limits[count]


def _squared_residual(stack: ExposureStack, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth the residual of an exposure, in units of its noise, as wide as its
    PSF; return its square in units of its variance, and where there is one.
    """
    kernels = stack.kernels[t]
    kernels = kernels[kernels.any(axis=(2, 3))]
    if not len(kernels):
        return np.zeros(stack.shape, np.float32), np.zeros(stack.shape, bool)
    # The Gaussian with the PSF's effective area.
    area = np.median(kernels.sum(axis=(1, 2)) ** 2 / (kernels**2).sum(axis=(1, 2)))
    width = float(np.sqrt(area / (4 * np.pi)))
    # The square of a Gaussian is a narrower one.
    weight = _smooth(stack.good[t].astype(np.float32), width / np.sqrt(2))
    used = weight > _MIN_WEIGHT
    squared = _smooth(stack.image[t], width)
    squared *= squared
    squared *= np.float32(area)
    return np.divide(squared, weight, out=np.zeros_like(squared), where=used), used


def _smooth(image: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve with a Gaussian; outside of the image there is nothing."""
    return scipy.ndimage.gaussian_filter(image, sigma, mode="constant")
