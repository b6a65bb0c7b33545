# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stacks import star_field

from lsst.drp.restore import RestoreCoaddConfig, RestoreCoaddConnections
from lsst.drp.restore.restoration.astro_clear_net import AstroClearNetConfig, AstroClearNetTask
from lsst.drp.restore.restoration.backend import prepare_backend
from lsst.drp.restore.restoration.measurable import MeasurableTask, matched_stack
from lsst.drp.restore.restoration.network_weights import describe_weights, read_weights, write_weights
from lsst.drp.restore.restoration.restoration import Restoration, StartingPoint
from lsst.drp.restore.restoration.seeds import Seeds
from lsst.drp.restore.restoration.target_psf import TARGET_FWHM, convolution_kernels
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.reference_coadd import reference_coadd
from lsst.utils.logging import getLogger


@pytest.fixture(scope="module", autouse=True)
def backend() -> None:
    prepare_backend("cpu", 1)


def field(n: int = 6, *, seed: int = 1) -> ExposureStack:
    return star_field(n=n, shape=(64, 96), n_stars=6, flux=(500.0, 5000.0), seed=seed)[0]


def members(stack: ExposureStack, part: slice) -> ExposureStack:
    names = ("image", "variance", "good", "kernels", "correlation", "names")
    return dataclasses.replace(
        stack, **{name: getattr(stack, name)[part].copy() for name in names[:-1]}, names=stack.names[part]
    )


def restore(stack: ExposureStack, seed: int = 42, **fields: Any) -> Restoration:
    from lsst.drp.restore.restoration.first_estimate import first_estimate

    config = AstroClearNetConfig()
    config.computeDevice = "cpu"
    config.consistency.gradients = 0
    config.update(**fields)
    config.validate()
    reference = reference_coadd(stack)
    latent = first_estimate(stack)
    white = MeasurableTask().run(stack, reference, latent, seeds=Seeds(42))
    start = StartingPoint(
        latent=latent,
        matched=matched_stack(stack, white),
        weights=reference.weights,
        target_fwhm=TARGET_FWHM,
    )
    backend = prepare_backend("cpu", 1)
    return AstroClearNetTask(config=config).run(stack, start, backend=backend, seeds=Seeds(seed))


def spoiled_weights() -> list[np.ndarray]:
    """Weights of a network that returns too much."""
    weights = read_weights()
    weights[-2] = weights[-2] * 2.0
    return weights


@pytest.mark.slow
def test_exposures_that_were_not_seen_are_predicted_better(tmp_path: Path) -> None:
    from lsst.drp.restore.restoration.likelihood import Likelihood

    stack = field(8)
    seen, others = members(stack, slice(0, 6)), members(stack, slice(6, 8))
    others = dataclasses.replace(others, kernels=convolution_kernels(others.kernels))
    likelihood = Likelihood(others, 2.0)
    path = tmp_path / "spoiled.npz"
    write_weights(path, spoiled_weights(), "spoiled")
    before, after = (
        likelihood.huber_loss(
            restore(seen, weightsFile=str(path), fineTuneSteps=steps, fineTuneRate=1e-3).latent
        )
        for steps in (0, 24)
    )
    good = likelihood.huber_loss(restore(seen).latent)
    assert good < before
    assert after < 0.5 * (before + good)


@pytest.mark.slow
def test_network_of_the_process_is_not_changed() -> None:
    from lsst.drp.restore.restoration.trained_network import load_network

    before = load_network().weights
    result = restore(field(), fineTuneSteps=2)
    assert result.network == {**describe_weights(), "fine_tuning_steps": 2}
    assert list(result.weights) == list(before)
    for shipped, (name, array), given in zip(
        read_weights(), load_network().weights.items(), before.values(), strict=True
    ):
        np.testing.assert_array_equal(array, shipped)
        np.testing.assert_array_equal(given, shipped)
        assert (result.weights[name] != shipped).any()


@pytest.mark.slow
def test_same_seed_same_result() -> None:
    stack = field()
    first, second, other = (restore(stack, fineTuneSteps=2, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.latent, second.latent)
    assert (first.latent != other.latent).any()


@pytest.mark.parametrize("small", ["exposures", "pixels"])
def test_too_little_to_learn_from(small: str, caplog: pytest.LogCaptureFixture) -> None:
    stack = field(3) if small == "exposures" else star_field(n=4, shape=(32, 96), n_stars=4)[0]
    with caplog.at_level(logging.WARNING):
        result = restore(stack, fineTuneSteps=2)
    assert "The network is not fine-tuned: that needs 4 exposures of 64x64 pixels" in caplog.text
    np.testing.assert_array_equal(result.latent, restore(stack).latent)
    assert result.weights == {}
    assert result.network["fine_tuning_steps"] == 0


@pytest.mark.slow
def test_several_patches() -> None:
    from lsst.drp.restore.restoration.fine_tuning import fine_tune

    stacks = [field(5, seed=1), star_field(n=4, shape=(96, 64), n_stars=4, seed=2)[0]]
    copies = [stack.image.copy() for stack in stacks]
    network, history = fine_tune(
        stacks, read_weights(), passes=1, steps=3, rate=1e-4, seed=1, log=getLogger("test")
    )
    assert history["step"][-1] == 3
    assert len(network.weights) == len(read_weights())
    for stack, copy in zip(stacks, copies, strict=True):
        np.testing.assert_array_equal(stack.image, copy)


def test_halves_are_of_different_exposures() -> None:
    from lsst.drp.restore.restoration import fine_tuning

    stack = field()
    # Too faint to be an outlier, and in one half only.
    marked = np.s_[20:44, 36:60]
    stack.image[2][marked] += np.where(stack.good[2][marked], 2.5, 0.0)
    splits = fine_tuning.split_exposures(stack, np.random.default_rng(1))
    pad = stack.padding
    seen = [split.planes[0][pad:-pad, pad:-pad][marked].mean() for split in splits]
    others = [split.coadd[marked].mean() for split in splits]
    assert abs(seen[0] - seen[1]) > 0.5
    assert (seen[0] > seen[1]) == (others[0] < others[1])


def test_part_of_a_large_patch() -> None:
    from lsst.drp.restore.restoration import fine_tuning

    rng = np.random.default_rng(1)
    parts = {fine_tuning._draw_cells(28, 150, rng).start for _ in range(50)}
    assert min(parts) >= 0 and max(parts) <= 25 and len(parts) > 10
    assert fine_tuning._draw_cells(2, 1000, rng).stop - fine_tuning._draw_cells(2, 1000, rng).start <= 2
    assert fine_tuning._draw_cells(4, 64, rng) == slice(0, 4)


def test_dataset_of_the_weights() -> None:
    config = RestoreCoaddConfig()
    assert not hasattr(RestoreCoaddConnections(config=config), "restored_coadd_weights")
    config.restorer.fineTuneSteps = 10
    assert hasattr(RestoreCoaddConnections(config=config), "restored_coadd_weights")
