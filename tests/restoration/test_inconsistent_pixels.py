# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pixels where exposures and restored image are inconsistent."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.signal import fftconvolve
from stacks import make_restoration, star_field

from lsst.drp.restore.restoration.inconsistent_pixels import find_inconsistent
from lsst.drp.restore.stack.exposure_stack import ExposureStack


def draw(stack: ExposureStack, seed: int) -> ExposureStack:
    """Make exposures of an empty sky."""
    noise = np.random.default_rng(seed).normal(size=stack.image.shape) * np.sqrt(stack.noise_variance())
    return dataclasses.replace(stack, image=noise.astype(np.float32))


def find(stack: ExposureStack, latent: np.ndarray, probability: float = 1e-6) -> np.ndarray:
    buffer = np.empty_like(stack.image)
    return find_inconsistent(stack, make_restoration(stack, latent), buffer, probability=probability)


def test_false_rate_is_the_stated_one() -> None:
    stack, truth, _ = star_field(n=6, shape=(128, 128), n_stars=1)
    rates = [find(draw(stack, seed), np.zeros_like(truth), 0.02).mean() for seed in range(16)]
    assert np.mean(rates) == pytest.approx(0.02, rel=0.3)


def test_a_source_in_half_of_the_exposures() -> None:
    stack, truth, _ = star_field(n=6, shape=(128, 128), n_stars=1)
    clean = draw(stack, 3)
    y, x = 43, 85
    varying = dataclasses.replace(clean, image=clean.image.copy())
    varying.image[::2, y - 12 : y + 13, x - 12 : x + 13] += 60 * clean.kernels[::2, 1, 2]
    nothing = np.zeros_like(truth)
    assert not find(clean, nothing).any()
    for brightness in (0.0, 30.0):
        latent = nothing.copy()
        latent[y + 12, x + 12] = brightness
        found = find(varying, latent)
        assert found[y, x]
        found[y - 12 : y + 13, x - 12 : x + 13] = False
        assert not found.any()
    # The same light in every exposure is consistent with an image that has it.
    steady = dataclasses.replace(
        clean,
        image=clean.image + np.stack([fftconvolve(latent, k, "valid") for k in clean.kernels[:, 1, 2]]),
    )
    assert not find(steady, latent)[y - 8 : y + 9, x - 8 : x + 9].any()


def test_pixels_without_data_are_not_flagged() -> None:
    stack, truth, _ = star_field(n=3, shape=(96, 96), n_stars=1)
    hole = np.zeros(stack.good.shape, bool)
    hole[:, :, 60:] = True
    latent = np.full_like(truth, 100.0)
    found = find(draw(stack, 4).without(hole), latent)
    assert found[:, :50].all() and not found[:, 75:].any()
