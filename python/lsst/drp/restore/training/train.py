# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The training, from a seed to weights; it can be resumed.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("Plan", "plot_losses", "train")

import dataclasses
import json
import logging
import time
from pathlib import Path

import keras
import numpy as np

from ..restoration.sky_network import build_network
from .objective import EARLY_WEIGHT, Crops, SkyLoss, build_trainer
from .samples import write_samples

_LOG = logging.getLogger(__name__)

_KERNEL_SIZE = 25
_MAX_GRADIENT_NORM = 1.0

# Learning rate at the end of the first stage, as a fraction of that at its
# start; that of the last stage decays from there to zero.
_LAST_RATE = 0.4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Data and duration of a training.

    Parameters
    ----------
    samples : `int`
        Number of simulated observations.
    sample_size : `int`
        Their height and width, pixels.
    stages : `tuple` [`tuple` [`int`, `int`], ...]
        Number of passes of the network and number of epochs of each stage.
    steps : `int`
        Number of steps in an epoch.
    batch : `int`
        Number of crops in a step.
    crop_size : `int`
        Their height and width, pixels.
    learning_rate : `float`
        Learning rate of Adam at the start.
    seed : `int`
        Seed of everything random.
    """

    samples: int = 1000
    sample_size: int = 256
    stages: tuple[tuple[int, int], ...] = ((1, 16), (2, 10))
    steps: int = 250
    batch: int = 8
    crop_size: int = 128
    learning_rate: float = 2e-3
    seed: int = 11


def train(plan: Plan, folder: Path, workers: int) -> list[np.ndarray]:
    """Train a network.

    Parameters
    ----------
    plan : `Plan`
        Data and duration.
    folder : `pathlib.Path`
        Folder for samples and checkpoints.  An interrupted training with the
        same plan is resumed from it, with the same crops in another order.
    workers : `int`
        Number of processes for the simulation.

    Returns
    -------
    weights : `list` [`numpy.ndarray`]
        The weights of the network.

    Raises
    ------
    ValueError
        Raised if the folder has a training with another plan.
    """
    folder.mkdir(parents=True, exist_ok=True)
    description = json.dumps(dataclasses.asdict(plan), indent=1)
    if (folder / "plan.json").exists() and (folder / "plan.json").read_text() != description:
        raise ValueError(f"{folder} has a training with another plan: remove it, or choose another folder.")
    (folder / "plan.json").write_text(description)
    planes, kernels = _samples(plan, folder, workers)

    keras.utils.set_random_seed(plan.seed)
    network = build_network()
    checkpoint = folder / "checkpoint.npz"
    start = time.perf_counter()
    total, done = sum(epochs for _, epochs in plan.stages), 0
    for passes, epochs in plan.stages:
        first, rate = done, plan.learning_rate * (1.0 if done == 0 else _LAST_RATE)
        done += epochs
        if _epochs(checkpoint) >= done:
            continue
        trainer = build_trainer(network, plan.crop_size, _KERNEL_SIZE, passes)
        schedule = keras.optimizers.schedules.CosineDecay(
            rate, epochs * plan.steps, alpha=0.0 if done == total else _LAST_RATE
        )
        optimizer = keras.optimizers.Adam(schedule, global_clipnorm=_MAX_GRADIENT_NORM)
        trainer.compile(optimizer=optimizer, loss=SkyLoss())
        optimizer.build(trainer.trainable_variables)
        if (begin := _epochs(checkpoint)) >= first:
            _restore(checkpoint, network, optimizer if begin > first else None)
        for epoch in range(max(first, begin), done):
            crops = Crops(
                planes,
                kernels,
                size=plan.crop_size,
                batch=plan.batch,
                number=plan.steps,
                seed=(plan.seed, epoch),
            )
            loss = trainer.fit(crops, verbose=0).history["loss"][0]
            _save(checkpoint, network, optimizer, loss)
            elapsed = time.perf_counter() - start
            _LOG.info(
                "Epoch %d of %d, %d passes: loss %.4f, %.0f s.", epoch + 1, total, passes, loss, elapsed
            )
    if _epochs(checkpoint):
        _restore(checkpoint, network, None)
    return network.get_weights()


def plot_losses(folder: Path, path: Path) -> None:
    """Draw the loss of each epoch.

    Parameters
    ----------
    folder : `pathlib.Path`
        Folder of `train`.
    path : `pathlib.Path`
        Figure to write.
    """
    from matplotlib.figure import Figure

    with np.load(folder / "checkpoint.npz") as stored:
        losses = stored["losses"]
    plan = json.loads((folder / "plan.json").read_text())
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    first = 0
    for passes, epochs in plan["stages"]:
        shown = np.arange(first, min(first + epochs, len(losses)))
        label = f"{passes} pass" + ("es" if passes > 1 else "")
        # Mean over the passes, with their weights in the loss.
        weight = 1.0 + EARLY_WEIGHT * (passes - 1)
        axes.plot((shown + 1) * plan["steps"], losses[shown] / weight, ".-", label=label)
        first += epochs
    axes.set(xlabel="Step", ylabel="Loss per pass, mean of an epoch")
    axes.legend()
    figure.savefig(path, dpi=100)


def _samples(plan: Plan, folder: Path, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """Simulate the observations, or read them if they exist."""
    paths = folder / "planes.npy", folder / "kernels.npy"
    if not paths[1].exists():
        start = time.perf_counter()

        def report(number: int) -> None:
            if number % max(1, plan.samples // 10) == 0:
                _LOG.info("%d of %d samples, %.0f s.", number, plan.samples, time.perf_counter() - start)

        _, kernels = write_samples(paths[0], plan.samples, plan.sample_size, plan.seed, workers, report)
        # Written last: if it exists, the other file is complete.
        np.save(paths[1], kernels)
    return np.load(paths[0], mmap_mode="r"), np.load(paths[1])


def _epochs(checkpoint: Path) -> int:
    """Return the number of finished epochs."""
    if not checkpoint.exists():
        return 0
    with np.load(checkpoint) as stored:
        return len(stored["losses"])


def _save(checkpoint: Path, network: keras.Model, optimizer: keras.optimizers.Optimizer, loss: float) -> None:
    """Write a checkpoint; an interruption leaves the previous one."""
    losses = np.zeros(0)
    if checkpoint.exists():
        with np.load(checkpoint) as stored:
            losses = stored["losses"]
    arrays = {f"network_{k:03d}": array for k, array in enumerate(network.get_weights())}
    states = [keras.ops.convert_to_numpy(variable) for variable in optimizer.variables]
    arrays |= {f"optimizer_{k:03d}": array for k, array in enumerate(states)}
    unfinished = checkpoint.with_suffix(".part.npz")
    np.savez(unfinished, losses=np.append(losses, loss), **arrays)
    unfinished.replace(checkpoint)


def _restore(checkpoint: Path, network: keras.Model, optimizer: keras.optimizers.Optimizer | None) -> None:
    """Restore the state from a checkpoint, if it exists."""
    if not checkpoint.exists():
        return
    with np.load(checkpoint) as stored:
        network.set_weights([stored[name] for name in sorted(stored.files) if name.startswith("network_")])
        if optimizer is not None:
            for k, variable in enumerate(optimizer.variables):
                variable.assign(stored[f"optimizer_{k:03d}"])
