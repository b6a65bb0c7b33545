# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

import dataclasses

import astropy.table
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from stacks import star_field

from lsst.drp.restore.refine import RefineConfig, RefineTask
from lsst.drp.restore.restoration import Restoration


def make_task(**fields: object) -> RefineTask:
    config = RefineConfig()
    config.update(**fields)
    config.validate()
    return RefineTask(config=config)


def make_restoration(latent: np.ndarray) -> Restoration:
    return Restoration(
        latent=latent.astype(np.float32),
        padding=12,
        converged=True,
        history=astropy.table.Table(),
        weights={},
        steps=1,
        loss=np.inf,
        device="CPU",
        seconds=1.0,
        repeat=lambda _: latent.astype(np.float32),
    )


def test_what_was_lost_comes_back() -> None:
    from lsst.drp.restore.decoder import FieldDecoder

    stack, truth, stars = star_field(n=6, shape=(96, 96), n_stars=9, flux=(300.0, 3000.0))
    decoder = FieldDecoder(stack)
    # A restorer that blurred the stars, and lost one of them and half of another.
    start = gaussian_filter(truth, 1.0)
    (y0, x0, flux0), (y1, x1, flux1) = stars[4], stars[8]
    for (y, x), factor in (((y0, x0), 0.0), ((y1, x1), 0.5)):
        start[int(y) + 6 : int(y) + 19, int(x) + 6 : int(x) + 19] *= factor
    losses, fluxes = [], []
    for steps in (0, 2, 40):
        refined = make_task(steps=steps).run(stack, make_restoration(start))
        assert (refined.latent >= 0).all()
        losses.append(decoder.huber_loss(refined.latent, 2.0))
        fluxes.append(
            [
                refined.image[int(y) - 6 : int(y) + 7, int(x) - 6 : int(x) + 7].sum() / flux
                for y, x, flux in ((y0, x0, flux0), (y1, x1, flux1))
            ]
        )
        if steps:
            assert refined.loss == pytest.approx(losses[-1])
            assert refined.seconds > 1.0
    assert losses[0] > losses[1] > losses[2]
    assert fluxes[0] == pytest.approx([0.0, 0.5], abs=0.05)
    assert fluxes[2] == pytest.approx([1.0, 1.0], abs=0.1)


def test_no_steps_change_nothing() -> None:
    stack, truth, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    restoration = make_restoration(truth)
    assert make_task(steps=0).run(stack, restoration) is restoration


def test_repeat_takes_the_steps_again() -> None:
    stack, truth, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    restoration = make_restoration(truth)
    refined = make_task(steps=3).run(stack, restoration)
    np.testing.assert_array_equal(refined.repeat(stack), refined.latent)
    # From an image that is right the steps lead to twice as much light with
    # twice as much in the exposures.
    brighter = dataclasses.replace(stack, image=2 * stack.image)
    ratio = refined.repeat(brighter)[truth > 100] / refined.latent[truth > 100]
    assert np.median(ratio) == pytest.approx(2.0, rel=0.1)


def test_input_and_unseen_pixels_are_left_alone() -> None:
    stack, truth, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    hole = np.zeros(stack.image.shape, dtype=bool)
    hole[:, :, 20:] = True
    stack.reject(hole)
    start = truth + 1.0
    before = start.copy()
    restoration = make_restoration(start)
    refined = make_task(steps=5).run(stack, restoration)
    np.testing.assert_array_equal(restoration.latent, before)
    # Beyond the reach of the kernels.
    np.testing.assert_array_equal(refined.latent[:, 45:], before[:, 45:])
    assert (refined.latent[12:76, 12:32] != before[12:76, 12:32]).any()
