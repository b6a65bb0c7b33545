# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Resampling of an exposure onto the pixel grid of a patch."""

from __future__ import annotations

__all__ = ("PixelMap", "Warp", "WarpError", "warp")

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import scipy.interpolate

from lsst.images import YX, Box, SkyProjection

from .lanczos import HALF_WIDTH, bad_weight, interpolate, interpolate_variance, squared_weight


class WarpError(ValueError):
    """Raised if the mapping from a patch to a detector cannot be found."""


class PixelMap:
    """Maps pixels of a patch to pixels of a detector, quickly.

    The exact mapping, through the sky, is evaluated on a coarse grid and
    interpolated by a cubic spline, whose error is measured in the middle
    between the grid's points.

    Parameters
    ----------
    patch_projection : `lsst.images.SkyProjection`
        Maps pixels of the tract to the sky.
    detector_projection : `lsst.images.SkyProjection`
        Maps pixels of the detector to the sky.
    bbox : `lsst.images.Box`
        Pixels of the tract to map.
    detector_bbox : `lsst.images.Box`
        Pixels of the detector for which the error must be small.
    step : `float`, optional
        Largest distance of the grid's points, pixels of the patch.
    tolerance : `float`, optional
        Largest error, pixels of the detector.

    Raises
    ------
    WarpError
        Raised if the sky projections do not allow that accuracy.
    """

    _SMALLEST_STEP = 2.0

    def __init__(
        self,
        patch_projection: SkyProjection,
        detector_projection: SkyProjection,
        bbox: Box,
        detector_bbox: Box,
        *,
        step: float = 32.0,
        tolerance: float = 1e-3,
    ) -> None:
        self._to_sky = patch_projection.pixel_to_sky_transform
        self._from_sky = detector_projection.sky_to_pixel_transform
        self.bbox = bbox
        while True:
            error = self._fit(step, detector_bbox)
            if error <= tolerance:
                break
            step /= 2.0
            if step < self._SMALLEST_STEP:
                raise WarpError(
                    f"The sky projections of patch and detector cannot be followed to {tolerance} pixels "
                    f"(error {error:.2g} pixels)."
                )

    def exact(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map points through the sky.

        Parameters
        ----------
        x, y : `numpy.ndarray`
            Points in pixels of the tract.

        Returns
        -------
        x, y : `numpy.ndarray`
            The same points in pixels of the detector.
        """
        sky = self._to_sky.apply_forward(x=x, y=y)
        points = self._from_sky.apply_forward(x=sky.x, y=sky.y)
        return points.x, points.y

    def _fit(self, step: float, detector_bbox: Box) -> float:
        """Fit the splines to a grid and return their largest error."""
        nodes = []
        for interval in (self.bbox.y, self.bbox.x):
            # A cubic spline needs four points on each axis.
            count = max(4, math.ceil(interval.size / step) + 1)
            nodes.append(np.linspace(interval.min - 1.0, interval.max + 1.0, count))
        x_detector, y_detector = self.exact(*np.meshgrid(nodes[1], nodes[0]))
        if not (np.isfinite(x_detector).all() and np.isfinite(y_detector).all()):
            raise WarpError("The detector's sky projection is not finite on the patch.")
        self._x = scipy.interpolate.RectBivariateSpline(*nodes, x_detector)
        self._y = scipy.interpolate.RectBivariateSpline(*nodes, y_detector)
        area = np.abs(np.linalg.det(self.jacobian(*np.meshgrid(nodes[1], nodes[0]))))
        self._area = scipy.interpolate.RectBivariateSpline(*nodes, area)

        middle = [0.5 * (axis[:-1] + axis[1:]) for axis in nodes]
        x_exact, y_exact = self.exact(*np.meshgrid(middle[1], middle[0]))
        near = detector_bbox.padded(HALF_WIDTH).contains(x=x_exact, y=y_exact)
        error = np.hypot(self._x(*middle) - x_exact, self._y(*middle) - y_exact)
        return float(error[near].max(initial=0.0))

    def positions(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Map the pixels of a box.

        Parameters
        ----------
        box : `lsst.images.Box`
            Pixels of the tract, inside of ``bbox``.

        Returns
        -------
        x, y : `numpy.ndarray`
            Their centers in pixels of the detector, shape of the box.
        """
        return self._x(box.y.arange, box.x.arange), self._y(box.y.arange, box.x.arange)

    def area(self, box: Box) -> np.ndarray:
        """Return the area of pixels of the patch on the detector.

        Parameters
        ----------
        box : `lsst.images.Box`
            Pixels of the tract, inside of ``bbox``.

        Returns
        -------
        area : `numpy.ndarray`
            Area of each, pixels of the detector, shape of the box.
        """
        return self._area(box.y.arange, box.x.arange)

    def jacobian(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the local affine transform.

        Parameters
        ----------
        x, y : `numpy.ndarray`
            Points in pixels of the tract, inside of ``bbox``.

        Returns
        -------
        jacobian : `numpy.ndarray`
            Derivatives of the detector's x and y (rows) by the tract's x and
            y (columns), shape ``(..., 2, 2)``.
        """
        rows = [[spline.ev(y, x, dy=1), spline.ev(y, x, dx=1)] for spline in (self._x, self._y)]
        return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


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
    max_bad_weight: float = 0.01,
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
    max_bad_weight : `float`, optional
        Largest sum of the absolute weights of bad or missing pixels in the
        footprint of a good pixel.
    tile_size : `int`, optional
        Pixels of the patch are done in squares of this size, to bound memory.

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
    ``inverse_correlation = area * sum(a**2)``.  That holds as long as the
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
        # The part of the detector that this tile needs, with a border beyond
        # the array's edges so that every footprint lies inside of it.
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

        is_good = bad_weight(good_pixels, x, y) <= max_bad_weight
        if not is_good.any():
            continue
        area = pixel_map.area(tile)
        values, norm = interpolate(pixels, good_pixels, x, y)
        values_variance = interpolate_variance(variances, x, y, norm)
        target = tile.slice_within(pixel_map.bbox)
        result.image[target] = np.where(is_good, values * area, 0.0)
        result.variance[target] = np.where(is_good, values_variance * area**2, np.inf)
        result.good[target] = is_good
        result.inverse_correlation[target] = np.where(is_good, area * squared_weight(x, y, norm), 0.0)
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
