# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.optimize
from scipy.ndimage import gaussian_filter
from stacks import star_field

from lsst.drp.restore.restoration.forward_model import ForwardModel
from lsst.drp.restore.restoration.majorize_minimize import majorize_minimize
from lsst.drp.restore.restoration.surrogate import Surrogate
from lsst.drp.restore.stack.exposure_stack import ExposureStack


def objective(stack: ExposureStack, latent: np.ndarray, penalty: np.ndarray) -> float:
    loss = ForwardModel(stack).huber_loss(latent, 2.0) * np.count_nonzero(stack.good)
    return loss + float(np.sum(penalty * latent, dtype=np.float64))


def minimize(stack: ExposureStack, start: np.ndarray, steps: int, penalty: np.ndarray) -> np.ndarray:
    latent = start.copy()
    Surrogate(stack).minimize(
        ForwardModel(stack),
        latent,
        np.ones(start.shape, bool),
        steps=steps,
        steps_per_gradient=10,
        delta=2.0,
        max_factor=4.0,
        penalty=penalty,
    )
    return latent


def test_gradient_is_that_of_the_loss() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4, bad_fraction=0.05)
    decoder = ForwardModel(stack)
    rng = np.random.default_rng(3)
    latent = rng.uniform(0, 3, size=(88, 88)).astype(np.float32)
    direction = rng.normal(size=latent.shape).astype(np.float32)
    gradient, weight = decoder.gradient(latent, 1.5)
    step = 0.1
    ahead, behind = (decoder.huber_loss(latent + sign * step * direction, 1.5) for sign in (1, -1))
    derivative = np.vdot(gradient, direction.astype(np.float64)) / stack.good.sum()
    assert (ahead - behind) / (2 * step) == pytest.approx(derivative, rel=0.01)

    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.abs(stack.image - decoder.forward(latent)) / np.sqrt(stack.variance)
        expected = (np.minimum(1.0, 1.5 / size) / stack.variance).sum(axis=0)
    np.testing.assert_allclose(weight[0], expected, rtol=1e-4)
    observed, predicted, _ = decoder.back_project(latent, 1.5)
    np.testing.assert_allclose(gradient, predicted - observed, atol=1e-3 * np.abs(gradient).max())


def test_second_derivative_is_forward_weight_adjoint() -> None:
    stack, latent, _ = star_field(n=3, shape=(64, 96), cell_shape=(32, 48), bad_fraction=0.1)
    decoder = ForwardModel(stack)
    weight = 1 / stack.variance
    expected = decoder.adjoint(weight * decoder.forward(latent))
    np.testing.assert_allclose(
        decoder.second_derivative(weight, latent), expected, atol=1e-5 * expected.max()
    )


def test_one_exposure_stands_for_itself() -> None:
    stack, truth, _ = star_field(n=1, shape=(64, 64), bad_fraction=0.1)
    decoder, surrogate = ForwardModel(stack), Surrogate(stack)
    exact = decoder.second_derivative(1 / stack.variance, truth)
    weight = (1 / stack.variance).sum(axis=0, keepdims=True)
    kernels = surrogate._decoder._kernels  # symmetric PSFs: their square root's square is the PSF itself
    np.testing.assert_allclose(kernels[:, :, 0], stack.kernels[0], atol=3e-3 * stack.kernels.max())
    approximate = surrogate._decoder.second_derivative(weight, truth)
    np.testing.assert_allclose(approximate, exact, atol=0.02 * exact.max())


@pytest.mark.parametrize("bad_fraction", [0.0, 0.2])
def test_it_stands_for_exposures_of_different_seeing(bad_fraction: float) -> None:
    stack, truth, _ = star_field(n=6, shape=(96, 96), bad_fraction=bad_fraction)
    exact = ForwardModel(stack).second_derivative(1 / stack.variance, truth)
    weight = (1 / stack.variance).sum(axis=0, keepdims=True)
    approximate = Surrogate(stack)._decoder.second_derivative(weight, truth)
    bright = exact > 0.05 * exact.max()
    np.testing.assert_allclose(approximate[bright] / exact[bright], 1.0, atol=0.25 if bad_fraction else 0.05)
    assert np.median(approximate[bright] / exact[bright]) == pytest.approx(1.0, abs=0.02)


def test_coverage_and_noise_are_those_of_the_exposures() -> None:
    stack, _, _ = star_field(n=4, shape=(64, 64), n_stars=4, bad_fraction=0.1)
    stack = dataclasses.replace(stack, correlation=np.full_like(stack.correlation, 1.7))
    surrogate = Surrogate(stack)
    exact = ForwardModel(stack).adjoint(1 / stack.variance)
    exact /= np.median(exact[12:-12, 12:-12])
    np.testing.assert_allclose(surrogate.coverage()[12:-12, 12:-12], exact[12:-12, 12:-12], rtol=0.05)
    squares = ForwardModel(stack, squared=True)
    exact = squares.adjoint(1.7 / stack.variance)[12:-12, 12:-12]
    ratio = surrogate.gradient_variance()[12:-12, 12:-12] / exact
    assert np.median(ratio) == pytest.approx(1.0, abs=0.01)
    assert ratio.std() < 0.1


def test_steps_lead_to_the_minimum() -> None:
    """An optimizer that knows nothing of surrogates finds nothing better."""
    stack, truth, _ = star_field(n=6, shape=(64, 64), n_stars=4, flux=(300.0, 3000.0), bad_fraction=0.05)
    decoder = ForwardModel(stack)
    penalty = np.sqrt(Surrogate(stack).gradient_variance())
    start = np.full_like(truth, 1.0)

    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        latent = x.reshape(start.shape).astype(np.float32)
        slope = decoder.gradient(latent, 2.0)[0] + penalty
        return objective(stack, latent, penalty), slope.ravel().astype(np.float64)

    best = scipy.optimize.minimize(
        function,
        start.ravel(),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None)] * start.size,
        options={"maxiter": 400},
    ).fun
    first = objective(stack, start, penalty)
    assert objective(stack, minimize(stack, start, 30, penalty), penalty) - best < 0.05 * (first - best)
    assert objective(stack, minimize(stack, start, 300, penalty), penalty) - best < 0.002 * (first - best)


@pytest.mark.parametrize("delta_flux", [1.0, 30.0])
def test_steps_are_as_good_as_a_hundred_plain_ones(delta_flux: float) -> None:
    stack, truth, _ = star_field(
        n=6, shape=(96, 96), n_stars=9, flux=(300.0 * delta_flux, 3000.0 * delta_flux), bad_fraction=0.02
    )
    start = gaussian_filter(truth, 1.5) + np.float32(0.5)
    none = np.zeros_like(start)
    plain = start.copy()
    everywhere = np.ones(start.shape, bool)
    for _ in majorize_minimize(ForwardModel(stack), plain, everywhere, steps=100, delta=2.0, max_factor=4.0):
        pass
    assert objective(stack, minimize(stack, start, 30, none), none) < objective(stack, plain, none)


def test_result_is_never_negative() -> None:
    stack, truth, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    stack.image[:] -= 3.0
    latent = minimize(stack, np.full_like(truth, 1.0), 30, np.zeros_like(truth))
    assert np.isfinite(latent).all()
    assert (latent >= 0).all()
