# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
import numpy as np
import pytest
from stacks import star_field

from lsst.drp.restore.restoration.backend import prepare_backend

prepare_backend("cpu", 2)

from lsst.drp.restore.restoration.likelihood import Likelihood  # noqa: E402
from lsst.drp.restore.restoration.majorize_minimize import majorize_minimize  # noqa: E402


def test_loss_never_rises() -> None:
    stack, truth, _ = star_field(n=3, shape=(64, 64), n_stars=4, bad_fraction=0.05)
    likelihood = Likelihood(stack, 2.0)
    latent = np.full_like(truth, 1.0)
    first = latent.copy()
    steps = majorize_minimize(likelihood, latent, np.ones(truth.shape, bool), steps=25, max_factor=4.0)
    losses = np.array([*steps, likelihood.huber_loss(latent)])
    # Each is that of the image which the step started from.
    assert losses[0] == pytest.approx(likelihood.huber_loss(first), rel=1e-5)
    assert (np.diff(losses) < 1e-5 * losses[:-1]).all() and losses[-1] < 0.3 * losses[0]
    assert (latent >= 0).all()


def test_steps_are_limited_and_fixed_pixels_stay() -> None:
    stack, truth, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    movable = np.zeros(truth.shape, bool)
    movable[20:60, 20:60] = True
    latent = np.full_like(truth, 1.0)
    for _ in majorize_minimize(Likelihood(stack, 2.0), latent, movable, steps=1, max_factor=1.5):
        pass
    assert (latent[~movable] == 1.0).all()
    assert latent.max() <= 1.5 * (1 + 1e-6) and latent.min() >= 1 / 1.5 * (1 - 1e-6)
    assert (latent[movable] != 1.0).any()
