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
from lsst.drp.restore.restoration.likelihood import Likelihood, second_derivative
from lsst.drp.restore.restoration.majorize_minimize import majorize_minimize
from lsst.drp.restore.restoration.surrogate import Surrogate
from lsst.drp.restore.stack.exposure_stack import ExposureStack


def objective(stack: ExposureStack, latent: np.ndarray, penalty: np.ndarray) -> float:
    loss = Likelihood(stack, 2.0).huber_loss(latent) * np.count_nonzero(stack.good)
    return loss + float(np.sum(penalty * latent, dtype=np.float64))


def minimize(stack: ExposureStack, start: np.ndarray, steps: int, penalty: np.ndarray) -> np.ndarray:
    latent = start.copy()
    Surrogate(stack).minimize(
        Likelihood(stack, 2.0),
        latent,
        np.ones(start.shape, bool),
        steps=steps,
        steps_per_gradient=10,
        max_factor=4.0,
        penalty=penalty,
    )
    return latent


def test_one_exposure_stands_for_itself() -> None:
    stack, truth, _ = star_field(n=1, shape=(64, 64), bad_fraction=0.1)
    surrogate = Surrogate(stack)
    exact = second_derivative(ForwardModel(stack), 1 / stack.variance, truth)
    weight = (1 / stack.variance).sum(axis=0, keepdims=True)
    # Symmetric PSFs: their square root's square is the PSF itself.
    np.testing.assert_allclose(surrogate.kernels, stack.kernels, atol=3e-3 * stack.kernels.max())
    approximate = second_derivative(surrogate.model, weight, truth)
    np.testing.assert_allclose(approximate, exact, atol=0.02 * exact.max())


@pytest.mark.parametrize("bad_fraction", [0.0, 0.2])
def test_it_stands_for_exposures_of_different_seeing(bad_fraction: float) -> None:
    stack, truth, _ = star_field(n=6, shape=(96, 96), bad_fraction=bad_fraction)
    exact = second_derivative(ForwardModel(stack), 1 / stack.variance, truth)
    weight = (1 / stack.variance).sum(axis=0, keepdims=True)
    approximate = second_derivative(Surrogate(stack).model, weight, truth)
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
    likelihood = Likelihood(stack, 2.0)
    penalty = np.sqrt(Surrogate(stack).gradient_variance())
    start = np.full_like(truth, 1.0)

    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        latent = x.reshape(start.shape).astype(np.float32)
        slope = likelihood.gradient(latent)[0] + penalty
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
    for _ in majorize_minimize(Likelihood(stack, 2.0), plain, everywhere, steps=100, max_factor=4.0):
        pass
    assert objective(stack, minimize(stack, start, 30, none), none) < objective(stack, plain, none)


def test_result_is_never_negative() -> None:
    stack, truth, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    stack.image[:] -= 3.0
    latent = minimize(stack, np.full_like(truth, 1.0), 30, np.zeros_like(truth))
    assert np.isfinite(latent).all()
    assert (latent >= 0).all()
