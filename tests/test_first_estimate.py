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


def test_penalty_is_in_units_of_the_noise() -> None:
    """Its unit is the scatter of the gradient by draws of the noise."""
    from lsst.drp.restore.decoder import FieldDecoder
    from lsst.drp.restore.surrogate import Surrogate

    stack, _, _ = star_field(n=3, shape=(64, 64), n_stars=4, bad_fraction=0.1)
    stack = dataclasses.replace(stack, correlation=np.full_like(stack.correlation, 1.7))
    decoder = FieldDecoder(stack)
    rng = np.random.default_rng(8)
    sigma = np.sqrt(stack.noise_variance())
    draws = [decoder.adjoint(sigma * rng.standard_normal(sigma.shape) / stack.variance) for _ in range(200)]
    scatter = np.std(draws, axis=0)[20:-20, 20:-20]
    expected = np.sqrt(Surrogate(stack).gradient_variance())[20:-20, 20:-20]
    ratio = scatter / expected
    assert np.median(ratio) == pytest.approx(1.0, abs=0.02)
    assert ratio.std() < 0.08


def test_penalty_puts_out_noise_and_little_else() -> None:
    stack, truth, stars = star_field(n=6, shape=(96, 96), n_stars=9, flux=(300.0, 3000.0))
    start = make_restoration(np.full_like(truth, 1.0))
    free, costly = (make_task(steps=60, penalty=penalty).run(stack, start).image for penalty in (0.0, 1.5))
    empty = gaussian_filter(truth, 3.0)[12:-12, 12:-12] < 0.1
    assert costly[empty].mean() < 0.3 * free[empty].mean()
    for y, x, _ in stars:
        stamp = slice(int(y) - 4, int(y) + 5), slice(int(x) - 4, int(x) + 5)
        # The noise of the brightest of them is about 1 % of their flux.
        assert costly[stamp].sum() == pytest.approx(free[stamp].sum(), rel=0.15)
