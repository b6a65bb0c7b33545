# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The mapping of a patch's pixels to those of a detector."""

from __future__ import annotations

__all__ = ("MAX_POSITION_ERROR", "PixelMap", "PixelMapError")

import math

import numpy as np
import scipy.interpolate

from lsst.images import Box, SkyProjection

from .lanczos import HALF_WIDTH

MAX_POSITION_ERROR = 1e-3
"""Largest error of an interpolated position, pixels of the detector.  It is a
twentieth of the 0.02 pixels to which stars keep their positions in the
interpolation of pixels.
"""

# Smallest distance of the grid's points, pixels of the patch: a mapping that
# needs smaller ones is not smooth.
_SMALLEST_STEP = 2.0


class PixelMapError(ValueError):
    """The sky projections of a patch and a detector do not give a usable
    mapping of their pixels.
    """


class PixelMap:
    """Mapping of a patch's pixels to those of a detector.

    The exact mapping, through the sky, is evaluated on a coarse grid and
    interpolated by a cubic spline.  The grid is refined until the error, which
    is measured halfway between its points, is small enough.

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
    PixelMapError
        Raised if the sky projections do not allow that accuracy.
    """

    def __init__(
        self,
        patch_projection: SkyProjection,
        detector_projection: SkyProjection,
        bbox: Box,
        detector_bbox: Box,
        *,
        step: float = 32.0,
        tolerance: float = MAX_POSITION_ERROR,
    ) -> None:
        self._to_sky = patch_projection.pixel_to_sky_transform
        self._from_sky = detector_projection.sky_to_pixel_transform
        self.bbox = bbox
        while True:
            error = self._fit(step, detector_bbox)
            if error <= tolerance:
                break
            step /= 2.0
            if step < _SMALLEST_STEP:
                raise PixelMapError(
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
            raise PixelMapError("The detector's sky projection is not finite on the patch.")
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
