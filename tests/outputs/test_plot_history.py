# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import astropy.table
import numpy as np
import pytest
from figures import render

from lsst.drp.restore.outputs.plot_history import plot_history


def make_history(validation: bool) -> astropy.table.Table:
    step = np.arange(100, 2100, 100)
    loss = 0.8 + np.exp(-step / 300)
    held_out = np.where(step % 400 == 0, loss + 0.01, np.nan) if validation else np.full(len(step), np.nan)
    return astropy.table.Table(
        {
            "step": step,
            "loss": loss,
            "validation_loss": held_out,
            "learning_rate": np.full(len(step), 0.002),
            "seconds": step / 100,
        }
    )


def test_losses_by_step() -> None:
    history = make_history(True)
    figure = plot_history(history, title="Training")
    (ax,) = figure.axes
    training, held_out = ax.lines
    np.testing.assert_array_equal(training.get_xdata(), history["step"])
    np.testing.assert_array_equal(training.get_ydata(), history["loss"])
    np.testing.assert_array_equal(held_out.get_xdata(), [400, 800, 1200, 1600, 2000])
    assert np.isfinite(held_out.get_ydata()).all()
    assert ax.get_title() == "Training"
    assert render(figure).std() > 10


def test_no_held_out_crops() -> None:
    (ax,) = plot_history(make_history(False)).axes
    assert len(ax.lines) == 1


@pytest.mark.parametrize(("factor", "scale"), [(1.0, "linear"), (10.0, "log")])
def test_scale_is_logarithmic_if_the_loss_falls_by_much(factor: float, scale: str) -> None:
    history = make_history(False)
    history["loss"] = 0.8 + factor * np.exp(-np.asarray(history["step"]) / 300)
    (ax,) = plot_history(history).axes
    assert ax.get_yscale() == scale
