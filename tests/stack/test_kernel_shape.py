# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Width, moments and profiles of PSFs, against GalSim's."""

import galsim
import numpy as np
import pytest

from lsst.drp.restore.stack.kernel_shape import fwhm, kernel_moments


@pytest.mark.parametrize("width", [1.5, 1.8, 2.2, 3.0, 4.5, 7.0])
@pytest.mark.parametrize("beta", [2.5, 4.0, None])
@pytest.mark.parametrize("shear", [0.0, 0.15])
def test_fwhm_of_analytic_profiles(width, beta, shear):
    """Within 1 %, wherever in its pixel the source is."""
    rng = np.random.default_rng(7)
    profile = galsim.Gaussian(fwhm=width) if beta is None else galsim.Moffat(beta=beta, fwhm=width)
    profile = profile.shear(g1=shear * 0.6, g2=-shear * 0.8) * 300.0
    for offset in rng.uniform(-0.5, 0.5, (4, 2)):
        stamp = profile.drawImage(
            nx=25, ny=25, scale=1.0, method="no_pixel", offset=offset, dtype=float
        ).array
        assert fwhm(stamp) == pytest.approx(width, rel=0.01)


def test_fwhm_of_a_star_in_noise_beside_another():
    rng = np.random.default_rng(8)
    profile = galsim.Kolmogorov(fwhm=3.5, flux=1000.0)
    results = []
    for _ in range(10):
        image = profile.drawImage(
            nx=31, ny=31, scale=1.0, method="no_pixel", offset=rng.uniform(-0.5, 0.5, 2)
        )
        neighbor = (5.0 * profile).shift(11.0, -9.0).drawImage(nx=31, ny=31, scale=1.0, method="no_pixel")
        results.append(fwhm(image.array + neighbor.array + rng.normal(0.0, 0.5, (31, 31))))
    assert np.mean(results) == pytest.approx(3.5, rel=0.02)
    assert np.std(results) < 0.1


def test_fwhm_that_cannot_be_measured_is_nan():
    stamp = np.ones((25, 25))
    stamp[3, 3] = np.nan
    assert np.isnan(fwhm(stamp))
    assert np.isnan(fwhm(np.zeros((25, 25))))
    assert np.isnan(fwhm(-np.ones((25, 25))))


@pytest.mark.parametrize("sigma", [1.0, 1.7, 3.0])
def test_moments_of_a_gaussian_are_its_covariance(sigma):
    profile = galsim.Gaussian(sigma=sigma).shear(g1=0.1, g2=0.05)
    stamp = profile.drawImage(
        nx=25, ny=25, scale=1.0, method="no_pixel", offset=(0.2, -0.1), dtype=float
    ).array
    shear = np.array([[1.1, 0.05], [0.05, 0.9]]) / np.sqrt(1.0 - 0.1**2 - 0.05**2)
    expected = sigma**2 * shear @ shear
    xx, yy, xy = kernel_moments(stamp)
    assert (xx, yy, xy) == pytest.approx(
        (expected[0, 0], expected[1, 1], expected[0, 1]), abs=0.02 * sigma**2
    )


def test_moments_of_nothing_are_nan():
    for stamp in (np.zeros((25, 25)), np.full((25, 25), np.nan), -np.ones((25, 25))):
        assert np.isnan(kernel_moments(stamp)).all()
