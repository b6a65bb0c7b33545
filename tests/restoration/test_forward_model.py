# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from typing import Any

import keras
import numpy as np
import pytest
from convolve import brute_force
from stacks import star_field

from lsst.drp.restore.restoration.backend import prepare_backend

prepare_backend("cpu", 2)

from lsst.drp.restore.restoration.forward_model import ForwardModel  # noqa: E402
from lsst.drp.restore.restoration.likelihood import Likelihood, second_derivative  # noqa: E402


def test_prediction_uses_the_kernels_of_each_cell() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), cell_shape=(32, 32))
    latent = np.random.default_rng(3).normal(size=(88, 88)).astype(np.float32)
    result = ForwardModel(stack).forward(latent)
    # Spot checks against the definition, on both sides of the cells' borders.
    for t, y, x in [(0, 0, 0), (1, 31, 31), (0, 31, 32), (1, 32, 31), (1, 63, 63)]:
        kernel = stack.kernels[t, y // 32, x // 32]
        expected = brute_force(latent[y : y + 25, x : x + 25], kernel)[0, 0]
        assert result[t, y, x] == pytest.approx(expected, abs=2e-5)


def test_adjoint() -> None:
    stack, _, _ = star_field(n=3, shape=(64, 96), cell_shape=(32, 48))
    rng = np.random.default_rng(5)
    latent = rng.normal(size=(88, 120)).astype(np.float32)
    exposures = rng.normal(size=stack.image.shape).astype(np.float32)
    model = ForwardModel(stack)
    forward, backward = model.forward(latent), model.adjoint(exposures)
    assert np.vdot(forward, exposures.astype(float)) == pytest.approx(
        np.vdot(latent, backward.astype(float)), rel=1e-4, abs=1e-3
    )


def test_missing_kernel_predicts_nothing() -> None:
    stack, latent, _ = star_field(n=2, shape=(64, 64), cell_shape=(32, 32))
    stack.kernels[1, 0, 1] = 0.0
    result = ForwardModel(stack).forward(latent)
    assert (result[1, :32, 32:] == 0).all()
    assert result[1, 32:, 32:].any()


def test_forward_adjoint_is_one_after_the_other() -> None:
    stack, latent, _ = star_field(n=3, shape=(64, 96), cell_shape=(32, 48))
    model = ForwardModel(stack)

    def between(predicted: Any, variance: Any) -> tuple[tuple[Any, Any], Any]:
        return (predicted, predicted / variance), keras.ops.sum(predicted, axis=1)

    def load(rows: slice, columns: slice) -> tuple[np.ndarray]:
        return (stack.variance[:, rows, columns],)

    (once, weighted), sums = model.forward_adjoint(latent, load, between, number=2)
    predicted = model.forward(latent)
    np.testing.assert_allclose(once, model.adjoint(predicted), rtol=1e-5, atol=1e-3)
    expected = model.adjoint(predicted / stack.variance)
    np.testing.assert_allclose(weighted, expected, rtol=1e-5, atol=1e-6 * expected.max())
    assert [(rows, columns) for rows, columns, _ in sums] == [cell[2:] for cell in stack.cells()]
    for rows, columns, total in sums:
        np.testing.assert_allclose(total, predicted[:, rows, columns].sum(axis=0), rtol=1e-5, atol=1e-3)


def test_threads_and_batches_change_no_bit() -> None:
    stack, latent, _ = star_field(n=3, shape=(96, 96), cell_shape=(32, 32), bad_fraction=0.1)
    weight = np.random.default_rng(2).uniform(size=stack.image.shape).astype(np.float32)
    results = []
    for n_threads in (1, 3):
        # One cell at a time.
        model = ForwardModel(stack, n_threads=n_threads, pixels_per_batch=1)
        likelihood = Likelihood(stack, 2.0, model)
        results.append(
            [
                model.forward(latent),
                model.adjoint(weight),
                *likelihood.gradient(latent),
                *likelihood.back_project(latent),
                second_derivative(model, weight, latent),
            ]
        )
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
