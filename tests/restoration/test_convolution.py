# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
import numpy as np
import pytest
from convolve import brute_force
from hypothesis import given, settings
from hypothesis import strategies as st
from stacks import star_field

from lsst.drp.restore.restoration.backend import prepare_backend

prepare_backend("cpu", 2)

from lsst.drp.restore.restoration.convolution import Blur, PsfDecoder, interleave  # noqa: E402
from lsst.drp.restore.restoration.forward_model import ForwardModel  # noqa: E402


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


def test_decoder_is_the_forward_model() -> None:
    stack, latent, _ = star_field(n=2, shape=(64, 96), cell_shape=(32, 32))
    layer = PsfDecoder()
    kernels = np.moveaxis(stack.kernels, 0, 2)[None]
    result = np.asarray(layer(latent[None, ..., None], kernels))[0]
    np.testing.assert_allclose(result, ForwardModel(stack).forward(latent), atol=1e-3)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_parts_of_pixels_are_interleaved(factor: int) -> None:
    image = np.arange(6 * factor * 4 * factor, dtype=np.float32).reshape(1, 6 * factor, 4 * factor)
    parts = [image[:, i::factor, j::factor] for i in range(factor) for j in range(factor)]
    np.testing.assert_array_equal(np.asarray(interleave(np.stack(parts, axis=-1))), image)
