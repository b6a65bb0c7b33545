# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The result of a restorer, and what restorers have in common."""

from __future__ import annotations

import numpy as np
import pytest
from stacks import make_restoration, star_field

from lsst.drp.restore import AstroClearNetTask, ImageMMTask, PublishedNetTask
from lsst.drp.restore.restoration.backend import prepare_backend
from lsst.drp.restore.restoration.restoration import (
    FittedRestorer,
    Restorer,
    RestorerConfig,
    StartingPoint,
    make_history,
)
from lsst.drp.restore.restoration.seeds import Seeds


def test_image_is_the_patch_of_the_latent_image() -> None:
    stack, latent, _ = star_field(n=2, shape=(64, 96))
    restoration = make_restoration(stack, latent)
    np.testing.assert_array_equal(restoration.image, latent[12:-12, 12:-12])
    assert restoration.image.shape == stack.shape
    np.testing.assert_array_equal(restoration.fitted.restore(stack), latent)


def test_history() -> None:
    history = make_history([(1, 0.9, np.nan, 1e-3, 0.5), (2, 0.8, 0.85, 1e-3, 1.0)])
    assert history.colnames == ["step", "loss", "validation_loss", "learning_rate", "seconds"]
    assert list(history["step"]) == [1, 2] and history["seconds"].unit == "s"
    assert np.isnan(history["validation_loss"][0])


@pytest.mark.parametrize(
    ("task", "fits_weights"), [(AstroClearNetTask, False), (ImageMMTask, False), (PublishedNetTask, True)]
)
def test_restorers_are_interchangeable(task: type[Restorer], fits_weights: bool) -> None:
    assert issubclass(task, Restorer) and issubclass(task.ConfigClass, RestorerConfig)
    assert task.ConfigClass().fits_weights is fits_weights
    assert task.ConfigClass().computeDevice == "auto"


def test_the_base_class_restores_nothing() -> None:
    stack, latent, _ = star_field(n=1, shape=(32, 32), n_stars=1)
    start = StartingPoint(latent=latent, matched=stack, weights=np.ones((1, 1, 1)), target_fwhm=2.0)
    with pytest.raises(NotImplementedError, match="Restorer does not define run"):
        Restorer(config=RestorerConfig()).run(stack, start, backend=prepare_backend("cpu", 1), seeds=Seeds(1))
    with pytest.raises(TypeError, match="abstract"):
        FittedRestorer()  # type: ignore[abstract]
