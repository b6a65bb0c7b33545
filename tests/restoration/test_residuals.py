# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.signal import fftconvolve
from stacks import make_restoration, star_field

from lsst.drp.restore.restoration.characterize import CharacterizeConfig, CharacterizeTask
from lsst.drp.restore.restoration.measurable import MeasurableConfig, MeasurableTask, matched_stack
from lsst.drp.restore.restoration.residuals import NUM_SCALES, matched_residual, scale_residuals, starlet
from lsst.drp.restore.restoration.restoration import Restoration
from lsst.drp.restore.restoration.seeds import Seeds
from lsst.drp.restore.restoration.target_psf import TARGET_FWHM, convolution_kernels, target_kernel
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.reference_coadd import reference_coadd

# Pixels that the coarsest scale reaches.
REACH = 2 * (2**NUM_SCALES - 1)


def coadd(stack: ExposureStack, latent: np.ndarray) -> ExposureStack:
    reference = reference_coadd(stack, clip_sigma=1e6)
    task = MeasurableTask(config=MeasurableConfig())
    return matched_stack(stack, task.run(stack, reference, latent, seeds=Seeds(42)))


def at_target(stack: ExposureStack, truth: np.ndarray) -> Restoration:
    """Return the truth as a restorer at the target resolution would."""
    return make_restoration(
        stack,
        fftconvolve(truth, target_kernel(), mode="same"),
        kernels=convolution_kernels(stack.kernels),
        target_fwhm=TARGET_FWHM,
    )


def test_scales_and_the_rest_add_up_to_the_image() -> None:
    image = np.zeros((200, 210), np.float32)
    image[80:120, 80:130] = np.random.default_rng(1).normal(size=(40, 50))
    # The B3 spline with holes, scale by scale, as one kernel.
    smoothing = np.ones((1, 1))
    for scale in range(NUM_SCALES):
        taps = np.zeros(4 * 2**scale + 1)
        taps[:: 2**scale] = np.array([1, 4, 6, 4, 1]) / 16
        smoothing = fftconvolve(smoothing, np.outer(taps, taps))
    assert smoothing.shape == (2 * REACH + 1,) * 2
    rest = fftconvolve(image, smoothing, mode="same")
    scales = starlet(image)
    assert scales.shape == (NUM_SCALES, *image.shape)
    np.testing.assert_allclose(scales.sum(axis=0) + rest, image, atol=1e-5)


def test_white_noise_is_one_at_each_scale() -> None:
    noise = np.random.default_rng(2).normal(size=(600, 600)).astype(np.float32)
    scales = scale_residuals(noise)[:, REACH:-REACH, REACH:-REACH]
    np.testing.assert_allclose(scales.std(axis=(1, 2)), 1.0, atol=0.05)
    np.testing.assert_allclose(scales.std(axis=(1, 2))[:3], 1.0, atol=0.015)


@pytest.mark.parametrize(("sigma", "scale"), [(0.4, 0), (1.0, 1), (2.2, 2), (4.5, 3), (9.0, 4)])
def test_a_source_shows_at_its_scale(sigma: float, scale: int) -> None:
    offset = np.arange(161) - 80
    profile = np.exp(-0.5 * (offset / sigma) ** 2)
    scales = scale_residuals(np.outer(profile, profile))
    found, y, x = np.unravel_index(scales.argmax(), scales.shape)
    assert (found, y, x) == (scale, 80, 80)


@pytest.mark.parametrize("points", [True, False])
def test_a_perfect_model_leaves_noise(points: bool) -> None:
    stack, truth, _ = star_field(n=5, shape=(192, 192), n_stars=9, bad_fraction=0.02)
    restoration = make_restoration(stack, truth) if points else at_target(stack, truth)
    residual = matched_residual(coadd(stack, truth), restoration)
    assert residual.shape == stack.shape
    assert residual.std() == pytest.approx(1.0, abs=0.02)
    assert residual.mean() == pytest.approx(0.0, abs=0.02)
    assert np.abs(residual).max() < 6.0
    # White, and so at all scales.
    scales = scale_residuals(residual)[:3, 16:-16, 16:-16]
    np.testing.assert_allclose(scales.std(axis=(1, 2)), 1.0, atol=0.08)


def test_a_wrong_model_and_missing_data() -> None:
    stack, truth, stars = star_field(n=5, shape=(96, 96), n_stars=4, flux=(500.0, 1000.0))
    hole = np.zeros(stack.good.shape, bool)
    hole[:, 60:, 60:] = True
    stack = stack.without(hole)
    matched = coadd(stack, truth)
    restoration = at_target(stack, truth)
    # The brightest star lacks half of its flux.
    y, x = stars[stars[:, 2].argmax(), :2].astype(int)
    missing = truth.copy()
    missing[y + 12, x + 12] *= 0.5
    residual = matched_residual(matched, at_target(stack, missing))
    assert not residual[75:, 75:].any()
    assert np.unravel_index(residual.argmax(), residual.shape) == (y, x)
    assert residual[y, x] > 10.0
    assert np.abs(matched_residual(matched, restoration)).max() < 6.0


def test_no_residual_above_the_limit_is_left_unflagged() -> None:
    stack, truth, _ = star_field(n=5, shape=(96, 96), n_stars=4, flux=(500.0, 1000.0))
    config = CharacterizeConfig()
    config.numRealizations = 2
    task = CharacterizeTask(config=config)
    restoration = at_target(stack, truth)
    clean = task.run(stack, restoration, coadd(stack, truth), seeds=Seeds(42))
    assert (clean.residuals < 6.0).all() and clean.beyond.shape == (NUM_SCALES,)
    # A faint and wide source that is in all exposures, but not in the image.
    offset = np.arange(96) - 40
    profile = np.exp(-0.5 * (offset / 6.0) ** 2)
    wide = dataclasses.replace(
        stack, image=np.where(stack.good, stack.image + 0.35 * np.outer(profile, profile), 0).astype("f4")
    )
    matched = coadd(wide, truth)
    found = task.run(wide, restoration, matched, seeds=Seeds(42))
    scales = np.abs(scale_residuals(matched_residual(matched, restoration)))
    beyond = scales > config.residualLimit
    assert beyond.any()
    assert found.inconsistent[beyond.any(axis=0)].all()
    np.testing.assert_array_equal(found.beyond, np.count_nonzero(beyond, axis=(1, 2)))
    np.testing.assert_allclose(found.residuals, scales.max(axis=(1, 2)), rtol=1e-6)
    assert found.beyond[3:].sum() > 10 * max(1, found.beyond[0])
    assert found.inconsistent[40, 40]
    # A higher limit flags less.
    config.residualLimit = float(scales.max()) + 1.0
    assert task.run(wide, restoration, matched, seeds=Seeds(42)).beyond.sum() == 0
