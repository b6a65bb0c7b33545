# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Simulated exposures and their truth in a real repository."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from simulations import CLEAN, NO_SOURCES, ONE_DETECTOR, read, same_pixels, simulate

from lsst.daf.butler import Butler
from lsst.drp.restore.simulation.config import SimulationConfig
from lsst.drp.restore.simulation.sky import (
    random_sky,
    star_catalog,
)
from lsst.drp.restore.warping.patch_geometry import PatchGeometry


def test_repository(butler: Butler, geometry: PatchGeometry) -> None:
    """Visits are found over the patch, images and truth are what they say."""
    summary = simulate(butler, n_visits=2)
    assert len(summary.visits) == 2
    with butler.query() as query:
        found = {
            (d["visit"], d["detector"])
            for d in query.join_dimensions(["visit", "detector", "patch"])
            .where("skymap='field' AND tract=0 AND patch=0 AND band='i' AND instrument='SimCam'")
            .data_ids(["visit", "detector", "patch"])
        }
    assert found == {(v, d) for v in (1, 2) for d in range(4)}
    image = read(butler, 2, 3)
    # 2 detectors and a gap of 20 pixels cover 125 % of 200 pixels.
    assert image.image.array.shape == (115, 115)
    assert image.image.unit == u.nJy and image.variance.unit == u.nJy**2
    assert image.band == "i" and image.obs_info.visit_id == 2
    assert image.obs_info.datetime_begin.tai.isot == "2025-11-21T02:00:00.000"
    record = butler.query_dimension_records("visit", instrument="SimCam", visit=2)[0]
    assert record.timespan.begin == image.obs_info.datetime_begin
    # The record's region is that of the pixels: the patch grid is found at
    # the same place by both.
    middle = image.sky_projection.pixel_to_sky(x=57.0, y=57.0)
    record = butler.query_dimension_records(
        "visit_detector_region", instrument="SimCam", visit=2, detector=3
    )[0]
    assert record.region.contains(np.array([middle.ra.rad]), np.array([middle.dec.rad])).all()
    # One collection has all that a pipeline reads.
    butler.get("tract_geometry", skymap="field", tract=0, collections="sim")
    where = {"skymap": "field", "tract": 0, "patch": 0, "band": "i", "collections": "sim"}
    truth = butler.get("truth_image", **where)
    assert truth.bbox == geometry.patch.outer_bbox and truth.unit == u.nJy
    catalog = butler.get("truth_catalog", **where)
    kinds, counts = np.unique(catalog["kind"], return_counts=True)
    assert dict(zip(kinds, counts, strict=True)) == summary.n_sources
    assert catalog["flux_nJy"].unit == u.nJy
    position = geometry.sky_projection.sky_to_pixel(SkyCoord(catalog["ra"], catalog["dec"]))
    np.testing.assert_allclose(catalog["x"], position.x, atol=1e-6)
    assert geometry.patch.outer_bbox.contains(x=np.array(catalog["x"]), y=np.array(catalog["y"])).all()


def test_deterministic(butler: Butler) -> None:
    """A seed gives the same pixels, whatever the number of visits."""
    two = {"detectors": (2, 1), "detector_size": 60, "galaxy_density": 0.2}
    simulate(butler, "a", n_visits=1, seed=7, **two)
    # Records of visit 1 must be the same, or this would raise.
    simulate(butler, "b", n_visits=2, seed=7, **two)
    for detector in range(2):
        first, second = (read(butler, 1, detector, name) for name in "ab")
        assert same_pixels(first, second)
        assert not np.array_equal(first.image.array, read(butler, 2, detector, "b").image.array)
    simulate(butler, "c", n_visits=1, seed=8, first_visit=101, **two)
    assert not np.array_equal(read(butler, 1, 0, "a").image.array, read(butler, 101, 0, "c").image.array)


def test_refusals(butler: Butler) -> None:
    """What would mix two simulations, or has no patch, is refused before
    anything is written.
    """
    one = {"detectors": (1, 1), "detector_size": 50, "catalog": NO_SOURCES}
    simulate(butler, "a", **one)
    with pytest.raises(ValueError, match="'a/run' already holds truth_catalog, truth_image, visit_image"):
        simulate(butler, "a", **one)
    with pytest.raises(ValueError, match="has another visit 1 of 'SimCam'; choose a first visit"):
        simulate(butler, "b", seed=1, **one)
    with pytest.raises(ValueError, match="no geometry of tract 0 of skymap 'other' in collection 'skymaps'"):
        simulate(butler, "b", skymap="other", **one)
    with pytest.raises(ValueError, match="in collection 'nowhere'; register the tract"):
        simulate(butler, "b", tract_collection="nowhere", **one)
    assert not butler.collections.query("b*")
    # With another ID or camera there is room for both.
    simulate(butler, "b", seed=1, first_visit=2, **one)
    simulate(butler, "c", seed=1, instrument="OtherCam", **one)


def test_truth_matches_exposures(butler: Butler, geometry: PatchGeometry) -> None:
    """Galaxies have the same flux and place in the truth and in exposures."""
    rng = np.random.default_rng(3)
    config = SimulationConfig(skymap="field", galaxy_magnitudes=(21.0, 25.0), bright_stars=0, star_density=0)
    catalog = random_sky(config, geometry, 15.0)
    catalog["position_angle"] = rng.uniform(0, 180, len(catalog)) * u.deg
    options = {"detectors": (1, 1), "detector_size": 500, "dither_radius": 0.0, "psf": "gaussian", **CLEAN}
    simulate(butler, catalog=catalog, distortion=0.0, psf_variation=0.0, **options)
    image = read(butler, 1, 0)
    truth = butler.get("truth_image", skymap="field", tract=0, patch=0, band="i", collections="sim").array
    total = catalog["flux_nJy"].sum()
    assert len(catalog) > 5
    assert image.image.array.sum() == pytest.approx(total, rel=2e-3)
    assert truth.sum() == pytest.approx(total, rel=2e-3)
    y, x = np.indices(truth.shape)
    sky = geometry.sky_projection.pixel_to_sky(
        x=np.array([(truth * x).sum() / truth.sum()]), y=np.array([(truth * y).sum() / truth.sum()])
    )
    pixels = image.image.array.astype(float)
    y, x = np.indices(pixels.shape)
    there = image.sky_projection.pixel_to_sky(
        x=np.array([(pixels * x).sum() / pixels.sum()]), y=np.array([(pixels * y).sum() / pixels.sum()])
    )
    assert sky.separation(there).arcsec[0] < 0.01


def test_galaxy_shape(butler: Butler, geometry: PatchGeometry) -> None:
    """A galaxy has its size and position angle on the sky in a rotated visit
    and in the truth.
    """
    catalog = star_catalog(geometry, 99.7, 100.4, 1e5)
    values = {"kind": "galaxy", "half_light_radius": 1.2, "sersic_n": 1.0, "axis_ratio": 0.4}
    for name, value in {**values, "position_angle": 25.0}.items():
        catalog[name] = [value]
    options = {**CLEAN, **ONE_DETECTOR, "dither_radius": 0.0, "seeing_range": (0.5, 0.5), "psf": "gaussian"}
    simulate(butler, catalog=catalog, rotations=(200.0, 200.0), **options)
    exposure = read(butler, 1, 0)
    truth = butler.get("truth_image", skymap="field", tract=0, patch=0, band="i", collections="sim")
    center = SkyCoord(catalog["ra"], catalog["dec"])
    # Root mean square along an axis of an exponential disc that ends at 4
    # half-light radii, by summing over radii.
    r = np.linspace(0, 4.8, 10001)
    scales = np.linspace(0.5, 1.0, 2001)
    halves = [np.sum((r * np.exp(-r / a))[r < 1.2]) / np.sum(r * np.exp(-r / a)) for a in scales]
    light = r * np.exp(-r / scales[np.argmin(np.abs(np.array(halves) - 0.5))])
    sigma = np.sqrt(np.sum(r**2 * light) / np.sum(light) / 2)
    # The width of the Gaussian PSF, which has the pixel in it, or of the
    # bilinear response.
    for image, pixels, width in (
        (exposure, exposure.image.array, 0.5 / 2.355),
        (truth, truth.array, 0.2 / np.sqrt(6)),
    ):
        y, x = np.indices(pixels.shape)
        sky = image.sky_projection.pixel_to_sky(
            x=x.ravel() + image.bbox.x.start, y=y.ravel() + image.bbox.y.start
        )
        east, north = (a.to_value(u.arcsec) for a in center[0].spherical_offsets_to(sky))
        weight = pixels.ravel().astype(float) / pixels.sum(dtype=float)
        assert abs(weight @ east) < 2e-3 and abs(weight @ north) < 2e-3
        offsets = np.stack([east, north])
        moments = (weight * offsets) @ offsets.T - width**2 * np.eye(2)
        (minor, major), vectors = np.linalg.eigh(moments)
        angle = np.rad2deg(np.arctan2(vectors[0, 1], vectors[1, 1])) % 180
        assert angle == pytest.approx(25.0, abs=0.3)
        assert np.sqrt(minor / major) == pytest.approx(0.4, abs=0.015)
        assert (minor * major) ** 0.25 == pytest.approx(sigma, rel=0.01)
