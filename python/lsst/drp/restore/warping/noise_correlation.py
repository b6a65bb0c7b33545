# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Correlation of the noise of a resampled image, measured in its pixels."""

from __future__ import annotations

__all__ = ("measure_correlation",)

import numpy as np
import scipy.ndimage

# The Laplacian of a Gaussian of this width (pixels) passes spatial frequencies
# around 0.16 per pixel: below those that interpolation takes from the noise
# (the response of a Lanczos-3 kernel is flat to 0.25 even if the patch's pixels
# are 0.8 times the camera's), above most of the power of sources that are too
# faint to be masked (a PSF with a FWHM of 3.5 pixels has 13 % of its power
# there).
_WIDTH = 1.4
# Half width of the filter, pixels.
_REACH = 5
# Height and width of the area, pixels, for which one number is measured: as
# small as its error of some per cent allows.
_AREA = 200
# Number of empty pixels that are enough (an error of about 10 %).
_ENOUGH = 2000


def measure_correlation(
    image: np.ndarray, variance: np.ndarray, good: np.ndarray, cell_shape: tuple[int, int]
) -> np.ndarray:
    """Measure the correlation of noise between pixels from empty sky.

    Parameters
    ----------
    image : `numpy.ndarray`
        Sky-subtracted pixels, shape ``(height, width)``.
    variance : `numpy.ndarray`
        Their variance, same shape.
    good : `numpy.ndarray` of `bool`
        Which pixels are valid, same shape.
    cell_shape : `tuple` [`int`, `int`]
        Height and width of a cell, pixels.

    Returns
    -------
    correlation : `numpy.ndarray`
        Power of the noise at low spatial frequencies in units of
        ``variance``, by cell, shape ``(cells_y, cells_x)``, as in
        ``ExposureStack.correlation``.  NaN if there is too little empty sky
        in the whole image.

    Notes
    -----
    The image in units of its standard deviation is filtered by a band-pass
    ``g`` of frequencies at which the power of the noise is still that at
    frequency zero.  The variance of the result divided by ``sum(g**2)`` is that
    power.  It is measured from what is not masked, not near a detected source,
    and not beyond 4 sigma, in the cell and those around it within an area of
    about 200x200 pixels; in cells without empty sky it is that of the whole
    image.
    """
    scaled = np.zeros(image.shape, dtype=np.float32)
    scaled[good] = image[good] / np.sqrt(variance[good])
    shape = (image.shape[0] // cell_shape[0], image.shape[1] // cell_shape[1])
    empty = _far_from(~good | _sources(scaled, good))
    if np.count_nonzero(empty) < _ENOUGH:
        return np.full(shape, np.nan)
    filtered = scipy.ndimage.gaussian_laplace(scaled, _WIDTH, mode="constant")
    empty &= np.abs(filtered) < 4.0 * _sigma(filtered[empty])
    power = np.where(empty, filtered, np.float32(0.0)) ** 2 / _filter_power()

    reach = [int(0.5 * max(_AREA / size - 1.0, 0.0) + 0.5) for size in cell_shape]
    sums = []
    for values in (power, empty):
        by_cell = values.reshape(shape[0], cell_shape[0], shape[1], cell_shape[1])
        window = np.ones([2 * n + 1 for n in reach])
        sums.append(
            scipy.ndimage.convolve(by_cell.sum(axis=(1, 3), dtype=np.float64), window, mode="constant")
        )
    total, count = sums
    overall = power.sum(dtype=np.float64) / np.count_nonzero(empty)
    return np.divide(total, count, out=np.full(shape, overall), where=count >= _ENOUGH)


def _sources(scaled: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Find the pixels of sources."""
    level = np.median(scaled[good]) if good.any() else 0.0
    smooth = scipy.ndimage.gaussian_filter(np.where(good, scaled - level, np.float32(0.0)), 2.0)
    return smooth > 2.5 * _sigma(smooth[good]) if good.any() else ~good


def _far_from(bad: np.ndarray) -> np.ndarray:
    """Find pixels that do not depend on bad ones, or on the outside, after
    the filter.
    """
    return scipy.ndimage.maximum_filter(bad, 2 * _REACH + 1, mode="constant", cval=True) == 0


def _sigma(values: np.ndarray) -> float:
    """Return a standard deviation that is robust to outliers."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _filter_power() -> float:
    """Return the sum of the squared weights of the filter."""
    delta = np.zeros((8 * _REACH + 1, 8 * _REACH + 1))
    delta[4 * _REACH, 4 * _REACH] = 1.0
    return float((scipy.ndimage.gaussian_laplace(delta, _WIDTH, mode="constant") ** 2).sum())
