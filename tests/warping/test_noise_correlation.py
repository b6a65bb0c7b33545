# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the measurement of correlated noise."""

from __future__ import annotations

import numpy as np
import pytest

from lsst.drp.restore.warping.lanczos import interpolate, interpolate_variance, squared_weight
from lsst.drp.restore.warping.noise_correlation import measure_correlation


@pytest.mark.parametrize(
    ("scale", "angle", "phase"), [(1.0, 0.0, 0.0), (1.0, 0.0, 0.5), (1.0, 30.0, 0.2), (0.77, 10.0, 0.3)]
)
def test_correlation_of_interpolated_noise(scale: float, angle: float, phase: float) -> None:
    """The measured correlation is the one that the weights of the
    interpolation have.
    """
    rng = np.random.default_rng(17)
    detector = rng.normal(size=(700, 700)).astype(np.float32)
    y, x = np.indices((400, 400)) - 200.0
    c, s = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    x, y = c * x - s * y + 350.0 + phase, s * x + c * y + 350.0 + phase
    good = np.ones(detector.shape, bool)
    image, norm = interpolate(detector, good, x, y)
    variance = interpolate_variance(np.ones(detector.shape, np.float32), x, y, norm)
    expected = 1.0 / (scale**2 * squared_weight(x, y, norm).mean())
    measured = measure_correlation(
        image * scale**2, variance * scale**4, np.ones(image.shape, bool), (100, 100)
    )
    assert measured.shape == (4, 4)
    np.testing.assert_allclose(np.median(measured), expected, rtol=0.04)
    np.testing.assert_allclose(measured, expected, rtol=0.12)


def test_sources_and_masked_pixels_do_not_count() -> None:
    """Independent pixels with bright stars and a masked half."""
    rng = np.random.default_rng(3)
    y, x = np.indices((300, 300))
    variance = np.where(x < 150, 4.0, 9.0)
    image = rng.normal(0.0, np.sqrt(variance))
    for row, column in rng.integers(20, 280, (30, 2)):
        image += 500.0 * np.exp(-0.5 * ((y - row) ** 2 + (x - column) ** 2) / 1.5**2)
    good = np.ones(image.shape, bool)
    good[:160] = False
    image[~good] = 1e6
    measured = measure_correlation(image, variance, good, (50, 50))
    assert measured.shape == (6, 6)
    np.testing.assert_allclose(measured, 1.0, atol=0.15)
    # Cells too far from empty sky get the value of the whole image.
    assert len(np.unique(measured[0])) == 1


@pytest.mark.parametrize("good", [np.zeros((120, 120), bool), np.indices((120, 120)).sum(axis=0) % 5 > 0])
def test_too_little_empty_sky_is_nan(good: np.ndarray) -> None:
    image = np.random.default_rng(4).normal(size=good.shape)
    measured = measure_correlation(image, np.ones(good.shape), good, (40, 60))
    assert measured.shape == (3, 2)
    assert np.isnan(measured).all()
