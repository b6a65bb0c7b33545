# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The coadds a restoration is compared with: a clipped, weighted mean and the
papers' naive mean.
"""

from __future__ import annotations

__all__ = (
    "ReferenceCoadd",
    "cell_weights",
    "constrained_pixels",
    "naive_mean",
    "reference_coadd",
    "weighted_mean",
)

import dataclasses

import numpy as np
import scipy.ndimage

from .exposure_stack import ExposureStack, expand_cells
from .memory_map import release
from .outliers import outliers_from_mean, outliers_from_median


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ReferenceCoadd:
    """A weighted mean of the exposures without outliers.

    Parameters
    ----------
    image : `numpy.ndarray`
        The mean, nJy, `numpy.float32`, shape ``(height, width)``; NaN where no
        exposure has data.
    variance : `numpy.ndarray`
        Its variance, nJy**2, same shape and type; NaN where no exposure has
        data.  It is that of single pixels, which are correlated: multiply it
        by ``correlation`` for the errors of fluxes.
    correlation : `numpy.ndarray`
        Power of the noise at low spatial frequencies in units of ``variance``,
        by cell, `numpy.float32`, shape ``(cells_y, cells_x)``: the variance
        of a flux measured with weights ``a`` about as wide as a PSF is
        ``correlation * sum(a**2 * variance)``.  1 where no exposure has data.
    n_exposures : `numpy.ndarray`
        Number of exposures in each pixel, `numpy.int16`, same shape.
    clipped : `numpy.ndarray`
        Good pixels that were left out as outliers (cosmic rays, trails),
        `bool`, shape ``(n, height, width)``.
    kernels : `numpy.ndarray`
        The coadd's PSF by cell, `numpy.float32`, shape ``(cells_y, cells_x, k,
        k)``: the exposures' kernels averaged with the weights of the pixels.
        Zero in cells where no exposure has data.  Exact where no pixel is
        masked or clipped.
    weights : `numpy.ndarray`
        Weight of each exposure by cell, nJy**-2, `numpy.float32`, shape ``(n,
        cells_y, cells_x)``: the inverse of the median variance of its good
        pixels there, times their correlation (`ExposureStack`); zero where it
        has none.
    """

    image: np.ndarray
    variance: np.ndarray
    correlation: np.ndarray
    n_exposures: np.ndarray
    clipped: np.ndarray
    kernels: np.ndarray
    weights: np.ndarray


def reference_coadd(
    stack: ExposureStack,
    *,
    clip_sigma: float = 5.0,
    clip_psf: float = 1.15,
    clip_brightness: float = 0.2,
) -> ReferenceCoadd:
    """Average the exposures, weighted by the inverse of their variance and
    without outliers.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.
    clip_sigma : `float`, optional
        A pixel is an outlier where it differs from the median of the
        exposures by more than this many standard deviations, and by more than
        the two terms below.
    clip_psf : `float`, optional
        Multiplies the difference that the exposures' different PSFs can
        cause at the pixel.
    clip_brightness : `float`, optional
        Difference that is allowed as a fraction of the brightest of the 3x3
        pixels of the median around the pixel: errors of zero points, of
        registration and of PSF models.

    Returns
    -------
    coadd : `ReferenceCoadd`
        The mean with its variance, PSF, and the outliers.

    Notes
    -----
    **Weights** are constant per exposure and cell.  The inverse variance of
    each pixel includes the photon noise of the stars, so it would give the
    blurred exposures more weight in a star's core and the sharp ones in its
    wings: the mean's PSF would depend on the star's brightness.  They are the
    inverse of the noise that fluxes have, not of that of single pixels, which
    an exposure on larger or rotated pixels gets lowered by interpolation.

    **Outliers** are found in two passes: by comparison with the median, which
    an outlier does not move (`outliers_from_median`), then by comparison with
    the mean of the other pixels (`outliers_from_mean`), which finds also fainter
    ones on top of stars and galaxies.  Both allow for the PSFs: a star's core
    differs between 0.5" and 0.95" seeing by several times the median.  Two
    exposures cannot tell which of them is wrong, and are taken to be wrong on
    the bright side, as cosmic rays and trails are; the second pass needs
    three.  Asteroids and variable stars are outliers, too.
    """
    weights = cell_weights(stack)
    kernels = _mean_kernels(stack.kernels, weights)
    clipped = outliers_from_median(
        stack, clip_sigma=clip_sigma, clip_psf=clip_psf, clip_brightness=clip_brightness
    )
    image, variance, n_exposures = _average(stack, clipped, weights)
    if stack.n_exposures > 2:
        clipped |= outliers_from_mean(
            stack,
            image,
            variance,
            kernels,
            clipped,
            clip_sigma=clip_sigma,
            clip_brightness=clip_brightness,
        )
        image, variance, n_exposures = _average(stack, clipped, weights)
    release(clipped)
    return ReferenceCoadd(
        image=image,
        variance=variance,
        correlation=_mean_correlation(stack, weights),
        n_exposures=n_exposures,
        clipped=clipped,
        kernels=kernels,
        weights=weights,
    )


def naive_mean(stack: ExposureStack) -> np.ndarray:
    """Return the papers' naive coadd: the sample mean of the good pixels,
    neither weighted nor clipped.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.

    Returns
    -------
    image : `numpy.ndarray`
        The mean, nJy, `numpy.float32`, shape ``(height, width)``; NaN where no
        exposure is good.
    """
    total = np.zeros(stack.shape, np.float32)
    count = np.zeros(stack.shape, np.float32)
    for _, image, _, good in stack.planes():
        total += np.where(good, image, np.float32(0))
        count += good
    with np.errstate(invalid="ignore"):
        return total / count


def weighted_mean(stack: ExposureStack, weights: np.ndarray) -> np.ndarray:
    """Average the good pixels with given weights.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.
    weights : `numpy.ndarray`
        Weight of each exposure by cell, shape ``(n, cells_y, cells_x)``, as
        `ReferenceCoadd` has them.

    Returns
    -------
    image : `numpy.ndarray`
        The mean, nJy, `numpy.float32`, shape ``(height, width)``; NaN where no
        exposure is good.
    """
    total = np.zeros(stack.shape, np.float32)
    norm = np.zeros(stack.shape, np.float32)
    for t, image, _, good in stack.planes():
        weight = np.where(good, expand_cells(weights[t], stack.cell_shape), np.float32(0))
        total += weight * image
        norm += weight
    with np.errstate(invalid="ignore"):
        return total / norm


def constrained_pixels(stack: ExposureStack, reference: ReferenceCoadd) -> np.ndarray:
    """Find the pixels where the exposures constrain the latent image.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.
    reference : `ReferenceCoadd`
        Their mean.

    Returns
    -------
    constrained : `numpy.ndarray`
        `bool`, shape ``(height, width)``: `True` in the cells where an exposure
        has a PSF, as far as a good pixel is within reach of its kernel.  That
        includes small holes in the data, as the core of a star that is
        saturated in all exposures.
    """
    reached = scipy.ndimage.maximum_filter(
        reference.n_exposures > 0, stack.kernel_size, mode="constant", cval=False
    )
    return reached & expand_cells(stack.has_kernel.any(axis=0), stack.cell_shape)


def _average(
    stack: ExposureStack, clipped: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the weighted mean of the pixels that are good and not clipped, its variance,
    and the number of exposures, each of shape ``(height, width)``.
    """
    total = np.zeros(stack.shape, np.float32)
    noise = np.zeros(stack.shape, np.float32)
    norm = np.zeros(stack.shape, np.float32)
    n_exposures = np.zeros(stack.shape, np.int16)
    for t, image, variance, good in stack.planes():
        used = good & ~clipped[t]
        release(clipped)
        weight = np.where(used, expand_cells(weights[t], stack.cell_shape), np.float32(0))
        total += weight * image
        noise += weight**2 * np.where(used, variance, np.float32(0))
        norm += weight
        n_exposures += used
    with np.errstate(invalid="ignore"):
        return total / norm, noise / norm**2, n_exposures


def cell_weights(stack: ExposureStack) -> np.ndarray:
    """Return the weights of a mean in which fluxes have the least noise.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.

    Returns
    -------
    weights : `numpy.ndarray`
        Inverse of the median variance of each exposure's good pixels times
        their correlation, by cell; zero where there are none; nJy**-2,
        `numpy.float32`, shape ``(n, cells_y, cells_x)``.
    """
    weights = np.zeros(stack.kernels.shape[:3], np.float32)
    for i, j, rows, columns in stack.cells():
        for t in range(stack.n_exposures):
            variance = stack.variance[t, rows, columns][stack.good[t, rows, columns]]
            if variance.size:
                weights[t, i, j] = 1 / (np.median(variance) * stack.correlation[t, i, j])
    return weights


def _mean_correlation(stack: ExposureStack, weights: np.ndarray) -> np.ndarray:
    """Return the correlation of a mean with these weights by cell, 1 where
    all weights are zero, shape ``(cells_y, cells_x)``.
    """
    # With w = 1 / (v c), the mean's pixels have variance sum(w**2 v) = sum(w / c), and its power at low
    # frequencies is sum(w**2 v c) = sum(w), both over sum(w)**2.
    pixels = (weights / stack.correlation).sum(axis=0)
    return np.divide(weights.sum(axis=0), pixels, out=np.ones_like(pixels), where=pixels > 0)


def _mean_kernels(kernels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean kernel by cell, zero where all weights are
    zero, shape ``(cells_y, cells_x, k, k)``.
    """
    norm = weights.sum(axis=0)
    fractions = np.divide(weights, norm, out=np.zeros_like(weights), where=norm > 0)
    return np.einsum("tij,tijkl->ijkl", fractions, kernels).astype(np.float32)
