# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
from networks import random_network
from stacks import star_field

from lsst.drp.restore.restoration.network_input import NO_DATA_NOISE
from lsst.drp.restore.restoration.network_weights import read_weights
from lsst.drp.restore.restoration.trained_network import TrainedNetwork, load_network, noise_map
from lsst.drp.restore.stack.exposure_stack import ExposureStack


@pytest.fixture(scope="module", params=["random", "shipped"])
def trained(request: pytest.FixtureRequest) -> TrainedNetwork:
    return TrainedNetwork(random_network()) if request.param == "random" else load_network()


def draw_coadd(
    shape: tuple[int, int] = (96, 128), *, bad_fraction: float = 0.0, factor: int = 1
) -> tuple[ExposureStack, np.ndarray]:
    """Return a coadd of stars and a first estimate of it."""
    stack, _, _ = star_field(n=1, shape=shape, bad_fraction=bad_fraction, fwhm=(2.8, 3.0))
    stack = dataclasses.replace(stack, oversampling=factor)
    start = np.random.default_rng(3).exponential(2.0, stack.latent_shape)
    return stack, start.astype(np.float32)


@pytest.mark.parametrize("bad_fraction", [0.0, 0.1])
@pytest.mark.parametrize("factor", [1, 2])
def test_tiles_do_not_matter(trained: TrainedNetwork, bad_fraction: float, factor: int) -> None:
    shape = (96, 128) if factor == 1 else (64, 64)
    coadd, start = draw_coadd(shape, bad_fraction=bad_fraction, factor=factor)
    if bad_fraction:
        hole = np.zeros(coadd.good.shape, bool)
        hole[:, 20:40, 30:60] = True
        coadd = coadd.without(hole)
    expected = trained.apply(coadd, start, tile_size=1000)
    for size in (64, 77):
        for array, whole in zip(trained.apply(coadd, start, tile_size=size), expected, strict=True):
            assert array.shape == coadd.latent_shape and array.dtype == np.float32
            np.testing.assert_allclose(array, whole, rtol=1e-4, atol=1e-5 * whole.max())
    image, error = expected
    assert (image >= 0).all() and (error > 0).all()
    assert np.isfinite(image).all() and np.isfinite(error).all()


def test_unit_does_not_matter(trained: TrainedNetwork) -> None:
    coadd, start = draw_coadd(bad_fraction=0.05)
    expected = trained.apply(coadd, start, tile_size=256)
    for unit in (1000.0, 3e-5):
        scale = np.float32(unit)
        other = dataclasses.replace(coadd, image=coadd.image * scale, variance=coadd.variance * scale**2)
        for array, before in zip(trained.apply(other, start * scale, tile_size=256), expected, strict=True):
            np.testing.assert_allclose(array / scale, before, rtol=1e-3, atol=1e-5 * before.max())


def test_noise_of_small_pixels() -> None:
    """An exposure's pixel has the noise of all of its parts together."""

    class Copy:
        """Returns its image and its noise."""

        def __call__(self, inputs: Any, training: bool) -> Any:
            return keras.ops.stack([inputs[..., 0], inputs[..., 3]], axis=-1)

    for factor in (1, 2):
        coadd, start = draw_coadd((64, 64), factor=factor)
        coadd.variance[:] = 9.0
        image, noise = TrainedNetwork(Copy()).apply(coadd, start, tile_size=1000, passes=1)  # type: ignore[arg-type]
        np.testing.assert_allclose(image, start, rtol=1e-5)
        # The unit of a latent pixel is the noise per exposure pixel over the factor.
        noise /= 3.0 / factor
        np.testing.assert_allclose(noise[coadd.latent_patch], 1.0, rtol=1e-5)
        np.testing.assert_allclose(noise[:5], NO_DATA_NOISE, rtol=1e-5)


def test_shipped_weights_are_loaded_once() -> None:
    network = load_network()
    assert load_network() is network
    for array, stored in zip(network.weights.values(), read_weights(), strict=True):
        np.testing.assert_array_equal(array, stored)


def test_noise_where_there_is_little_or_none() -> None:
    coadd, _ = draw_coadd((64, 64))
    coadd.variance[:] = 4.0
    coadd.variance[0, 10, 10], coadd.variance[0, 20, 20] = 16.0, 1e6
    hole = np.zeros(coadd.good.shape, bool)
    hole[0, 30, 30] = True
    coadd = coadd.without(hole)
    noise = noise_map(coadd, np.float32(2.0))[coadd.latent_patch]
    assert noise[0, 0] == pytest.approx(1.0) and noise[10, 10] == pytest.approx(2.0)
    assert noise[20, 20] == noise[30, 30] == NO_DATA_NOISE
