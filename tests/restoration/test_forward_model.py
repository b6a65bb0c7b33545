# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stacks import star_field

from lsst.drp.restore.restoration.backend import prepare_backend

prepare_backend("cpu", 2)

from lsst.drp.restore.restoration.forward_model import Blur, ForwardModel, PsfDecoder  # noqa: E402


def brute_force(latent: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve by the definition, one output pixel at a time."""
    k = kernel.shape[0]
    height, width = latent.shape[0] - k + 1, latent.shape[1] - k + 1
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            for i in range(k):
                for j in range(k):
                    result[y, x] += kernel[i, j] * latent[y + k - 1 - i, x + k - 1 - j]
    return result


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    k=st.sampled_from([1, 3, 5, 7]),
    seed=st.integers(0, 2**31),
)
def test_blur_is_the_convolution(height: int, width: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(2, height + k - 1, width + k - 1)).astype(np.float32)
    kernels = rng.normal(size=(2, 3, k, k)).astype(np.float32)
    result = np.asarray(Blur(kernels, height, width).forward(latent))
    assert result.shape == (2, 3, height, width)
    for b in range(2):
        for t in range(3):
            np.testing.assert_allclose(result[b, t], brute_force(latent[b], kernels[b, t]), atol=2e-5)


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    k=st.sampled_from([1, 3, 5, 25]),
    seed=st.integers(0, 2**31),
)
def test_blur_adjoint(height: int, width: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(1, height + k - 1, width + k - 1)).astype(np.float32)
    residual = rng.normal(size=(1, 2, height, width)).astype(np.float32)
    kernels = rng.normal(size=(1, 2, k, k)).astype(np.float32)
    blur = Blur(kernels, height, width)
    forward = np.asarray(blur.forward(latent), dtype=np.float64)
    backward = np.asarray(blur.adjoint(residual), dtype=np.float64)
    scale = np.linalg.norm(forward) * np.linalg.norm(residual)
    assert np.vdot(forward, residual) == pytest.approx(np.vdot(latent, backward), abs=1e-5 * scale)


def test_field_uses_the_kernels_of_each_cell() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), cell_shape=(32, 32))
    latent = np.random.default_rng(3).normal(size=(88, 88)).astype(np.float32)
    result = ForwardModel(stack).forward(latent)
    # Spot checks against the definition, on both sides of the cells' borders.
    for t, y, x in [(0, 0, 0), (1, 31, 31), (0, 31, 32), (1, 32, 31), (1, 63, 63)]:
        kernel = stack.kernels[t, y // 32, x // 32]
        expected = brute_force(latent[y : y + 25, x : x + 25], kernel)[0, 0]
        assert result[t, y, x] == pytest.approx(expected, abs=2e-5)


def test_field_adjoint() -> None:
    stack, _, _ = star_field(n=3, shape=(64, 96), cell_shape=(32, 48))
    rng = np.random.default_rng(5)
    latent = rng.normal(size=(88, 120)).astype(np.float32)
    exposures = rng.normal(size=stack.image.shape).astype(np.float32)
    decoder = ForwardModel(stack)
    forward, backward = decoder.forward(latent), decoder.adjoint(exposures)
    assert np.vdot(forward, exposures.astype(float)) == pytest.approx(
        np.vdot(latent, backward.astype(float)), rel=1e-4, abs=1e-3
    )


def test_layer_agrees_with_the_field() -> None:
    stack, latent, _ = star_field(n=2, shape=(64, 96), cell_shape=(32, 32))
    layer = PsfDecoder()
    kernels = np.moveaxis(stack.kernels, 0, 2)[None]
    result = np.asarray(layer(latent[None, ..., None], kernels))[0]
    np.testing.assert_allclose(result, ForwardModel(stack).forward(latent), atol=1e-3)


def test_missing_kernel_predicts_nothing() -> None:
    stack, latent, _ = star_field(n=2, shape=(64, 64), cell_shape=(32, 32))
    stack.kernels[1, 0, 1] = 0.0
    result = ForwardModel(stack).forward(latent)
    assert (result[1, :32, 32:] == 0).all()
    assert result[1, 32:, 32:].any()


def test_huber_loss_is_the_definition() -> None:
    stack, latent, _ = star_field(n=2, shape=(64, 64), bad_fraction=0.1)
    decoder = ForwardModel(stack)
    delta = 1.5
    with np.errstate(invalid="ignore"):
        residual = np.abs(stack.image - decoder.forward(latent)) / np.sqrt(stack.variance)
    loss = np.where(residual <= delta, 0.5 * residual**2, delta * (residual - 0.5 * delta))
    expected = loss[stack.good].mean()
    assert decoder.huber_loss(latent, delta) == pytest.approx(expected, rel=1e-5)
    # The truth leaves noise alone: half of chi2 where it is quadratic.
    assert decoder.huber_loss(latent, 1e6) == pytest.approx(0.5, rel=0.03)


def test_threads_change_no_bit() -> None:
    stack, latent, _ = star_field(n=3, shape=(96, 96), cell_shape=(32, 32), bad_fraction=0.1)
    weight = np.random.default_rng(2).uniform(size=stack.image.shape).astype(np.float32)
    results = []
    for n_threads in (1, 3):
        prepare_backend("cpu", n_threads)
        decoder = ForwardModel(stack)
        # One cell at a time.
        decoder._batch = 1
        results.append(
            [
                decoder.forward(latent),
                decoder.adjoint(weight),
                *decoder.gradient(latent, 2.0),
                decoder.second_derivative(weight, latent),
                *decoder.back_project(latent, 2.0),
            ]
        )
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
    prepare_backend("cpu", 1)
