# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Resampling of an exposure onto the pixel grid of a patch."""

from __future__ import annotations

__all__ = ("MAX_BAD_WEIGHT", "Warp", "warp")

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from lsst.images import YX, Box

from .lanczos import HALF_WIDTH, bad_weight, interpolate, interpolate_variance, squared_weight
from .pixel_map import PixelMap

MAX_BAD_WEIGHT = 0.01
"""Largest sum of the absolute interpolation weights of bad or missing pixels
in a good pixel of the patch: replacing them by their neighbors' mean then
changes the pixel by about a hundredth of their difference.
"""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Warp:
    """Part of an exposure on the pixel grid of a patch.

    Parameters
    ----------
    bbox : `lsst.images.Box`
        Pixels of the tract.
    image : `numpy.ndarray`
        Flux per pixel of the patch, `numpy.float32`, shape of the box.  Zero
        where not good.
    variance : `numpy.ndarray`
        Variance of ``image``, same type and shape.  Infinite where not good.
    good : `numpy.ndarray` of `bool`
        Which pixels are valid, same shape.
    inverse_correlation : `numpy.ndarray`
        Variance of each pixel in units of the power of the noise at low
        spatial frequencies, `numpy.float32`, same shape: its mean over an
        area is the inverse of ``ExposureStack.correlation``.  Zero where not
        good.
    """

    bbox: Box
    image: np.ndarray
    variance: np.ndarray
    good: np.ndarray
    inverse_correlation: np.ndarray


def warp(
    image: np.ndarray,
    variance: np.ndarray,
    good: np.ndarray,
    bbox: Box,
    pixel_map: PixelMap,
    *,
    correlation: float = 1.0,
    tile_size: int = 512,
) -> Warp:
    """Resample an image of a detector by Lanczos-3 interpolation.

    Parameters
    ----------
    image : `numpy.ndarray`
        Flux per pixel, shape ``(height, width)``.
    variance : `numpy.ndarray`
        Variance of ``image``, same shape.
    good : `numpy.ndarray` of `bool`
        Which pixels are valid, same shape; ``image`` and ``variance`` may be
        anything elsewhere.
    bbox : `lsst.images.Box`
        Position of these arrays on the detector.
    pixel_map : `PixelMap`
        Maps the patch to the detector; the result has its box.
    correlation : `float`, optional
        Power of the noise of ``image`` at low spatial frequencies in units of
        ``variance``; 1 for independent pixels.
    tile_size : `int`, optional
        Height and width of the tiles, pixels of the patch, into which the work
        is divided to bound memory.

    Returns
    -------
    result : `Warp`
        The image on the patch grid.

    Notes
    -----
    The interpolated values are surface brightnesses in units of the
    detector's pixels: they are multiplied by the local area of the patch's
    pixels, so that fluxes are conserved.

    Pixels of the result share input pixels and are therefore correlated; the
    variance is that of each pixel.  From pixels of variance ``v`` and weights
    ``a``, it is ``area**2 * sum(a**2) * v``, while the flux in any region much
    wider than a pixel has the noise of the detector's pixels in it: ``area *
    v`` for each pixel of the patch.  The first divided by the second is
    ``inverse_correlation = area * sum(a**2)``.  The noise of an image that has
    been resampled before has the power ``correlation * v`` at low frequencies:
    the result is divided by it.  That holds as long as the
    patch's pixels are at most 1.2 times as large as the detector's: larger
    ones leave out some of its information, and fluxes have more noise (13 % in
    the variance at 1.33).
    """
    shape = pixel_map.bbox.shape
    result = Warp(
        bbox=pixel_map.bbox,
        image=np.zeros(shape, dtype=np.float32),
        variance=np.full(shape, np.inf, dtype=np.float32),
        good=np.zeros(shape, dtype=bool),
        inverse_correlation=np.zeros(shape, dtype=np.float32),
    )
    if not good.any():
        return result
    typical_variance = np.float32(np.median(variance[good]))
    for tile in _tiles(pixel_map.bbox, tile_size):
        x, y = pixel_map.positions(tile)
        # The part of the detector that this tile depends on, with a border
        # beyond the array's edges, so that no position is too near to one.
        source = _source_box(x, y, bbox)
        if source is None:
            continue
        inner = source.intersection(bbox)
        inside = inner.slice_within(bbox)
        border = inner.slice_within(source)
        good_pixels = np.zeros(source.shape, dtype=bool)
        good_pixels[border] = good[inside]
        pixels = np.zeros(source.shape, dtype=np.float32)
        pixels[border] = np.where(good[inside], image[inside], 0.0)
        variances = np.full(source.shape, typical_variance)
        variances[border] = np.where(good[inside], variance[inside], typical_variance)
        x -= source.x.start
        y -= source.y.start

        is_good = bad_weight(good_pixels, x, y) <= MAX_BAD_WEIGHT
        if not is_good.any():
            continue
        area = pixel_map.area(tile)
        values, norm = interpolate(pixels, good_pixels, x, y)
        values_variance = interpolate_variance(variances, x, y, norm)
        target = tile.slice_within(pixel_map.bbox)
        result.image[target] = np.where(is_good, values * area, 0.0)
        result.variance[target] = np.where(is_good, values_variance * area**2, np.inf)
        result.good[target] = is_good
        result.inverse_correlation[target] = np.where(
            is_good, area * squared_weight(x, y, norm) / correlation, 0.0
        )
    return result


def _tiles(bbox: Box, size: int) -> Iterator[Box]:
    for y in range(bbox.y.start, bbox.y.stop, size):
        for x in range(bbox.x.start, bbox.x.stop, size):
            stop = YX(y=min(y + size, bbox.y.stop), x=min(x + size, bbox.x.stop))
            yield Box.factory[y : stop.y, x : stop.x]


def _source_box(x: np.ndarray, y: np.ndarray, bbox: Box) -> Box | None:
    """Return the box of pixels that positions inside of a box depend on, with
    a margin of pixels beyond it, or `None` if no position is inside.
    """
    inside = (
        (x >= bbox.x.min - 0.5) & (x <= bbox.x.max + 0.5) & (y >= bbox.y.min - 0.5) & (y <= bbox.y.max + 0.5)
    )
    if not inside.any():
        return None
    margin = HALF_WIDTH + 1
    return Box.factory[
        math.floor(y[inside].min()) - margin : math.ceil(y[inside].max()) + margin + 1,
        math.floor(x[inside].min()) - margin : math.ceil(x[inside].max()) + margin + 1,
    ]
