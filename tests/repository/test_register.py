# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Dimension records and input collections of external exposures."""

from __future__ import annotations

import astropy.units as u
import pytest
from astropy.time import Time
from visit_image_examples import BBOX, BEGIN, make_image, make_wcs

from lsst.daf.butler import Butler, CollectionType
from lsst.drp.restore.repository.register import (
    define_input_collection,
    observing_night,
    register_instrument,
    register_visit,
    visit_timespan,
)
from lsst.drp.restore.warping.projections import sky_projection_from_wcs, sky_region
from lsst.images import DetectorFrame
from lsst.sphgeom import LonLat, UnitVector3d


@pytest.mark.parametrize(
    ("time", "night"), [("2024-03-02T11:59:00", 20240301), ("2024-03-02T12:01:00", 20240302)]
)
def test_night_begins_at_noon(time: str, night: int) -> None:
    assert observing_night(Time(time, scale="utc")) == night


def test_time_span() -> None:
    timespan = visit_timespan(BEGIN, 30.0)
    assert abs((timespan.begin - BEGIN).to_value(u.s)) < 1e-6
    assert (timespan.end - timespan.begin).to_value(u.s) == pytest.approx(30.0, abs=1e-6)


def test_existing_records_are_kept(repository: Butler) -> None:
    register_instrument(repository, "Cam", {4: "renamed", 5: "S5"}, {"r_1": "r", "z_1": "z"})
    names = {r.id: r.full_name for r in repository.query_dimension_records("detector", instrument="Cam")}
    assert names == {3: "S3", 4: "S4", 5: "S5"}
    with pytest.raises(ValueError, match="'r_1' of 'Cam' is registered with band 'r', not 'g'"):
        register_instrument(repository, "Cam", {}, {"r_1": "g"})


def test_visit_records(repository: Butler) -> None:
    (visit,) = repository.query_dimension_records("visit", instrument="Cam")
    assert visit.day_obs == 20240301  # the night began before midnight UTC
    assert visit.exposure_time == 30.0
    assert abs((visit.timespan.begin - BEGIN).to_value(u.s)) < 1e-6
    assert abs((visit.timespan.end - visit.timespan.begin).to_value(u.s) - 30.0) < 1e-6
    (record,) = repository.query_dimension_records("visit_detector_region", instrument="Cam", visit=17)
    wcs = make_wcs()
    for x, y, inside in [(-0.4, -0.4, True), (79.4, 59.4, True), (-0.8, 30.0, False), (40.0, 60.0, False)]:
        sky = wcs.pixel_to_world(x, y)
        assert record.region.contains(UnitVector3d(LonLat.fromDegrees(sky.ra.deg, sky.dec.deg))) == inside


def test_visit_grows_with_its_detectors(repository: Butler) -> None:
    adjacent = make_wcs()
    adjacent.wcs.crpix = (300.0, -300.0)
    frame = DetectorFrame(instrument="Cam", visit=17, detector=4, bbox=BBOX)
    region = sky_region(sky_projection_from_wcs(adjacent, frame), BBOX)
    arguments = dict(instrument="Cam", visit=17, begin=BEGIN, exposure_time=30.0)
    for _ in range(2):
        register_visit(repository, physical_filter="r_1", detector_regions={4: region}, **arguments)
    (visit,) = repository.query_dimension_records("visit", instrument="Cam")
    assert len(repository.query_dimension_records("visit_detector_region", instrument="Cam", visit=17)) == 2
    assert visit.region.contains(region)
    assert visit.region.contains(sky_region(make_image().sky_projection, BBOX))
    with pytest.raises(ValueError, match="Visit 17 of 'Cam' is registered with"):
        register_visit(repository, physical_filter="i_1", detector_regions={4: region}, **arguments)


def test_input_collection(repository: Butler) -> None:
    for child in ("run/a", "run/b", "run/c"):
        repository.collections.register(child)
    define_input_collection(repository, "inputs", ["run/b", "run/a"])
    define_input_collection(repository, "inputs", ["run/a", "run/c"])
    info = repository.collections.get_info("inputs")
    assert info.type is CollectionType.CHAINED
    assert list(info.children) == ["run/b", "run/a", "run/c"]
    with pytest.raises(ValueError, match="'run/a' is a RUN collection"):
        define_input_collection(repository, "run/a", ["run/b"])
