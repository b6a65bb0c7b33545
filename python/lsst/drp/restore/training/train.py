# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The training, from seeds to weights, in steps that can be resumed.

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
# start; the second one begins there and ends at zero.
_LAST_RATE = 0.4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What to train on, and how long.

    Parameters
    ----------
    samples : `int`
        Simulated observations.
    sample_size : `int`
        Their height and width, pixels.
    stages : `tuple` [`tuple` [`int`, `int`], ...]
        Passes of the network and epochs of each stage of the training.
    steps : `int`
        Steps of an epoch.
    batch : `int`
        Crops in a step.
    crop_size : `int`
        Their height and width, pixels.
    learning_rate : `float`
        Adam's learning rate at the start.
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
        What to do.
    folder : `pathlib.Path`
        Where samples and checkpoints are kept.  A training that was
        interrupted is resumed from what is there, if it has the same plan; it
        then takes the same crops in another order.
    workers : `int`
        Processes that simulate.

    Returns
    -------
    weights : `list` [`numpy.ndarray`]
        The weights of the network.

    Raises
    ------
    ValueError
        Raised if the folder is that of another plan.
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
        That of `train`.
    path : `pathlib.Path`
        Picture to write.
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
        # The passes before the last one count less.
        weight = 1.0 + EARLY_WEIGHT * (passes - 1)
        axes.plot((shown + 1) * plan["steps"], losses[shown] / weight, ".-", label=label)
        first += epochs
    axes.set(xlabel="Step", ylabel="Loss per pass, mean of an epoch")
    axes.legend()
    figure.savefig(path, dpi=100)


def _samples(plan: Plan, folder: Path, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """Simulate the observations, or read them if they are there."""
    paths = folder / "planes.npy", folder / "kernels.npy"
    if not paths[1].exists():
        start = time.perf_counter()

        def report(number: int) -> None:
            if number % max(1, plan.samples // 10) == 0:
                _LOG.info("%d of %d samples, %.0f s.", number, plan.samples, time.perf_counter() - start)

        _, kernels = write_samples(paths[0], plan.samples, plan.sample_size, plan.seed, workers, report)
        # Written last: where it is, the other file is complete.
        np.save(paths[1], kernels)
    return np.load(paths[0], mmap_mode="r"), np.load(paths[1])


def _epochs(checkpoint: Path) -> int:
    """Return how many epochs have been trained."""
    if not checkpoint.exists():
        return 0
    with np.load(checkpoint) as stored:
        return len(stored["losses"])


def _save(checkpoint: Path, network: keras.Model, optimizer: keras.optimizers.Optimizer, loss: float) -> None:
    """Write a checkpoint; the last one stays if this is interrupted."""
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
    """Go on from a checkpoint, if there is one."""
    if not checkpoint.exists():
        return
    with np.load(checkpoint) as stored:
        network.set_weights([stored[name] for name in sorted(stored.files) if name.startswith("network_")])
        if optimizer is not None:
            for k, variable in enumerate(optimizer.variables):
                variable.assign(stored[f"optimizer_{k:03d}"])
