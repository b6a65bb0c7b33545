# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Lanczos-3 interpolation of pixels, masks and variances at any positions.

The interpolation itself is `drizzle.resample.blot_image`.  The Lanczos-3
weights of a position sum to between 0.989 and 1, so every result is divided
by the sum of its weights: a flat image stays flat.
"""

from __future__ import annotations

__all__ = ("HALF_WIDTH", "bad_weight", "interpolate", "interpolate_variance", "squared_weight")

import numpy as np
import scipy.ndimage
from drizzle.resample import blot_image

from ..stack.subpixel import lanczos

HALF_WIDTH = 3
"""Pixels on each side of a position that its interpolated value depends on."""

_TAPS = np.arange(1 - HALF_WIDTH, HALF_WIDTH + 1)

# Where less than this of the weight is left there is nothing to interpolate.
_SMALLEST_NORM = 0.1

# Stands for positions outside of the array, since blot_image raises on NaN: it
# is outside of any array.
_NOWHERE = -1e6


def _weights(phase: np.ndarray) -> np.ndarray:
    """Evaluate the Lanczos-3 weights.

    Parameters
    ----------
    phase : `numpy.ndarray`
        Distance of a position from the pixel center before it, pixels, in
        [0, 1], shape ``(n,)``.

    Returns
    -------
    weights : `numpy.ndarray`
        Weights of the six pixels from two before that pixel to three after
        it, shape ``(n, 6)``.
    """
    distance = phase[:, np.newaxis] - _TAPS
    return lanczos(distance, HALF_WIDTH)


def _squared_weights() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Tabulate the squared weights by phase: their sum, their centroid, and
    their second moment in excess of that of a linear interpolation at their
    centroid.
    """
    phase = np.linspace(0.0, 1.0, 1001)
    squares = _weights(phase) ** 2
    total = squares.sum(axis=1)
    centroid = (squares * _TAPS).sum(axis=1) / total
    spread = (squares * (_TAPS - centroid[:, np.newaxis]) ** 2).sum(axis=1) / total
    return phase, total, centroid, spread - centroid * (1.0 - centroid)


_PHASE, _SQUARE_SUM, _SQUARE_CENTROID, _SQUARE_EXCESS = _squared_weights()


def _blot(data: np.ndarray, x: np.ndarray, y: np.ndarray, interp: str) -> np.ndarray:
    height, width = data.shape
    inside = (x > -1.0) & (x < width) & (y > -1.0) & (y < height)  # False for NaN
    positions = np.empty((*x.shape, 2))
    positions[..., 0] = np.where(inside, x, _NOWHERE)
    positions[..., 1] = np.where(inside, y, _NOWHERE)
    return blot_image(np.ascontiguousarray(data, dtype=np.float32), positions, interp=interp, fillval=0.0)


def interpolate(
    data: np.ndarray, good: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate an image, leaving out its bad pixels.

    Parameters
    ----------
    data : `numpy.ndarray`
        Image, shape ``(h, w)``.  Pixels that are not good must be finite.
    good : `numpy.ndarray` of `bool`
        Which pixels take part, same shape.
    x, y : `numpy.ndarray`
        Positions in pixels of the array, whose first pixel has its center at
        ``(0, 0)``; shape ``(n, m)``.  NaN and positions outside of the array
        are allowed.

    Returns
    -------
    values : `numpy.ndarray`
        Sum of weight times pixel over the good pixels, divided by ``norm``;
        `numpy.float32`, shape ``(n, m)``.  Zero where ``norm`` is below
        0.1.
    norm : `numpy.ndarray`
        Sum of the weights of the good pixels, same type and shape.

    Notes
    -----
    A missing pixel is thereby replaced by the mean of its neighbors, which
    is good enough only where it has little weight: see `bad_weight`.
    """
    norm = _blot(good, x, y, "lanczos3")
    values = _blot(np.where(good, data, 0.0), x, y, "lanczos3")
    return np.divide(values, norm, out=np.zeros_like(values), where=norm > _SMALLEST_NORM), norm


def bad_weight(good: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sum the absolute weights of the bad pixels near each position.

    Parameters
    ----------
    good : `numpy.ndarray` of `bool`
        Which pixels are good, shape ``(h, w)``.
    x, y : `numpy.ndarray`
        Positions as in `interpolate`, shape ``(n, m)``.

    Returns
    -------
    weight : `numpy.ndarray`
        Sum of the absolute Lanczos weights of pixels that are bad or outside
        of the array; `numpy.float32`, shape ``(n, m)``; one where the pixel
        nearest to the position is among them.
    """
    height, width = good.shape
    bad = np.pad(~good, HALF_WIDTH, constant_values=True)
    # For each pixel, whether any of the pixels from two before to three after
    # it is bad on both axes: those that a position after it depends on.
    near_bad = scipy.ndimage.maximum_filter(bad, size=2 * HALF_WIDTH, origin=-1)

    result = np.ones(x.shape, dtype=np.float32)
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    xi, yi = x[inside], y[inside]
    column, row = np.floor(xi).astype(int), np.floor(yi).astype(int)
    nearest_is_bad = bad[np.rint(yi).astype(int) + HALF_WIDTH, np.rint(xi).astype(int) + HALF_WIDTH]
    weight = nearest_is_bad.astype(np.float32)
    # The sum is computed only for the few positions near a bad pixel.
    todo = near_bad[row + HALF_WIDTH, column + HALF_WIDTH] & ~nearest_is_bad
    column, row = column[todo], row[todo]
    weights_x = np.abs(_weights(xi[todo] - column))
    weights_y = np.abs(_weights(yi[todo] - row))
    total = np.zeros(column.shape)
    for j, dy in enumerate(_TAPS):
        for i, dx in enumerate(_TAPS):
            total += weights_y[:, j] * weights_x[:, i] * bad[row + dy + HALF_WIDTH, column + dx + HALF_WIDTH]
    weight[todo] = total
    result[inside] = weight
    return result


def interpolate_variance(variance: np.ndarray, x: np.ndarray, y: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """Propagate the variance of uncorrelated pixels to interpolated values.

    Parameters
    ----------
    variance : `numpy.ndarray`
        Variance of the pixels, finite, shape ``(h, w)``.
    x, y : `numpy.ndarray`
        Positions as in `interpolate`, shape ``(n, m)``.
    norm : `numpy.ndarray`
        Sums of the weights as returned by `interpolate`, same shape.

    Returns
    -------
    variance : `numpy.ndarray`
        Variance of the interpolated values, `numpy.float32`, same shape.
        Zero where ``norm`` is below 0.1.

    Notes
    -----
    The variance is the sum of ``weight**2 * variance`` over ``norm**2``.  The
    squared weights are separable and depend on the sub-pixel phase only: with
    their sum, centroid and second moments it is exact wherever the variance
    is a quadratic function (without a mixed term) of the pixels that a
    position depends on.
    """
    column, row = np.floor(x), np.floor(y)
    phase_x, phase_y = x - column, y - row
    column += np.interp(phase_x, _PHASE, _SQUARE_CENTROID)
    row += np.interp(phase_y, _PHASE, _SQUARE_CENTROID)
    result = linear = _blot(variance, column, row, "linear")
    for axis, phase in enumerate((phase_y, phase_x)):
        curvature = _blot(scipy.ndimage.correlate1d(variance, [1.0, -2.0, 1.0], axis), column, row, "linear")
        result = result + 0.5 * np.interp(phase, _PHASE, _SQUARE_EXCESS) * curvature
    # The curvature at a step of the variance must not turn its sign.
    result = np.clip(result, 0.5 * linear, 2.0 * linear)
    return (result * squared_weight(x, y, norm)).astype(np.float32)


def squared_weight(x: np.ndarray, y: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """Sum the squared weights of interpolated values.

    Parameters
    ----------
    x, y : `numpy.ndarray`
        Positions as in `interpolate`, shape ``(n, m)``.
    norm : `numpy.ndarray`
        Sums of the weights as returned by `interpolate`, same shape.

    Returns
    -------
    squared_weight : `numpy.ndarray`
        Sum of the squared weights over ``norm**2``, which is the variance of
        the values for uncorrelated pixels of variance 1, same shape.  Zero
        where ``norm`` is below 0.1.
    """
    result = np.interp(x - np.floor(x), _PHASE, _SQUARE_SUM) * np.interp(y - np.floor(y), _PHASE, _SQUARE_SUM)
    return np.divide(result, norm**2, out=np.zeros_like(result), where=norm > _SMALLEST_NORM)
