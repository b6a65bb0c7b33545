# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

import dataclasses
import gc
import logging
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stacks import star_field

import lsst.pex.config as pexConfig
from lsst.drp.restore.astro_clear_net import AstroClearNetConfig, AstroClearNetTask
from lsst.drp.restore.divergence import require_finite, retry_diverged
from lsst.drp.restore.errors import DivergedError, RestorationError
from lsst.drp.restore.image_mm import ImageMMConfig, ImageMMTask
from lsst.drp.restore.reference_coadd import reference_coadd
from lsst.drp.restore.restore_coadd import RestoreCoaddConfig
from lsst.utils.logging import getLogger

PAPER = Path(__file__).parents[1] / "config" / "paper.py"


def make_task(**fields: Any) -> AstroClearNetTask:
    config = AstroClearNetConfig()
    config.update(cropSize=32, batchSize=2, stepsPerEpoch=50, maxEpochs=10, computeDevice="cpu")
    config.update(**fields)
    config.validate()
    return AstroClearNetTask(config=config)


def aperture_flux(image: np.ndarray, y: float, x: float, radius: int = 6) -> float:
    rows, cols = slice(int(y) - radius, int(y) + radius + 1), slice(int(x) - radius, int(x) + radius + 1)
    return float((image[rows, cols] - np.median(image)).sum())


def test_stars_are_sharper_and_keep_their_flux(caplog: pytest.LogCaptureFixture) -> None:
    stack, _, stars = star_field(n=6, shape=(128, 128), n_stars=9, flux=(500.0, 5000.0))
    reference = reference_coadd(stack)
    with caplog.at_level(logging.INFO, logger="lsst"):
        result = make_task(maxEpochs=16, progressInterval=0.0).run(stack, reference, n_threads=2)
    assert (result.latent >= 0).all()
    assert result.image.shape == stack.shape
    # The loss of pure noise is 0.46 for delta = 2; nothing at all describes
    # the stars much worse.
    assert result.loss < 0.6
    for y, x, flux in stars:
        peak = result.image[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].max()
        assert peak > 1.5 * reference.image[int(y), int(x)]
        assert aperture_flux(result.image, y, x) == pytest.approx(flux, rel=0.2)
    assert result.history.colnames == ["step", "loss", "validation_loss", "learning_rate", "seconds"]
    assert result.history["step"][-1] == result.steps
    assert result.history["validation_loss"][-1] < result.history["validation_loss"][0]
    assert any("Mpixel/s" in message and "s left" in message for message in caplog.messages)


def test_same_seed_same_result() -> None:
    stack, _, _ = star_field(n=3, shape=(64, 64), n_stars=4)
    reference = reference_coadd(stack)
    first, second, other = (
        make_task(maxEpochs=1, seed=seed).run(stack, reference, n_threads=2) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first.latent, second.latent)
    assert (first.latent != other.latent).any()


def test_tiles_do_not_show() -> None:
    stack, _, _ = star_field(n=3, shape=(96, 96), n_stars=4)
    reference = reference_coadd(stack)
    whole, tiled = (
        make_task(maxEpochs=1, tileSize=size).run(stack, reference, n_threads=2) for size in (1000, 37)
    )
    np.testing.assert_allclose(tiled.latent, whole.latent, rtol=1e-4, atol=1e-5 * whole.latent.max())


def test_repeat_is_the_fitted_network() -> None:
    stack, _, stars = star_field(n=6, shape=(128, 128), n_stars=9, flux=(500.0, 5000.0), bad_fraction=0.05)
    result = make_task(tileSize=60).run(stack, reference_coadd(stack), n_threads=2)
    np.testing.assert_array_equal(result.repeat(stack), result.latent)
    # Twice the light in the exposures is twice the light in the latent image.
    brighter = dataclasses.replace(stack, image=2 * stack.image)
    again = result.repeat(brighter)[12:-12, 12:-12]
    for y, x, _ in stars:
        ratio = aperture_flux(again, y, x) / aperture_flux(result.image, y, x)
        assert ratio == pytest.approx(2.0, rel=0.05)
    # Light that was not there appears where it was put, holes or not.
    y, x = 96, 64
    added = dataclasses.replace(stack, image=stack.image.copy())
    added.image[:, y - 12 : y + 13, x - 12 : x + 13] += 2000 * stack.kernels[:, y // 32, x // 32]
    added.image[~stack.good] = 0.0
    difference = result.repeat(added)[12:-12, 12:-12] - result.image
    assert difference[y - 6 : y + 7, x - 6 : x + 7].sum() == pytest.approx(2000, rel=0.2)
    far = np.ones(stack.shape, dtype=bool)
    far[max(y - 36, 0) : y + 37, max(x - 36, 0) : x + 37] = False
    assert np.abs(difference[far]).max() < 1e-3


def test_masked_pixels_do_not_matter() -> None:
    stack, _, _ = star_field(n=3, shape=(64, 64), n_stars=4, bad_fraction=0.05)
    reference = reference_coadd(stack)
    first = make_task(maxEpochs=1).run(stack, reference, n_threads=2)
    stack.image[~stack.good] = 1e5
    second = make_task(maxEpochs=1).run(stack, reference, n_threads=2)
    np.testing.assert_array_equal(first.latent, second.latent)


def test_training_stops_when_the_held_out_loss_does_not_fall() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=1, flux=(1.0, 1.1))
    config = dict(stepsPerEpoch=5, maxEpochs=50, minEpochs=2, patience=2, minImprovement=0.05)
    result = make_task(**config).run(stack, reference_coadd(stack), n_threads=2)
    assert result.converged
    assert result.steps < 250
    assert not make_task(**(config | {"maxEpochs": 1})).run(stack, reference_coadd(stack)).converged


def test_the_papers_configuration_runs() -> None:
    from lsst.drp.restore.decoder import FieldDecoder

    config = RestoreCoaddConfig()
    config.load(str(PAPER))
    config.validate()
    task = config.restorer.value
    assert (task.learningRate, task.learningRateDecay, task.learningRateDecaySteps) == (0.002, 0.95, 1000)
    assert (task.maxEpochs, task.cropSize, task.batchNormalization) == (450, 0, True)
    # Its output starts as faint as the noise: bright stars take it thousands
    # of epochs.
    stack, _, stars = star_field(n=4, shape=(64, 64), n_stars=4, flux=(100.0, 300.0))
    task.maxEpochs = 150
    reference = reference_coadd(stack)
    results = []
    for size in (512, 40):
        task.tileSize = size
        results.append(AstroClearNetTask(config=task).run(stack, reference, n_threads=2))
    whole, tiled = results
    assert whole.steps == 150
    dark = FieldDecoder(stack).huber_loss(np.zeros_like(whole.latent), 1.0)
    assert whole.loss < 0.9 * dark
    assert np.isnan(whole.history["validation_loss"]).all()
    # Normalized with the statistics of the field, whatever the tiles.
    np.testing.assert_allclose(tiled.latent, whole.latent, rtol=1e-3, atol=1e-4 * whole.latent.max())
    for y, x, _ in stars:
        assert (
            whole.image[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].max()
            > reference.image[int(y), int(x)]
        )


def test_diverged_training_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    task = make_task(learningRate=1e30, maxEpochs=2)
    message = r"diverged.*learningRate.*the most extreme good pixel has .* nJy, on visit \d"
    with caplog.at_level("WARNING"), pytest.raises(DivergedError, match=message):
        task.run(stack, reference_coadd(stack))
    # It was tried twice.
    assert caplog.text.count("Once more, from fresh weights and with 0.25 of the learning rate") == 1


def test_no_second_try() -> None:
    factors: list[float] = []

    def train(factor: float) -> None:
        factors.append(factor)
        raise DivergedError("The loss is nan.")

    with pytest.raises(DivergedError):
        retry_diverged(train, 0.0, getLogger("lsst.test"))
    assert factors == [1.0]


def test_latent_image_that_is_not_finite_is_an_error() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    config = ImageMMConfig()
    config.maxSteps = 1
    restoration = ImageMMTask(config=config).run(stack, reference_coadd(stack))
    assert require_finite(restoration, stack) is restoration
    restoration.latent[3, 4] = np.inf
    with pytest.raises(DivergedError, match="1 of the .* pixels of the restored image are not finite"):
        require_finite(restoration, stack)


def test_diverged_training_is_repeated_from_fresh_weights() -> None:
    """As if it had had the smaller learning rate from the start."""
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    reference = reference_coadd(stack)
    quick = dict(maxEpochs=1, stepsPerEpoch=10)
    expected = make_task(learningRate=0.004, **quick).run(stack, reference)
    # Neither the learning rate nor the weights of the first try are kept.
    bad = {name: np.full_like(value, np.nan) for name, value in expected.weights.items()}
    task = make_task(learningRate=4e30, divergenceRetryFactor=1e-33, **quick)
    repeated = task.run(stack, reference, initial_weights=bad)
    assert repeated.n_retries == 1
    assert repeated.warm_start == 0.0
    np.testing.assert_array_equal(repeated.latent, expected.latent)
    assert expected.n_retries == 0
    # No training at all: what is stored of the network is enough.
    kept = make_task(maxEpochs=0).run(stack, reference, initial_weights=expected.weights)
    np.testing.assert_array_equal(kept.latent, expected.latent)
    assert (kept.steps, kept.warm_start, len(kept.history)) == (0, 1.0, 1)
    assert kept.initial_loss == kept.loss == expected.loss
    with pytest.raises(RestorationError, match="maxEpochs=0 needs all weights"):
        make_task(maxEpochs=0).run(stack, reference)


def test_no_gpu() -> None:
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("This machine has a GPU.")
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    with pytest.raises(RestorationError, match="computeDevice.*auto"):
        make_task(computeDevice="gpu").run(stack, reference_coadd(stack))
    result = make_task(computeDevice="auto", maxEpochs=1, stepsPerEpoch=1).run(stack, reference_coadd(stack))
    assert result.device == "CPU"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hiddenFilters": [4]}, "as many entries"),
        ({"brightnessWindow": 8}, "odd"),
        ({"batchNormalization": True}, "cropSize=0"),
        ({"cropSize": 0}, "validationFraction"),
        ({"brightnessWindow": 0}, "normalizeInput"),
        ({"kernelSizes": [2]}, "kernelSizes"),
    ],
)
def test_contradictions_in_the_configuration(fields: dict[str, Any], message: str) -> None:
    with pytest.raises((pexConfig.FieldValidationError, ValueError), match=message):
        make_task(**fields)


def test_crops_are_cut_to_small_patches() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=1)
    result = make_task(cropSize=200, maxEpochs=1, stepsPerEpoch=2).run(stack, reference_coadd(stack))
    assert result.image.shape == (64, 64)


def test_nothing_keeps_the_exposures_afterwards() -> None:
    """A process restores many patches, one after the other."""
    stack, _, _ = star_field(n=2, shape=(96, 96), n_stars=4)
    make_task(maxEpochs=1, stepsPerEpoch=2).run(stack, reference_coadd(stack))
    reference = weakref.ref(stack)
    del stack
    gc.collect()
    assert reference() is None
