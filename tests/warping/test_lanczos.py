# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the interpolation against sums written out in plain numpy."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from lsst.drp.restore.warping.lanczos import bad_weight, interpolate, interpolate_variance, squared_weight

SHAPE = (23, 31)


def reference_weights(x: float, y: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, columns and Lanczos-3 weights of all pixels that a position
    depends on, whether they are in the array or not.
    """
    rows, columns = np.mgrid[
        int(np.floor(y)) - 2 : int(np.floor(y)) + 4, int(np.floor(x)) - 2 : int(np.floor(x)) + 4
    ]

    def lanczos(t: np.ndarray) -> np.ndarray:
        return np.where(np.abs(t) < 3.0, np.sinc(t) * np.sinc(t / 3.0), 0.0)

    return rows, columns, lanczos(rows - y) * lanczos(columns - x)


def in_array(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return (rows >= 0) & (rows < SHAPE[0]) & (columns >= 0) & (columns < SHAPE[1])


def random_positions(
    rng: np.random.Generator, n: int = 300, margin: float = 3.0
) -> tuple[np.ndarray, np.ndarray]:
    return rng.uniform(margin, SHAPE[1] - 1 - margin, (n, 1)), rng.uniform(
        margin, SHAPE[0] - 1 - margin, (n, 1)
    )


def test_interpolation_is_the_normalized_sum():
    """Against the sum over the footprint; the library's table of weights is
    good to about 1 % of the pixel to pixel scatter.
    """
    rng = np.random.default_rng(1)
    data = rng.normal(size=SHAPE)
    x, y = random_positions(rng)
    values, norm = interpolate(data, np.ones(SHAPE, bool), x, y)
    expected = np.empty(x.shape)
    for k, (xk, yk) in enumerate(zip(x[:, 0], y[:, 0], strict=True)):
        rows, columns, weights = reference_weights(xk, yk)
        expected[k] = (weights * data[rows, columns]).sum() / weights.sum()
    assert values.dtype == np.float32
    assert np.abs(values - expected).max() < 0.03
    assert np.sqrt(np.mean((values - expected) ** 2)) < 0.006
    assert norm.min() > 0.98 and norm.max() < 1.02


def test_interpolation_of_bad_pixels_does_not_depend_on_their_values():
    rng = np.random.default_rng(2)
    data = rng.normal(10.0, 1.0, size=SHAPE)
    good = rng.uniform(size=SHAPE) > 0.1
    x, y = random_positions(rng)
    values, norm = interpolate(data, good, x, y)
    again, _ = interpolate(np.where(good, data, 1e6), good, x, y)
    assert np.array_equal(values, again)
    # With little bad weight, the norm hardly changes and a flat image is flat.
    flat, _ = interpolate(np.full(SHAPE, 7.0), good, x, y)
    assert np.allclose(flat[norm > 0.5], 7.0, rtol=1e-5)


def test_positions_outside_give_nothing():
    x = np.array([[np.nan, -50.0, 10.0, 1e9, 5.0]])
    y = np.array([[5.0, 5.0, np.nan, 5.0, SHAPE[0] + 3.0]])
    good = np.ones(SHAPE, bool)
    values, norm = interpolate(np.ones(SHAPE), good, x, y)
    assert not values.any() and not norm.any()
    assert (bad_weight(good, x, y) == 1.0).all()
    assert not interpolate_variance(np.ones(SHAPE), np.nan_to_num(x), np.nan_to_num(y), norm).any()


@hypothesis.given(
    st.floats(-0.5, SHAPE[1] - 0.51),
    st.floats(-0.5, SHAPE[0] - 0.51),
    st.integers(0, 2**32 - 1),
    st.floats(0.0, 0.2),
)
def test_bad_weight_is_the_sum_over_the_footprint(x, y, seed, fraction):
    good = np.random.default_rng(seed).uniform(size=SHAPE) >= fraction
    rows, columns, weights = reference_weights(x, y)
    inside = in_array(rows, columns)
    bad = np.ones(rows.shape, bool)
    bad[inside] = ~good[rows[inside], columns[inside]]
    nearest = (int(np.rint(y)), int(np.rint(x)))
    expected = 1.0 if not good[nearest] else np.abs(weights[bad]).sum()
    assert bad_weight(good, np.array([[x]]), np.array([[y]]))[0, 0] == pytest.approx(expected, abs=1e-6)


def test_variance_of_a_quadratic_is_exact():
    """The sum of squared weights times the variances, a parabola."""
    rng = np.random.default_rng(3)
    rows, columns = np.indices(SHAPE)
    variance = 50.0 + 1.5 * rows - columns + 0.2 * (rows - 10) ** 2 + 0.1 * (columns - 12) ** 2
    x, y = random_positions(rng)
    _, norm = interpolate(variance, np.ones(SHAPE, bool), x, y)
    result = interpolate_variance(variance, x, y, norm)
    for k, (xk, yk) in enumerate(zip(x[:, 0], y[:, 0], strict=True)):
        rows, columns, weights = reference_weights(xk, yk)
        expected = (weights**2 * variance[rows, columns]).sum() / norm[k, 0] ** 2
        assert result[k, 0] == pytest.approx(expected, rel=1e-4)


def test_squared_weight_is_the_sum_of_squares():
    x, y = random_positions(np.random.default_rng(6))
    ones = np.ones(SHAPE)
    _, norm = interpolate(ones, ones > 0, x, y)
    result = squared_weight(x, y, norm)
    for k, (xk, yk) in enumerate(zip(x[:, 0], y[:, 0], strict=True)):
        weights = reference_weights(xk, yk)[2]
        assert result[k, 0] == pytest.approx((weights**2).sum() / norm[k, 0] ** 2, rel=1e-4)
    assert not squared_weight(x, y, np.zeros_like(norm)).any()


def test_variance_beside_a_step_stays_positive():
    variance = np.full(SHAPE, 1.0)
    variance[:, 15:] = 1e4
    x, y = random_positions(np.random.default_rng(5))
    _, norm = interpolate(variance, np.ones(SHAPE, bool), x, y)
    assert interpolate_variance(variance, x, y, norm).min() > 0.2


def test_variance_near_a_star_is_right():
    """Where the variance is a narrow star's (2.4 pixels) on little sky."""
    rng = np.random.default_rng(4)
    rows, columns = np.indices(SHAPE)
    variance = 1.0 + 100.0 * np.exp(-0.5 * ((rows - 11.3) ** 2 + (columns - 14.8) ** 2))
    x, y = rng.uniform(12.0, 18.0, (300, 1)), rng.uniform(8.0, 15.0, (300, 1))
    _, norm = interpolate(variance, np.ones(SHAPE, bool), x, y)
    result = interpolate_variance(variance, x, y, norm)
    expected = np.empty(result.shape)
    for k, (xk, yk) in enumerate(zip(x[:, 0], y[:, 0], strict=True)):
        rows, columns, weights = reference_weights(xk, yk)
        expected[k] = (weights**2 * variance[rows, columns]).sum() / norm[k, 0] ** 2
    assert np.abs(result / expected - 1.0).max() < 0.05
