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
from pathlib import Path

import numpy as np

from .fields import FieldOptions
from .jobs import Job, run_jobs

CASES = ("same patch, other noise", "patch beside it", "patch beside it, 6 of 8 exposures")
"""What is restored from a cold and from a warm start."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """A training from a cold and from a warm start.

    Parameters
    ----------
    cold_steps, warm_steps : `int`
        Steps until each stopped.
    cold_seconds, warm_seconds : `float`
        Wall time of each, s.
    cold_loss, warm_loss : `float`
        Loss per good pixel of the whole patch in the end, not refined.
    initial_loss : `float`
        The same before the first step of the warm one.
    dark_loss : `float`
        The same of no light at all.
    reached : `float`
        Steps after which the warm one's held-out loss is as low as the cold
        one's ever was (give or take ``minImprovement``); infinite if it never
        is.
    taken : `float`
        Fraction of the weights that were there.
    """

    cold_steps: int
    warm_steps: int
    cold_seconds: float
    warm_seconds: float
    cold_loss: float
    warm_loss: float
    initial_loss: float
    dark_loss: float
    reached: float
    taken: float


def compare(options: FieldOptions, changes: dict[str, float]) -> dict[str, Start]:
    """Train on the patches of a field from a cold and from a warm start.

    Parameters
    ----------
    options : `FieldOptions`
        The field: its upper left and right quarter are the two patches.
    changes : `dict` [`str`, `float`]
        Fields of `AstroClearNetConfig` to change.

    Returns
    -------
    starts : `dict` [`str`, `Start`]
        By the cases' names.
    """
    from lsst.drp.restore.astro_clear_net import AstroClearNetTask
    from lsst.drp.restore.exposure_stack import ExposureStack
    from lsst.drp.restore.reference_coadd import reference_coadd

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

    config = AstroClearNetTask.ConfigClass()
    config.update(**changes)
    task = AstroClearNetTask(config=config)
    earlier = cut(first, 0, options.visits)
    weights = task.run(earlier, reference_coadd(earlier)).weights
    targets = (
        cut(second, 0, options.visits),
        cut(second, half, options.visits),
        cut(second, half, options.visits * 3 // 4),
    )
    starts = {}
    for name, stack in zip(CASES, targets, strict=True):
        from lsst.drp.restore.decoder import FieldDecoder

        reference = reference_coadd(stack)
        cold = task.run(stack, reference)
        warm = task.run(stack, reference, initial_weights=weights)
        goal = np.nanmin(cold.history["validation_loss"]) + config.minImprovement
        there = np.flatnonzero(np.asarray(warm.history["validation_loss"]) <= goal)
        starts[name] = Start(
            cold_steps=cold.steps,
            warm_steps=warm.steps,
            cold_seconds=cold.seconds,
            warm_seconds=warm.seconds,
            cold_loss=cold.loss,
            warm_loss=warm.loss,
            initial_loss=warm.initial_loss,
            dark_loss=FieldDecoder(stack).huber_loss(np.zeros_like(cold.latent), config.huberDelta),
            reached=float(warm.history["step"][there[0]]) if len(there) else np.inf,
            taken=warm.warm_start,
        )
    return starts


def format_table(results: dict[int, dict[str, Start]]) -> str:
    """Format the results.

    Parameters
    ----------
    results : `dict` [`int`, `dict`]
        What `compare` returned, by seed of the field.

    Returns
    -------
    table : `str`
        A line for each field and case, and the medians.
    """
    lines = [
        f"{'':36}{'field':>7}{'cold: steps':>13}{'s':>6}{'loss':>9}{'warm: steps':>13}{'s':>6}{'loss':>9}"
        f"{'at start':>10}{'dark':>9}{'reached':>9}{'taken':>7}"
    ]

    def line(label: str, field: str, one: Start) -> str:
        return (
            f"{label:36}{field:>7}{one.cold_steps:>13.0f}{one.cold_seconds:>6.0f}{one.cold_loss:>9.4f}"
            f"{one.warm_steps:>13.0f}{one.warm_seconds:>6.0f}{one.warm_loss:>9.4f}{one.initial_loss:>10.4f}"
            f"{one.dark_loss:>9.4f}{one.reached:>9.0f}{one.taken:>7.0%}"
        )

    for case in CASES:
        starts = [of_field[case] for of_field in results.values()]
        lines += [line(case, str(seed), one) for seed, one in zip(results, starts, strict=True)]
        middle = {
            field.name: float(np.median([getattr(one, field.name) for one in starts]))
            for field in dataclasses.fields(Start)
        }
        lines.append(line(case, "median", Start(**middle)))  # type: ignore[arg-type]
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
    add("--rate", type=float, help="warmStartRate")
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
    changes = {"warmStartRate": options.rate} if options.rate else {}
    jobs: list[Job] = [
        (f"field {seed}", compare, (FieldOptions(seed=seed, size=options.size, visits=8), changes))
        for seed in options.fields
    ]
    done = run_jobs(jobs, options.workers, options.log)
    print(format_table({seed: done[f"field {seed}"] for seed in options.fields}))
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
