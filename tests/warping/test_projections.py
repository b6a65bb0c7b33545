# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of sky projections, against Astropy."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from skies import detector_projection, tan_wcs, tpv_wcs

from lsst.drp.restore.warping.projections import pixel_scale, sky_projection_from_wcs, sky_region
from lsst.images import Box, DetectorFrame
from lsst.sphgeom import LonLat, UnitVector3d

BBOX = Box.from_shape((60, 80))
FRAME = DetectorFrame(instrument="Cam", visit=17, detector=3, bbox=BBOX)


def make_wcs(ctype: tuple[str, str] = ("RA---TAN", "DEC--TAN"), radesys: str = "ICRS") -> WCS:
    """Return a WCS in a celestial frame, whose reference point is not on the
    image.
    """
    wcs = tan_wcs(center=(400.0, -300.0), scale=0.25, angle=1.0)
    wcs.wcs.ctype = ctype
    if radesys:
        wcs.wcs.radesys = radesys
    wcs.wcs.set()
    return wcs


@pytest.mark.parametrize(
    "ctype,radesys,epsilon",
    [
        (("RA---TAN", "DEC--TAN"), "ICRS", 1e-6),
        (("RA---TAN", "DEC--TAN"), "FK5", 1e-5),
        (("RA---ZEA", "DEC--ZEA"), "FK4", 1e-3),
        (("GLON-TAN", "GLAT-TAN"), "", 1e-5),
        (("ELON-TAN", "ELAT-TAN"), "", 1e-3),
    ],
)
def test_wcs_of_any_frame(ctype, radesys, epsilon):
    wcs = make_wcs(ctype, radesys)
    projection = sky_projection_from_wcs(wcs, FRAME)
    x, y = np.array([0.0, 79.0, 40.0]), np.array([59.0, 3.0, 20.0])
    expected = wcs.pixel_to_world(x, y).icrs
    assert projection.pixel_to_sky(x=x, y=y).separation(expected).arcsec.max() < epsilon
    back = projection.sky_to_pixel(expected)
    np.testing.assert_allclose([back.x, back.y], [x, y], atol=4 * epsilon)


def test_wcs_with_distortion():
    header = make_wcs().to_header()
    header.update({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2})
    header.update({"A_2_0": 1e-5, "A_1_1": 4e-6, "B_0_2": -2e-5})
    sip = WCS(header)
    header = make_wcs().to_header()
    header.update({"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_0": 1e-4, "PV1_1": 1.001, "PV1_4": 0.05})
    header.update({"PV2_0": 0.0, "PV2_1": 1.0, "PV2_6": 0.04})
    tpv = WCS(header)
    x, y = np.array([0.0, 79.0, 40.0]), np.array([59.0, 3.0, 20.0])
    for wcs in (sip, tpv):
        distorted = wcs.pixel_to_world(x, y)
        assert distorted.separation(make_wcs().pixel_to_world(x, y)).arcsec.min() > 0.1
        projection = sky_projection_from_wcs(wcs, FRAME)
        assert projection.pixel_to_sky(x=x, y=y).separation(distorted).arcsec.max() < 1e-6


def test_wcs_refused():
    with pytest.raises(ValueError, match="not one of two celestial axes"):
        sky_projection_from_wcs(WCS(naxis=2), FRAME)
    swapped = WCS(naxis=2)
    swapped.wcs.ctype, swapped.wcs.crval = ("DEC--TAN", "RA---TAN"), (2.0, 150.0)
    with pytest.raises(ValueError, match="first axis of the WCS must be the longitude"):
        sky_projection_from_wcs(swapped, FRAME)


def contains(region, wcs: WCS, x: float, y: float) -> bool:
    sky = wcs.pixel_to_world(x, y)
    return region.contains(UnitVector3d(LonLat.fromDegrees(sky.ra.deg, sky.dec.deg)))


def test_region_has_the_pixels_to_their_edges():
    bbox = Box.factory[100:300, 1000:1180]
    wcs = tan_wcs(center=(1090.0, 200.0), angle=28.0)
    region = sky_region(detector_projection(wcs, bbox), bbox)
    for x, y, inside in [
        *((999.6, 99.6, True), (1179.4, 299.4, True), (1090.0, 200.0, True)),
        *((999.4, 200.0, False), (1179.6, 200.0, False), (1090.0, 99.4, False), (1090.0, 299.6, False)),
    ]:
        assert contains(region, wcs, x, y) == inside


def test_region_follows_distorted_edges():
    """The more points, the larger the hull."""
    bbox = Box.from_shape((2000, 2000))
    projection = detector_projection(tpv_wcs(center=(500.0, 300.0)), bbox)
    coarse, fine = (sky_region(projection, bbox, points_per_edge=n) for n in (2, 20))
    area = fine.getBoundingBox().getWidth().asRadians()
    assert len(fine.getVertices()) > len(coarse.getVertices()) == 4
    assert area >= coarse.getBoundingBox().getWidth().asRadians()


@pytest.mark.parametrize("scale", [0.168, 0.2])
def test_pixel_scale(scale):
    wcs = tan_wcs(center=(40.0, 30.0), scale=scale, angle=33.0)
    assert pixel_scale(detector_projection(wcs, BBOX), BBOX) == pytest.approx(scale, rel=1e-6)
