# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What Keras' ``fit`` needs from us: batches, and a record of its progress.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("Batches", "History", "fit")

import time
from collections.abc import Callable, Sequence
from typing import Any

import astropy.table
import keras
import numpy as np

from lsst.utils.logging import LsstLogAdapter

from .restoration import make_history

Batch = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]


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
        Batches whose loss is looked at after each epoch; may be empty.
    steps : `int`
        Batches in an epoch.
    epochs : `int`
        Epochs at most.
    callbacks : `~collections.abc.Sequence` [`keras.callbacks.Callback`]
        What looks on.
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
        """Give up the function, and all that it refers to."""
        self._make = None


class History(keras.callbacks.Callback):
    """Records the loss by epoch and reports progress to a logger.

    Parameters
    ----------
    log : `lsst.utils.logging.LsstLogAdapter`
        Where progress goes.
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
        """Return what was recorded.

        Returns
        -------
        history : `astropy.table.Table`
            A row by epoch; see `make_history`.
        """
        return make_history(self._rows)
