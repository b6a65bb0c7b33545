# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sources of images whose truth is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.ndimage
from source_fields import FWHM, SHAPE, SIGMA, make_images, star_grid

from lsst.drp.restore.sources.find_sources import FindSourcesConfig, FindSourcesTask, FoundSources
from lsst.drp.restore.sources.source_image import SourceImage


def find(sharp: SourceImage | None, measured: SourceImage, **settings: float) -> FoundSources:
    config = FindSourcesConfig()
    config.update(**settings)
    return FindSourcesTask(config=config).run(sharp, measured)


def nearest(stars: np.ndarray, found: FoundSources) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of the source nearest to each star and its distance."""
    distance = np.hypot(
        stars[:, [0]] - found.photometry.x[np.newaxis], stars[:, [1]] - found.photometry.y[np.newaxis]
    )
    return distance.argmin(axis=1), distance.min(axis=1)


def test_positions_fluxes_and_errors_of_stars() -> None:
    pulls, offsets = [], []
    for seed in range(3):
        stars = star_grid((10, 300), seed=seed)
        found = find(*make_images(stars, seed=seed))
        assert len(found) == len(stars)
        assert found.sharp_peak.all()
        index, distance = nearest(stars, found)
        photometry = found.photometry
        assert len(set(index)) == len(stars)
        bright = stars[:, 2] > 30 * SIGMA
        # The limit of a fit is FWHM / 2.35 / S/N, 0.05 pixels or less here.
        assert np.sqrt(np.mean(distance[bright] ** 2)) < 0.1
        pulls.append((photometry.flux[index] - stars[:, 2]) / photometry.flux_err[index])
        offsets.append((photometry.x[index] - stars[:, 0]) / photometry.x_err[index])
        offsets.append((photometry.y[index] - stars[:, 1]) / photometry.y_err[index])
        # A background fitted together makes errors a bit larger.
        np.testing.assert_allclose(photometry.flux_err, SIGMA, rtol=0.06)
        assert (photometry.flux_err > SIGMA).all()
        assert np.median(photometry.chi2) == pytest.approx(0.97, abs=0.08)
        assert found.fwhm == pytest.approx(FWHM, rel=0.02)
        well = photometry.flux > 50 * SIGMA
        widths = found.moments[well, :2] / found.psf_moments[well, :2]
        assert np.median(widths) == pytest.approx(1.0, abs=0.05)
        assert np.std(widths) < 0.1
        np.testing.assert_allclose(found.aperture_flux[well], photometry.flux[well], rtol=0.1, atol=4 * SIGMA)
    pull, offset = np.concatenate(pulls), np.concatenate(offsets)
    assert abs(np.mean(pull)) < 0.25
    assert np.std(pull) == pytest.approx(1.0, abs=0.15)
    assert np.std(offset) == pytest.approx(1.0, abs=0.15)


def test_complete_and_without_false_sources() -> None:
    n_found = 0
    for seed in range(3):
        stars = star_grid((7.5, 9.0), seed=seed)
        found = find(*make_images(stars, seed=seed))
        distance = nearest(stars, found)[1]
        n_found += np.count_nonzero(distance < 2)
        assert len(found) == np.count_nonzero(distance < 2)
    assert n_found >= 0.95 * 3 * len(stars)


@pytest.mark.parametrize("seed", range(4))
def test_noise_has_no_sources_however_sharp_it_looks(seed: int) -> None:
    sharp, measured = make_images(np.empty((0, 3)), seed=seed)
    # A non-negative restoration of noise.
    rng = np.random.default_rng(seed)
    spikes = np.where(rng.uniform(size=SHAPE) < 0.02, rng.exponential(3 * SIGMA, SHAPE), 0.0)
    assert len(find(dataclasses.replace(sharp, image=spikes.astype(np.float32)), measured)) == 0


def test_blends_are_split_on_the_sharp_image_and_fitted_together() -> None:
    places = star_grid((60, 120))
    rng = np.random.default_rng(8)
    angle = rng.uniform(0, np.pi, len(places))
    # Closer than the seeing.
    step = 0.5 * 3.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    one, two = places.copy(), places.copy()
    one[:, :2] -= step
    two[:, :2] += step
    two[:, 2] *= 0.6
    stars = np.concatenate([one, two])
    sharp, measured = make_images(stars)
    together = find(sharp, measured)
    assert len(together) == len(stars)
    index, distance = nearest(stars, together)
    assert len(set(index)) == len(stars)
    assert np.sqrt(np.mean(distance**2)) < 0.2
    footprint = together.footprint[index]
    np.testing.assert_array_equal(footprint[: len(places)], footprint[len(places) :])
    photometry = together.photometry
    pull = (photometry.flux[index] - stars[:, 2]) / photometry.flux_err[index]
    assert abs(np.mean(pull)) < 0.3
    assert 0.7 < np.std(pull) < 1.3
    # Neighbors make fluxes less certain.
    assert (photometry.flux_err > 1.1 * SIGMA).all()
    assert (photometry.n_fit == 2).all()
    # The blurred image alone does not show that they are two.
    assert len(find(None, measured)) < 1.2 * len(places)


@pytest.mark.parametrize(("error", "number"), [(0.02, 2), (0.5, 1)])
def test_blends_are_split_if_the_stated_variance_makes_the_dip_significant(error: float, number: int) -> None:
    stars = star_grid((60, 120))
    other = stars + (2.6, 0.0, 0.0)
    sharp, measured = make_images(np.concatenate([stars, other]))
    # Both images are the same, but not what is known about them.
    sharp = dataclasses.replace(sharp, variance=(error * sharp.image) ** 2 + np.float32(0.01))
    found = find(sharp, measured, peakSigma=1.0, splitSigma=1.0)
    middle = stars + (1.3, 0.0, 0.0)
    distance = np.hypot(
        middle[:, [0]] - found.photometry.x[np.newaxis], middle[:, [1]] - found.photometry.y[np.newaxis]
    )
    np.testing.assert_array_equal(np.count_nonzero(distance < 4, axis=1), number)
    assert len(found) == number * len(stars)


def test_artifacts_around_bright_stars_are_no_sources() -> None:
    stars = np.array([[120.3, 90.2, 20000 * SIGMA], [60.0, 45.0, 40 * SIGMA], [131.0, 96.0, 300 * SIGMA]])
    sharp, measured = make_images(stars)
    # A broken ring in the wings: far above the noise, far below the star.
    y, x = np.indices(SHAPE) - np.array([90.2, 120.3]).reshape(2, 1, 1)
    height = 10 * SIGMA * np.max(sharp.kernels) * (1 + np.cos(3 * np.arctan2(y, x)))
    ring = np.where(abs(np.hypot(x, y) - 8) < 1.5, height, 0)
    sharp = dataclasses.replace(sharp, image=(sharp.image + ring).astype(np.float32))
    # On the measured image, too, as the PSF is not exact.
    wings = 0.3 * scipy.ndimage.gaussian_filter(ring, 1.3)
    measured = dataclasses.replace(measured, image=(measured.image + wings).astype(np.float32))
    found = find(sharp, measured)
    assert len(found) == len(stars)
    assert nearest(stars, found)[1].max() < 0.2
    assert len(find(sharp, measured, minFraction=0.0)) > len(stars)


def test_source_that_only_the_measured_image_shows() -> None:
    stars = star_grid((20, 40))
    sharp, measured = make_images(stars)
    dark = dataclasses.replace(sharp, image=np.zeros(SHAPE, np.float32))
    found = find(dark, measured)
    assert len(found) == len(stars)
    assert not found.sharp_peak.any()
    assert nearest(stars, found)[1].max() < 0.5


def test_galaxies_have_aperture_fluxes_and_shapes() -> None:
    galaxies = star_grid((200, 400))
    found = find(*make_images(galaxies, galaxy=2.0))
    index, distance = nearest(galaxies, found)
    # None is split.
    assert len(found) == len(galaxies)
    assert distance.max() < 0.2
    aperture = found.aperture_flux[index] / galaxies[:, 2]
    # A tenth of the flux is outside, or in the ring around the aperture.
    assert 0.85 < np.median(aperture) < 1.0
    assert (found.photometry.flux[index] < 0.8 * galaxies[:, 2]).all()
    assert (found.moments[index, :2] > 1.3 * found.psf_moments[index, :2]).all()
    assert (found.photometry.chi2[index] > 2).all()


def test_missing_pixels() -> None:
    stars = star_grid((100, 200))
    stars[9, 2] *= 100
    sharp, measured = make_images(stars)
    saturated, cut = stars[9], stars[20]
    image, variance = measured.image.copy(), measured.variance.copy()
    x, y = np.rint(saturated[:2]).astype(int)
    image[y - 3 : y + 5, x - 4 : x + 4] = np.nan
    # The restoration of a core without data.
    ring = sharp.image.copy()
    ring[y - 1 : y + 2, x - 1 : x + 2] = 0.0
    sharp = dataclasses.replace(sharp, image=ring)
    x, y = np.rint(cut[:2]).astype(int)
    image[:, x + 3 : x + 6] = np.nan
    # Variance without data, as at the edge of an exposure.
    variance[0] = np.nan
    found = find(sharp, dataclasses.replace(measured, image=image, variance=variance))
    index, distance = nearest(stars, found)
    assert len(found) == len(stars)
    assert distance.max() < 0.3
    photometry = found.photometry
    # The wings tell how bright the saturated star is.
    assert photometry.flux[index[9]] == pytest.approx(saturated[2], rel=0.02)
    assert photometry.flux_err[index[9]] > 2 * SIGMA
    # A hole makes the fitted flux less certain, but not biased.
    k = index[20]
    assert abs(photometry.flux[k] - cut[2]) < 4 * photometry.flux_err[k]
    assert photometry.flux_err[k] > 1.02 * SIGMA
    assert np.isnan(found.aperture_flux[k])


@pytest.mark.parametrize("what", ["image", "variance", "kernels", "sharp"])
def test_nothing_to_find_sources_in(what: str) -> None:
    sharp, measured = make_images(star_grid((100, 200)))
    if what == "sharp":
        # The measured image can do without.
        found = find(dataclasses.replace(sharp, image=np.full(SHAPE, np.nan, np.float32)), measured)
        assert len(found) == 48
        return
    nothing = np.full_like(getattr(measured, what), np.nan)
    found = find(sharp, dataclasses.replace(measured, **{what: nothing}))
    assert len(found) == 0
    assert found.moments.shape == (0, 3)
    assert np.isnan(found.fwhm)


def test_results_repeat() -> None:
    images = make_images(star_grid((8, 100)))
    first, second = find(*images), find(*images)
    np.testing.assert_array_equal(first.photometry.flux, second.photometry.flux)
    np.testing.assert_array_equal(first.moments, second.moments)
