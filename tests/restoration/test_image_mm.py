# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

import dataclasses
import logging

import numpy as np
import pytest
from stacks import run_restorer, star_field

import lsst.pex.config as pexConfig
from lsst.drp.restore.restoration.image_mm import ImageMMConfig, ImageMMTask
from lsst.drp.restore.stack.reference_coadd import reference_coadd


def make_task(**fields: object) -> ImageMMTask:
    config = ImageMMConfig()
    config.update(maxSteps=300, computeDevice="cpu")
    config.update(**fields)
    config.validate()
    return ImageMMTask(config=config)


def test_step_is_the_published_one() -> None:
    from lsst.drp.restore.restoration.forward_model import ForwardModel

    stack, _, _ = star_field(n=3, shape=(64, 64), n_stars=4)
    decoder = ForwardModel(stack)
    result = run_restorer(make_task(maxSteps=1), stack)
    start = np.full((88, 88), np.sqrt(np.median(stack.variance[stack.good])), dtype=np.float32)
    predicted = decoder.forward(start)
    residual = np.abs(stack.image - predicted) / np.sqrt(stack.variance)
    weight = np.minimum(1.0, 2.0 / np.maximum(residual, 1e-9)) / stack.variance
    numerator = np.maximum(decoder.adjoint(weight * stack.image), 0)
    denominator = decoder.adjoint(weight * predicted)
    expected = start * np.clip(numerator / denominator, 1 / 4, 4)
    # In the border, the exposures constrain little or nothing.
    patch = stack.latent_patch
    np.testing.assert_allclose(result.latent[patch], expected[patch], rtol=1e-3, atol=5e-3)


@pytest.mark.slow
def test_stars_are_sharper_and_keep_their_flux(caplog: pytest.LogCaptureFixture) -> None:
    stack, _, stars = star_field(n=6, shape=(128, 128), n_stars=9, flux=(500.0, 5000.0))
    reference = reference_coadd(stack)
    with caplog.at_level(logging.INFO, logger="lsst"):
        result = run_restorer(make_task(), stack, n_threads=2)
    assert (result.latent >= 0).all()
    assert (np.diff(result.history["loss"]) < 1e-4).all()
    assert result.loss < 0.52
    for y, x, flux in stars:
        stamp = result.image[int(y) - 6 : int(y) + 7, int(x) - 6 : int(x) + 7]
        assert stamp.max() > 3 * reference.image[int(y), int(x)]
        assert (stamp - np.median(result.image)).sum() == pytest.approx(flux, rel=0.05)
    assert result.weights == {}
    assert any("Taking 300 steps with 6 exposures" in message for message in caplog.messages)


def test_the_fitted_restorer_takes_the_steps_again() -> None:
    stack, _, stars = star_field(n=3, shape=(64, 64), n_stars=4, flux=(500.0, 1000.0))
    task = make_task(maxSteps=60)
    result = run_restorer(task, stack)
    np.testing.assert_array_equal(result.fitted.restore(stack), result.latent)
    other = dataclasses.replace(stack, image=1.5 * stack.image)
    again = result.fitted.restore(other)
    np.testing.assert_array_equal(again, run_restorer(task, other).latent)
    for y, x, flux in stars:
        stamp = slice(int(y) + 8, int(y) + 17), slice(int(x) + 8, int(x) + 17)
        assert (again - result.latent)[stamp].sum() == pytest.approx(0.5 * flux, rel=0.1)


def test_convergence_is_judged_by_the_loss() -> None:
    stack, _, _ = star_field(n=3, shape=(64, 64), n_stars=4)
    assert not run_restorer(make_task(maxSteps=5), stack).converged
    assert run_restorer(make_task(), stack).converged


def test_image_of_points() -> None:
    """Of which the exposures themselves are the model."""
    stack, _, _ = star_field(n=3, shape=(64, 64), n_stars=4)
    result = run_restorer(make_task(maxSteps=2), stack)
    assert result.target_fwhm == 0.0 and result.error is None
    assert result.model is stack and result.kernels is stack.kernels
    assert list(result.history["step"]) == [1, 2]
    with pytest.raises(pexConfig.FieldValidationError, match="maxSteps"):
        make_task(maxSteps=0)


def test_padding_stays_finite() -> None:
    """Pixels that no exposure constrains do not grow."""
    stack, _, _ = star_field(n=3, shape=(64, 64), n_stars=4)
    hole = np.zeros(stack.image.shape, dtype=bool)
    hole[:, :, 20:] = True
    stack = stack.without(hole)
    result = run_restorer(make_task(maxSteps=150), stack)
    seen = result.image[:, :20].max()
    assert np.isfinite(result.latent).all()
    assert result.latent.max() <= 2 * seen, (result.latent.max(), seen)
    assert (result.latent[:, 12 + 20 + 13 :] == 0).all()
