# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of dimension records and visit images made from plain arrays."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.time import Time
from astropy.wcs import WCS

from lsst.daf.butler import Butler, CollectionType
from lsst.drp.restore.instrument import ExternalInstrument
from lsst.drp.restore.repository.make_visit_image import polynomial_terms
from lsst.drp.restore.repository.register import (
    define_input_collection,
    kernel_psf,
    make_visit_image,
    put_visit_image,
    register_instrument,
    register_visit,
    sky_region,
)
from lsst.drp.restore.warping.projections import sky_projection_from_wcs
from lsst.images import Box, DetectorFrame, VisitImage
from lsst.images.psfs import GaussianPointSpreadFunction, PointSpreadFunction
from lsst.pipe.base import Instrument
from lsst.sphgeom import LonLat, UnitVector3d

BEGIN = Time("2024-03-02T03:04:05.5", scale="utc")
SHAPE = (60, 80)
BBOX = Box.from_shape(SHAPE)


def make_wcs(ctype: tuple[str, str] = ("RA---TAN", "DEC--TAN"), radesys: str = "ICRS") -> WCS:
    """Return a WCS of 0.25 arcsec pixels, slightly rotated and sheared."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ctype
    wcs.wcs.crval = (150.0, 2.0)
    wcs.wcs.crpix = (400.0, -300.0)
    wcs.wcs.cd = [[-7e-5, 1e-6], [2e-6, 7e-5]]
    if radesys:
        wcs.wcs.radesys = radesys
    wcs.wcs.set()
    return wcs


def make_image(psf: PointSpreadFunction | None = None, **kwargs: object) -> VisitImage:
    """Return a visit image with noise and one cosmic ray."""
    rng = np.random.default_rng(5)
    mask = np.zeros(SHAPE, bool)
    mask[7, 11] = True
    if psf is None:
        psf = GaussianPointSpreadFunction(1.7, bounds=BBOX, stamp_size=31)
    arguments = dict(
        image=rng.normal(size=SHAPE),
        variance=rng.uniform(1.0, 2.0, size=SHAPE),
        mask={"COSMIC_RAY": mask},
        wcs=make_wcs(),
        psf=psf,
        instrument="Cam",
        visit=17,
        detector=3,
        physical_filter="r_1",
        band="r",
        begin=BEGIN,
        exposure_time=30.0,
    )
    return make_visit_image(**arguments | kwargs)


@pytest.fixture
def butler(tmp_path):
    """Return a client of a repository with an instrument and one visit."""
    root = str(tmp_path / "repo")
    Butler.makeRepo(root)
    with Butler.from_config(root, writeable=True) as butler:
        register_instrument(butler, "Cam", {3: "S3", 4: "S4"}, {"r_1": "r", "i_1": "i"})
        register_visit(
            butler,
            instrument="Cam",
            visit=17,
            physical_filter="r_1",
            begin=BEGIN,
            exposure_time=30.0,
            detector_regions={3: sky_region(make_image().sky_projection, BBOX)},
        )
        yield butler


def test_instrument_is_found_by_name(butler):
    assert isinstance(Instrument.fromName("Cam", butler.registry), ExternalInstrument)
    (record,) = butler.query_dimension_records("instrument", instrument="Cam")
    assert len(record.class_name) <= 64
    ExternalInstrument().register(butler.registry)
    ExternalInstrument().register(butler.registry)
    assert isinstance(Instrument.fromName("External", butler.registry), ExternalInstrument)


def test_registering_more_keeps_what_is_there(butler):
    register_instrument(butler, "Cam", {4: "renamed", 5: "S5"}, {"r_1": "r", "z_1": "z"})
    names = {r.id: r.full_name for r in butler.query_dimension_records("detector", instrument="Cam")}
    assert names == {3: "S3", 4: "S4", 5: "S5"}
    with pytest.raises(ValueError, match="'r_1' of 'Cam' is registered with band 'r', not 'g'"):
        register_instrument(butler, "Cam", {}, {"r_1": "g"})


def test_visit_records(butler):
    (visit,) = butler.query_dimension_records("visit", instrument="Cam")
    assert visit.day_obs == 20240301  # the night began before midnight UTC
    assert visit.exposure_time == 30.0
    assert abs((visit.timespan.begin - BEGIN).to_value(u.s)) < 1e-6
    assert abs((visit.timespan.end - visit.timespan.begin).to_value(u.s) - 30.0) < 1e-6
    (record,) = butler.query_dimension_records("visit_detector_region", instrument="Cam", visit=17)
    wcs = make_wcs()
    for x, y, inside in [(-0.4, -0.4, True), (79.4, 59.4, True), (-0.8, 30.0, False), (40.0, 60.0, False)]:
        sky = wcs.pixel_to_world(x, y)
        assert record.region.contains(UnitVector3d(LonLat.fromDegrees(sky.ra.deg, sky.dec.deg))) == inside


def test_visit_grows_with_its_detectors(butler):
    beside = make_wcs()
    beside.wcs.crpix = (300.0, -300.0)
    frame = DetectorFrame(instrument="Cam", visit=17, detector=4, bbox=BBOX)
    region = sky_region(sky_projection_from_wcs(beside, frame), BBOX)
    arguments = dict(instrument="Cam", visit=17, begin=BEGIN, exposure_time=30.0)
    for _ in range(2):
        register_visit(butler, physical_filter="r_1", detector_regions={4: region}, **arguments)
    (visit,) = butler.query_dimension_records("visit", instrument="Cam")
    assert len(butler.query_dimension_records("visit_detector_region", instrument="Cam", visit=17)) == 2
    assert visit.region.contains(region)
    assert visit.region.contains(sky_region(make_image().sky_projection, BBOX))
    with pytest.raises(ValueError, match="Visit 17 of 'Cam' is registered with"):
        register_visit(butler, physical_filter="i_1", detector_regions={4: region}, **arguments)


def test_visit_image_survives_the_repository(butler):
    written = make_image()
    put_visit_image(butler, written, "run/a")
    read = butler.get("visit_image", instrument="Cam", visit=17, detector=3, collections="run/a")
    np.testing.assert_array_equal(read.image.array, written.image.array)
    np.testing.assert_array_equal(read.variance.array, written.variance.array)
    assert (read.unit, read.variance.unit) == (u.nJy, u.nJy**2)
    np.testing.assert_array_equal(np.argwhere(read.mask.get("COSMIC_RAY")), [[7, 11]])
    assert not read.mask.get("BAD").any()
    assert (read.band, read.physical_filter) == ("r", "r_1")
    assert read.obs_info.exposure_time == 30 * u.s
    assert abs((read.obs_info.datetime_begin - BEGIN).to_value(u.s)) < 1e-6
    assert (read.detector.id, read.detector.visit, read.detector.bbox) == (3, 17, BBOX)
    x, y = np.array([0.0, 79.0]), np.array([59.0, 3.0])
    sky = make_wcs().pixel_to_world(x, y)
    assert read.sky_projection.pixel_to_sky(x=x, y=y).separation(sky).arcsec.max() < 1e-6


def test_visit_image_refuses(butler):
    with pytest.raises(ValueError, match="No mask planes .'CR'.; there are"):
        make_image(mask={"CR": np.zeros(SHAPE, bool)})
    with pytest.raises(ValueError, match="differ in shape"):
        make_image(variance=np.ones((60, 79)))


def test_kernel_is_drawn_as_it_is(butler):
    kernel = np.random.default_rng(1).uniform(-0.01, 1.0, (25, 25))  # centroid and shape are arbitrary
    kernel[:, :5] *= 0.1
    kernel /= kernel.sum()
    put_visit_image(butler, make_image(kernel_psf(kernel, BBOX)), "run/a")
    psf = butler.get("visit_image.psf", instrument="Cam", visit=17, detector=3, collections="run/a")
    assert psf.bounds == BBOX
    np.testing.assert_allclose(psf.compute_kernel_image(x=30.0, y=41.0).array, kernel, atol=1e-9)
    np.testing.assert_allclose(psf.compute_stellar_image(x=30.0, y=41.0).array, kernel, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_polynomial_of_kernels(butler, order):
    rng = np.random.default_rng(order)
    terms = polynomial_terms(order)
    kernels = rng.uniform(-0.05, 0.05, (len(terms), 9, 9))
    kernels[0] += 1.0
    origin, scale = (40.0, 30.0), (40.0, 25.0)
    put_visit_image(butler, make_image(kernel_psf(kernels, BBOX, origin=origin, scale=scale)), "run/a")
    psf = butler.get("visit_image.psf", instrument="Cam", visit=17, detector=3, collections="run/a")
    for x, y in [(0.0, 0.0), (70.0, 10.0), (10.0, 55.0)]:
        a, b = (x - origin[0]) / scale[0], (y - origin[1]) / scale[1]
        expected = sum(k * a**i * b**j for k, (i, j) in zip(kernels, terms, strict=True))
        np.testing.assert_allclose(
            psf.compute_kernel_image(x=x, y=y).array, expected / expected.sum(), atol=1e-9
        )


def test_kernel_shapes_refused():
    with pytest.raises(ValueError, match="square with odd size"):
        kernel_psf(np.ones((24, 24)), BBOX)
    with pytest.raises(ValueError, match="2 kernels are not the coefficients"):
        kernel_psf(np.ones((2, 25, 25)), BBOX)


def test_input_collection(butler):
    for child in ("run/a", "run/b", "run/c"):
        butler.collections.register(child)
    define_input_collection(butler, "inputs", ["run/b", "run/a"])
    define_input_collection(butler, "inputs", ["run/a", "run/c"])
    info = butler.collections.get_info("inputs")
    assert info.type is CollectionType.CHAINED
    assert list(info.children) == ["run/b", "run/a", "run/c"]
    with pytest.raises(ValueError, match="'run/a' is a RUN collection"):
        define_input_collection(butler, "run/a", ["run/b"])
