# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Cosmic rays and trails: pixels of one exposure that the other exposures
contradict, although every exposure has another PSF.
"""

from __future__ import annotations

__all__ = ("outliers_from_mean", "outliers_from_median")

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import scipy.fft
import scipy.ndimage

from . import memory_map
from .exposure_stack import ExposureStack, expand_cells

# Pixels of all exposures together that are sorted at once (64 MiB of float32).
_CHUNK_PIXELS = 2**24

# A star's image is predicted from the mean by division in Fourier space; power below this fraction
# (squared) of the PSF's total is not restored.
_MATCHING_FLOOR = 1e-4

# Error of that prediction, anywhere within a kernel's reach of a source, as a fraction of the source's peak.
_MATCHING_ERROR = 0.01

# Standard deviations of the reference that are not counted as a source.
_SOURCE_SIGMA = 1.0

# The mean's PSF is known where at least this fraction of a cell's exposures is good, in every pixel within
# `_MATCHING_REACH` pixels.
_MATCHING_COVERAGE = 0.85
_MATCHING_REACH = 4

# An outlier deviates by the limit.  Suspect pixels, which deviate by this fraction of it, are outliers where
# they are within two pixels of one: as far as resampling spreads a cosmic ray.
_OUTLIER, _SUSPECT = 2, 1
_SUSPECT_FRACTION = 0.5
_GROWTH = 2

# A comparison of one cell: from the sources around it (the reference without its noise, with a border of one
# kernel), the exposures' kernels and the cell's index, how much each exposure is expected to differ from the
# reference, and by how much that may be wrong.
_Expect = Callable[[np.ndarray, np.ndarray, tuple[int, int]], tuple[np.ndarray, np.ndarray]]


def outliers_from_median(
    stack: ExposureStack, *, clip_sigma: float, clip_psf: float, clip_brightness: float
) -> np.ndarray:
    """Find outliers from the median of the exposures.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.
    clip_sigma : `float`
        Standard deviations by which an outlier differs from the median, beyond
        the two terms below.
    clip_psf : `float`
        Multiplies the largest difference that the exposures' PSFs can cause.
    clip_brightness : `float`
        Difference that is allowed as a fraction of the brightest of the 3x3
        pixels around.

    Returns
    -------
    outliers : `numpy.ndarray`
        Good pixels that are outliers, `bool`, shape ``(n, height, width)``.

    Notes
    -----
    The median is the lower one (element ``(m - 1) // 2`` of ``m`` sorted values):
    one cosmic ray does not move it even where there are only two exposures
    (then it is the minimum), and since it is one of the values, a pixel never
    loses all its exposures.

    A star's core differs between 0.5" and 0.95" seeing by several times the
    median.  Let ``low`` and ``high`` be the lowest and the highest of the
    exposures' kernels ``f`` at each of the kernel's pixels.  Whatever subset of
    the exposures is good at a pixel, the median's PSF lies between both, so a
    latent image ``x >= 0`` makes exposure ``t`` differ from the median by at
    most ``x * k[t]`` with ``k[t] = max(f[t] - low, high - f[t])``.  ``x`` is not
    known; the median, which is ``x`` blurred, takes its place, with a factor
    that makes the result cover ``k[t]`` where ``x`` is one point.

    This keeps stars (but for the flux of bright ones that are just outside of
    the patch), and misses a cosmic ray that is no brighter than the source
    it fell on: see `outliers_from_mean`.
    """
    reach = stack.kernel_size // 2

    def expect(
        sources: np.ndarray, kernels: np.ndarray, index: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        low, high = kernels.min(axis=0), kernels.max(axis=0)
        largest = np.maximum(kernels - low, high - kernels)
        median_kernel = np.sort(kernels, axis=0)[(len(kernels) - 1) // 2]
        transform = _transform(largest, sources.shape)
        blurred = _inverse(transform * _transform(median_kernel, sources.shape), sources.shape)
        blurred = blurred[:, reach : reach + stack.kernel_size, reach : reach + stack.kernel_size]
        peak = largest.max(axis=(1, 2), keepdims=True)
        matters = (largest > 0.1 * peak) & (peak > 0)
        factor = np.divide(largest, blurred, out=np.zeros_like(largest), where=matters).max(axis=(1, 2))
        product = transform * _transform(sources, sources.shape)
        allowed = _inverse(product, sources.shape)[:, 3 * reach : -reach, 3 * reach : -reach]
        allowed *= clip_psf * factor[:, np.newaxis, np.newaxis]
        return np.zeros_like(allowed), np.maximum(allowed, 0)

    median = _lower_median(stack)
    inverse = np.zeros(stack.shape, np.float32)
    for _, _, variance, _ in stack.planes():
        inverse += 1 / variance
    with np.errstate(divide="ignore"):
        # Variance of a median of Gaussian noise: pi / 2 times that of the mean.
        variance = np.float32(np.pi / 2) / inverse
    reference = _Reference.continued(median, variance, stack.kernel_size - 1)
    return _grow(_find(stack, reference, expect, clip_sigma, clip_brightness, both_signs=True))


def outliers_from_mean(
    stack: ExposureStack,
    image: np.ndarray,
    variance: np.ndarray,
    kernels: np.ndarray,
    clipped: np.ndarray,
    *,
    clip_sigma: float,
    clip_brightness: float,
) -> np.ndarray:
    """Find pixels that are too bright for the prediction from the mean of the
    exposures.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.
    image, variance : `numpy.ndarray`
        The mean of the pixels that are not clipped and its variance, nJy and nJy**2, NaN
        where there is none, shape ``(height, width)``.
    kernels : `numpy.ndarray`
        The mean's PSF by cell, shape ``(cells_y, cells_x, k, k)``.
    clipped : `numpy.ndarray`
        Outliers that are known, shape ``(n, height, width)``.
    clip_sigma, clip_brightness : `float`
        See `outliers_from_median`.

    Returns
    -------
    outliers : `numpy.ndarray`
        Further outliers, `bool`, shape ``(n, height, width)``.

    Notes
    -----
    The mean, unlike the median, has a PSF that is known exactly, so the image
    of exposure ``t`` can be predicted by the kernel that matches both PSFs,
    ``f[t] conj(f) / (abs(f)**2 + floor)`` in Fourier space.  An outlier that is
    still in the mean makes the other exposures look too faint: only pixels that
    are too bright are outliers here.
    """

    def expect(
        sources: np.ndarray, cell_kernels: np.ndarray, index: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        margin = stack.kernel_size - 1
        cell = (slice(margin, -margin), slice(margin, -margin))
        mean = _transform(kernels[index], sources.shape)
        matching = (
            _transform(cell_kernels, sources.shape) * mean.conj() / (np.abs(mean) ** 2 + _MATCHING_FLOOR)
        )
        change = _inverse((matching - 1) * _transform(sources, sources.shape), sources.shape)
        wings = _MATCHING_ERROR * scipy.ndimage.maximum_filter(sources, stack.kernel_size)[cell]
        return change[:, cell[0], cell[1]], np.broadcast_to(wings, (len(change), *wings.shape))

    present = np.count_nonzero(stack.has_kernel, axis=0)
    present = expand_cells(present, stack.cell_shape)
    coverage = np.count_nonzero(stack.good, axis=0) / np.maximum(present, 1)
    covered = scipy.ndimage.minimum_filter(coverage, 2 * _MATCHING_REACH + 1) >= _MATCHING_COVERAGE
    reference = _Reference.continued(image, variance, stack.kernel_size - 1)
    level = _find(stack, reference, expect, clip_sigma, clip_brightness, both_signs=False)
    for plane, known in zip(level, clipped, strict=True):
        plane[known | ~covered] = 0
        memory_map.release(level)
    return _grow(level)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Reference:
    """The image that exposures are compared with, continued beyond the border
    of the patch by its mirror image: stars just outside shine into the patch.

    Parameters
    ----------
    image, variance : `numpy.ndarray`
        Its pixels, nJy and nJy**2.
    sources : `numpy.ndarray`
        The image without its noise, nJy, non-negative: noise must not count as
        flux that PSFs move around.
    brightness : `numpy.ndarray`
        Brightest of the 3x3 pixels around each, nJy, non-negative.
    margin : `int`
        Width of the continuation on each side, pixels.
    """

    image: np.ndarray
    variance: np.ndarray
    sources: np.ndarray
    brightness: np.ndarray
    margin: int

    @classmethod
    def continued(cls, image: np.ndarray, variance: np.ndarray, margin: int) -> _Reference:
        """Continue an image, NaN where there is none, and its variance."""
        image = np.pad(_fill_holes(image), margin, mode="symmetric")
        finite = np.where(np.isfinite(variance), variance, np.nan)
        variance = np.pad(_fill_holes(finite), margin, mode="symmetric")
        return cls(
            image=image,
            variance=variance,
            sources=np.maximum(image - _SOURCE_SIGMA * np.sqrt(variance), 0),
            brightness=scipy.ndimage.maximum_filter(np.maximum(image, 0), 3),
            margin=margin,
        )


def _find(
    stack: ExposureStack,
    reference: _Reference,
    expect: _Expect,
    clip_sigma: float,
    clip_brightness: float,
    *,
    both_signs: bool,
) -> np.ndarray:
    """Find the good pixels that differ from the reference by more than noise,
    brightness and PSFs explain; return their levels (`_OUTLIER`,
    `_SUSPECT`), zero elsewhere, `numpy.uint8`, shape ``(n, height, width)``.
    """
    level = memory_map.empty_like(stack.good).view(np.uint8)
    level[...] = 0
    margin, has_kernel = reference.margin, stack.has_kernel
    for i, j, rows, columns in stack.cells():
        present = has_kernel[:, i, j]
        if np.count_nonzero(present) < 2:
            continue
        around = (slice(rows.start, rows.stop + 2 * margin), slice(columns.start, columns.stop + 2 * margin))
        cell = (
            slice(rows.start + margin, rows.stop + margin),
            slice(columns.start + margin, columns.stop + margin),
        )
        change, allowed = expect(reference.sources[around], stack.kernels[present, i, j], (i, j))
        expected = reference.image[cell] + change
        brightest = np.maximum(reference.brightness[cell], scipy.ndimage.maximum_filter(expected, (1, 3, 3)))
        deviation = stack.image[present, rows, columns] - expected
        if both_signs:
            np.abs(deviation, out=deviation)
        deviation -= allowed + clip_brightness * brightest
        # The variance of a pixel that is not good is infinite.
        deviation /= np.sqrt(stack.variance[present, rows, columns] + reference.variance[cell])
        found = np.zeros(deviation.shape, np.uint8)
        found[deviation > _SUSPECT_FRACTION * clip_sigma] = _SUSPECT
        found[deviation > clip_sigma] = _OUTLIER
        found[~stack.good[present, rows, columns]] = 0
        level[present, rows, columns] = found
    memory_map.release(level)
    return level


def _grow(level: np.ndarray) -> np.ndarray:
    """Grow outliers by the suspect pixels around them, to which resampling has
    spread them; return the outliers, `bool`, in the memory of ``level``.
    """
    square = np.ones((3, 3), bool)
    for plane in level:
        plane[:] = scipy.ndimage.binary_dilation(
            plane == _OUTLIER, square, iterations=_GROWTH, mask=plane > 0
        )
        memory_map.release(level)
    return level.view(bool)


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
        stack.release()
    return result


def _fill_holes(image: np.ndarray) -> np.ndarray:
    """Return the image with NaN replaced by the nearest other pixel's value
    (zero if there is none).

    A hole is usually the core of a saturated star, at least as bright as its
    edge.
    """
    hole = np.isnan(image)
    if not hole.any():
        return image
    if hole.all():
        return np.zeros_like(image)
    nearest = scipy.ndimage.distance_transform_edt(hole, return_distances=False, return_indices=True)
    return image[tuple(nearest)]


def _fast_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the next larger image shape with a fast Fourier transform."""
    return scipy.fft.next_fast_len(shape[0], real=True), scipy.fft.next_fast_len(shape[1], real=True)


def _transform(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the Fourier transforms of images (the last two axes), zero-padded
    to at least ``shape``.
    """
    return scipy.fft.rfft2(array, _fast_shape(shape))


def _inverse(transform: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the images whose `_transform` is ``transform``."""
    return scipy.fft.irfft2(transform, _fast_shape(shape))[..., : shape[0], : shape[1]]
