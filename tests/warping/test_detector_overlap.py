# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the overlap of detectors and patches, against counts of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from skies import detector_projection, make_geometry, tan_wcs, tpv_wcs

from lsst.drp.restore.warping.detector_overlap import DetectorOverlap
from lsst.images import Box, Polygon

BBOX = Box.factory[100:300, 1000:1180]


def find(wcs, *, geometry=None, bounds=BBOX, bbox=BBOX) -> DetectorOverlap | None:
    return DetectorOverlap.find(geometry or make_geometry(), detector_projection(wcs, bbox), bounds, bbox)


def on_detector(wcs, geometry, bounds=BBOX, oversample: int = 3) -> np.ndarray:
    """Return which of ``oversample**2`` points in each pixel of the patch are
    on the detector, by Astropy.
    """
    outer = geometry.outer_bbox
    n = outer.y.size * oversample
    fine = (np.arange(n) + 0.5) / oversample - 0.5
    y, x = np.meshgrid(fine + outer.y.start, fine + outer.x.start, indexing="ij")
    sky = tan_wcs(center=(outer.x.center, outer.y.center)).pixel_to_world(x, y)
    x, y = wcs.world_to_pixel(sky)
    if isinstance(bounds, Polygon):
        return bounds.contains(x=x, y=y)
    return (np.abs(x - bounds.x.center) < bounds.x.size / 2) & (
        np.abs(y - bounds.y.center) < bounds.y.size / 2
    )


@pytest.mark.parametrize("make_wcs", [tan_wcs, tpv_wcs])
@pytest.mark.parametrize("center", [(1090.0, 200.0), (1020.3, 130.8), (970.0, 290.0)])
@pytest.mark.parametrize("angle", [0.0, 28.0, 135.0, 180.0])
def test_fractions_are_those_of_points(make_wcs, center, angle):
    geometry = make_geometry(start=(300, 40))
    wcs = make_wcs(center=center, angle=angle)
    overlap = find(wcs, geometry=geometry)
    points = on_detector(wcs, geometry)
    fraction = points.reshape(4, 90, 4, 90).mean(axis=(1, 3))
    assert overlap.overlap_fraction.max() > 0.0
    assert np.allclose(overlap.overlap_fraction, fraction, atol=0.01)
    assert overlap.polygon.area == pytest.approx(points.sum() / 9, rel=0.01)
    assert np.array_equal(np.isfinite(overlap.x), overlap.overlap_fraction > 0.0)
    center_points = points[45::90, 45::90]
    away = np.abs(fraction - 0.5) > 0.1
    assert np.array_equal(overlap.overlaps_center[away], center_points[away])
    # Every point on the detector is in the box, and the box is tight.
    rows, columns = np.nonzero(points[1::3, 1::3])
    box = overlap.bbox
    assert abs(box.y.start - 300 - rows.min()) <= 1 and abs(box.y.stop - 300 - rows.max()) <= 2
    assert abs(box.x.start - 40 - columns.min()) <= 1 and abs(box.x.stop - 40 - columns.max()) <= 2
    assert BBOX.contains(overlap.detector_bbox)


def test_polygon_as_bounds():
    bounds = Polygon(x_vertices=[1000.0, 1150.0, 1060.0], y_vertices=[110.0, 150.0, 290.0])
    geometry = make_geometry()
    wcs = tan_wcs(center=(1070.0, 180.0), angle=50.0)
    overlap = find(wcs, geometry=geometry, bounds=bounds)
    fraction = on_detector(wcs, geometry, bounds).reshape(4, 90, 4, 90).mean(axis=(1, 3))
    assert np.allclose(overlap.overlap_fraction, fraction, atol=0.01)


def test_outline_of_many_vertices_is_simplified():
    """Tables of provenance hold at most 255 vertices."""
    angle = np.linspace(0.0, 2.0 * np.pi, 2000, endpoint=False)
    radius = 50.0 + 0.4 * np.cos(300.0 * angle)
    bounds = Polygon(x_vertices=1090.0 + radius * np.cos(angle), y_vertices=200.0 + radius * np.sin(angle))
    overlap = find(tan_wcs(center=(1090.0, 200.0)), bounds=bounds)
    assert overlap.polygon.n_vertices <= 200
    assert overlap.polygon.area == pytest.approx(np.pi * 50.0**2, rel=0.01)


def test_bounds_in_parts_have_their_hull_as_outline():
    """A U whose legs reach into the patch."""
    bounds = Polygon(
        x_vertices=[1000.0, 1170.0, 1170.0, 1130.0, 1130.0, 1040.0, 1040.0, 1000.0],
        y_vertices=[110.0, 110.0, 290.0, 290.0, 150.0, 150.0, 290.0, 290.0],
    )
    overlap = find(tan_wcs(center=(1085.0, 230.0)), bounds=bounds)
    assert overlap.polygon.area == pytest.approx(120.0 * 120.0, rel=1e-3)
    assert overlap.overlap_fraction.sum() * 900 == pytest.approx(2 * 15.0 * 120.0, rel=1e-3)


@pytest.mark.parametrize("center", [(1300.0, 200.0), (1090.0, -30.0), (-9e6, 200.0)])
def test_no_overlap(center):
    assert find(tan_wcs(center=center)) is None


def test_detector_on_the_other_side_of_the_sky():
    wcs = tan_wcs(center=(1090.0, 200.0))
    wcs.wcs.crval = [210.0, 5.0]
    assert find(wcs) is None


def test_overlap_of_a_warp():
    """Fractions and centers are those of the pixels with data, which are not
    kept.
    """
    geometry = make_geometry(cells=(2, 3), cell_size=10, start=(300, 40))
    bbox = Box.factory[300:315, 40:70]
    data = np.zeros((20, 30), bool)
    data[:15] = True
    data[:, 25:] = False
    overlap = DetectorOverlap.of_warp(geometry, bbox, data)
    assert overlap.bbox == overlap.detector_bbox == bbox
    assert np.allclose(overlap.overlap_fraction, [[1.0, 1.0, 0.5], [0.5, 0.5, 0.25]])
    assert np.array_equal(overlap.overlaps_center, [[True, True, False], [False, False, False]])
    assert not np.shares_memory(overlap.overlaps_center, data)
    assert np.allclose(overlap.x, [[44.5, 54.5, 64.5]] * 2)
    assert np.allclose(overlap.y, [[304.5] * 3, [314.5] * 3])
    assert overlap.polygon.area == bbox.area
