# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Peaks of an image by their height above the saddles between them."""

from __future__ import annotations

__all__ = ("find_peaks", "interpolate_peaks")

import numpy as np
import scipy.ndimage


def find_peaks(
    image: np.ndarray,
    sigma: np.ndarray,
    inside: np.ndarray,
    *,
    min_height: float,
    min_dip: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the significant peaks of an image.

    Parameters
    ----------
    image, sigma : `numpy.ndarray`
        Image and its standard deviation, shape ``(height, width)``.
    inside : `numpy.ndarray`
        `bool`, same shape: the pixels to search.
    min_height : `float`
        Smallest height of a peak, in units of ``sigma`` there.
    min_dip : `float`
        Smallest height of a peak above the saddle to any higher one, in units
        of ``sigma`` at the peak.

    Returns
    -------
    row, column : `numpy.ndarray`
        Pixels of the peaks, shape ``(n,)``.

    Notes
    -----
    Each pixel belongs to the maximum that the steepest ascent over the eight
    pixels around leads to.  Where two such regions touch, the highest pixel
    from which both can be reached is their saddle.  Regions are joined from the
    highest saddle down, and the lower one of their peaks counts if it is
    significantly above the saddle (the persistence of a peak); no threshold
    levels are needed.
    """
    rows, columns = np.nonzero(inside)
    order = np.argsort(image[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    height, noise = image[rows, columns], sigma[rows, columns]
    # A rank instead of a value: no two pixels are equal.
    rank = np.full((image.shape[0] + 2, image.shape[1] + 2), -1)
    rank[rows + 1, columns + 1] = np.arange(len(rows))
    top = scipy.ndimage.maximum_filter(rank, 3)[rows + 1, columns + 1]
    while not np.array_equal(higher := top[top], top):
        top = higher
    peak = np.flatnonzero(top == np.arange(len(top)))

    joined = np.arange(len(top))
    significant = np.ones(len(top), bool)
    for saddle, *pair in _saddles(rank, rows, columns, top):
        low, high = sorted(_root(joined, member) for member in pair)
        if low != high:
            significant[low] = height[low] - height[saddle] > min_dip * noise[low]
            joined[low] = high
    peak = peak[significant[peak] & (height[peak] > min_height * noise[peak])]
    return rows[peak], columns[peak]


def interpolate_peaks(image: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Interpolate the positions of peaks between pixels.

    Parameters
    ----------
    image : `numpy.ndarray`
        Image, shape ``(height, width)``.
    row, column : `numpy.ndarray`
        Pixels of the peaks, shape ``(n,)``.

    Returns
    -------
    positions : `numpy.ndarray`
        x and y, pixels, shape ``(n, 2)``: along each axis the center of the
        Gaussian through the peak and the two adjacent pixels, at most half a
        pixel from the peak.
    """
    padded = np.pad(image, 1, constant_values=np.nan)
    positions = []
    for index, (down, right) in ((column, (0, 1)), (row, (1, 0))):
        before, middle, after = (
            padded[row + 1 + k * down, column + 1 + k * right].astype(np.float64) for k in (-1, 0, 1)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            falls = np.log(middle / before), np.log(middle / after)
            shift = 0.5 * (falls[0] - falls[1]) / (falls[0] + falls[1])
        positions.append(index + np.clip(np.nan_to_num(shift, posinf=0.0, neginf=0.0), -0.5, 0.5))
    return np.stack(positions, axis=1)


def _saddles(
    rank: np.ndarray, rows: np.ndarray, columns: np.ndarray, top: np.ndarray
) -> list[tuple[int, int, int]]:
    """Return the ranks of the saddles between adjacent regions and of the two
    peaks, the highest saddle first.
    """
    found = []
    own = np.arange(len(top))
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        other = rank[rows + 1 + down, columns + 1 + right]
        border = (other >= 0) & (top[other] != top)
        first, second = top[border], top[other[border]]
        saddle = np.minimum(own[border], other[border])
        found.append(np.stack([saddle, np.minimum(first, second), np.maximum(first, second)]))
    saddles = np.concatenate(found, axis=1)
    saddles = saddles[:, np.argsort(-saddles[0], kind="stable")]
    _, highest = np.unique(saddles[1] * len(top) + saddles[2], return_index=True)
    return [tuple(one) for one in saddles[:, np.sort(highest)].T.tolist()]


def _root(joined: np.ndarray, member: int) -> int:
    """Return the highest peak of the regions that one was joined with."""
    while joined[member] != member:
        joined[member] = joined[joined[member]]
        member = joined[member]
    return member
