# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Simulated observations to train on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import fftconvolve
from stacks import star_field

from lsst.drp.restore.restoration.network_input import NO_DATA_NOISE
from lsst.drp.restore.restoration.target_psf import target_kernel
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.training.samples import Sample, draw_sample, majorize_minimize, write_samples

SIZE = 96


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [draw_sample(np.random.default_rng((5, index)), SIZE) for index in range(10)]


def test_samples_are_reproducible_and_finite(samples: list[Sample]) -> None:
    again = draw_sample(np.random.default_rng((5, 2)), SIZE)
    np.testing.assert_array_equal(again.planes, samples[2].planes)
    np.testing.assert_array_equal(again.kernels, samples[2].kernels)
    for sample in samples:
        assert sample.planes.shape == (5, SIZE, SIZE) and sample.planes.dtype == np.float32
        assert sample.kernels.shape == (2, 25, 25) and sample.kernels.dtype == np.float32
        assert np.isfinite(sample.planes).all() and np.isfinite(sample.kernels).all()
        _, start, noise, valid, _ = sample.planes
        assert start.min() > -1e-3
        assert set(np.unique(valid)) <= {0.0, 1.0}
        assert (noise > 0).all() and (noise[valid == 0] == NO_DATA_NOISE).all()
    planes = np.stack([sample.planes for sample in samples])
    # Some have holes, some have none.
    covered = planes[:, 3].mean(axis=(1, 2))
    assert covered.min() < 0.99 and covered.max() == 1.0


def test_coadd_is_the_sky_and_noise() -> None:
    """Of the stated width, wherever the sky is not so bright that errors of
    the PSF matter.
    """
    pulls = []
    for index in range(12):
        sample = draw_sample(np.random.default_rng((6, index)), SIZE)
        coadd, _, noise, valid, sky = sample.planes.astype(float)
        predicted = fftconvolve(sky, sample.kernels[0].astype(float), mode="same")
        faint = (valid > 0) & (predicted < 3.0) & (noise < NO_DATA_NOISE)
        # Light of what is outside of the image is unknown.
        faint[:13] = faint[-13:] = faint[:, :13] = faint[:, -13:] = False
        if faint.sum() > 200:
            pull = (coadd - predicted)[faint] / noise[faint]
            pulls.append((np.median(np.abs(pull)) * 1.4826, np.median(pull)))
    assert len(pulls) > 6
    widths, offsets = np.transpose(pulls)
    # Resampled noise is narrower.
    assert (widths > 0.5).all() and (widths < 1.3).all()
    assert np.median(widths) == pytest.approx(1.0, abs=0.08)
    assert np.median(np.abs(offsets)) < 0.15


def two_estimates(stack: ExposureStack) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the sky of one exposure as for training and as in a
    restoration, both at the target resolution, shape ``(68, 68)``.
    """
    weight = np.where(stack.good[0], 1.0 / stack.variance[0], 0.0)
    training = majorize_minimize(stack.image[0], weight, stack.kernels[0, 0, 0])
    assert (training >= 0).all()
    from lsst.drp.restore.restoration.first_estimate import first_estimate

    restoration = first_estimate(stack)[stack.latent_patch]
    # The edge of the latent image is elsewhere.
    first, second = (
        fftconvolve(latent, target_kernel(), mode="same")[14:-14, 14:-14]
        for latent in (training, restoration)
    )
    return first, second


def test_samples_start_as_a_restoration_does() -> None:
    shape = (SIZE, SIZE)
    stack, _, stars = star_field(
        n=1, shape=shape, cell_shape=shape, n_stars=9, flux=(50.0, 2000.0), bad_fraction=0.03
    )
    first, second = two_estimates(stack)
    assert np.std(first - second) < 0.1 * np.std(second)
    for y, x, flux in stars:
        stamp = slice(int(y) - 18, int(y) - 9), slice(int(x) - 18, int(x) - 9)
        assert abs(first[stamp].sum() - second[stamp].sum()) < 3.0 + 0.03 * flux


def test_steps_are_those_of_a_restoration() -> None:
    """The loss is quadratic in the training: where no residual is large, there
    is no difference.
    """
    shape = (SIZE, SIZE)
    stack, _, _ = star_field(n=1, shape=shape, cell_shape=shape, n_stars=9, flux=(60.0, 100.0))
    faint = dataclasses.replace(stack, image=stack.image / 4)
    assert np.abs(faint.image).max() < 2.5
    first, second = two_estimates(faint)
    assert second.max() > 1.0
    assert np.std(first - second) < 1e-4 * np.std(second)


def test_samples_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    done: list[int] = []
    planes, kernels = write_samples(tmp_path / "planes.npy", 3, 64, 7, 2, done.append)
    assert done == [1, 2, 3]
    assert planes.shape == (3, 5, 64, 64) and kernels.shape == (3, 2, 25, 25)
    expected = draw_sample(np.random.default_rng((7, 1)), 64)
    np.testing.assert_array_equal(planes[1], expected.planes)
    np.testing.assert_array_equal(kernels[1], expected.kernels)
    np.testing.assert_array_equal(np.load(tmp_path / "planes.npy"), planes)
