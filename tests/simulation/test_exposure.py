# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pixels of simulated exposures: sources, noise and flux scale."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from simulations import CLEAN, NO_SOURCES, ONE_DETECTOR, read, read_all, same_pixels, simulate

from lsst.daf.butler import Butler
from lsst.drp.restore.simulation.camera import SimulatedCamera, SimulatedVisit
from lsst.drp.restore.simulation.config import SimulationConfig
from lsst.drp.restore.simulation.exposure import draw_sources
from lsst.drp.restore.simulation.psf import SimulatedPsf
from lsst.drp.restore.simulation.sky import (
    star_catalog,
)
from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.images import DetectorFrame, SkyProjection
from lsst.images.psfs import GaussianPointSpreadFunction, PiffWrapper


@pytest.mark.parametrize("psf", ["piff", "kernel", "gaussian"])
def test_stars(butler: Butler, geometry: PatchGeometry, psf: str) -> None:
    """Noiseless stars are where and how bright the catalog says, through the
    stored WCS and PSF, and through neither of them.
    """
    x, y = (a.ravel() for a in np.meshgrid(np.arange(4, 200, 48.0), np.arange(4, 200, 48.0)))
    rng = np.random.default_rng(1)
    x, y = x + rng.random(x.size), y + rng.random(y.size)
    # As bright as possible without saturation.
    catalog = star_catalog(geometry, x, y, 1e5)
    simulate(butler, catalog=catalog, psf=psf, seeing_range=(0.5, 0.6), distortion=0.03, **CLEAN)
    sky = SkyCoord(catalog["ra"], catalog["dec"])
    n = 0
    for image in read_all(butler):
        assert isinstance(image.psf, GaussianPointSpreadFunction if psf == "gaussian" else PiffWrapper)
        # Astropy's own evaluation of the FITS header.
        there = image.sky_projection.as_fits_wcs(image.bbox).all_world2pix(sky.ra.deg, sky.dec.deg, 0)
        for x0, y0 in zip(*there, strict=True):
            if not (15 < x0 < 84 and 15 < y0 < 84):
                continue
            n += 1
            star = image.psf.compute_stellar_image(x=x0, y=y0)
            stamp = image.image[star.bbox.intersection(image.bbox)].array
            model = star[star.bbox.intersection(image.bbox)].array
            # Least squares for flux and shift.
            design = np.stack([model, *(-g for g in np.gradient(model))]).reshape(3, -1).T
            flux, dy, dx = np.linalg.lstsq(design, stamp.ravel(), rcond=None)[0]
            assert flux == pytest.approx(1e5, rel=1e-3)
            assert abs(dx / flux) < 2e-3 and abs(dy / flux) < 2e-3
            assert np.abs(stamp - 1e5 * model).max() < 2e-3 * 1e5 * model.max()
            # Sum and centroid within 12 pixels.
            box = image.image.array[round(y0) - 12 : round(y0) + 13, round(x0) - 12 : round(x0) + 13]
            offset = np.arange(-12, 13)
            assert box.sum() == pytest.approx(1e5, rel=4e-3)
            assert (box.sum(axis=0) @ offset) / box.sum() + round(x0) == pytest.approx(x0, abs=0.02)
            assert (box.sum(axis=1) @ offset) / box.sum() + round(y0) == pytest.approx(y0, abs=0.02)
    assert n >= 6


def test_noise(butler: Butler, geometry: PatchGeometry) -> None:
    """Noise has the variance that the image says, with photon noise."""
    catalog = star_catalog(geometry, [70.3, 130.6], [60.2, 140.7], [5e4, 8e4])
    options = {**CLEAN, **ONE_DETECTOR, "catalog": catalog, "n_visits": 2, "seeing_range": (0.7, 0.8)}
    summary = simulate(butler, "quiet", **options)
    simulate(butler, "noisy", **{**options, "noise": True})
    scaled, bright = [], []
    for quiet, noisy in zip(read_all(butler, "quiet"), read_all(butler, "noisy"), strict=True):
        np.testing.assert_array_equal(quiet.variance.array, noisy.variance.array)
        pull = (noisy.image.array - quiet.image.array) / np.sqrt(noisy.variance.array)
        scaled.append(pull.ravel())
        bright.append(pull[quiet.image.array > 200])
        row = summary.visits[summary.visits["visit"] == noisy.obs_info.visit_id][0]
        assert np.sqrt(noisy.variance.array.min()) == pytest.approx(row["sky_sigma"], rel=1e-4)
        # Poisson statistics: a nJy is so many electrons.
        photons = (noisy.variance.array - row["sky_sigma"] ** 2) * row["gain"]
        np.testing.assert_allclose(photons, quiet.image.array, atol=3e-5 * quiet.image.array.max())
    pulls = np.concatenate(scaled)
    assert pulls.std() == pytest.approx(1, abs=4 / np.sqrt(2 * pulls.size))
    assert pulls.mean() == pytest.approx(0, abs=4 / np.sqrt(pulls.size))
    sources = np.concatenate(bright)
    assert sources.size > 200
    assert sources.std() == pytest.approx(1, abs=4 / np.sqrt(2 * sources.size))
    assert len(set(summary.visits["sky_sigma"])) == len(set(summary.visits["gain"])) == 2


def test_noise_seed(butler: Butler) -> None:
    """Only the photon noise changes: not the cosmic rays, the defects or the
    sky that is left over.
    """
    options = {"psf": "gaussian", "detectors": (1, 1), "detector_size": 150, "cosmic_rays": 1000.0}
    images = {}
    for name, extra in {
        "first": {"noise_seed": 1},
        "again": {"noise_seed": 1},
        "second": {"noise_seed": 2},
        "plain": {},
        "quiet": {"noise": False, "noise_seed": 1},
        "plain quiet": {"noise": False},
    }.items():
        simulate(butler, name.replace(" ", "_"), **options, **extra)
        (images[name],) = read_all(butler, name.replace(" ", "_"))
    assert same_pixels(images["first"], images["again"])
    assert same_pixels(images["quiet"], images["plain quiet"])
    quiet = images["quiet"].image.array
    noise = {name: images[name].image.array - quiet for name in ("first", "second", "plain")}
    for name, pixels in noise.items():
        np.testing.assert_array_equal(images[name].mask.array, images["quiet"].mask.array)
        scaled = pixels / np.sqrt(images[name].variance.array)
        assert np.median(np.abs(scaled)) / 0.6745 == pytest.approx(1.0, abs=0.03)
    for a, b in (("first", "second"), ("first", "plain"), ("second", "plain")):
        unmasked = ~images["quiet"].mask.array.any(axis=-1)
        assert abs(np.corrcoef(noise[a][unmasked], noise[b][unmasked])[0, 1]) < 0.03


def test_depth(butler: Butler) -> None:
    """A star at the stated depth has a signal of 5 sigma in 0.7 arcsec."""
    options = {
        "sky_scatter": 0.0,
        "zero_point_scatter": 0.0,
        "seeing_range": (0.7, 0.7),
        "psf_variation": 0.0,
    }
    simulate(butler, catalog=NO_SOURCES, depth=25.0, psf="gaussian", **options, **ONE_DETECTOR)
    image = read(butler, 1, 0)
    kernel = image.psf.compute_kernel_image(x=0.0, y=0.0).array
    signal = 10 ** (0.4 * (31.4 - 25.0)) * np.sqrt(np.sum(kernel**2) / np.median(image.variance.array))
    assert signal == pytest.approx(5.0, rel=0.01)


def test_calibration_error(butler: Butler, geometry: PatchGeometry) -> None:
    """Visits can disagree about the flux of a star."""
    catalog = star_catalog(geometry, 60.0, 60.0, 5e4)
    options = {**CLEAN, **ONE_DETECTOR, "catalog": catalog, "n_visits": 4, "psf": "gaussian"}
    simulate(butler, calibration_error=0.02, **options)
    ratios = np.array([image.image.array.sum() for image in read_all(butler)]) / 5e4
    assert 0.004 < ratios.std() < 0.05


def test_sources_are_drawn_without_loss(geometry: PatchGeometry) -> None:
    config = SimulationConfig(skymap="field", psf="gaussian", **ONE_DETECTOR)
    camera = SimulatedCamera.fitting(config, geometry.patch.outer_bbox, 0.2)
    center = geometry.sky_projection.pixel_to_sky(x=100.0, y=100.0)
    visit = SimulatedVisit.draw(dataclasses.replace(config, dither_radius=0.0), 1, center)
    frame = DetectorFrame(instrument="SimCam", visit=1, detector=0, bbox=camera.bbox)
    projection = SkyProjection.from_fits_wcs(camera.wcs(visit, 0), frame, pixel_bounds=camera.bbox)
    psf = SimulatedPsf.draw(camera, visit, 0)
    shape = camera.bbox.shape
    catalog = star_catalog(geometry, [100.0, 110.0, 1e5], [90.0, 110.0, 0.0], [1e4, 3e3, 1e9])
    image = draw_sources(catalog, projection, psf, shape, loss=1e-5, faintest=np.inf)
    # The third star is far away.
    assert image.sum() == pytest.approx(1.3e4, rel=1e-4)
    assert image.min() >= 0.0
    assert not draw_sources(catalog[:0], projection, psf, shape, loss=1e-5, faintest=np.inf).any()
