# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from stacks import star_field

from lsst.drp.restore.restoration.first_estimate import first_estimate


def test_stars_are_found_with_their_flux() -> None:
    from lsst.drp.restore.restoration.likelihood import Likelihood

    stack, truth, stars = star_field(n=6, shape=(96, 96), n_stars=9, flux=(300.0, 3000.0))
    before = stack.image.copy()
    likelihood = Likelihood(stack, 2.0)
    losses = []
    for steps in (0, 2, 30):
        latent = first_estimate(stack, steps=steps)
        assert latent.shape == truth.shape and latent.dtype == np.float32
        assert (latent >= 0).all()
        losses.append(likelihood.huber_loss(latent))
    np.testing.assert_array_equal(stack.image, before)
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 1.2 * likelihood.huber_loss(truth)
    for y, x, flux in stars:
        stamp = latent[int(y) + 6 : int(y) + 19, int(x) + 6 : int(x) + 19]
        assert stamp.sum() == pytest.approx(flux, rel=0.05)
        # A point, as good as.
        assert stamp[4:9, 4:9].sum() > 0.9 * flux
        assert stamp.max() == stamp[6, 6] > 0.3 * flux


def test_defaults_are_those_of_the_training() -> None:
    from lsst.drp.restore.restoration.network_input import PENALTY, STEPS

    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    expected = first_estimate(stack, steps=STEPS, penalty=PENALTY)
    np.testing.assert_array_equal(first_estimate(stack), expected)


def test_no_steps_leave_a_constant() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    for factor in (1, 2):
        latent = first_estimate(dataclasses.replace(stack, oversampling=factor), steps=0)
        assert latent.shape == (88 * factor, 88 * factor)
        inside = latent[12 * factor : -12 * factor, 12 * factor : -12 * factor]
        np.testing.assert_allclose(inside, 0.03 * stack.median_sigma / factor**2, rtol=1e-6)


def test_unit_does_not_matter() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    scale = np.float32(2.0**-7)
    other = dataclasses.replace(stack, image=stack.image * scale, variance=stack.variance * scale**2)
    expected = first_estimate(stack)
    np.testing.assert_allclose(first_estimate(other) / scale, expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_unseen_pixels_stay_zero() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    hole = np.zeros(stack.image.shape, dtype=bool)
    hole[:, :, 20:] = True
    stack = stack.without(hole)
    latent = first_estimate(stack)
    # Beyond the reach of the kernels.
    assert (latent[:, 45:] == 0).all()
    assert (latent[12:76, 12:32] > 0).any()
    assert np.isfinite(latent).all()


def test_penalty_is_in_units_of_the_noise() -> None:
    """Its unit is the scatter of the gradient by draws of the noise."""
    from lsst.drp.restore.restoration.forward_model import ForwardModel
    from lsst.drp.restore.restoration.surrogate import Surrogate

    stack, _, _ = star_field(n=3, shape=(64, 64), n_stars=4, bad_fraction=0.1)
    stack = dataclasses.replace(stack, correlation=np.full_like(stack.correlation, 1.7))
    decoder = ForwardModel(stack)
    rng = np.random.default_rng(8)
    sigma = np.sqrt(stack.noise_variance())
    draws = [
        decoder.adjoint(sigma * rng.standard_normal(sigma.shape) / stack.masked_variance())
        for _ in range(200)
    ]
    scatter = np.std(draws, axis=0)[20:-20, 20:-20]
    expected = np.sqrt(Surrogate(stack).gradient_variance())[20:-20, 20:-20]
    ratio = scatter / expected
    assert np.median(ratio) == pytest.approx(1.0, abs=0.02)
    assert ratio.std() < 0.08


def test_penalty_suppresses_noise_and_little_else() -> None:
    stack, truth, stars = star_field(n=6, shape=(96, 96), n_stars=9, flux=(300.0, 3000.0))
    free, costly = (
        first_estimate(stack, steps=60, penalty=penalty)[12:-12, 12:-12] for penalty in (0.0, 1.5)
    )
    empty = gaussian_filter(truth, 3.0)[12:-12, 12:-12] < 0.1
    assert costly[empty].mean() < 0.3 * free[empty].mean()
    for y, x, _ in stars:
        stamp = slice(int(y) - 4, int(y) + 5), slice(int(x) - 4, int(x) + 5)
        # The noise of the brightest of them is about 1 % of their flux.
        assert costly[stamp].sum() == pytest.approx(free[stamp].sum(), rel=0.15)
