# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The restoration of a stack: arrays in, arrays out."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from stacks import star_field

from lsst.drp.restore import (
    ExposureStack,
    ImageMMTask,
    RestoreCoaddTask,
    RestoredStack,
    RestoreStackConfig,
    RestoreStackTask,
)


def make_task(**fields: Any) -> RestoreStackTask:
    config = RestoreStackConfig()
    config.restorer.retarget(ImageMMTask)
    config.restorer.update(maxSteps=5, computeDevice="cpu")
    config.characterize.numRealizations = 2
    config.update(**fields)
    config.validate()
    return RestoreStackTask(config=config)


@pytest.fixture(scope="module")
def stack() -> ExposureStack:
    """Exposures with a level of their own and a cosmic ray."""
    stack = star_field(n=5, shape=(96, 96), n_stars=9, flux=(300.0, 3000.0))[0]
    stack.image[stack.good] += 0.3
    stack.image[1, 40:42, 50:54] += 300.0
    return stack


@pytest.fixture(scope="module")
def restored(stack: ExposureStack) -> RestoredStack:
    return make_task().restore(stack, patch="patch 1")


def test_exposures_are_not_changed(stack: ExposureStack) -> None:
    names = ("image", "variance", "good", "kernels", "correlation")
    before = {name: getattr(stack, name).copy() for name in names}
    task = make_task()
    task.config.fitKernels.mode = "gaussian"
    task = RestoreStackTask(config=task.config)
    result = task.restore(stack)
    for name, array in before.items():
        np.testing.assert_array_equal(getattr(stack, name), array)
    assert result.kernel_fit is not None
    np.testing.assert_array_equal(result.stack.kernels, result.kernel_fit.cell_kernels)
    assert (result.stack.kernels != stack.kernels).any()


def test_restored_exposures_are_clean(stack: ExposureStack, restored: RestoredStack) -> None:
    clean = restored.stack
    assert restored.reference.clipped[1, 40:42, 50:54].mean() > 0.8
    np.testing.assert_array_equal(clean.good, stack.good & ~restored.reference.clipped)
    level = (stack.image - clean.image)[clean.good]
    assert np.median(level) == pytest.approx(0.3, abs=0.05)
    assert restored.kernel_fit is None and clean.kernels is stack.kernels


def test_results_belong_together(restored: RestoredStack) -> None:
    shape = restored.stack.shape
    assert restored.naive.shape == restored.reference.image.shape == shape
    assert restored.measurable.image.shape == restored.restoration.image.shape == shape
    assert restored.characterization.variance.shape == shape
    model = restored.restoration
    # ImageMM takes all of its steps again.
    np.testing.assert_array_equal(model.fitted.restore(model.model), model.latent)


def test_random_numbers_are_those_of_the_seed_and_the_patch(
    stack: ExposureStack, restored: RestoredStack
) -> None:
    def noise(result: RestoredStack) -> tuple[np.ndarray, ...]:
        return (*result.measurable.noise_realizations, *result.characterization.noise_realizations)

    again = make_task().restore(stack, patch="patch 1")
    for one, other in zip(noise(restored), noise(again), strict=True):
        np.testing.assert_array_equal(one, other)
    for result in (
        make_task().restore(stack, patch="patch 2"),
        make_task(seed=7).restore(stack, patch="patch 1"),
    ):
        np.testing.assert_array_equal(result.restoration.latent, restored.restoration.latent)
        for one, other in zip(noise(restored), noise(result), strict=True):
            assert (one != other).mean() > 0.9


def test_metadata_of_the_background(stack: ExposureStack) -> None:
    task = make_task()
    task.restore(stack)
    assert task.metadata.getArray("background_rms") == pytest.approx([0.3] * 5, abs=0.05)
    assert task.metadata["n_retries"] == 0


def test_a_patch_without_background_and_outliers(stack: ExposureStack) -> None:
    config = make_task(clipSigma=1e6).config
    config.sky.order = -1
    result = RestoreStackTask(config=config).restore(stack)
    assert not result.reference.clipped.any()
    np.testing.assert_array_equal(result.stack.good, stack.good)
    assert result.stack.image is stack.image


def test_an_exposure_that_is_wrong_is_left_out(
    stack: ExposureStack, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = dataclasses.replace(stack, image=stack.image.copy(), variance=stack.variance.copy())
    wrong.image[3] *= 275.0
    wrong.variance[3] *= 275.0**2
    task = make_task()
    result = task.restore(wrong)
    assert "Dropping visit 3: its sources have 27" in caplog.text and "zero point" in caplog.text
    assert task.metadata["n_exposures_dropped"] == 1
    assert result.checks.dropped.tolist() == [False, False, False, True, False]
    assert not result.stack.good[3].any() and not result.stack.has_kernel[3].any()
    # The others alone give the same.
    rest = np.arange(5) != 3
    others = {
        name: getattr(stack, name)[rest] for name in ("image", "variance", "good", "kernels", "correlation")
    }
    names = tuple(np.array(stack.names)[rest].tolist())
    alone = make_task().restore(dataclasses.replace(stack, names=names, **others))
    difference = result.restoration.image - alone.restoration.image
    assert np.abs(difference).max() < 0.05 * alone.restoration.image.max()
    assert np.median(np.abs(difference)) < 0.1 * stack.median_sigma


def test_finer_pixels_and_a_second_image_for_photometry(stack: ExposureStack) -> None:
    config = make_task().config
    config.measurable.targetFwhm = 3.5
    result = RestoreStackTask(config=config).restore(dataclasses.replace(stack, oversampling=2))
    assert result.restoration.image.shape == (192, 192)
    center = result.measurable.kernels[1, 1]
    profile = np.sqrt(np.log(center[12, 12] / center[12, 14]))
    assert 2 * np.sqrt(np.log(2)) * 2 / profile == pytest.approx(3.5, rel=0.02)


def test_the_pipeline_task_is_one() -> None:
    assert issubclass(RestoreCoaddTask, RestoreStackTask)
    assert RestoreCoaddTask.restore is RestoreStackTask.restore


def test_threads_change_no_bit(stack: ExposureStack) -> None:
    config = RestoreStackConfig()
    config.restorer.computeDevice = "cpu"
    config.characterize.numRealizations = 2
    one, other = (RestoreStackTask(config=config).restore(stack, n_threads=n) for n in (1, 3))
    np.testing.assert_array_equal(one.restoration.latent, other.restoration.latent)
    np.testing.assert_array_equal(one.measurable.image, other.measurable.image)
    np.testing.assert_array_equal(one.stack.good, other.stack.good)
    for name in ("variance", "inconsistent", "kernels", "noise_realizations"):
        np.testing.assert_array_equal(
            getattr(one.characterization, name), getattr(other.characterization, name)
        )
