# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the mapping of pixels, against Astropy."""

from __future__ import annotations

import numpy as np
import pytest
from pixel_maps import BBOX, make_map, patch_wcs
from skies import detector_projection, make_geometry, tan_wcs, tpv_wcs

from lsst.drp.restore.warping.pixel_map import MAX_POSITION_ERROR, PixelMap, PixelMapError
from lsst.images import Box


@pytest.mark.parametrize("start", [(0, 0), (1000, 3000)])
@pytest.mark.parametrize("angle", [0.0, 37.0, 180.0])
def test_map_agrees_with_astropy(angle, start):
    """Astropy has its own implementation of the TPV projection."""
    geometry = make_geometry(cells=(10, 10), start=start)
    wcs = tpv_wcs(center=(140.0, 155.0), angle=angle)
    pixel_map = make_map(wcs, geometry=geometry)
    tile = Box.factory[start[0] + 20 : start[0] + 90, start[1] + 200 : start[1] + 260]
    x, y = pixel_map.positions(tile)
    grid = tile.meshgrid()
    center = (geometry.outer_bbox.x.center, geometry.outer_bbox.y.center)
    expected = wcs.world_to_pixel(tan_wcs(center=center).pixel_to_world(grid.x, grid.y))
    assert x.shape == tile.shape
    assert np.hypot(x - expected[0], y - expected[1]).max() < MAX_POSITION_ERROR


def test_map_of_a_single_pixel():
    geometry = make_geometry(cells=(10, 10))
    wcs = tan_wcs(center=(10.0, 20.0), angle=12.0)
    pixel = Box.factory[7:8, 250:251]
    pixel_map = PixelMap(geometry.sky_projection, detector_projection(wcs, BBOX), pixel, BBOX)
    x, y = pixel_map.positions(pixel)
    expected = wcs.world_to_pixel(patch_wcs().pixel_to_world(250, 7))
    assert np.allclose([x.item(), y.item()], [float(e) for e in expected], atol=1e-3)


def test_area_and_jacobian_are_the_derivatives():
    wcs = tpv_wcs(center=(140.0, 155.0), scale=0.26, angle=70.0)
    pixel_map = make_map(wcs)
    x, y = np.array([20.0, 150.0, 280.0]), np.array([270.0, 140.0, 15.0])
    jacobian = pixel_map.jacobian(x, y)
    step = 0.5
    for column, (dx, dy) in enumerate([(step, 0.0), (0.0, step)]):
        ahead, behind = pixel_map.exact(x + dx, y + dy), pixel_map.exact(x - dx, y - dy)
        assert np.allclose(jacobian[:, 0, column], (ahead[0] - behind[0]) / (2 * step), atol=1e-5)
        assert np.allclose(jacobian[:, 1, column], (ahead[1] - behind[1]) / (2 * step), atol=1e-5)
    area = pixel_map.area(BBOX)[y.astype(int), x.astype(int)]
    assert np.allclose(area, np.abs(np.linalg.det(jacobian)), rtol=1e-5)
    assert np.allclose(area, (0.2 / 0.26) ** 2, rtol=0.05)


def test_map_refines_its_grid_until_it_is_accurate():
    wcs = tpv_wcs(center=(140.0, 155.0))
    pixel_map = make_map(wcs, step=300.0, tolerance=1e-6)
    grid = BBOX.meshgrid()
    expected = wcs.world_to_pixel(patch_wcs().pixel_to_world(grid.x, grid.y))
    x, y = pixel_map.positions(BBOX)
    assert np.hypot(x - expected[0], y - expected[1]).max() < 1e-5


def test_map_that_cannot_be_followed_is_refused():
    with pytest.raises(PixelMapError, match="cannot be followed to 1e-15 pixels"):
        make_map(tpv_wcs(center=(140.0, 155.0)), tolerance=1e-15)
