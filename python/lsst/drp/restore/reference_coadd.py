# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The coadds a restoration is compared with: a clipped, weighted mean and the
papers' naive mean.
"""

from __future__ import annotations

__all__ = ("ReferenceCoadd", "naive_mean", "reference_coadd")

import dataclasses
from collections.abc import Iterator

import numpy as np
import scipy.fft
import scipy.ndimage

from .exposure_stack import ExposureStack

# Pixels of all exposures together that are sorted at once (64 MiB of float32).
_CHUNK_PIXELS = 2**24


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
        data.
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
        pixels there, zero where it has none.
    """

    image: np.ndarray
    variance: np.ndarray
    n_exposures: np.ndarray
    clipped: np.ndarray
    kernels: np.ndarray
    weights: np.ndarray


def reference_coadd(
    stack: ExposureStack,
    *,
    clip_sigma: float = 5.0,
    clip_psf: float = 1.0,
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
    wings: the mean's PSF would depend on the star's brightness.

    **Outliers** are found against the lower median (element ``(m - 1) // 2`` of
    ``m`` sorted values) of the good pixels: one cosmic ray does not move it
    even where there are only two exposures (then it is the minimum), and
    since it is one of the values, a pixel never loses all its exposures.  Two
    exposures cannot tell which of them is wrong, and are taken to be wrong on
    the bright side, as cosmic rays and trails are.

    A star's core differs between 0.5" and 0.95" seeing by several times the
    median, so the difference between PSFs must be allowed for.  Let
    ``f_low`` and ``f_high`` be the lowest and highest of the exposures' kernels
    at each of the kernel's pixels.  Whatever subset of the exposures is good at
    a pixel, the median's PSF lies between both, and a latent image ``x >= 0``
    makes exposure ``t`` differ from the median by at most ``x * k[t]`` with
    ``k[t] = max(f[t] - f_low, f_high - f[t])``.  ``x`` is not known, but its
    blurred image, the median, is: ``median * k[t]``, scaled such that it
    covers ``k[t]`` where ``x`` is one point, is used instead.

    Pixels beside an outlier (two pixels far) are outliers at half of
    ``clip_sigma``: resampling spreads a cosmic ray over its neighbours.
    """
    reference = _lower_median(stack)
    clipped = _find_outliers(stack, reference, clip_sigma, clip_psf, clip_brightness)
    weights = _cell_weights(stack)

    total = np.zeros(stack.shape, np.float32)
    noise = np.zeros(stack.shape, np.float32)
    norm = np.zeros(stack.shape, np.float32)
    n_exposures = np.zeros(stack.shape, np.int16)
    for t in range(stack.n_exposures):
        used = stack.good[t] & ~clipped[t]
        weight = np.where(used, _expand_cells(weights[t], stack.cell_shape), np.float32(0))
        total += weight * stack.image[t]
        noise += weight**2 * np.where(used, stack.variance[t], np.float32(0))
        norm += weight
        n_exposures += used
    with np.errstate(invalid="ignore"):
        image = total / norm
        variance = noise / norm**2
    return ReferenceCoadd(
        image=image,
        variance=variance,
        n_exposures=n_exposures,
        clipped=clipped,
        kernels=_mean_kernels(stack.kernels, weights),
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
    for image, good in zip(stack.image, stack.good, strict=True):
        total += np.where(good, image, np.float32(0))
        count += good
    with np.errstate(invalid="ignore"):
        return total / count


def _row_chunks(stack: ExposureStack) -> Iterator[slice]:
    """Iterate over slices of rows that bound the memory of temporaries."""
    height, width = stack.shape
    step = max(1, _CHUNK_PIXELS // (stack.n_exposures * width))
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))


def _lower_median(stack: ExposureStack) -> np.ndarray:
    """Return element ``(m - 1) // 2`` of the ``m`` sorted good values of each
    pixel, NaN where there is none, shape ``(height, width)``.
    """
    result = np.empty(stack.shape, np.float32)
    for rows in _row_chunks(stack):
        good = stack.good[:, rows]
        # With the exposures on the last axis the sort runs along memory,
        # several times faster than numpy.median over the first axis.
        values = np.ascontiguousarray(np.moveaxis(np.where(good, stack.image[:, rows], np.inf), 0, -1))
        values.sort(axis=-1)
        count = np.count_nonzero(good, axis=0)
        middle = np.maximum(count - 1, 0) // 2
        median = np.take_along_axis(values, middle[..., np.newaxis], axis=-1)[..., 0]
        result[rows] = np.where(count > 0, median, np.nan)
    return result


def _find_outliers(
    stack: ExposureStack, reference: np.ndarray, clip_sigma: float, clip_psf: float, clip_brightness: float
) -> np.ndarray:
    """Return the good pixels that differ from the median of the exposures by
    more than noise and PSFs explain, shape ``(n, height, width)``.
    """
    clipped = np.zeros(stack.image.shape, bool)
    if stack.n_exposures < 2:
        return clipped
    # A hole in the median is usually the core of a saturated star, at least
    # as bright as its edge: fill it with its nearest pixels.
    brightness = np.maximum(_fill_holes(reference), np.float32(0))
    tolerance = np.float32(clip_brightness) * scipy.ndimage.maximum_filter(brightness, 3)
    # Variance of a median of Gaussian noise: pi / 2 times that of the mean.
    inverse = np.zeros(stack.shape, np.float32)
    for variance in stack.variance:
        inverse += 1 / variance
    with np.errstate(divide="ignore"):
        reference_variance = np.float32(np.pi / 2) / inverse

    kernels = _exposure_kernels(stack)
    difference = _KernelDifference(kernels, brightness)
    square = np.ones((3, 3), bool)
    for t in range(stack.n_exposures):
        deviation = np.abs(stack.image[t] - reference)
        deviation -= tolerance
        deviation -= np.float32(clip_psf) * difference(t)
        with np.errstate(invalid="ignore"):
            # Variance is infinite where a pixel is not good: never an outlier.
            deviation /= np.sqrt(stack.variance[t] + reference_variance)
        seeds = (deviation > clip_sigma) & stack.good[t]
        if seeds.any():
            weak = (deviation > clip_sigma / 2) & stack.good[t]
            clipped[t] = scipy.ndimage.binary_dilation(seeds, square, iterations=2, mask=weak)
    return clipped


def _fill_holes(image: np.ndarray) -> np.ndarray:
    """Return the image with NaN replaced by the nearest other pixel's value
    (zero if there is none).
    """
    hole = np.isnan(image)
    if not hole.any():
        return image
    if hole.all():
        return np.zeros_like(image)
    nearest = scipy.ndimage.distance_transform_edt(hole, return_distances=False, return_indices=True)
    return image[tuple(nearest)]


def _exposure_kernels(stack: ExposureStack) -> np.ndarray:
    """Return each exposure's kernel, averaged over its cells, shape ``(n, k,
    k)``; zero for an exposure without kernels.
    """
    count = np.maximum(np.count_nonzero(stack.has_kernel, axis=(1, 2)), 1)
    return stack.kernels.sum(axis=(1, 2), dtype=np.float32) / count[:, np.newaxis, np.newaxis]


class _KernelDifference:
    """The largest difference between one exposure and the median that their
    PSFs can cause.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        One kernel per exposure, shape ``(n, k, k)``.
    brightness : `numpy.ndarray`
        Median of the exposures, not negative and without NaN, nJy, shape
        ``(height, width)``.
    """

    def __init__(self, kernels: np.ndarray, brightness: np.ndarray):
        present = kernels[kernels.any(axis=(1, 2))]
        low, high = present.min(axis=0), present.max(axis=0)
        self._differences = np.maximum(kernels - low, high - kernels)
        self._median = np.median(present, axis=0)
        self._radius = kernels.shape[-1] // 2
        self._brightness_shape = brightness.shape
        # Stars just outside of the field shine into it: mirror the border.
        padded = np.pad(brightness, self._radius, mode="symmetric")
        self._shape = [scipy.fft.next_fast_len(size + 2 * self._radius, real=True) for size in padded.shape]
        self._transform = scipy.fft.rfft2(padded, self._shape)

    def __call__(self, t: int) -> np.ndarray:
        """Return the difference allowed for exposure ``t``, nJy, shape
        ``(height, width)``.
        """
        difference = self._differences[t]
        if not difference.any():
            return np.zeros(self._brightness_shape, np.float32)
        # What the convolution with the median makes of one point, and the
        # factor that makes it cover the difference wherever that matters.
        blurred = scipy.ndimage.convolve(difference, self._median, mode="constant")
        matters = difference > 0.1 * difference.max()
        gain = (difference[matters] / blurred[matters]).max()
        product = self._transform * scipy.fft.rfft2(gain * difference, self._shape)
        rows, columns = (slice(2 * self._radius, 2 * self._radius + size) for size in self._brightness_shape)
        return np.maximum(scipy.fft.irfft2(product, self._shape)[rows, columns], np.float32(0))


def _cell_weights(stack: ExposureStack) -> np.ndarray:
    """Return the inverse median variance of each exposure's good pixels by
    cell, zero where there are none, nJy**-2, shape ``(n, cells_y, cells_x)``.
    """
    weights = np.zeros(stack.kernels.shape[:3], np.float32)
    for i, j, rows, columns in stack.cells():
        for t in range(stack.n_exposures):
            variance = stack.variance[t, rows, columns][stack.good[t, rows, columns]]
            if variance.size:
                weights[t, i, j] = 1 / np.median(variance)
    return weights


def _mean_kernels(kernels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean kernel by cell, zero where all weights are
    zero, shape ``(cells_y, cells_x, k, k)``.
    """
    norm = weights.sum(axis=0)
    fractions = np.divide(weights, norm, out=np.zeros_like(weights), where=norm > 0)
    return np.einsum("tij,tijkl->ijkl", fractions, kernels).astype(np.float32)


def _expand_cells(values: np.ndarray, cell_shape: tuple[int, int]) -> np.ndarray:
    """Repeat one value per cell for each of the cell's pixels."""
    return values.repeat(cell_shape[0], axis=0).repeat(cell_shape[1], axis=1)
