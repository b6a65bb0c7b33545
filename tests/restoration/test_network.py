# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d
from stacks import star_field

from lsst.drp.restore.restoration.backend import prepare_backend

prepare_backend("cpu", 2)

from lsst.drp.restore.restoration.crops import CropSampler, NetworkInput  # noqa: E402
from lsst.drp.restore.restoration.network import (  # noqa: E402
    MaskedHuber,
    build_encoder,
    build_trainer,
    encoder_margin,
    set_field_statistics,
)

SIZES = (1, 3, 5)


def crop(array: np.ndarray, pixels: int) -> np.ndarray:
    return array[pixels : array.shape[0] - pixels, pixels : array.shape[1] - pixels]


def encode(exposures: np.ndarray, encoder: object) -> np.ndarray:
    """Evaluate an encoder with SciPy, from the papers' description."""
    weights = {v.path: np.asarray(v, dtype=np.float64) for v in encoder.variables}
    maps = []
    for k in SIZES:
        kernel, bias = weights[f"depthwise_{k}/kernel"], weights[f"depthwise_{k}/bias"]
        cut = crop(exposures, (max(SIZES) - k) // 2)
        branch = np.stack(
            [
                correlate2d(cut[..., t], kernel[:, :, t, 0], mode="valid") + bias[t]
                for t in range(exposures.shape[-1])
            ],
            -1,
        )
        name = f"normalization_{k}"
        branch = (np.maximum(branch, 0) - weights[f"{name}/moving_mean"]) / np.sqrt(
            weights[f"{name}/moving_variance"] + 1e-3
        )
        maps.append(branch * weights[f"{name}/gamma"] + weights[f"{name}/beta"])
    z = np.concatenate(maps, axis=-1)
    return np.maximum(z @ weights["pointwise/kernel"][0, 0, :, 0] + weights["pointwise/bias"][0], 0)


def test_encoder_is_the_published_network() -> None:
    encoder = build_encoder(3, SIZES, seed=7)
    rng = np.random.default_rng(1)
    for variable in encoder.variables:
        if "moving" in variable.path or "bias" in variable.path:
            variable.assign(rng.uniform(0.1, 1.0, size=variable.shape))
    size = 20 + 2 * encoder_margin(SIZES)
    exposures = rng.normal(size=(size, size, 3)) * 5
    result = np.asarray(encoder(exposures[None].astype(np.float32)))[0, :, :, 0]
    assert result.shape == (20, 20)
    expected = encode(exposures, encoder)
    assert expected.any()
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.sampled_from([1, 3, 5, 7, 11]), min_size=1, max_size=4, unique=True))
def test_margin_is_what_the_output_lacks(sizes: list[int]) -> None:
    encoder = build_encoder(2, sizes, seed=0)
    size = 3 + 2 * encoder_margin(sizes)
    assert encoder(np.ones((1, size, size, 2), np.float32)).shape == (1, 3, 3, 1)


def test_few_parameters() -> None:
    # "Thousands" for the papers' 33 exposures.
    assert 1_000 < build_encoder(33, (1, 3, 5, 7, 9, 11), seed=0).count_params() < 20_000


def test_initial_weights_follow_the_seed() -> None:
    first, second, other = (build_encoder(2, SIZES, seed=s).get_weights() for s in (1, 1, 2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_loss_is_equation_5() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.normal(size=(2, 1, 3, 8, 8)).astype(np.float32) * 3
    weight = (rng.uniform(size=truth.shape) < 0.7).astype(np.float32)
    residual = np.abs(truth - predicted)
    loss = np.where(residual <= 1.5, 0.5 * residual**2, 1.5 * (residual - 0.75))
    result = float(MaskedHuber(1.5)(truth, predicted, sample_weight=weight))
    assert result == pytest.approx((loss * weight).sum() / weight.sum(), rel=1e-5)


def test_gradient_of_the_trainer_is_the_derivative() -> None:
    import tensorflow as tf

    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4, flux=(50.0, 100.0))
    sampler = CropSampler(
        NetworkInput(stack, np.zeros(stack.shape), encoder_margin(SIZES)),
        crop_shape=(32, 32),
        batch_size=2,
        validation_fraction=0.0,
        min_good_fraction=0.0,
        seed=1,
    )
    encoder = build_encoder(2, SIZES, seed=3)
    # Without kinks a finite difference is meaningful.
    for size in SIZES:
        encoder.get_layer(f"depthwise_{size}").bias.assign([8.0, 8.0])
    encoder.get_layer("pointwise").bias.assign([5.0])
    trainer = build_trainer(encoder, 2, sampler.context_shape, sampler.kernels_shape)
    inputs, target, weight = sampler.training_batch()
    loss = MaskedHuber(2.0)
    variable = encoder.get_layer("depthwise_3").kernel
    with tf.GradientTape() as tape:
        value = loss(target, trainer(inputs, training=True), sample_weight=weight)
    gradient = np.asarray(tape.gradient(value, variable.value))
    direction = gradient / np.linalg.norm(gradient)
    start, step = np.asarray(variable), 4e-2
    ends = []
    for sign in (1, -1):
        variable.assign(start + sign * step * direction)
        ends.append(float(loss(target, trainer(inputs, training=True), sample_weight=weight)))
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(np.vdot(gradient, direction), rel=0.02)


@pytest.mark.parametrize("sizes", [SIZES, (5,)])
def test_statistics_of_the_field_do_not_depend_on_the_tiles(sizes: tuple[int, ...]) -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64))
    results = []
    for size in (1000, 17):
        encoder = build_encoder(2, sizes, seed=3)
        field = NetworkInput(stack, np.zeros(stack.shape), encoder_margin(sizes))
        set_field_statistics(encoder, sizes, (tile for _, _, tile in field.tiles(size)))
        results.append(encoder.get_layer("normalization_5").moving_variance.numpy())
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)
    # They are those of the maps, as batch normalization uses them in training.
    (_, _, tile), *_ = field.tiles(1000)
    in_training = np.asarray(encoder(tile, training=True))
    np.testing.assert_allclose(np.asarray(encoder(tile)), in_training, rtol=1e-3, atol=1e-4)
