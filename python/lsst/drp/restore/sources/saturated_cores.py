# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Cores of saturated stars: missing pixels inside of bright sources."""

from __future__ import annotations

__all__ = ("find_saturated_cores",)

import numpy as np
import scipy.ndimage

# Smallest number of missing pixels that can be the core of a saturated star:
# fewer are isolated bad pixels.
_MIN_CORE = 5

# Smallest ratio of the brightest pixel adjacent to a core to the brightest one
# of the footprint: a hole elsewhere is not the core.
_CORE_CONTRAST = 0.8


def find_saturated_cores(
    image: np.ndarray, valid: np.ndarray, footprints: np.ndarray, *, max_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find the cores of saturated stars: holes in the data with the brightest
    pixels of their footprint at their edge.

    Parameters
    ----------
    image : `numpy.ndarray`
        Flux per pixel, nJy, shape ``(height, width)``.
    valid : `numpy.ndarray`
        Pixels with data, `bool`, same shape.
    footprints : `numpy.ndarray`
        Number of the footprint of each pixel, 0 outside of all, `int`, same
        shape.
    max_size : `int`
        Largest height and width of a core, pixels: larger holes are gaps.

    Returns
    -------
    positions : `numpy.ndarray`
        Middle of each core, x and y, pixels, shape ``(n, 2)``.
    near : `numpy.ndarray`
        Pixels in cores and within two pixels of them, `bool`, shape of
        ``image``.  A restored image is not constrained by data there.
    """
    near = np.zeros(valid.shape, dtype=bool)
    positions = []
    square = np.ones((3, 3))
    light = np.where(valid, image, -np.inf)
    brightest = scipy.ndimage.maximum(light, footprints, np.arange(footprints.max() + 1))
    labels, _ = scipy.ndimage.label(scipy.ndimage.binary_closing(~valid & (footprints > 0), square))
    for number, box in enumerate(scipy.ndimage.find_objects(labels), start=1):
        if (labels[box] == number).sum() < _MIN_CORE or max(s.stop - s.start for s in box) > max_size:
            continue
        around = tuple(slice(max(s.start - 2, 0), s.stop + 2) for s in box)
        core = labels[around] == number
        rim = scipy.ndimage.binary_dilation(core, square) & valid[around]
        limit = _CORE_CONTRAST * brightest[footprints[around][core].max()]
        if not rim.any() or light[around][rim].max() < limit:
            continue
        rows, columns = np.nonzero(core)
        positions.append((columns.mean() + around[1].start, rows.mean() + around[0].start))
        near[around] |= scipy.ndimage.binary_dilation(core, square, 2)
    return np.array(positions).reshape(-1, 2), near
