# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Trainings from several seeds, and the mean of what they find."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from stacks import star_field

from lsst.drp.restore.characterize import CharacterizeTask
from lsst.drp.restore.ensemble import average_restorations, member_weights
from lsst.drp.restore.exposure_stack import ExposureStack
from lsst.drp.restore.image_mm import ImageMMTask
from lsst.drp.restore.pack import make_weights_table
from lsst.drp.restore.plots import plot_history
from lsst.drp.restore.restoration import Restoration, make_history
from lsst.drp.restore.restore_coadd import RestoreCoaddConfig, RestoreCoaddTask


def make_restoration(latent: np.ndarray, **fields: Any) -> Restoration:
    arguments: dict[str, Any] = dict(
        latent=latent,
        padding=2,
        converged=True,
        history=make_history([(10, 2.0, np.nan, 0.1, 1.0), (20, 1.0, np.nan, 0.1, 2.0)]),
        weights={"a/kernel": latent[:1], "b": latent[0, :2]},
        steps=20,
        loss=1.0,
        device="CPU",
        seconds=2.0,
        repeat=lambda other: latent * other.image.max(),
    )
    return Restoration(**(arguments | fields))


def make_task(**fields: Any) -> RestoreCoaddTask:
    config = RestoreCoaddConfig()
    config.restorer.update(cropSize=32, batchSize=2, stepsPerEpoch=10, maxEpochs=1, computeDevice="cpu")
    config.restorer.update(**fields)
    config.refine.steps = 2
    config.characterize.numRealizations = 2
    config.validate()
    return RestoreCoaddTask(config=config)


def test_mean_and_spread() -> None:
    rng = np.random.default_rng(1)
    latents = rng.gamma(0.5, 100.0, (4, 9, 11)).astype(np.float32)
    losses: list[np.ndarray] = []

    def loss(latent: np.ndarray) -> float:
        losses.append(latent)
        return 0.5

    members = [make_restoration(x, converged=k != 2) for k, x in enumerate(latents)]
    mean = average_restorations(iter(members), loss)
    np.testing.assert_allclose(mean.latent, latents.mean(axis=0, dtype=np.float64), rtol=1e-6)
    assert mean.spread is not None
    np.testing.assert_allclose(
        mean.spread, latents.astype(np.float64).var(axis=0, ddof=1) / 4, rtol=1e-5, atol=1e-6
    )
    assert mean.latent.dtype == mean.spread.dtype == np.float32
    assert (mean.n_members, mean.steps, mean.seconds, mean.loss) == (4, 80, 8.0, 0.5)
    assert not mean.converged
    assert losses[0] is mean.latent
    stack, _, _ = star_field(n=2, shape=(32, 32), n_stars=1)
    np.testing.assert_allclose(mean.repeat(stack), mean.latent * stack.image.max(), rtol=1e-5)
    for k in range(4):
        for name, value in members[k].weights.items():
            np.testing.assert_array_equal(member_weights(mean.weights, k)[name], value)
    assert member_weights(mean.weights, 4) == {}
    assert len(make_weights_table(mean.weights)) == 4 * (11 + 2)
    assert mean.history["member"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    (axes,) = plot_history(mean.history).axes
    assert len(axes.lines) == 4


def test_one_member_is_left_alone() -> None:
    only = make_restoration(np.ones((5, 5), np.float32))
    assert average_restorations([only], lambda _: np.nan) is only


def test_mean_over_seeds_is_the_mean_of_single_runs() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4)

    def restore(**fields: Any) -> tuple[ExposureStack, Any]:
        copy = dataclasses.replace(
            stack, image=stack.image.copy(), variance=stack.variance.copy(), good=stack.good.copy()
        )
        return copy, make_task(**fields).restore(copy)

    (_, first), (_, second), (pixels, both) = (
        restore(seed=5),
        restore(seed=6),
        restore(seed=5, numSeeds=2),
    )
    a, b = first.restoration.latent, second.restoration.latent
    assert np.abs(a - b).max() > 0.1 * a.max()
    restoration = both.restoration
    np.testing.assert_allclose(restoration.latent, (a + b) / 2, rtol=1e-5, atol=1e-5)
    # The variance of the mean of two: half of half of the squared difference.
    np.testing.assert_allclose(restoration.spread, (a - b) ** 2 / 4, rtol=1e-3, atol=1e-4)
    assert restoration.n_members == 2
    # The loss is convex.
    assert restoration.loss <= (first.restoration.loss + second.restoration.loss) / 2
    np.testing.assert_allclose(restoration.repeat(pixels), restoration.latent, rtol=1e-5, atol=1e-5)
    assert restoration.steps == first.restoration.steps + second.restoration.steps
    # It is stated; other realizations of the noise cannot make up for it.
    noise = (first.character.variance + second.character.variance) / 2
    assert both.character.variance.sum() > 0.5 * restoration.spread[12:-12, 12:-12].sum()
    assert both.character.variance.shape == noise.shape


def test_spread_is_added_to_the_variance() -> None:
    stack, _, _ = star_field(n=3, shape=(96, 96), n_stars=2, bad_fraction=0.0)
    config = ImageMMTask.ConfigClass()
    config.maxSteps = 5
    restoration = ImageMMTask(config=config).run(stack, None)  # type: ignore[arg-type]
    character = CharacterizeTask.ConfigClass()
    character.numRealizations = 2
    task = CharacterizeTask(config=character)
    without = task.run(stack, restoration)
    spread = np.full_like(restoration.latent, 7.0)
    with_it = task.run(stack, dataclasses.replace(restoration, spread=spread, n_members=3))
    difference = with_it.variance - without.variance
    empty = restoration.image < np.median(restoration.image) + 1.0
    assert np.median(difference[empty]) == pytest.approx(7.0, rel=1e-3)
    assert (difference > 0).all()
    # The noise realizations are of the exposures' noise alone.
    np.testing.assert_array_equal(with_it.noise_realizations[0], without.noise_realizations[0])
