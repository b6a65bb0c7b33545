# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Overlap of a detector's image, or a warp, and a patch."""

from __future__ import annotations

__all__ = ("DetectorOverlap",)

import dataclasses
import math

import numpy as np
import shapely

from lsst.images import Bounds, Box, NoOverlapError, Polygon, Region, SkyProjection, Transform

from .lanczos import HALF_WIDTH
from .patch_geometry import PatchGeometry

# Distance of the points, pixels, by which straight edges are traced through the
# distortions.
_SEGMENT = 64.0

# Tables of provenance store the number of vertices in a byte.
_MAX_VERTICES = 200


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class DetectorOverlap:
    """Overlap of a detector's image, or a warp, and a patch.

    Parameters
    ----------
    bbox : `lsst.images.Box`
        Pixels of the tract inside of the patch whose centers may be on the
        detector.
    detector_bbox : `lsst.images.Box`
        Pixels of the image that these depend on when they are interpolated.
    sky_projection : `lsst.images.SkyProjection`
        Maps pixels of the detector to the sky.
    bounds : `lsst.images.Bounds`
        The image's valid pixels.
    polygon : `lsst.images.Polygon`
        Outline of the overlap, pixels of the tract.
    overlap_fraction : `numpy.ndarray`
        Fraction of each cell of the patch that the overlap covers, shape
        ``(cells_y, cells_x)``.
    overlaps_center : `numpy.ndarray` of `bool`
        Whether it covers the center of each cell, same shape.
    x, y : `numpy.ndarray`
        Centroids of the covered parts of the cells, pixels of the tract, same
        shape; NaN in cells that are not covered.
    """

    bbox: Box
    detector_bbox: Box
    sky_projection: SkyProjection
    bounds: Bounds
    polygon: Polygon
    overlap_fraction: np.ndarray
    overlaps_center: np.ndarray
    x: np.ndarray
    y: np.ndarray

    @classmethod
    def find(
        cls, geometry: PatchGeometry, sky_projection: SkyProjection, bounds: Bounds, bbox: Box
    ) -> DetectorOverlap | None:
        """Find the overlap of an image and a patch.

        Parameters
        ----------
        geometry : `PatchGeometry`
            Pixel grid of the patch.
        sky_projection : `lsst.images.SkyProjection`
            Maps pixels of the detector to the sky.
        bounds : `lsst.images.Bounds`
            The image's valid pixels.
        bbox : `lsst.images.Box`
            All of the image's pixels.

        Returns
        -------
        overlap : `DetectorOverlap` or `None`
            The overlap, or `None` if no pixel of the patch has its center on
            the image.
        """
        to_tract = geometry.sky_projection.sky_to_pixel_transform
        to_sky = sky_projection.pixel_to_sky_transform
        outline = shapely.transform(
            shapely.segmentize(_outline(bounds), _SEGMENT),
            lambda points: _through(points, to_sky, to_tract),
        )
        if not np.isfinite(shapely.get_coordinates(outline)).all():
            # Beyond the horizon of the tract's projection.
            return None
        patch = geometry.outer_bbox
        overlap = shapely.make_valid(outline).intersection(patch.to_polygon().to_shapely())
        if overlap.area == 0.0:
            return None
        x_min, y_min, x_max, y_max = overlap.bounds
        if math.ceil(x_min) > math.floor(x_max) or math.ceil(y_min) > math.floor(y_max):
            return None
        points = _through(
            shapely.get_coordinates(shapely.segmentize(overlap, _SEGMENT)),
            geometry.sky_projection.pixel_to_sky_transform,
            sky_projection.sky_to_pixel_transform,
        )
        (left, bottom), (right, top) = points.min(axis=0), points.max(axis=0)
        needed = Box.from_float_bounds(x_min=left, x_max=right, y_min=bottom, y_max=top)
        try:
            detector_bbox = needed.padded(HALF_WIDTH + 1).intersection(bbox)
        except NoOverlapError:
            return None

        cells = geometry.patch.cells
        i, j = np.mgrid[: cells.grid_size.i, : cells.grid_size.j]
        x_start = cells.bbox.x.start + j * cells.cell_shape.x - 0.5
        y_start = cells.bbox.y.start + i * cells.cell_shape.y - 0.5
        parts = shapely.intersection(
            overlap, shapely.box(x_start, y_start, x_start + cells.cell_shape.x, y_start + cells.cell_shape.y)
        )
        # NaN in cells without overlap.
        centroids = np.full((*parts.shape, 2), np.nan)
        covered = ~shapely.is_empty(parts)
        centroids[covered] = shapely.get_coordinates(shapely.centroid(parts[covered]))
        return cls(
            bbox=Box.factory[
                math.ceil(y_min) : math.floor(y_max) + 1, math.ceil(x_min) : math.floor(x_max) + 1
            ].intersection(patch),
            detector_bbox=detector_bbox,
            sky_projection=sky_projection,
            bounds=bounds,
            polygon=_simple_polygon(overlap),
            overlap_fraction=shapely.area(parts) / (cells.cell_shape.x * cells.cell_shape.y),
            overlaps_center=shapely.contains_xy(
                overlap, x_start + 0.5 * cells.cell_shape.x, y_start + 0.5 * cells.cell_shape.y
            ),
            x=centroids[..., 0],
            y=centroids[..., 1],
        )

    @classmethod
    def of_warp(cls, geometry: PatchGeometry, bbox: Box, data: np.ndarray) -> DetectorOverlap:
        """Describe where a warp has data on the patch.

        Parameters
        ----------
        geometry : `PatchGeometry`
            Pixel grid of the patch and the warp.
        bbox : `lsst.images.Box`
            Pixels of the warp inside of the patch.
        data : `numpy.ndarray` of `bool`
            Pixels of the patch in which the warp has data, shape ``(height,
            width)``.

        Returns
        -------
        overlap : `DetectorOverlap`
            The overlap.  Its ``x`` and ``y`` are the centers of all cells.
        """
        height, width = geometry.cell_shape
        rows, columns = geometry.n_cells
        by_cell = geometry.by_cell(data)
        start = geometry.outer_bbox.start
        x, y = np.meshgrid(
            start.x + width * (np.arange(columns) + 0.5) - 0.5,
            start.y + height * (np.arange(rows) + 0.5) - 0.5,
        )
        return cls(
            bbox=bbox,
            detector_bbox=bbox,
            sky_projection=geometry.sky_projection,
            bounds=bbox,
            polygon=bbox.to_polygon(),
            overlap_fraction=by_cell.mean(axis=(1, 3)),
            # A view would keep all pixels in memory.
            overlaps_center=by_cell[:, height // 2, :, width // 2].copy(),
            x=x,
            y=y,
        )


def _outline(bounds: Bounds) -> shapely.Geometry:
    """Return the outline of bounds; of kinds that have none, their box's."""
    region = bounds if isinstance(bounds, Region) else bounds.bbox.to_polygon()
    return region.to_shapely()


def _through(points: np.ndarray, to_sky: Transform, from_sky: Transform) -> np.ndarray:
    """Take points of shape ``(n, 2)`` through the sky."""
    sky = to_sky.apply_forward(x=points[:, 0], y=points[:, 1])
    result = from_sky.apply_forward(x=sky.x, y=sky.y)
    return np.stack([result.x, result.y], axis=1)


def _simple_polygon(overlap: shapely.Geometry) -> Polygon:
    """Return a polygon without holes and with few vertices."""
    if not isinstance(overlap, shapely.Polygon):
        overlap = overlap.convex_hull
    tolerance = 0.1
    outline = shapely.simplify(overlap.exterior, tolerance)
    while len(vertices := shapely.get_coordinates(outline)) > _MAX_VERTICES:
        tolerance *= 2.0
        outline = shapely.simplify(outline, tolerance)
    # The last vertex repeats the first.
    return Polygon(x_vertices=vertices[:-1, 0], y_vertices=vertices[:-1, 1])
