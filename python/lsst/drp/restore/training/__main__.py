# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Train the network on simulated skies and write the weights shipped with the
package.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import click

_WEIGHTS = Path(__file__).resolve().parent.parent / "restoration" / "sky_network.npz"


@click.command(help=__doc__)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("training"),
    show_default=True,
    help="Folder for samples, checkpoints and the figure of the loss. An interrupted training is resumed.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=_WEIGHTS,
    help="File of the weights.  [default: that of the package]",
)
@click.option("--version", default="unnamed", show_default=True, help="Name of the weights.")
@click.option("--samples", type=click.IntRange(1), help="Number of simulated observations.")
@click.option("--epochs", type=click.IntRange(1), multiple=True, help="Number of epochs of each stage.")
@click.option("--steps", type=click.IntRange(1), help="Number of steps in an epoch.")
@click.option("--seed", type=click.IntRange(0), help="Seed of everything random.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count(),
    help="Number of simulating processes.",
)
def main(
    folder: Path,
    output: Path,
    version: str,
    samples: int | None,
    epochs: tuple[int, ...],
    steps: int | None,
    seed: int | None,
    workers: int,
) -> None:
    """Train the network and write its weights."""
    import dataclasses

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from ..restoration.network_weights import write_weights
    from .train import Plan, plot_losses, train

    given: dict[str, Any] = {"samples": samples, "steps": steps, "seed": seed}
    plan = dataclasses.replace(Plan(), **{name: value for name, value in given.items() if value is not None})
    if epochs:
        if len(epochs) != len(plan.stages):
            raise click.UsageError(f"--epochs is needed for each of {len(plan.stages)} stages, or for none.")
        stages = tuple((passes, number) for (passes, _), number in zip(plan.stages, epochs, strict=True))
        plan = dataclasses.replace(plan, stages=stages)
    weights = train(plan, folder, workers)
    write_weights(output, weights, version)
    plot_losses(folder, folder / "loss.png")
    click.echo(f"Wrote {output} and {folder / 'loss.png'}.")


if __name__ == "__main__":
    main()
