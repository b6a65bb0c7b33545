# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The simulated camera, and pointing and conditions of its visits."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from simulations import NO_SOURCES, read_all, simulate

from lsst.daf.butler import Butler
from lsst.drp.restore.simulation.camera import SimulatedCamera, SimulatedVisit
from lsst.drp.restore.simulation.config import SimulationConfig
from lsst.images import Box


def test_chip_gaps(butler: Butler) -> None:
    """The detectors of a visit do not overlap, and each has its own WCS."""
    simulate(butler, catalog=NO_SOURCES, detector_gap=12, distortion=0.02, detector_size=100)
    images = read_all(butler)
    edge = np.arange(100.0)
    for other in (1, 2):
        side = {1: {"x": 99.5 + 0 * edge, "y": edge}, 2: {"x": edge, "y": 99.5 + 0 * edge}}[other]
        there = images[other].sky_projection.sky_to_pixel(images[0].sky_projection.pixel_to_sky(**side))
        gap = -0.5 - (there.x if other == 1 else there.y)
        assert np.all((gap > 6) & (gap < 18)), gap
    scales = [
        np.sqrt(abs(np.linalg.det(np.array(image.sky_projection.as_fits_wcs(image.bbox).pixel_scale_matrix))))
        for image in images
    ]
    assert all(abs(scale * 3600 - 0.2) < 0.002 for scale in scales)
    # Not linear: a detector's diagonals do not cross at its middle.
    corners = images[0].sky_projection.pixel_to_sky(
        x=np.array([0.0, 49.5, 99.0]), y=np.array([0.0, 49.5, 99.0])
    )
    halves = corners[:2].separation(corners[1:]).arcsec
    assert abs(halves[0] / halves[1] - 1) > 0.005


def make_camera(**options: object) -> SimulatedCamera:
    config = SimulationConfig(skymap="field", **options)
    return SimulatedCamera.fitting(config, Box.factory[0:200, 0:300], 0.2)


def test_camera_is_wider_than_the_patch() -> None:
    camera = make_camera(detectors=(3, 2), detector_gap=20)
    # 2 detectors and a gap of 20 pixels cover 125 % of 300 pixels.
    assert camera.size == round((1.25 * 300 - 20) / 2)
    assert camera.bbox == Box.factory[0 : camera.size, 0 : camera.size]
    assert camera.detectors == {0: "S00", 1: "S01", 2: "S02", 3: "S10", 4: "S11", 5: "S12"}
    assert make_camera(detector_size=64).size == 64
    coarse = make_camera(detectors=(1, 1), pixel_scale=0.4)
    assert coarse.size == round(1.25 * 300 / 2)


def test_all_that_a_visit_sees_is_within_the_field() -> None:
    camera = make_camera(distortion=0.02, dither_radius=30.0)
    center = SkyCoord(150.0, 2.0, unit="deg")
    for visit_id in range(1, 6):
        visit = SimulatedVisit.draw(camera.config, visit_id, center)
        assert visit.boresight.separation(center).arcsec <= 30.0
        for detector in camera.detectors:
            wcs = camera.wcs(visit, detector)
            corners = wcs.pixel_to_world([0, camera.size, 0, camera.size], [0, 0, camera.size, camera.size])
            assert corners.separation(center).arcsec.max() < camera.field_radius


def test_optical_axis_is_where_the_wcs_says() -> None:
    camera = make_camera(rotations=(30.0, 30.0))
    visit = SimulatedVisit.draw(camera.config, 1, SkyCoord(150.0, 2.0, unit="deg"))
    for detector in camera.detectors:
        (x, y), turn = camera.focal_plane(detector)
        wcs = camera.wcs(visit, detector)
        assert wcs.pixel_to_world(x, y).separation(visit.boresight).arcsec < 1e-6
        np.testing.assert_allclose(turn @ turn.T, np.eye(2), atol=1e-12)
        # North is at the stated angle from the y axis, within the detector's turn.
        up = wcs.pixel_to_world(x, y + 1.0)
        assert visit.boresight.position_angle(up).deg == pytest.approx(30.0, abs=0.5)


def test_conditions_of_visits() -> None:
    config = SimulationConfig(
        skymap="field", seeing_range=(0.6, 0.7), sky_scatter=0.0, zero_point_scatter=0.0
    )
    center = SkyCoord(150.0, 2.0, unit="deg")
    visits = [SimulatedVisit.draw(config, visit, center) for visit in range(1, 9)]
    assert all(0.6 <= visit.seeing <= 0.7 for visit in visits)
    assert len({visit.seeing for visit in visits}) == 8
    # Without scatter all have the same depth.
    assert len({visit.sky_sigma for visit in visits}) == 1
    assert (visits[1].begin - visits[0].begin).to_value(u.day) == pytest.approx(1.0)
    again = SimulatedVisit.draw(config, 3, center)
    assert (again.seeing, again.rotation) == (visits[2].seeing, visits[2].rotation)
