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
from stacks import run_restorer, star_field

import lsst.pex.config as pexConfig
from lsst.drp.restore.errors import DivergedError, RestorationError
from lsst.drp.restore.restoration import published_net
from lsst.drp.restore.restoration.published_net import PublishedNetConfig, PublishedNetTask
from lsst.drp.restore.restore_coadd import RestoreCoaddConfig
from lsst.drp.restore.stack.reference_coadd import reference_coadd

PAPER = Path(__file__).parents[2] / "config" / "paper.py"


def make_task(**fields: Any) -> PublishedNetTask:
    config = PublishedNetConfig()
    config.update(maxEpochs=10, computeDevice="cpu")
    config.update(**fields)
    config.validate()
    return PublishedNetTask(config=config)


@pytest.mark.slow
def test_same_seed_same_result() -> None:
    stack, _, _ = star_field(n=3, shape=(64, 64), n_stars=4)
    first, second, other = (
        run_restorer(make_task(maxEpochs=1), stack, n_threads=2, seed=seed) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first.latent, second.latent)
    assert (first.latent != other.latent).any()


@pytest.mark.slow
def test_tiles_do_not_show() -> None:
    stack, _, _ = star_field(n=3, shape=(96, 96), n_stars=4)
    whole, tiled = (
        run_restorer(make_task(maxEpochs=1, tileSize=size), stack, n_threads=2) for size in (1000, 37)
    )
    np.testing.assert_allclose(tiled.latent, whole.latent, rtol=1e-4, atol=1e-5 * whole.latent.max())


def test_the_fitted_network_restores_other_pixels() -> None:
    stack, _, _ = star_field(n=6, shape=(128, 128), n_stars=9, flux=(500.0, 5000.0), bad_fraction=0.05)
    result = run_restorer(make_task(tileSize=60), stack, n_threads=2)
    np.testing.assert_array_equal(result.fitted.restore(stack), result.latent)
    # Light that was not there appears where it was put, holes or not.
    y, x = 96, 64
    added = dataclasses.replace(stack, image=stack.image.copy())
    added.image[:, y - 12 : y + 13, x - 12 : x + 13] += 2000 * stack.kernels[:, y // 32, x // 32]
    added.image[~stack.good] = 0.0
    difference = result.fitted.restore(added)[12:-12, 12:-12] - result.image
    assert difference[y - 6 : y + 7, x - 6 : x + 7].sum() > 0.0
    far = np.ones(stack.shape, dtype=bool)
    far[max(y - 36, 0) : y + 37, max(x - 36, 0) : x + 37] = False
    assert np.abs(difference[far]).max() < 1e-3


@pytest.mark.slow
def test_masked_pixels_do_not_matter() -> None:
    stack, _, _ = star_field(n=3, shape=(64, 64), n_stars=4, bad_fraction=0.05)
    first = run_restorer(make_task(maxEpochs=1), stack, n_threads=2)
    stack.image[~stack.good] = 1e5
    second = run_restorer(make_task(maxEpochs=1), stack, n_threads=2)
    np.testing.assert_array_equal(first.latent, second.latent)


@pytest.mark.slow
def test_the_papers_configuration_runs(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lsst.drp.restore.restoration import fitting
    from lsst.drp.restore.restoration.likelihood import Likelihood

    config = RestoreCoaddConfig()
    config.load(str(PAPER))
    config.validate()
    task = config.restorer.value
    assert published_net.LEARNING_RATE == 0.002
    assert published_net.LEARNING_RATE_DECAY == 0.95
    assert published_net.LEARNING_RATE_DECAY_STEPS == 1000
    assert (config.restorer.target, task.maxEpochs, task.huberDelta) == (PublishedNetTask, 450, 1.0)
    assert config.sky.order == -1
    # Its output starts as faint as the noise: bright stars take it thousands
    # of epochs.
    stack, _, stars = star_field(n=4, shape=(64, 64), n_stars=4, flux=(100.0, 300.0))
    task.maxEpochs = 150
    monkeypatch.setattr(fitting, "PROGRESS_INTERVAL", 0.0)
    reference = reference_coadd(stack)
    results = []
    for size in (512, 40):
        task.tileSize = size
        with caplog.at_level(logging.INFO, logger="lsst"):
            results.append(run_restorer(PublishedNetTask(config=task), stack, n_threads=2))
    whole, tiled = results
    assert whole.steps == 150
    assert (whole.latent >= 0).all()
    assert whole.image.shape == stack.shape
    dark = Likelihood(stack, 1.0).huber_loss(np.zeros_like(whole.latent))
    assert whole.loss < 0.9 * dark
    assert whole.history.colnames == ["step", "loss", "validation_loss", "learning_rate", "seconds"]
    assert whole.history["step"][-1] == whole.steps
    assert np.isnan(whole.history["validation_loss"]).all()
    assert any("Mpixel/s" in message and "s left" in message for message in caplog.messages)
    # Normalized with the statistics of the field, whatever the tiles.
    np.testing.assert_allclose(tiled.latent, whole.latent, rtol=1e-3, atol=1e-4 * whole.latent.max())
    for y, x, _ in stars:
        assert (
            whole.image[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].max()
            > reference.image[int(y), int(x)]
        )


@pytest.mark.slow
def test_diverged_training_is_an_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    monkeypatch.setattr(published_net, "LEARNING_RATE", 1e30)
    task = make_task(maxEpochs=2)
    message = r"diverged.*learning rate of 2.5e\+29.*the most extreme good pixel has .* nJy, on visit \d"
    with caplog.at_level("WARNING"), pytest.raises(DivergedError, match=message):
        run_restorer(task, stack)
    # It was tried twice.
    assert caplog.text.count("Retrying from fresh weights with 0.25 of the learning rate") == 1


@pytest.mark.slow
def test_diverged_training_is_repeated_from_fresh_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it had had the smaller learning rate from the start."""
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    monkeypatch.setattr(published_net, "LEARNING_RATE", 0.004)
    expected = run_restorer(make_task(), stack)
    # Neither the learning rate nor the weights of the first try are kept.
    monkeypatch.setattr(published_net, "LEARNING_RATE", 4e30)
    monkeypatch.setattr(published_net, "RETRY_FACTOR", 1e-33)
    repeated = run_restorer(make_task(), stack)
    assert repeated.n_retries == 1
    np.testing.assert_array_equal(repeated.latent, expected.latent)
    assert expected.n_retries == 0


def test_no_gpu() -> None:
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("This machine has a GPU.")
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    with pytest.raises(RestorationError, match="computeDevice.*auto"):
        run_restorer(make_task(computeDevice="gpu"), stack)
    result = run_restorer(make_task(computeDevice="auto", maxEpochs=1), stack)
    assert result.device == "CPU"


@pytest.mark.parametrize("sizes", [[2], [], [3, 3]])
def test_sizes_that_are_no_kernels(sizes: list[int]) -> None:
    with pytest.raises((pexConfig.FieldValidationError, ValueError), match="kernelSizes"):
        make_task(kernelSizes=sizes)


@pytest.mark.slow
def test_nothing_keeps_the_exposures_afterwards() -> None:
    """A process restores many patches, one after the other."""
    stack, _, _ = star_field(n=2, shape=(96, 96), n_stars=4)
    run_restorer(make_task(maxEpochs=1), stack)
    reference = weakref.ref(stack)
    del stack
    gc.collect()
    assert reference() is None
