# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Cosmic rays, defects and saturation of simulated exposures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from simulations import CLEAN, NO_SOURCES, ONE_DETECTOR, read, read_all, simulate

from lsst.daf.butler import Butler
from lsst.drp.restore.simulation.camera import SimulatedCamera, SimulatedVisit
from lsst.drp.restore.simulation.config import SimulationConfig
from lsst.drp.restore.simulation.detector_effects import CosmicRays, add_defects, bleed
from lsst.drp.restore.simulation.sky import (
    star_catalog,
)
from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.images import Box


def test_cosmic_rays(butler: Butler) -> None:
    """Cosmic rays are where images with and without them differ, and the mask
    has most, but not all of them.
    """
    options = {**CLEAN, **ONE_DETECTOR, "catalog": NO_SOURCES, "n_visits": 2}
    simulate(butler, "without", **options)
    summary = simulate(butler, "with", **{**options, "cosmic_rays": 1000.0, "unmasked_cosmic_rays": 0.3})
    expected = 1000 * 2 * 260**2 / 1e6
    masked, unmasked = summary.visits["masked"].sum(), summary.visits["unmasked"].sum()
    assert abs(masked + unmasked - expected) < 4 * np.sqrt(expected)
    assert abs(unmasked / (masked + unmasked) - 0.3) < 4 * np.sqrt(0.21 / expected)
    n_hit = n_missed = 0
    for without, image in zip(read_all(butler, "without"), read_all(butler, "with"), strict=True):
        hit = image.image.array - without.image.array > 0.5 * np.sqrt(image.variance.array)
        known = image.mask.get("COSMIC_RAY")
        np.testing.assert_array_equal(without.variance.array, image.variance.array)
        assert not np.any(known & ~(image.image.array > without.image.array))
        n_hit += hit.sum()
        n_missed += (hit & ~known).sum()
    assert 0.15 < n_missed / n_hit < 0.45
    # Tracks of several pixels.
    assert n_hit > 4 * (masked + unmasked)


def test_defects(butler: Butler) -> None:
    """Bad columns and hot pixels are masked, and the same in all visits."""
    options = {**CLEAN, "catalog": NO_SOURCES, "n_visits": 2, "bad_columns": 2.0, "hot_pixels": 1000.0}
    simulate(butler, detector_size=150, detectors=(2, 1), **options)
    n = 0
    for detector in range(2):
        first, second = (read(butler, visit, detector) for visit in (1, 2))
        bad = first.mask.get("BAD")
        np.testing.assert_array_equal(bad, second.mask.get("BAD"))
        # Without sources and noise only the defects are not zero.
        np.testing.assert_array_equal(bad, first.image.array != 0)
        n += bad.sum()
    assert n > 2 * 15


def test_saturation(butler: Butler, geometry: PatchGeometry) -> None:
    """A bright star is clipped and flagged, and its charge bleeds along the
    column without loss.
    """
    # 15.4 mag, on the optical axis of a camera of one detector.
    catalog = star_catalog(geometry, 99.8, 100.3, 10**6.4)
    options = {"detectors": (1, 1), "detector_size": 300, "dither_radius": 0.0, "rotations": (0.0, 0.0)}
    summary = simulate(butler, catalog=catalog, seeing_range=(0.6, 0.6), **options, **CLEAN)
    image = read(butler, 1, 0)
    saturated = image.mask.get("SATURATED")
    assert summary.visits["saturated"][0] == saturated.sum() > 20
    rows, columns = np.nonzero(saturated)
    assert np.ptp(rows) > 2 * np.ptp(columns)
    x, y = image.sky_projection.sky_to_pixel(SkyCoord(catalog["ra"], catalog["dec"]))
    assert abs(rows.mean() - y[0]) < 1.5 and abs(columns.mean() - x[0]) < 1.5
    assert image.image.array.max() == image.image.array[saturated].max()
    assert np.sum(image.image.array >= 0.999 * image.image.array.max()) > 10
    assert image.image.array[~saturated].max() < image.image.array.max()
    assert image.image.array.sum() == pytest.approx(10**6.4, rel=2e-3)
    # Nothing of it in the variance: source photons where they fell.
    assert image.variance.array.max() > 2 * image.variance.array[saturated].min()


def test_bleeding_conserves_charge() -> None:
    rng = np.random.default_rng(1)
    electrons = rng.uniform(0.0, 50.0, (41, 7))
    electrons[20, 3] = 1000.0
    held, saturated = bleed(electrons, 100.0)
    assert held.max() == 100.0
    np.testing.assert_allclose(held.sum(axis=0), electrons.sum(axis=0))
    # Only the column of the bright pixel changes, symmetrically about it.
    np.testing.assert_array_equal(np.delete(held, 3, axis=1), np.delete(electrons, 3, axis=1))
    rows = np.flatnonzero(saturated[:, 3])
    assert not np.delete(saturated, 3, axis=1).any()
    assert list(rows) == list(range(rows[0], rows[-1] + 1)) and 20 - rows[0] > 4 and rows[-1] - 20 > 4


def test_charge_leaves_the_detector_at_its_edges() -> None:
    electrons = np.zeros((5, 2))
    electrons[0, 0] = 1000.0
    held, saturated = bleed(electrons, 100.0)
    assert (held[:, 0] == 100.0).all() and saturated[:, 0].all()
    assert held.sum() == 500.0 and not held[:, 1].any()


def test_nothing_bleeds_below_the_full_well() -> None:
    electrons = np.random.default_rng(1).uniform(0.0, 99.0, (9, 9))
    held, saturated = bleed(electrons, 100.0)
    np.testing.assert_array_equal(held, electrons)
    assert not saturated.any()


def test_tracks_of_cosmic_rays() -> None:
    config = SimulationConfig(skymap="field", cosmic_rays=2000.0, unmasked_cosmic_rays=0.25)
    rays = CosmicRays.draw(config, np.random.default_rng(2), (300, 400))
    expected = 2000 * 0.12
    assert abs(rays.n_masked + rays.n_unmasked - expected) < 4 * np.sqrt(expected)
    np.testing.assert_array_equal(rays.electrons > 0, rays.masked | rays.unmasked)
    assert not (rays.masked & rays.unmasked).any()
    none = CosmicRays.draw(dataclasses.replace(config, cosmic_rays=0.0), np.random.default_rng(2), (300, 400))
    assert not none.electrons.any() and none.n_masked == none.n_unmasked == 0


def test_defects_are_those_of_the_detector() -> None:
    config = SimulationConfig(
        skymap="field", detectors=(2, 1), detector_size=100, bad_columns=3.0, hot_pixels=1000.0
    )
    camera = SimulatedCamera.fitting(config, Box.from_shape((200, 200)), 0.2)
    visits = [SimulatedVisit.draw(config, visit, SkyCoord(150.0, 2.0, unit="deg")) for visit in (1, 2)]
    images = [np.zeros((100, 100)) for _ in range(3)]
    first, again = (
        add_defects(camera, visit, 0, image) for visit, image in zip(visits, images[:2], strict=True)
    )
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, images[0] != 0)
    assert (add_defects(camera, visits[0], 1, images[2]) != first).any()
