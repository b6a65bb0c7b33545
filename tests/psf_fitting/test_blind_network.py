# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The network whose decoder is fitted, too."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops
from scipy.ndimage import uniform_filter
from scipy.signal import correlate2d, fftconvolve
from stacks import star_field

from lsst.drp.restore.psf_fitting.blind_network import (
    MARGIN,
    BlindDecoder,
    Centered,
    PointsOfStars,
    ProjectedReLU,
    build_crop_encoder,
)
from lsst.drp.restore.psf_fitting.cell_variation import center
from lsst.drp.restore.psf_fitting.point_sources import find_point_sources
from lsst.drp.restore.psf_fitting.star_stamps import StarStamps
from lsst.drp.restore.stack.kernel_shape import gaussian_kernel
from lsst.drp.restore.stack.reference_coadd import reference_coadd

START = np.stack([gaussian_kernel(2.5, 7), gaussian_kernel(3.5, 7)])


def make_decoder(strength: float = 0.0) -> BlindDecoder:
    decoder = BlindDecoder(START, strength)
    decoder.build((None, 14, 14, 1), (None, 1, 1, 2, 7, 7), (None, 14, 14, 1))
    return decoder


def gradient_of(decoder: BlindDecoder, *inputs: np.ndarray, upstream: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    tensors = [ops.convert_to_tensor(value, "float32") for value in inputs]
    with tf.GradientTape() as tape:
        loss = ops.sum(decoder(*tensors) * upstream) + sum(decoder.losses)
    return np.asarray(tape.gradient(loss, decoder.change.value))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Uses TensorFlow's tape.")
def test_gradient() -> None:
    """The gradient is the numerical derivative of the points' part of the
    loss.
    """
    rng = np.random.default_rng(1)
    decoder = make_decoder(strength=0.3)
    latent, points = rng.uniform(size=(2, 1, 14, 14, 1))
    variation = rng.uniform(0.8, 1.2, (1, 1, 1, 2, 7, 7))
    upstream = rng.normal(size=(1, 2, 8, 8)).astype(np.float32)
    change = 0.2 * rng.normal(size=(2, 7, 7))
    decoder.change.assign(change)
    gradient = gradient_of(decoder, latent, variation, points, upstream=upstream)

    def loss(change: np.ndarray) -> float:
        kernels = START * np.exp(change)
        kernels /= kernels.sum(axis=(1, 2), keepdims=True)
        image = points[0, :, :, 0]
        blurred = [
            fftconvolve(image, k * v, "valid") for k, v in zip(kernels, variation[0, 0, 0], strict=True)
        ]
        return float((np.stack(blurred) * upstream[0]).sum() + 0.15 * (change**2).sum())

    for _ in range(5):
        direction = rng.normal(size=change.shape)
        step = 1e-5
        slope = (loss(change + step * direction) - loss(change - step * direction)) / (2 * step)
        assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-3, abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(arrays(np.float32, (2, 7, 7), elements=st.floats(-0.5, 0.5, width=32)))
def test_constraint(change: np.ndarray) -> None:
    """Whatever a step does, kernels are positive, have sum 1 and are centered;
    it is the same as centering the kernels themselves.
    """
    decoder = make_decoder()
    limited = Centered(np.log(START))(ops.convert_to_tensor(change))
    decoder.change.assign(Centered(np.log(START))(limited))
    kernels = np.asarray(decoder.mean_kernels(), np.float64)
    assert (kernels > 0).all()
    np.testing.assert_allclose(kernels.sum(axis=(1, 2)), 1.0, rtol=1e-5)
    axis = np.arange(7) - 3
    np.testing.assert_allclose((kernels.sum(axis=2) * axis).sum(axis=1), 0.0, atol=2e-4)
    np.testing.assert_allclose((kernels.sum(axis=1) * axis).sum(axis=1), 0.0, atol=2e-4)
    expected = START * np.exp(change)
    expected = center(expected / expected.sum(axis=(1, 2), keepdims=True))
    np.testing.assert_allclose(kernels, expected, atol=2e-4)


def test_starts_from_the_start() -> None:
    np.testing.assert_allclose(np.asarray(make_decoder().mean_kernels()), START, rtol=1e-4)


def test_points_are_drawn_where_stars_are() -> None:
    stack, latent, truth = star_field(seed=3, n=3, shape=(128, 128), n_stars=9, flux=(2000.0, 9000.0))
    stars = find_point_sources(stack, reference_coadd(stack), min_snr=15, max_count=9)
    stamps = StarStamps.cut(stack, stars, np.ones_like(stack.kernels))
    kernels = stack.kernels.mean(axis=(1, 2)).astype(float)
    points = PointsOfStars(stars, stamps, latent.shape, stack.padding)
    far = points.is_far(5.0)
    assert not far[latent > 0].all() and far.mean() > 0.9
    image = points.image
    points.fit(kernels)
    assert points.image is image
    assert image.sum() == pytest.approx(latent.sum(), rel=0.02)
    places = np.argwhere(latent > 0)
    for y, x in places:
        stamp = image[y - 3 : y + 4, x - 3 : x + 4]
        # Within some hundredths of a pixel of where they are: nearly one pixel each.
        assert stamp.max() == stamp[3, 3] == pytest.approx(latent[y, x], rel=0.05)
        assert not far[y, x]


def crop(array: np.ndarray, pixels: int) -> np.ndarray:
    return array[pixels : array.shape[0] - pixels, pixels : array.shape[1] - pixels]


def test_crop_encoder() -> None:
    """The same with SciPy."""
    encoder = build_crop_encoder(3, seed=7)
    rng = np.random.default_rng(1)
    for variable in encoder.variables:
        if "bias" in variable.path:
            variable.assign(rng.uniform(0.1, 1.0, size=variable.shape))
    weights = {v.path: np.asarray(v, dtype=np.float64) for v in encoder.variables}
    size = 20 + 2 * MARGIN
    exposures = rng.normal(size=(size, size, 3)) * 5
    result = np.asarray(encoder(exposures[None].astype(np.float32)))[0, :, :, 0]
    brightness = crop(uniform_filter(np.maximum(exposures.mean(axis=-1), 0), 9) + 1, 4)
    y = crop(exposures, 4) / brightness[..., None]
    maps = []
    for k in (1, 3, 5, 7, 9, 11):
        kernel, bias = weights[f"depthwise_{k}/kernel"], weights[f"depthwise_{k}/bias"]
        cut = crop(y, (11 - k) // 2)
        branch = [correlate2d(cut[..., t], kernel[:, :, t, 0], mode="valid") + bias[t] for t in range(3)]
        maps += [np.where(one > 0, one, 0.2 * one) for one in branch]
    for i in range(2):
        kernel, bias = weights[f"hidden_{i}/kernel"], weights[f"hidden_{i}/bias"]
        sums = [
            sum(correlate2d(one, kernel[:, :, a, b], mode="valid") for a, one in enumerate(maps)) + bias[b]
            for b in range(kernel.shape[-1])
        ]
        maps = [np.maximum(one, 0) for one in sums]
    latent = np.stack(maps, -1) @ weights["pointwise/kernel"][0, 0, :, 0] + weights["pointwise/bias"][0]
    expected = np.maximum(latent * crop(brightness, 7), 0)
    assert result.shape == expected.shape == (20, 20)
    assert expected.any()
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4)


def test_output_that_went_dark_can_come_back() -> None:
    import tensorflow as tf

    values = tf.Variable([-2.0, -1.0, 3.0, 4.0])
    upstream = tf.constant([-1.0, 1.0, -1.0, 1.0])
    with tf.GradientTape() as tape:
        result = ProjectedReLU()(values)
    np.testing.assert_array_equal(result, [0.0, 0.0, 3.0, 4.0])
    # Descent along -1 makes the first one brighter; the second is to be
    # darker, which it cannot be.
    gradient = tape.gradient(result, values, output_gradients=upstream)
    np.testing.assert_array_equal(gradient, [-1.0, 0.0, -1.0, 1.0])
