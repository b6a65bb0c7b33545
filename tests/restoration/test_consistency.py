# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve
from stacks import moffat_kernel, star_field

from lsst.drp.restore.restoration.consistency import ConsistencyConfig, ConsistencyTask
from lsst.drp.restore.restoration.surrogate import Surrogate
from lsst.drp.restore.restoration.target_psf import convolution_kernels, target_kernel
from lsst.drp.restore.stack.exposure_stack import ExposureStack

# Of the exposures' residuals and of the prior.
DELTA = 2.0


def make_task(**fields: Any) -> ConsistencyTask:
    config = ConsistencyConfig()
    config.update(**fields)
    config.validate()
    return ConsistencyTask(config=config)


def make_stack(n: int = 3, shape: tuple[int, int] = (32, 32)) -> tuple[ExposureStack, np.ndarray]:
    """Return exposures with kernels from the target resolution, one cell, and
    the truth at the target resolution.
    """
    stack, points, _ = star_field(
        n=n, shape=shape, cell_shape=shape, n_stars=4, flux=(50.0, 1000.0), bad_fraction=0.05
    )
    truth = fftconvolve(points, target_kernel(), mode="same").astype(np.float32)
    return dataclasses.replace(stack, kernels=convolution_kernels(stack.kernels)), np.maximum(truth, 0.0)


def make_prediction(truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a prediction that is wrong, and an error that admits it."""
    rng = np.random.default_rng(9)
    predicted = gaussian_filter(truth, 0.7) * rng.uniform(0.8, 1.2, truth.shape)
    return predicted.astype(np.float32), (0.3 + 0.2 * predicted).astype(np.float32)


def huber(residual: np.ndarray) -> float:
    size = np.abs(residual)
    return float(np.where(size > DELTA, DELTA * (size - DELTA / 2), size**2 / 2).sum())


class Objective:
    """What `ConsistencyTask` minimizes and its gradient, in double precision
    by SciPy's convolution; for one cell.
    """

    def __init__(self, stack: ExposureStack, predicted: np.ndarray, error: np.ndarray) -> None:
        self._stack = stack
        self._kernels = stack.kernels[:, 0, 0].astype(float)
        self._predicted, self._error = predicted.astype(float), error.astype(float)

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        latent = flat.reshape(self._predicted.shape)
        offset = (latent - self._predicted) / self._error
        value, slope = huber(offset), np.clip(offset, -DELTA, DELTA) / self._error
        for y, variance, kernel in zip(self._stack.image, self._stack.variance, self._kernels, strict=True):
            sigma = np.sqrt(variance.astype(float))
            residual = (y - fftconvolve(latent, kernel, mode="valid")) / sigma
            value += huber(residual)
            pull = np.clip(residual, -DELTA, DELTA) / sigma
            slope -= fftconvolve(pull, kernel[::-1, ::-1], mode="full")
        return float(value), slope.ravel()

    def minimize(self, start: np.ndarray) -> np.ndarray:
        result = scipy.optimize.minimize(
            self,
            start.ravel().astype(float),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, None)] * start.size,
            options={"maxiter": 2000, "maxfun": 4000, "ftol": 1e-14, "gtol": 1e-7},
        )
        return result.x.reshape(start.shape)


def test_objective_has_the_right_gradient() -> None:
    """The reference itself."""
    stack, truth = make_stack(n=2)
    objective = Objective(stack, *make_prediction(truth))
    rng = np.random.default_rng(2)
    place, direction = rng.uniform(0, 3, truth.size), rng.normal(size=truth.size)
    ahead, behind = (objective(place + step * direction)[0] for step in (1e-5, -1e-5))
    assert (ahead - behind) / 2e-5 == pytest.approx(objective(place)[1] @ direction, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("prior_scale", [0.3, 3.0])
def test_result_is_the_minimum(prior_scale: float) -> None:
    stack, truth = make_stack()
    predicted, error = make_prediction(truth)
    objective = Objective(stack, predicted, prior_scale * error)
    best = objective.minimize(predicted)
    first, least = objective(predicted.ravel())[0], objective(best.ravel())[0]
    many = make_task(gradients=150, priorScale=prior_scale).run(stack, predicted, error)
    assert objective(many.ravel())[0] - least < 1e-3 * (first - least)
    np.testing.assert_allclose(many, best, atol=0.05 * prior_scale * error.min())
    # As many as by default go most of the way.
    few = make_task(priorScale=prior_scale).run(stack, predicted, error)
    assert objective(few.ravel())[0] - least < 0.2 * (first - least)


def test_result_is_non_negative_and_inputs_stay() -> None:
    stack, truth = make_stack()
    stack.image[stack.good] -= 3.0
    predicted, error = make_prediction(truth)
    before = [array.copy() for array in (predicted, error, stack.image, stack.variance, stack.kernels)]
    latent = make_task().run(stack, predicted, error)
    for array, copy in zip(
        (predicted, error, stack.image, stack.variance, stack.kernels), before, strict=True
    ):
        np.testing.assert_array_equal(array, copy)
    assert latent.shape == predicted.shape and latent.dtype == np.float32
    assert np.isfinite(latent).all()
    assert latent.min() == 0.0
    assert latent.sum() < predicted.sum()


def test_prior_and_data() -> None:
    from lsst.drp.restore.restoration.likelihood import Likelihood

    stack, truth = make_stack()
    predicted, error = make_prediction(truth)
    likelihood = Likelihood(stack, DELTA)
    certain = make_task(priorScale=1e-5).run(stack, predicted, error)
    np.testing.assert_allclose(certain, predicted, atol=1e-3)
    uncertain = make_task(priorScale=1e3).run(stack, predicted, error)
    before, exact, after = (likelihood.huber_loss(latent) for latent in (predicted, truth, uncertain))
    assert after < exact < before
    assert make_task(gradients=0).run(stack, predicted, error) is predicted


def test_pixels_without_data_keep_the_prediction() -> None:
    stack, truth = make_stack(shape=(32, 64))
    hole = np.zeros(stack.good.shape, bool)
    hole[:, :, 24:] = True
    stack = stack.without(hole)
    predicted, error = make_prediction(truth)
    latent = make_task().run(stack, predicted, error)
    # Beyond the reach of the kernels.
    np.testing.assert_allclose(latent[:, 24 + 26 :], predicted[:, 24 + 26 :], atol=1e-4)
    assert np.abs(latent - predicted)[12:44, 12:36].max() > 0.1


@pytest.mark.parametrize("signed", [True, False])
def test_quadratic_function(signed: bool) -> None:
    """The surrogate of one exposure without holes is the exposure."""
    shape = (32, 32)
    stack, _, _ = star_field(n=1, shape=shape, cell_shape=shape, n_stars=1, bad_fraction=0.0)
    psf = moffat_kernel(3.0)
    stack.kernels[:] = convolution_kernels(psf) if signed else psf
    stack.variance[:] = 1.0
    kernel = stack.kernels[0, 0, 0].astype(float)
    rng = np.random.default_rng(7)
    start = rng.exponential(2.0, stack.latent_shape).astype(np.float32)
    slope = rng.normal(size=start.shape).astype(np.float32)
    weight = rng.uniform(0.5, 1.5, (1, *shape)).astype(np.float32)
    precision = rng.uniform(0.1, 1.0, start.shape).astype(np.float32)

    def function(flat: np.ndarray) -> tuple[float, np.ndarray]:
        step = flat.reshape(start.shape) - start
        seen = weight[0] * fftconvolve(step, kernel, mode="valid")
        curved = fftconvolve(seen, kernel[::-1, ::-1], mode="full") + precision * step
        return float((slope * step).sum() + 0.5 * (step * curved).sum()), (slope + curved).ravel()

    best = scipy.optimize.minimize(
        function,
        start.ravel().astype(float),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None)] * start.size,
        options={"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-8},
    ).x.reshape(start.shape)
    surrogate = Surrogate(stack, signed=signed)
    found = surrogate.minimize_quadratic(start, slope, weight, precision, iterations=200)
    assert (found >= 0).all() and (best == 0).any()
    np.testing.assert_allclose(found, best, atol=0.01)
    least, reached = function(best.ravel())[0], function(found.ravel())[0]
    assert reached - least < 1e-3 * -least
    # The few iterations between two gradients.
    few = surrogate.minimize_quadratic(start, slope, weight, precision, iterations=12)
    assert function(few.ravel())[0] - least < 0.05 * -least
