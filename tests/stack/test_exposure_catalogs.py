# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Noise and bright sources of an exposure."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from stacks import star_field

from lsst.drp.restore.stack.exposure_catalogs import measure_catalog, measure_noise


def test_noise_is_that_of_the_sky() -> None:
    rng = np.random.default_rng(2)
    variance = np.full((256, 256), 9.0)
    image = rng.normal(0.0, 3.0, variance.shape)
    usable = rng.uniform(size=image.shape) > 0.02
    correlation = np.ones(image.shape)
    noise = measure_noise(image, variance, usable, correlation)
    assert (noise.pixel, noise.flux) == pytest.approx((1.0, 1.0), abs=0.05)
    wrong = measure_noise(image, variance / 4.0, usable, correlation)
    assert (wrong.pixel, wrong.flux) == pytest.approx((2.0, 2.0), abs=0.1)
    # Correlated noise shows in fluxes only, unless it is stated.
    smooth = (image + np.roll(image, 1, axis=0)) / np.sqrt(2.0)
    correlated = measure_noise(smooth, variance, usable, correlation)
    assert correlated.pixel == pytest.approx(1.0, abs=0.05)
    assert correlated.flux == pytest.approx(np.sqrt(2.0 - 1.0 / 4.0), abs=0.1)
    stated = measure_noise(smooth, variance, usable, np.full(image.shape, 2.0))
    assert stated.flux < 1.05


def test_sources_are_the_bright_isolated_ones() -> None:
    stack, _, stars = star_field(n=2, shape=(192, 192), n_stars=16, flux=(3000.0, 9000.0))
    noise, catalog = measure_catalog(stack, 0)
    assert noise.pixel == pytest.approx(1.0, abs=0.1)
    assert len(catalog) >= 8
    assert (np.diff(catalog.flux) <= 0.3 * catalog.flux[:-1]).all()
    distance = np.hypot(catalog.positions[:, :1] - stars[:, 0], catalog.positions[:, 1:] - stars[:, 1])
    assert distance.min(axis=1).max() < 0.5
    # The kernel is that of the stars.
    assert np.median(catalog.width_ratio) == pytest.approx(1.0, abs=0.05)
    flux = stars[distance.argmin(axis=1), 2]
    ratio = catalog.flux / flux
    assert np.std(ratio) < 0.05 * np.median(ratio)


def test_nothing_is_measured_without_data() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    empty = stack.without(np.broadcast_to(np.array([True, False])[:, None, None], stack.good.shape))
    noise, catalog = measure_catalog(empty, 0)
    assert np.isnan(noise.pixel) and np.isnan(noise.flux) and len(catalog) == 0
    assert len(measure_catalog(dataclasses.replace(empty), 1)[1]) > 0
