# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""How many steps a training saves that starts from the weights of an earlier
one: of the same patch with other noise, of the patch beside it, and of the
patch beside it with fewer exposures.

Run by ``python -m benchmarks.warm_start``.  Prints a table.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .fields import FieldOptions
from .jobs import Job, run_jobs

CASES = ("same patch, other noise", "patch beside it", "patch beside it, 6 of 8 exposures")
"""What is restored from a cold and from a warm start."""

TOLERANCE = 0.002
"""A training is there when its loss is above the lowest of the cold one by no
more than this fraction.
"""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Start:
    """A training from a cold start, or from a warm one.

    Parameters
    ----------
    steps : `numpy.ndarray`
        Steps after which the loss was looked at, the first of them 0.
    loss : `numpy.ndarray`
        Loss per good pixel of the whole patch, not refined.
    seconds : `float`
        Wall time of a step, s.
    taken : `float`
        Fraction of the weights that came from the earlier training.
    dark : `float`
        The loss of no light at all.
    """

    steps: np.ndarray
    loss: np.ndarray
    seconds: float
    taken: float
    dark: float

    def reaches(self, goal: float) -> float:
        """Return the steps after which the loss is not above a goal
        (`float`); infinite if it always is.
        """
        there = np.flatnonzero(self.loss <= goal)
        return float(self.steps[there[0]]) if len(there) else np.inf


def train(stack: Any, changes: Mapping[str, Any], weights: Mapping[str, np.ndarray] | None) -> Any:
    """Train for as long as it may take, and look at the loss of the whole
    patch after every epoch.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.
    changes : `~collections.abc.Mapping` [`str`, `object`]
        Fields of `AstroClearNetConfig` to change.
    weights : `~collections.abc.Mapping` [`str`, `numpy.ndarray`] or `None`
        To start from.

    Returns
    -------
    start : `Start`
        The loss by step.
    weights : `dict` [`str`, `numpy.ndarray`]
        The weights in the end.
    """
    from lsst.drp.restore.astro_clear_net import AstroClearNetTask
    from lsst.drp.restore.compute import prepare_backend
    from lsst.drp.restore.reference_coadd import reference_coadd

    prepare_backend("cpu", 1, seed=0)
    import keras

    from lsst.drp.restore.decoder import FieldDecoder

    config = AstroClearNetTask.ConfigClass()
    config.update(**changes)
    # Nothing stops it early.
    config.minEpochs = config.warmStartMinEpochs = config.maxEpochs
    decoder = FieldDecoder(stack)
    losses: list[float] = []
    spent = [0.0]

    class Watched(AstroClearNetTask):
        def _watch(self, encoder: Any, field: Any) -> list[Any]:
            def look(*_: Any) -> None:
                start = time.perf_counter()
                losses.append(decoder.huber_loss(self._restore(encoder, field), config.huberDelta))
                spent[0] += time.perf_counter() - start

            return [keras.callbacks.LambdaCallback(on_train_begin=look, on_epoch_end=look)]

    restoration = Watched(config=config).run(stack, reference_coadd(stack), initial_weights=weights)
    seconds = float(restoration.history["seconds"][-1]) - spent[0]
    start = Start(
        steps=np.concatenate([[0], np.asarray(restoration.history["step"])]),
        loss=np.array(losses),
        seconds=seconds / restoration.steps,
        taken=restoration.warm_start,
        dark=decoder.huber_loss(np.zeros_like(restoration.latent), config.huberDelta),
    )
    return start, restoration.weights


def compare(options: FieldOptions, rates: Sequence[float]) -> dict[str, list[Start]]:
    """Train on the patches of a field from a cold and from a warm start.

    Parameters
    ----------
    options : `FieldOptions`
        The field: its lower left and right quarter are the two patches.
    rates : `~collections.abc.Sequence` [`float`]
        Values of ``warmStartRate``.

    Returns
    -------
    starts : `dict` [`str`, `list` [`Start`]]
        By the cases' names: the cold one, and one for each rate.
    """
    from lsst.drp.restore.exposure_stack import ExposureStack

    from .fields import make_field
    from .jobs import quiet

    quiet()
    first = make_field(options).stack
    second = make_field(dataclasses.replace(options, noise_seed=1)).stack
    half = options.size // 2

    def cut(stack: ExposureStack, column: int, n: int) -> ExposureStack:
        part = (slice(0, n), slice(0, half), slice(column, column + half))
        start, stop = (x // stack.cell_shape[1] for x in (column, column + half))
        cells = (slice(0, n), slice(0, half // stack.cell_shape[0]), slice(start, stop))
        return ExposureStack(
            image=stack.image[part].copy(),
            variance=stack.variance[part].copy(),
            good=stack.good[part].copy(),
            kernels=stack.kernels[cells],
            correlation=stack.correlation[cells],
            cell_shape=stack.cell_shape,
            names=stack.names[:n],
        )

    _, weights = train(cut(first, 0, options.visits), {}, None)
    targets = (
        cut(second, 0, options.visits),
        cut(second, half, options.visits),
        cut(second, half, options.visits * 3 // 4),
    )
    return {
        name: [
            train(stack, {}, None)[0],
            *(train(stack, {"warmStartRate": rate}, weights)[0] for rate in rates),
        ]
        for name, stack in zip(CASES, targets, strict=True)
    }


def format_table(results: dict[int, dict[str, list[Start]]], rates: Sequence[float]) -> str:
    """Format the results.

    Parameters
    ----------
    results : `dict` [`int`, `dict`]
        What `compare` returned, by seed of the field.
    rates : `~collections.abc.Sequence` [`float`]
        Values of ``warmStartRate``.

    Returns
    -------
    table : `str`
        A line for each field, case and start, and the medians over fields.
    """
    header = f"{'':36}{'start':>12}{'field':>8}{'dark':>9}{'at start':>10}{'lowest':>9}"
    lines = [f"{header}{'steps to it':>13}{'to the cold one':>17}{'seconds':>9}{'taken':>7}"]
    for case in CASES:
        for k, label in enumerate(("cold", *(f"warm {rate:g}" for rate in rates))):
            rows = []
            for starts in (of_field[case] for of_field in results.values()):
                one = starts[k]
                lowest = float(one.loss.min())
                goal = float(starts[0].loss.min()) * (1 + TOLERANCE)
                steps = one.reaches(goal)
                own = one.reaches(lowest * (1 + TOLERANCE))
                rows.append((one.dark, one.loss[0], lowest, own, steps, steps * one.seconds, one.taken))
            for field, row in (
                *zip(map(str, results), rows, strict=True),
                ("median", np.median(rows, axis=0)),
            ):
                dark, first, lowest, own, steps, seconds, taken = row
                lines.append(
                    f"{case:36}{label:>12}{field:>8}{dark:>9.4f}{first:>10.4f}{lowest:>9.4f}"
                    f"{own:>13.0f}{steps:>17.0f}{seconds:>9.0f}{taken:>7.0%}"
                )
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the options.

    Parameters
    ----------
    arguments : `list` [`str`], optional
        Arguments of the command line.

    Returns
    -------
    options : `argparse.Namespace`
        The options.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warm_start", description=__doc__)
    add = parser.add_argument
    add("--fields", type=int, nargs="+", default=[301, 302, 303], help="seeds of the fields")
    add("--size", type=int, default=256, help="height and width of a field, pixels, a multiple of 128")
    add("--rates", type=float, nargs="+", default=[0.004], help="values of warmStartRate")
    add("--workers", type=int, default=2, help="processes side by side, one thread each")
    add("--log", type=Path, default=Path("warm_start.log"), help="file for what libraries print")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark.

    Parameters
    ----------
    arguments : `list` [`str`], optional
        Arguments of the command line.

    Returns
    -------
    status : `int`
        Exit status.
    """
    start = time.perf_counter()
    options = parse(arguments)
    jobs: list[Job] = [
        (f"field {seed}", compare, (FieldOptions(seed=seed, size=options.size, visits=8), options.rates))
        for seed in options.fields
    ]
    done = run_jobs(jobs, options.workers, options.log)
    print(format_table({seed: done[f"field {seed}"] for seed in options.fields}, options.rates))
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
