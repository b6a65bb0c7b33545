# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from networks import random_network
from stacks import star_field

from lsst.drp.restore.restoration.network_input import NO_DATA_NOISE
from lsst.drp.restore.restoration.sky_network import ALIGNMENT, MARGIN, Unrolled, build_network
from lsst.drp.restore.restoration.target_psf import convolution_kernels, deconvolution_kernels
from lsst.drp.restore.restoration.trained_network import TrainedNetwork


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return random_network()


def draw_inputs(shape: tuple[int, int], seed: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(1, *shape, 4)).astype(np.float32)
    inputs[..., 0] = np.maximum(inputs[..., 0], 0.0) * 10
    inputs[..., 3] = rng.uniform(0.5, 2.0, shape)
    return inputs


def run(network: keras.Model, inputs: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(network(inputs, training=False))


def test_new_network_is_the_identity() -> None:
    inputs = draw_inputs((32, 48))
    result = run(build_network((4, 4, 4)), inputs)
    assert result.shape == (1, 32, 48, 2)
    np.testing.assert_array_equal(result[..., 0], inputs[..., 0])


@pytest.mark.parametrize("scale", [2.0**-20, 3.7, 1e6])
def test_network_is_homogeneous(network: keras.Model, scale: float) -> None:
    inputs = draw_inputs((32, 48))
    result, scaled = run(network, inputs), run(network, np.float32(scale) * inputs)
    np.testing.assert_allclose(scaled / np.float32(scale), result, rtol=1e-4, atol=1e-5 * result.max())
    assert np.abs(result[..., 0] - inputs[..., 0]).max() > 0.1
    assert (result[..., 0] >= 0).all() and (result[..., 0] == 0).any()
    # At least a fraction of the noise and of the brightness.
    least = 0.02 * inputs[..., 3] + 0.002 * result[..., 0]
    assert (result[..., 1] >= 0.999 * least).all()


def test_network_sees_no_further_than_its_margin(network: keras.Model) -> None:
    assert MARGIN % ALIGNMENT == 0
    inputs = draw_inputs((160, 160))
    before = run(network, inputs)
    # The places of a pixel in those of the coarsest level.
    for y, x in ((80, 80), (81, 83), (83, 82)):
        other = inputs.copy()
        other[0, y, x] += 100.0
        changed = np.argwhere((run(network, other) != before).any(axis=(0, 3)))
        distance = np.abs(changed - (y, x)).max(axis=1)
        # It does see most of it.
        assert MARGIN / 2 < distance.max() <= MARGIN


@pytest.mark.parametrize("passes", [1, 3])
def test_training_and_use_agree(network: keras.Model, passes: int) -> None:
    """A coadd with one PSF, as a sample of the training and as a patch."""
    shape = (64, 72)
    stack, _, _ = star_field(n=1, shape=shape, cell_shape=shape, bad_fraction=0.05)
    # An asymmetric PSF, so that nothing is turned around unnoticed.
    stack.kernels[..., 12:, 13:] *= 1.3
    stack.variance[stack.good] *= 4.0
    start = np.random.default_rng(4).exponential(2.0, stack.latent_shape).astype(np.float32)
    image, error = TrainedNetwork(network).apply(stack, start, tile_size=256, passes=passes)

    unit, pad = np.float32(stack.median_sigma), stack.padding
    frame = ((pad, pad), (pad, pad))
    good = stack.good[0]
    noise = np.sqrt(np.where(good, stack.variance[0], 0.0)) / unit
    planes: list[Any] = [
        np.pad(stack.image[0] / unit, frame, constant_values=1e3),
        start / unit,
        np.pad(np.where(good, noise, NO_DATA_NOISE), frame, constant_values=NO_DATA_NOISE),
        np.pad(good, frame),
    ]
    kernels = stack.kernels[0, 0, 0]
    both = np.stack([convolution_kernels(kernels), deconvolution_kernels(kernels)])
    results = Unrolled(network, passes)(np.stack(planes, axis=-1)[np.newaxis].astype("f4"), both[np.newaxis])
    results = keras.ops.convert_to_numpy(results)[0] * unit
    assert results.shape == (*stack.latent_shape, 2 * passes)
    np.testing.assert_allclose(results[..., -2], image, rtol=1e-3, atol=1e-4 * image.max())
    np.testing.assert_allclose(results[..., -1], error, rtol=1e-3, atol=1e-4 * error.max())
