# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training with Keras' ``fit``: optimizer, batches, and a record of progress.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("PROGRESS_INTERVAL", "Batch", "Batches", "History", "LearningRate", "fit", "optimize")

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import astropy.table
import keras
import numpy as np

from lsst.utils.logging import LsstLogAdapter

from .network import MaskedHuber
from .restoration import make_history

type Batch = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]
"""Inputs by name, target and sample weight."""

PROGRESS_INTERVAL = 5.0
"""Seconds between two messages on the progress of a training: often enough to
see that it runs, and some lines in all.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningRate:
    """A learning rate that decays in steps.

    Parameters
    ----------
    initial : `float`
        Rate of the first steps.
    decay : `float`
        Factor on it after each interval.
    interval : `int`
        Steps of the optimizer between two decays.
    """

    initial: float
    decay: float
    interval: int

    def scaled(self, factor: float) -> LearningRate:
        """Return the same schedule with ``factor`` on all rates."""
        return dataclasses.replace(self, initial=factor * self.initial)


def optimize(
    trainer: keras.Model,
    draw: Callable[[], Batch],
    held_out: Sequence[Batch] = (),
    *,
    delta: float,
    rate: LearningRate,
    max_gradient_norm: float | None = None,
    steps: int,
    epochs: int,
    pixels_per_step: int,
    log: LsstLogAdapter,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> astropy.table.Table:
    """Train a model with Adam and the masked Huber loss.

    Parameters
    ----------
    trainer : `keras.Model`
        The model; it is compiled here.
    draw, held_out
        Batches, see `fit`.
    delta : `float`
        Residual in units of sigma beyond which the loss is linear.
    rate : `LearningRate`
        The learning rate.
    max_gradient_norm : `float`, optional
        Norm of all gradients together to which larger ones are cut.
    steps, epochs : `int`
        See `fit`.
    pixels_per_step : `int`
        Exposure pixels that a step predicts.
    log : `lsst.utils.logging.LsstLogAdapter`
        Logger of the progress.
    callbacks : `~collections.abc.Sequence` [`keras.callbacks.Callback`], optional
        Further callbacks.

    Returns
    -------
    history : `astropy.table.Table`
        A row by epoch; see `make_history`.  A training that diverged ends with
        a loss that is not finite.
    """
    schedule = keras.optimizers.schedules.ExponentialDecay(
        rate.initial, rate.interval, rate.decay, staircase=True
    )
    # Keras compiles with XLA what it can: all of it with JAX, nothing with a deterministic TensorFlow.
    trainer.compile(
        optimizer=keras.optimizers.Adam(schedule, global_clipnorm=max_gradient_norm), loss=MaskedHuber(delta)
    )
    history = History(
        log, max_steps=steps * epochs, pixels_per_step=pixels_per_step, interval=PROGRESS_INTERVAL
    )
    fit(
        trainer,
        draw,
        held_out,
        steps=steps,
        epochs=epochs,
        callbacks=[history, keras.callbacks.TerminateOnNaN(), *callbacks],
    )
    return history.table()


def fit(
    trainer: keras.Model,
    draw: Callable[[], Batch],
    held_out: Sequence[Batch],
    *,
    steps: int,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Train a model.

    Parameters
    ----------
    trainer : `keras.Model`
        The model, compiled.
    draw : `~collections.abc.Callable`
        Returns the next batch to train on: inputs, target and weight.
    held_out : `~collections.abc.Sequence`
        Batches whose loss is computed after each epoch; may be empty.
    steps : `int`
        Batches in an epoch.
    epochs : `int`
        Epochs at most.
    callbacks : `~collections.abc.Sequence` [`keras.callbacks.Callback`]
        Callbacks.
    """
    batches, others = Batches(lambda _: draw(), steps), Batches(held_out.__getitem__, len(held_out))
    try:
        trainer.fit(
            batches,
            validation_data=others if held_out else None,
            epochs=epochs,
            callbacks=list(callbacks),
            verbose=0,
        )
    finally:
        # TensorFlow keeps data sets until the process ends.  They must not
        # keep the exposures of one patch when the next one is restored.
        batches.forget()
        others.forget()


class Batches(keras.utils.PyDataset):
    """Batches made by a function, in order and by one thread, so that the
    draws are reproducible.

    Parameters
    ----------
    make : `~collections.abc.Callable`
        Takes the index of a batch in its epoch; returns inputs, target and
        weight.
    count : `int`
        Batches in an epoch.
    """

    def __init__(self, make: Callable[[int], Batch], count: int) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self._make: Callable[[int], Batch] | None = make
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Batch:
        if self._make is None:
            raise IndexError(index)
        return self._make(index)

    def forget(self) -> None:
        """Release the function, and all that it refers to."""
        self._make = None


class History(keras.callbacks.Callback):
    """Records the loss by epoch and reports progress to a logger.

    Parameters
    ----------
    log : `lsst.utils.logging.LsstLogAdapter`
        Logger of the progress.
    max_steps : `int`
        Steps after which the training ends at the latest.
    interval : `float`
        Seconds between two messages.
    pixels_per_step : `int`
        Exposure pixels that a step predicts.
    """

    def __init__(self, log: LsstLogAdapter, *, max_steps: int, pixels_per_step: int, interval: float) -> None:
        super().__init__()
        self._log = log
        self._max_steps = max_steps
        self._pixels_per_step = pixels_per_step
        self._interval = interval
        self._step = 0
        self._rows: list[tuple[int, float, float, float, float]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start the clocks."""
        self._start = time.perf_counter()
        self._reported, self._reported_step = self._start, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Report progress when it is time to."""
        self._step += 1
        now = time.perf_counter()
        elapsed = now - self._reported
        if elapsed < self._interval or logs is None:
            return
        steps = self._step - self._reported_step
        self._log.info(
            "Step %d of at most %d: loss %.5f, %.2f Mpixel/s, at most %.0f s left.",
            self._step,
            self._max_steps,
            logs["loss"],
            steps * self._pixels_per_step / elapsed / 1e6,
            (self._max_steps - self._step) * elapsed / steps,
        )
        self._reported, self._reported_step = now, self._step

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the epoch."""
        logs = logs or {}
        self._rows.append(
            (
                self._step,
                float(logs["loss"]),
                float(logs.get("val_loss", np.nan)),
                float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
                time.perf_counter() - self._start,
            )
        )

    def table(self) -> astropy.table.Table:
        """Return the records.

        Returns
        -------
        history : `astropy.table.Table`
            A row by epoch; see `make_history`.
        """
        return make_history(self._rows)
