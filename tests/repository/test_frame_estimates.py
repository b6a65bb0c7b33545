# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Background, noise and saturation of simulated images."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from lsst.drp.restore.repository.frame_estimates import estimate_frame, estimate_sky

SHAPE = (300, 280)
GOOD = np.ones(SHAPE, dtype=bool)


def sources(seed: int = 1, n: int = 60, flux: float = 4e3) -> np.ndarray:
    """Return round stars of various fluxes, without noise."""
    rng = np.random.default_rng(seed)
    image = np.zeros(SHAPE)
    for x, y, value in zip(
        rng.integers(5, 275, n), rng.integers(5, 295, n), flux * rng.exponential(size=n), strict=True
    ):
        image[y, x] += value
    return scipy.ndimage.gaussian_filter(image, 1.6)


def test_white_noise() -> None:
    rng = np.random.default_rng(2)
    image = sources() + rng.normal(0.0, 5.0, SHAPE)
    estimate = estimate_frame(image, GOOD)
    assert estimate.sigma == pytest.approx(5.0, rel=0.05)
    assert estimate.sigma * np.sqrt(estimate.correlation) == pytest.approx(5.0, rel=0.05)
    assert (estimate.background, estimate.gain, estimate.saturation) == (0.0, 0.0, np.inf)
    np.testing.assert_array_equal(estimate.image, image)
    assert not estimate.saturated.any()


def test_correlated_noise() -> None:
    rng = np.random.default_rng(3)
    white = rng.normal(0.0, 5.0, SHAPE)
    # The mean of 2x2 pixels: a quarter of the variance, four times the correlation.
    smooth = scipy.ndimage.uniform_filter(white, 2)
    estimate = estimate_frame(smooth + sources(), GOOD)
    assert estimate.sigma == pytest.approx(2.5, rel=0.06)
    # The filter passes a band in which the mean has 0.6 to 0.8 of its power at zero.
    assert 2.2 < estimate.correlation < 4.2


def test_background_is_subtracted_where_it_is_significant() -> None:
    rng = np.random.default_rng(4)
    y, x = np.indices(SHAPE)
    sky = 800.0 + 0.1 * x - 0.05 * y
    signal = sources()
    image = signal + sky + rng.normal(0.0, 20.0, SHAPE)
    estimate = estimate_frame(image, GOOD)
    assert estimate.background == 93.0
    empty = scipy.ndimage.maximum_filter(signal, 15) < 0.1
    assert abs((estimate.image - signal)[empty].mean()) < 0.1 * 20.0
    # The sky's photons are those of the noise.
    assert estimate.gain == pytest.approx(800.0 / 400.0, rel=0.15)
    assert estimate_frame(image, GOOD, background=0.0).background == 0.0
    assert estimate_frame(image, GOOD, background=64.0).background == 64.0
    # Images with a variance are sky-subtracted.
    given = estimate_frame(image, GOOD, variance=np.full(SHAPE, 400.0))
    assert given.background == 0.0
    np.testing.assert_array_equal(given.variance, 400.0)


def test_photons_of_sources() -> None:
    rng = np.random.default_rng(5)
    signal = sources(flux=3e4)
    truth = 25.0 + signal / 2.0
    image = signal + rng.normal(size=SHAPE) * np.sqrt(truth)
    estimate = estimate_frame(image, GOOD, gain=2.0)
    bright = signal > 300.0
    ratio = np.sqrt(estimate.variance / truth)
    assert np.median(ratio[bright]) == pytest.approx(1.0, abs=0.03)
    assert np.median(ratio[~bright]) == pytest.approx(1.0, abs=0.03)
    # Without a gain, no photons.
    assert estimate_frame(image, GOOD).variance.max() < 60.0


def test_saturation() -> None:
    rng = np.random.default_rng(6)
    image = sources(flux=3e4) + rng.normal(0.0, 5.0, SHAPE)
    stars = np.zeros(SHAPE)
    stars[100, 100] = stars[200, 50] = 3e6
    image = np.minimum(image + scipy.ndimage.gaussian_filter(stars, 1.6), 2e4 + rng.normal(0, 50, SHAPE))
    image[30, 40] = 9e4  # a hot pixel
    estimate = estimate_frame(image, GOOD)
    assert 1.7e4 < estimate.saturation < 1.95e4
    assert estimate.saturated[100, 100] and estimate.saturated[200, 50]
    assert estimate.saturated.sum() < 120
    given = estimate_frame(image, GOOD, saturation=5e4)
    assert given.saturation == 5e4 and np.argwhere(given.saturated).tolist() == [[30, 40]]


def test_peaks_of_stars_are_no_plateaus() -> None:
    rng = np.random.default_rng(7)
    stars = np.zeros(SHAPE)
    stars[100, 100] = 3e6
    for sigma in (1.2, 2.0, 4.5):
        image = scipy.ndimage.gaussian_filter(stars, sigma) + rng.normal(0.0, 5.0, SHAPE)
        assert estimate_frame(image, GOOD).saturation == np.inf


def test_bad_pixels_are_ignored() -> None:
    rng = np.random.default_rng(8)
    image = rng.normal(0.0, 5.0, SHAPE)
    good = GOOD.copy()
    good[:, 100:140] = False
    image[~good] = 1e6
    sky = estimate_sky(image, good)
    assert abs(sky.level).max() < 1.0 and sky.sigma == pytest.approx(5.0, rel=0.1)
    image[~good] = np.nan
    assert estimate_frame(image, good).sigma == pytest.approx(5.0, rel=0.05)
