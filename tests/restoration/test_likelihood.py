# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
import numpy as np
import pytest
from stacks import star_field

from lsst.drp.restore.restoration.backend import prepare_backend

prepare_backend("cpu", 2)

from lsst.drp.restore.restoration.forward_model import ForwardModel  # noqa: E402
from lsst.drp.restore.restoration.likelihood import (  # noqa: E402
    Likelihood,
    coverage,
    huber,
    second_derivative,
)


def test_huber_is_equation_5() -> None:
    size = np.linspace(0.0, 5.0, 51, dtype=np.float32)
    expected = np.where(size <= 1.5, 0.5 * size**2, 1.5 * (size - 0.75))
    np.testing.assert_allclose(np.asarray(huber(size, 1.5)), expected, rtol=1e-6)


def test_huber_loss_is_the_definition() -> None:
    stack, latent, _ = star_field(n=2, shape=(64, 64), bad_fraction=0.1)
    delta = 1.5
    with np.errstate(invalid="ignore"):
        residual = np.abs(stack.image - ForwardModel(stack).forward(latent)) / np.sqrt(stack.variance)
    loss = np.where(residual <= delta, 0.5 * residual**2, delta * (residual - 0.5 * delta))
    expected = loss[stack.good].mean()
    assert Likelihood(stack, delta).huber_loss(latent) == pytest.approx(expected, rel=1e-5)
    # The truth leaves noise alone: half of chi2 where it is quadratic.
    assert Likelihood(stack, 1e6).huber_loss(latent) == pytest.approx(0.5, rel=0.03)


def test_gradient_is_that_of_the_loss() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4, bad_fraction=0.05)
    likelihood = Likelihood(stack, 1.5)
    rng = np.random.default_rng(3)
    latent = rng.uniform(0, 3, size=(88, 88)).astype(np.float32)
    direction = rng.normal(size=latent.shape).astype(np.float32)
    gradient, weight = likelihood.gradient(latent)
    step = 0.1
    ahead, behind = (likelihood.huber_loss(latent + sign * step * direction) for sign in (1, -1))
    derivative = np.vdot(gradient, direction.astype(np.float64)) / stack.good.sum()
    assert (ahead - behind) / (2 * step) == pytest.approx(derivative, rel=0.01)

    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.abs(stack.image - ForwardModel(stack).forward(latent)) / np.sqrt(stack.variance)
        expected = (np.minimum(1.0, 1.5 / size) / stack.variance).sum(axis=0)
    np.testing.assert_allclose(weight[0], expected, rtol=1e-4)
    observed, predicted, _ = likelihood.back_project(latent)
    np.testing.assert_allclose(gradient, predicted - observed, atol=1e-3 * np.abs(gradient).max())


def test_back_projection_is_the_gradient() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4, bad_fraction=0.05)
    likelihood = Likelihood(stack, 1.5)
    rng = np.random.default_rng(3)
    latent = rng.uniform(0, 3, size=(88, 88)).astype(np.float32)
    direction = rng.normal(size=latent.shape).astype(np.float32)
    observed, predicted, loss = likelihood.back_project(latent)
    assert loss == pytest.approx(likelihood.huber_loss(latent), rel=1e-5)
    step = 0.1
    ahead, behind = (likelihood.huber_loss(latent + sign * step * direction) for sign in (1, -1))
    derivative = np.vdot(predicted - observed, direction.astype(np.float64)) / stack.good.sum()
    assert (ahead - behind) / (2 * step) == pytest.approx(derivative, rel=0.01)


def test_second_derivative_is_forward_weight_adjoint() -> None:
    stack, latent, _ = star_field(n=3, shape=(64, 96), cell_shape=(32, 48), bad_fraction=0.1)
    model = ForwardModel(stack)
    weight = 1 / stack.variance
    expected = model.adjoint(weight * model.forward(latent))
    np.testing.assert_allclose(second_derivative(model, weight, latent), expected, atol=1e-5 * expected.max())


def test_coverage_is_the_weight_relative_to_its_median() -> None:
    stack, _, _ = star_field(n=3, shape=(64, 64), bad_fraction=0.1)
    model = ForwardModel(stack)
    weight = model.adjoint(1 / stack.variance)
    result = coverage(stack, model)
    np.testing.assert_allclose(
        result, weight / np.median(weight[12:-12, 12:-12][stack.latent_seen]), rtol=1e-5
    )
    np.testing.assert_array_equal(coverage(stack, model, 1 / stack.variance), result)
