# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""A linear model, fitted: its training is known by arithmetic."""

import logging
from typing import Any

import keras
import numpy as np
import pytest

from lsst.drp.restore.restoration import fitting
from lsst.drp.restore.restoration.fitting import Batch, Batches, LearningRate, optimize
from lsst.utils.logging import getLogger

LOG = getLogger("lsst.test")


def make_model(start: float = 0.0) -> keras.Model:
    inputs = keras.Input((1,), name="x")
    init = keras.initializers.Constant(start)
    outputs = keras.layers.Dense(1, use_bias=False, kernel_initializer=init)(inputs)
    return keras.Model({"x": inputs}, outputs)


def make_batch(target: float = 3.0, weight: float = 1.0) -> Batch:
    return {"x": np.ones((4, 1), np.float32)}, np.full((4, 1), target, np.float32), np.full((4, 1), weight)


def fit(model: keras.Model, held_out: tuple[Batch, ...] = (), **arguments: Any) -> Any:
    values: dict[str, Any] = {
        "delta": 100.0,
        "rate": LearningRate(initial=0.1, decay=0.5, interval=10),
        "steps": 5,
        "epochs": 4,
        "pixels_per_step": 4,
        "log": LOG,
    }
    return optimize(model, make_batch, held_out, **(values | arguments))


def test_learning_rate_decays_in_steps() -> None:
    model = make_model()
    history = fit(model, (make_batch(5.0),))
    np.testing.assert_array_equal(history["step"], [5, 10, 15, 20])
    np.testing.assert_allclose(history["learning_rate"], [0.1, 0.05, 0.05, 0.025])
    weight = float(np.asarray(model.weights[0])[0, 0])
    # Adam's first steps are as long as the rate.
    assert weight == pytest.approx(10 * 0.1 + 10 * 0.05, rel=0.02)
    assert history["validation_loss"][-1] == pytest.approx(0.5 * (5.0 - weight) ** 2, rel=1e-4)
    assert (np.diff(history["loss"]) < 0).all()
    assert LearningRate(initial=0.1, decay=0.5, interval=10).scaled(0.25).initial == 0.025


def test_loss_is_linear_beyond_delta() -> None:
    history = fit(make_model(), delta=0.5, rate=LearningRate(initial=1e-9, decay=1.0, interval=1))
    assert history["loss"][-1] == pytest.approx(0.5 * (3.0 - 0.25), rel=1e-5)


def test_training_that_diverges_ends_at_once() -> None:
    model = make_model(1e30)
    history = fit(model, rate=LearningRate(initial=1e30, decay=1.0, interval=1), delta=1e38)
    assert not np.isfinite(history["loss"][-1])
    assert len(history) == 1


def test_progress_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "PROGRESS_INTERVAL", 0.0)
    with caplog.at_level(logging.INFO):
        fit(make_model())
    assert len(caplog.messages) == 20
    assert caplog.messages[-1].startswith("Step 20 of at most 20: loss ")


def test_batches_are_made_in_order_and_forgotten() -> None:
    made: list[int] = []

    def make(index: int) -> Batch:
        made.append(index)
        return make_batch()

    batches = Batches(make, 3)
    assert len(batches) == 3
    for index in range(3):
        inputs, _, _ = batches[index]
        np.testing.assert_array_equal(inputs["x"], 1.0)
    assert made == [0, 1, 2]
    batches.forget()
    with pytest.raises(IndexError):
        batches[0]
