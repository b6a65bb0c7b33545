# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restoration of arrays without a Butler."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from stacks import make_arrays, star_field

import lsst.pex.config as pexConfig
from lsst.drp.restore import ImageMMTask, InputError, RestoreStackConfig, RestoreStackTask, restore

QUICK = {"restorer.computeDevice": "cpu", "characterize.numRealizations": 2}


def image_mm(steps: int, **fields: Any) -> RestoreStackConfig:
    """Return a configuration that takes seconds and needs no training."""
    config = RestoreStackConfig()
    config.restorer.retarget(ImageMMTask)
    config.restorer.maxSteps = steps
    config.characterize.numRealizations = 2
    config.update(**fields)
    return config


def test_same_as_the_task() -> None:
    """To the bit what the pipeline task makes of the same stack, of which
    nothing is changed.
    """
    stack, _, _ = star_field(n=3, shape=(64, 96), n_stars=6)
    arrays = {
        # Other ways to say that a pixel is bad than the mask.
        "image": np.where(
            np.arange(3)[:, None, None] != 0, stack.image, np.where(stack.good, stack.image, np.nan)
        ),
        "variance": stack.variance.copy(),
        "mask": ~stack.good & (np.arange(3)[:, None, None] != 0),
        "psf": stack.kernels.copy(),
    }
    before = {name: array.copy() for name, array in arrays.items()}
    restored = restore(**arrays, config=QUICK, seed=7)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])
    config = RestoreStackConfig()
    config.restorer.computeDevice, config.characterize.numRealizations = QUICK.values()
    config.seed = 7
    expected = RestoreStackTask(config=config).restore(stack)
    for result, array in (
        (restored.image, expected.restoration.image),
        (restored.variance, expected.characterization.variance),
        (restored.psf, expected.characterization.kernels),
        (restored.inconsistent, expected.characterization.inconsistent),
        (restored.measurable.image, expected.measurable.image),
        (restored.measurable.variance, expected.measurable.variance),
        (restored.measurable.psf, expected.measurable.kernels),
        (restored.reference.image, expected.reference.image),
        (restored.reference.psf, expected.reference.kernels),
        (restored.clipped, expected.reference.clipped),
    ):
        assert result.dtype == array.dtype
        np.testing.assert_array_equal(result, array)
    assert restored.loss == expected.restoration.loss
    assert list(restored.history["step"]) == [0, 2, 5]
    assert restored.converged == expected.restoration.converged
    assert restored.few_exposures.mean() == pytest.approx((stack.good.sum(axis=0) < 3).mean(), abs=0.01)


def test_stars_of_known_flux(caplog: pytest.LogCaptureFixture) -> None:
    """Any shape, any unit, and one exposure that shows nothing."""
    stack, _, stars = star_field(n=5, n_stars=9, flux=(500.0, 5000.0))
    unit, shape = 1e-25, (90, 121)
    image, variance, good = (
        array[:, : shape[0], : shape[1]] for array in (stack.image, stack.variance, stack.good)
    )
    mask = ~good
    mask[2] = True
    with caplog.at_level(logging.INFO, logger="lsst"):
        restored = restore(
            image.astype(float) * unit,
            variance.astype(float) * unit**2,
            stack.kernels,
            mask,
            cell_size=32,
            config=image_mm(25),
        )
    assert "exposure 2 has no good pixel" in caplog.text
    assert list(restored.used) == [0, 1, 3, 4]
    assert restored.clipped.shape == image.shape
    assert restored.history["step"][-1] == 25
    for part in (restored, restored.measurable, restored.reference):
        assert part.image.shape == part.variance.shape == shape
        assert part.psf.shape == (3, 4, 25, 25)
        assert part.image.dtype == np.float64
    for flag in (restored.no_data, restored.few_exposures, restored.inconsistent, restored.inexact_psf):
        assert flag.shape == shape
        assert flag.dtype == bool
    pulls = []
    for y, x, flux in stars:
        y, x = int(y), int(x)
        peak = (slice(y - 1, y + 2), slice(x - 1, x + 2))
        assert restored.image[peak].max() > 1.5 * restored.reference.image[peak].max()
        around = (slice(y - 6, y + 7), slice(x - 6, x + 7))
        psf = restored.measurable.psf_at(y, x)[6:-6, 6:-6]
        weight = psf / restored.measurable.variance[around]
        precision = (weight * psf).sum()
        measured = (weight * restored.measurable.image[around]).sum() / precision
        assert measured == pytest.approx(flux * unit, rel=0.05)
        pulls.append((measured - flux * unit) * np.sqrt(precision))
    # Where stars are bright, the variance is more than that of the sky: it is that of the exposures.
    assert 0.3 < np.sqrt(np.mean(np.square(pulls))) < 2.0
    with pytest.raises(IndexError, match="outside"):
        restored.measurable.psf_at(95, 3)


def test_smaller_pixels_and_a_single_exposure(caplog: pytest.LogCaptureFixture) -> None:
    arrays = make_arrays(n=1, shape=(41, 33), k=9)
    arrays["image"][0, 20, 16] += 300.0
    with caplog.at_level(logging.INFO, logger="lsst"):
        restored = restore(**arrays, config=image_mm(5, superResolution=2))
    assert restored.image.shape == restored.no_data.shape == restored.few_exposures.shape == (82, 66)
    assert restored.measurable.image.shape == restored.inexact_psf.shape == (41, 33)
    assert restored.cell_shape == (82, 66)
    assert restored.few_exposures.all()
    assert restored.psf_at(81, 65).shape == (25, 25)


def test_configuration() -> None:
    arrays = make_arrays(shape=(30, 30))
    with pytest.raises(InputError, match="no field 'restorer.epochs'"):
        restore(**arrays, config={"restorer.epochs": 3})
    with pytest.raises(InputError, match="no field 'restore.passes'"):
        restore(**arrays, config={"restore.passes": 3})
    with pytest.raises(pexConfig.FieldValidationError, match="tileSize"):
        restore(**arrays, config={"restorer.tileSize": 0})
    with pytest.raises(InputError, match="smaller than a PSF kernel, 35x35"):
        restore(**arrays, kernel_size=35)
    with pytest.raises(InputError, match="no method 'sgp': choose one of astroClearNet, imageMM"):
        restore(**arrays, method="sgp")
    with pytest.raises(InputError, match="not both"):
        restore(**arrays, method="imageMM", config=RestoreStackConfig())


def test_methods_by_name() -> None:
    """To the bit what the configuration of that name gives."""
    arrays = make_arrays(shape=(40, 40))
    fields = {"restorer.maxSteps": 3, "restorer.computeDevice": "cpu", "characterize.numRealizations": 2}
    by_name = restore(**arrays, method="imageMM", config=fields)
    np.testing.assert_array_equal(by_name.image, restore(**arrays, config=image_mm(3)).image)
    assert list(by_name.history["step"]) == [1, 2, 3]
    published = restore(
        **arrays, method="publishedNet", config={"restorer.maxEpochs": 1, "restorer.computeDevice": "cpu"}
    )
    assert len(published.history) == 1 and published.image.shape == (40, 40)


def test_plot() -> None:
    arrays = make_arrays(n=3, shape=(60, 50))
    restored = restore(**arrays, unit="adu", config=image_mm(2, superResolution=2))
    # All have the same seeing: any one of them, without its background.
    differences = [np.ptp(restored.exposure - image) for image in arrays["image"]]
    assert min(differences) < 0.5
    figure = restored.plot("A field")
    assert figure.get_suptitle() == "A field"
    shown = [axes.images[0].get_array() for axes in figure.axes[:4]]
    assert all(image.shape == (60, 50) for image in shown)
    np.testing.assert_allclose(shown[2].sum(), np.nansum(restored.image), rtol=1e-5)
    assert any("adu per pixel" in axes.get_xlabel() for axes in figure.axes)


def test_messages_have_the_unit(caplog: pytest.LogCaptureFixture) -> None:
    arrays = make_arrays(shape=(64, 64))
    with caplog.at_level(logging.INFO, logger="lsst"):
        restore(**arrays, unit="adu", config=image_mm(2))
    assert "noise of 1 adu" in caplog.text and "nJy" not in caplog.text
