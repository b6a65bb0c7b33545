# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Noise of restored images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from stacks import linear_case

from lsst.drp.restore.restoration.restored_noise import restore_noise
from lsst.drp.restore.restoration.seeds import Seeds


def test_noise_of_a_linear_restorer() -> None:
    stack, restoration = linear_case()
    nothing = np.zeros(stack.latent_shape, bool)
    noise = restore_noise(stack, restoration, nothing, n_draws=6, n_kept=2, seeds=Seeds(3))
    # Half of the mean of four: 0.25 * 4 * 1.5 / 4.
    assert noise.variance.dtype == np.float32 and noise.variance.shape == stack.shape
    np.testing.assert_allclose(noise.variance, 0.375, rtol=0.12)
    assert noise.variance.mean() == pytest.approx(0.375, rel=0.02)
    assert noise.pedestal == pytest.approx(0.0, abs=0.01)
    assert len(noise.realizations) == 2
    for realization in noise.realizations:
        assert realization.std() == pytest.approx(np.sqrt(0.375), rel=0.02)
    assert (noise.realizations[0] != noise.realizations[1]).all()


def test_stated_errors_are_calibrated() -> None:
    """An error that is half of the true one, in the sky and on a source."""
    stack, restoration = linear_case()
    error = np.full(stack.latent_shape, 0.5 * np.sqrt(0.375), np.float32)
    sky = np.zeros(stack.latent_shape, np.float32)
    # The restorer makes half of the mean, and the sky is what it is given.
    stated = dataclasses.replace(restoration, latent=sky, error=error)
    nothing = np.zeros(stack.latent_shape, bool)
    source = nothing.copy()
    source[40:90, 40:90] = True
    for significant in (nothing, source):
        noise = restore_noise(stack, stated, significant, n_draws=6, n_kept=0, seeds=Seeds(3))
        assert noise.realizations == []
        assert np.median(noise.variance) == pytest.approx(0.375, rel=0.1)
        assert np.median(noise.variance[35:70, 35:70]) == pytest.approx(0.375, rel=0.1)


def test_pedestal_of_a_non_negative_image() -> None:
    stack, restoration = linear_case()

    class Positive(type(restoration.fitted)):  # type: ignore[misc]
        def restore(self, exposures):  # type: ignore[no-untyped-def]
            return np.maximum(super().restore(exposures), 0.0)

    positive = dataclasses.replace(
        restoration,
        latent=np.zeros(stack.latent_shape, np.float32),
        fitted=Positive(restoration.fitted.restore),
    )
    nothing = np.zeros(stack.latent_shape, bool)
    noise = restore_noise(stack, positive, nothing, n_draws=4, n_kept=0, seeds=Seeds(3))
    # The mean of the positive half of a Gaussian.
    assert noise.pedestal == pytest.approx(np.sqrt(0.375 / (2 * np.pi)), rel=0.02)
    assert (noise.variance > 0).all()
