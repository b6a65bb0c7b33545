# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Crops of simulated observations, and the loss of the network."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import fftconvolve

from lsst.drp.restore.restoration.network_input import NO_DATA_NOISE
from lsst.drp.restore.training.samples import draw_sample


def draw_planes(number: int = 3, size: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Return noiseless samples with PSFs that look different from each side."""
    rng = np.random.default_rng(8)
    planes = rng.exponential(size=(number, 5, size, size))
    kernels = rng.uniform(size=(number, 2, 25, 25))
    kernels /= kernels.sum(axis=(-2, -1), keepdims=True)
    kernels[:, 1] = 2.0 * kernels[:, 0]
    for index in range(number):
        planes[index, 0] = fftconvolve(planes[index, 4], kernels[index, 0], mode="same")
    planes[:, 3] = rng.uniform(size=(number, size, size)) < 0.9
    return planes.astype(np.float32), kernels.astype(np.float32)


def test_crops_are_turned_with_their_kernels() -> None:
    from lsst.drp.restore.training.objective import Crops

    planes, kernels = draw_planes()
    crops = Crops(planes, kernels, size=48, batch=64, number=2, seed=(3,))
    assert len(crops) == 2
    inputs, target = crops[1]
    assert inputs["planes"].shape == (64, 48, 48, 4) and inputs["kernels"].shape == (64, 2, 25, 25)
    assert target.shape == (64, 48, 48, 3)
    assert inputs["planes"].dtype == inputs["kernels"].dtype == target.dtype == np.float32
    views = set()
    for image, pair, truth in zip(inputs["planes"], inputs["kernels"], target[..., 0], strict=True):
        seen = fftconvolve(truth, pair[0], mode="valid")
        np.testing.assert_allclose(seen, image[12:-12, 12:-12, 0], atol=1e-3)
        np.testing.assert_allclose(pair[1], 2 * pair[0])
        views.add(pair[0].tobytes())
    # Three samples from eight sides.
    assert 15 < len(views) <= 24


def test_crops_have_a_frame_without_data() -> None:
    from lsst.drp.restore.training.objective import Crops

    planes, kernels = draw_planes()
    inputs, target = Crops(planes, kernels, size=48, batch=4, number=1, seed=(3,))[0]
    frame = np.ones((48, 48), bool)
    frame[12:-12, 12:-12] = False
    assert (inputs["planes"][:, frame, 2] == NO_DATA_NOISE).all()
    weight = target[..., 1]
    assert (weight[:, frame] == 0).all() and (weight[:, ~frame] > 0).all()
    np.testing.assert_allclose(weight.sum(axis=(1, 2)), 1.0, rtol=1e-4)
    # Truth is known in the frame, too, and what is known is not changed.
    assert (target[:, frame, 0] > 0).any()
    error = (weight * (inputs["planes"][..., 1] - target[..., 0]) ** 2).sum(axis=(1, 2))
    np.testing.assert_allclose(target[:, 0, 0, 2], 0.05 + error, rtol=1e-4)


def test_crops_are_reproducible() -> None:
    from lsst.drp.restore.training.objective import Crops

    planes, kernels = draw_planes()
    before = planes.copy()
    first, second = (Crops(planes, kernels, size=48, batch=4, number=3, seed=(3,)) for _ in range(2))
    # In any order.
    others = {index: second[index] for index in (2, 0, 1)}
    for index in range(3):
        for name, array in first[index][0].items():
            np.testing.assert_array_equal(array, others[index][0][name])
        np.testing.assert_array_equal(first[index][1], others[index][1])
    assert (first[0][1] != first[1][1]).any()
    seeded = Crops(planes, kernels, size=48, batch=4, number=3, seed=(4,))
    assert (first[0][1] != seeded[0][1]).any()
    np.testing.assert_array_equal(planes, before)


def test_loss() -> None:
    from lsst.drp.restore.training.objective import SkyLoss

    rng = np.random.default_rng(5)
    truth = rng.exponential(size=(3, 16, 16))
    weight = rng.uniform(size=(3, 16, 16))
    weight[:, :4] = 0.0
    easy = np.array([0.3, 0.05, 20.0])
    target = np.stack([truth, weight, np.broadcast_to(easy[:, None, None], truth.shape)], axis=-1)
    output = np.concatenate(
        [(truth + rng.normal(size=truth.shape))[..., None], rng.uniform(0.05, 2, (*truth.shape, 1))] * 2, -1
    )
    output[..., 2:] *= 1.1
    expected = []
    for k in range(3):
        total = 0.0
        for one, share in ((0, 0.5), (1, 1.0)):
            image, stated = output[k, ..., 2 * one], output[k, ..., 2 * one + 1]
            relative = (weight[k] * (image - truth[k]) ** 2).sum() / easy[k]
            inside = weight[k] > 0
            chi2 = np.minimum((image - truth[k])[inside] ** 2 / stated[inside] ** 2, 100.0)
            likelihood = np.mean(np.log(stated[inside]) + 0.5 * chi2)
            total += share * (np.sqrt(relative + 1e-6) + 0.02 * likelihood)
        expected.append(total)
    loss = SkyLoss(reduction=None)(target.astype("f4"), output.astype("f4"))
    np.testing.assert_allclose(np.asarray(loss), expected, rtol=1e-4)


def test_stated_error_does_not_pull_the_image() -> None:
    """The error that makes the loss smallest is that of the image, and the
    image that does is the truth, whatever the error.
    """
    from lsst.drp.restore.training.objective import SkyLoss

    rng = np.random.default_rng(5)
    truth = np.zeros((1, 32, 32), np.float32)
    weight = np.full_like(truth, 1.0 / 1024)
    target = np.stack([truth, weight, np.ones_like(truth)], axis=-1)
    image = rng.normal(0.0, 0.7, truth.shape).astype("f4")
    errors = np.linspace(0.3, 1.2, 19)
    loss = [
        float(SkyLoss()(target, np.stack([image, np.full_like(image, error)], axis=-1))) for error in errors
    ]
    assert errors[np.argmin(loss)] == pytest.approx(0.7, abs=0.06)


@pytest.mark.slow
def test_training_lowers_the_loss() -> None:
    import keras

    from lsst.drp.restore.restoration.sky_network import build_network
    from lsst.drp.restore.training.objective import Crops, SkyLoss, build_trainer

    keras.utils.set_random_seed(1)
    samples = [draw_sample(np.random.default_rng((5, index)), 96) for index in range(10)]
    planes = np.stack([sample.planes for sample in samples])
    kernels = np.stack([sample.kernels for sample in samples])
    network = build_network((8, 8, 8))
    trainer = build_trainer(network, 56, 25, 2)
    assert trainer.output_shape == (None, 56, 56, 4)
    trainer.compile(optimizer=keras.optimizers.Adam(3e-3), loss=SkyLoss())
    fixed = Crops(planes, kernels, size=56, batch=16, number=1, seed=(1,))
    before = trainer.evaluate(fixed, verbose=0)
    # The image does not change at first.
    inputs, _ = fixed[0]
    result = trainer.predict_on_batch(inputs)
    np.testing.assert_allclose(result[..., 2], np.maximum(inputs["planes"][..., 1], 0.0), rtol=1e-5)
    trainer.fit(Crops(planes, kernels, size=56, batch=8, number=40, seed=(2,)), verbose=0)
    after = trainer.evaluate(fixed, verbose=0)
    assert after < before - 0.02
    # What was trained is the network itself.
    assert network.get_layer("correction").get_weights()[0].any()
