# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the subtraction of the sky that is left: planted backgrounds."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from numpy.polynomial import chebyshev
from stacks import star_field

from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.subtract_sky import SubtractSkyConfig, SubtractSkyTask

SHAPE = (192, 256)


def make_stack(seed: int = 1, **kwargs) -> ExposureStack:
    """Stars of 5 to 5000 sigma, most of them found on the mean of six
    exposures.
    """
    arguments = dict(seed=seed, n=6, shape=SHAPE, n_stars=60, flux=(5.0, 5000.0))
    return star_field(**arguments | kwargs)[0]


def plant(stack: ExposureStack, seed: int = 1, amplitude: float = 0.2) -> np.ndarray:
    """Add a polynomial of second order to the good pixels of each exposure,
    and return its coefficients by the order in y and x.
    """
    rng = np.random.default_rng([seed, 1])
    coefficients = amplitude * rng.normal(size=(stack.n_exposures, 3, 3))
    coefficients[:, *np.nonzero(np.add.outer(range(3), range(3)) > 2)] = 0.0
    stack.image[:] += np.where(stack.good, surface(coefficients, stack.shape), 0.0)
    return coefficients


def surface(coefficients: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Evaluate polynomials on all pixels."""
    y, x = (np.linspace(-1, 1, size) for size in shape)
    return np.stack([chebyshev.chebgrid2d(y, x, c) for c in coefficients])


def subtract(stack: ExposureStack, **config):
    return SubtractSkyTask(config=SubtractSkyConfig(**config)).run(stack)


@pytest.mark.parametrize("amplitude", [0.05, 0.5])
def test_planted_backgrounds_are_recovered(amplitude: float) -> None:
    """From weaker than the noise can show in a pixel to stronger than it."""
    clean, stack = make_stack(), make_stack()
    planted = plant(stack, amplitude=amplitude)
    result = subtract(stack)
    assert [len(c) for c in result.coefficients] == [1] * 6
    # Six coefficients from some 20 000 pixels of noise 1.
    left = (result.stack.image - clean.image)[stack.good]
    assert np.sqrt(np.mean(left**2)) < 0.03
    assert abs(left.mean()) < 0.01
    np.testing.assert_allclose(np.concatenate(result.coefficients), planted, atol=0.05)
    expected = [
        np.sqrt(np.mean(level[good] ** 2))
        for level, good in zip(surface(planted, stack.shape), stack.good, strict=True)
    ]
    np.testing.assert_allclose(result.rms, expected, atol=0.03)


def test_light_of_sources_is_not_subtracted() -> None:
    """Without any background, on fields with half and with a fifth of their
    pixels free of stars: the level of the mean falls by less than a tenth of
    its noise per pixel, 0.4.
    """
    for n_stars in (60, 150):
        clean, stack = make_stack(2, n_stars=n_stars), make_stack(2, n_stars=n_stars)
        result = subtract(stack)
        lost = (clean.image - result.stack.image)[stack.good]
        assert clean.image[stack.good].mean() > 0.4
        assert abs(lost.mean()) < 0.03
        assert (result.rms < 0.06).all()


def test_detectors_have_their_own_background() -> None:
    clean, stack = make_stack(3), make_stack(3)
    gap = np.zeros(stack.image.shape, bool)
    gap[0, :, 120:136] = True
    # Dead columns do not divide a detector.
    gap[1, :, 60:64] = True
    clean, stack = clean.without(gap), stack.without(gap)
    stack.image[0, :, :120][stack.good[0, :, :120]] += 0.5
    stack.image[0, :, 136:][stack.good[0, :, 136:]] -= 0.5
    result = subtract(stack)
    assert [len(c) for c in result.coefficients] == [2, 1, 1, 1, 1, 1]
    assert result.rms[0] == pytest.approx(0.5, abs=0.02)
    left = (result.stack.image - clean.image)[0]
    assert abs(left[:, :120][stack.good[0, :, :120]].mean()) < 0.04
    assert abs(left[:, 136:][stack.good[0, :, 136:]].mean()) < 0.04


def test_cosmic_rays_do_not_matter() -> None:
    """Unmasked ones, bright, in one exposure."""
    clean, stack = make_stack(4), make_stack(4)
    planted = plant(stack, seed=4)
    rng = np.random.default_rng(4)
    hit = (rng.uniform(size=SHAPE) < 0.0005) & stack.good[2]
    stack.image[2][hit] += 1e4 * rng.uniform(size=hit.sum())
    left = (subtract(stack).stack.image - clean.image)[2][stack.good[2] & ~hit]
    assert np.sqrt(np.mean(left**2)) < 0.03
    assert np.abs(planted[2]).max() > 0.1


def test_only_good_pixels_change() -> None:
    stack = make_stack(5, bad_fraction=0.3)
    good, variance = stack.good.copy(), stack.variance.copy()
    plant(stack, seed=5)
    image = stack.image.copy()
    result = subtract(stack).stack
    assert not result.image[~good].any() and (result.image != image)[good].mean() > 0.99
    np.testing.assert_array_equal(result.good, good)
    np.testing.assert_array_equal(result.variance, variance)
    assert result.image.dtype == np.float32
    np.testing.assert_array_equal(stack.image, image)


def test_exposures_with_few_pixels_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    stack = make_stack(6)
    planted = plant(stack, seed=6)
    few = np.zeros(stack.image.shape, bool)
    few[1, 30:] = True
    few[1, :, 30:] = True
    few[4] = True
    stack = stack.without(few)
    with caplog.at_level(logging.WARNING):
        result = subtract(stack)
    messages = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(messages) == 2
    assert messages[0].startswith("visit 1 has too few") and messages[1].startswith("visit 4 has too few")
    np.testing.assert_array_equal(result.stack.masked_image()[[1, 4]], stack.masked_image()[[1, 4]])
    assert (result.rms[[1, 4]] == 0.0).all() and (result.rms[[0, 2, 3, 5]] > 0.0).all()
    assert [len(c) for c in result.coefficients] == [1, 0, 1, 1, 0, 1]
    np.testing.assert_allclose(result.coefficients[2][0], planted[2], atol=0.05)


def test_order_is_lowered_where_pixels_are_few() -> None:
    stack = make_stack(7)
    empty = np.median([np.count_nonzero(good) for good in stack.good])
    for pixels, terms in ((empty, 6), (5500, 3), (2500, 1)):
        beyond = np.zeros(stack.image.shape, bool)
        beyond[:, round(pixels / empty * stack.shape[0]) :] = True
        for coefficients in subtract(stack.without(beyond)).coefficients:
            assert np.count_nonzero(coefficients) == terms


def test_nothing_changes_when_disabled() -> None:
    stack = make_stack(8)
    plant(stack)
    before = stack.image.copy()
    result = subtract(stack, order=-1)
    np.testing.assert_array_equal(stack.image, before)
    assert result.stack is stack
    assert not result.rms.any()
    assert [len(c) for c in result.coefficients] == [0] * 6


def test_same_input_same_result() -> None:
    one, two = (subtract(make_stack(9)).stack for _ in range(2))
    np.testing.assert_array_equal(one.image, two.image)


def test_no_good_pixels_at_all() -> None:
    stack = make_stack(10)
    stack = stack.without(np.ones(stack.image.shape, bool))
    result = subtract(stack)
    assert not result.stack.masked_image().any() and not result.rms.any()
