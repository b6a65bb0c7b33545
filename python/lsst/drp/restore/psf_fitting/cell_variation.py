# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Kernels of cells as a mean kernel by exposure and its variation over the
patch: splitting, centering, shifting and joining them.
"""

from __future__ import annotations

__all__ = ("center", "join_variation", "move", "split_variation")

import numpy as np

from ..stack.subpixel import shift_matrix

# The given kernels tell how the PSF varies over the patch where they are brighter than this fraction of their
# peak, and at most by this factor.
_VARIATION_FLOOR = 1e-3
_MAX_VARIATION = 2.0

# Newton steps that center a kernel, and the centroid in pixels at which they end.
_TILT_STEPS = 30
_CENTERED = 1e-10


def split_variation(kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split kernels into a mean by exposure and its variation over the patch.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        Non-negative kernels, shape ``(n, cells_y, cells_x, k, k)``; zero where
        an exposure has none.

    Returns
    -------
    mean : `numpy.ndarray`
        Mean over the cells that have one, with sum 1, `numpy.float64`, shape
        ``(n, k, k)``.
    variation : `numpy.ndarray`
        Factor that takes the mean, times the kernel's sum, to each kernel,
        shape of ``kernels``, `numpy.float32`: at most 2 and at least 1/2, 1
        where the mean is less than a thousandth of its peak, and zero in
        cells without a kernel.
    """
    totals = kernels.sum(axis=(-2, -1), dtype=np.float64)
    present = totals > 0.0
    unit = np.divide(
        kernels,
        totals[..., np.newaxis, np.newaxis],
        out=np.zeros(kernels.shape, np.float32),
        where=present[..., np.newaxis, np.newaxis],
    )
    count = np.maximum(present.sum(axis=(1, 2)), 1)
    mean = unit.sum(axis=(1, 2), dtype=np.float64) / count[:, np.newaxis, np.newaxis]
    bright = mean > _VARIATION_FLOOR * mean.max(axis=(1, 2), keepdims=True)
    safe = np.where(bright, mean, 1.0)[:, np.newaxis, np.newaxis]
    variation = np.where(bright[:, np.newaxis, np.newaxis], unit / safe, 1.0)
    variation = np.clip(variation, 1.0 / _MAX_VARIATION, _MAX_VARIATION).astype(np.float32)
    variation[~present] = 0.0
    return mean, variation


def join_variation(
    mean: np.ndarray, variation: np.ndarray, totals: np.ndarray, shift: np.ndarray | None = None
) -> np.ndarray:
    """Make the kernels of cells from a mean by exposure.

    Parameters
    ----------
    mean : `numpy.ndarray`
        Non-negative kernels, shape ``(n, k, k)``.
    variation : `numpy.ndarray`
        From `split_variation`, shape ``(n, cells_y, cells_x, k, k)``.
    totals : `numpy.ndarray`
        Sums of the kernels, shape ``(n, cells_y, cells_x)``.
    shift : `numpy.ndarray`, optional
        Centroids of the kernels from their middle pixels in y and x, pixels,
        shape ``(n, 2)``; by default they are centered.

    Returns
    -------
    kernels : `numpy.ndarray`
        `numpy.float32`, shape of ``variation``; zero where the variation is.
    """
    kernels = center(mean[:, np.newaxis, np.newaxis] * variation)
    if shift is not None:
        for t, offset in enumerate(shift):
            kernels[t] = move(kernels[t], offset)
    sums = kernels.sum(axis=(-2, -1))
    factor = np.divide(totals, sums, out=np.zeros_like(sums), where=sums > 0.0)
    return (kernels * factor[..., np.newaxis, np.newaxis]).astype(np.float32)


def center(kernels: np.ndarray) -> np.ndarray:
    """Move the centroids of kernels to their middle pixels.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        Non-negative kernels, shape ``(..., k, k)``.

    Returns
    -------
    centered : `numpy.ndarray`
        `numpy.float64`, same shape and sums, non-negative: the centered
        kernels nearest to the given ones in the sense of Kullback and
        Leibler, ``f(y, x) * exp(a y + b x + c)``.  Kernels that are zero stay
        so.
    """
    size = kernels.shape[-1]
    axis = np.arange(size) - size // 2
    y, x = np.broadcast_arrays(axis[:, np.newaxis], axis)
    result = np.array(kernels, np.float64)
    flat = result.reshape(-1, size, size)
    for kernel in flat:
        total = kernel.sum()
        if total <= 0.0:
            continue
        for _ in range(_TILT_STEPS):
            weight = kernel / kernel.sum()
            mean = np.array([(weight * y).sum(), (weight * x).sum()])
            if np.abs(mean).max() < _CENTERED:
                break
            dy, dx = y - mean[0], x - mean[1]
            covariance = np.array(
                [[(weight * dy * dy).sum(), (weight * dy * dx).sum()], [0.0, (weight * dx * dx).sum()]]
            )
            covariance[1, 0] = covariance[0, 1]
            # Newton's step of the convex dual, shortened where the exponential is far from linear.
            tilt = -np.linalg.lstsq(covariance, mean, rcond=1e-10)[0]
            tilt *= min(1.0, 0.2 / max(np.abs(tilt).max(), 1e-300))
            kernel *= np.exp(tilt[0] * y + tilt[1] * x)
        kernel *= total / kernel.sum()
    return result


def move(kernels: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Move kernels off center.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        Non-negative kernels, shape ``(..., k, k)``.
    shift : `numpy.ndarray`
        Shift in y and x, pixels, shape ``(2,)``.

    Returns
    -------
    moved : `numpy.ndarray`
        Same shape; negative lobes of the interpolation are set to zero.
    """
    size = kernels.shape[-1]
    matrix_y, matrix_x = (shift_matrix(np.asarray(value), size) for value in shift)
    return np.maximum(matrix_y @ kernels @ matrix_x.T, 0.0)
