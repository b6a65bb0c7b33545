# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""How much the image of the published network (``config/paper.py``) depends on
its initial weights: trainings from several seeds on the same exposures.

Run by ``python -m benchmarks.seeds``.  Prints a table.
"""

from __future__ import annotations

import argparse
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from lsst.drp.restore.outputs.image_quality import psnr

from .command import Command, add_fields, add_jobs
from .fields import SNR_BINS
from .jobs import Job, run_jobs, write_fields
from .photometry import aperture_flux
from .robust import median
from .truth import APERTURE

_PAPER = Path(__file__).resolve().parent.parent / "config" / "paper.py"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SeedResult:
    """Trainings from several seeds on one field.

    Parameters
    ----------
    flux : `numpy.ndarray`
        Aperture fluxes of the isolated points in units of the true ones, shape
        ``(seeds + 1, points)``; the last row is of the mean image.
    snr : `numpy.ndarray`
        Their signal-to-noise ratio on the reference coadd, shape
        ``(points,)``.
    psnr, loss : `numpy.ndarray`
        PSNR against the truth after arcsinh, dB, and loss per good pixel, the
        same rows.
    steps, seconds : `numpy.ndarray`
        Steps and wall time of each training, shape ``(seeds,)``.
    spread : `float`
        Median over the bright pixels of the standard deviation over seeds in
        units of the mean.
    """

    flux: np.ndarray
    snr: np.ndarray
    psnr: np.ndarray
    loss: np.ndarray
    steps: np.ndarray
    seconds: np.ndarray
    spread: float


def make_task(seed: int) -> Any:
    """Make the task that trains the published network.

    Parameters
    ----------
    seed : `int`
        Seed of the initial weights.

    Returns
    -------
    task : `RestoreCoaddTask`
        The task.
    """
    from lsst.drp.restore.restore_coadd import RestoreCoaddConfig, RestoreCoaddTask

    config = RestoreCoaddConfig()
    config.load(str(_PAPER))
    config.restorer.seed = seed
    return RestoreCoaddTask(config=config)


def train(path: Path, n_seeds: int) -> SeedResult:
    """Train from several seeds on a field and measure each image.

    Parameters
    ----------
    path : `pathlib.Path`
        File from `write_fields`.
    n_seeds : `int`
        Number of seeds.

    Returns
    -------
    result : `SeedResult`
        The measurements.
    """
    from lsst.drp.restore.restoration.likelihood import Likelihood
    from lsst.drp.restore.stack.reference_coadd import reference_coadd

    from .methods import restore_alone

    field, truth = pickle.loads(path.read_bytes())
    task, stack = make_task(0), field.stack
    stack = task.sky.run(stack).stack
    reference = reference_coadd(stack, clip_sigma=task.config.clipSigma)
    stack = stack.without(reference.clipped)
    restorations = []
    for seed in range(n_seeds):
        restorations.append(restore_alone(stack, reference, task.config, seed))
        print(f"seed {seed}: {restorations[-1].loss:.5f}", flush=True)
    latent = np.mean([one.latent for one in restorations], axis=0)
    mean = dataclasses.replace(
        restorations[0],
        latent=latent,
        loss=Likelihood(stack, task.config.restorer.huberDelta).huber_loss(latent),
    )
    catalog = field.catalog
    chosen = np.flatnonzero((catalog["role"] == "point") & truth.usable & np.isfinite(truth.optimal))
    x, y = np.asarray(catalog["x"])[chosen], np.asarray(catalog["y"])[chosen]
    true = np.asarray(catalog["flux_nJy"])[chosen]
    target = np.arcsinh(field.truth / truth.softening)
    images = [one.image for one in (*restorations, mean)]
    bright = mean.image > truth.softening
    return SeedResult(
        flux=np.array([aperture_flux(image, x, y, APERTURE) / true for image in images]),
        snr=truth.snr[chosen],
        psnr=np.array([psnr(np.arcsinh(image / truth.softening), target) for image in images]),
        loss=np.array([one.loss for one in (*restorations, mean)]),
        steps=np.array([one.steps for one in restorations]),
        seconds=np.array([one.seconds for one in restorations]),
        spread=median(np.std(images[:-1], axis=0, ddof=1)[bright] / mean.image[bright]),
    )


def format_table(results: list[SeedResult]) -> str:
    """Format the results.

    Parameters
    ----------
    results : `list` [`SeedResult`]
        One by field.

    Returns
    -------
    table : `str`
        A line for each quantity.
    """
    rows: list[tuple[str, str]] = []

    def add(label: str, style: str, values: tuple[Any, ...]) -> None:
        rows.append((label, style.format(*values)))

    add(
        "PSNR, dB: mean over seeds, scatter, mean image",
        "{:.2f} +- {:.2f}, {:.2f}",
        _over_seeds([one.psnr for one in results]),
    )
    add(
        "loss: mean over seeds, scatter, mean image",
        "{:.4f} +- {:.4f}, {:.4f}",
        _over_seeds([one.loss for one in results]),
    )
    add(
        "scatter of bright pixels over seeds",
        "{:.1%}",
        (median(np.array([one.spread for one in results])),),
    )
    for low, high in SNR_BINS:
        label = f"S/N {low:.0f} to {high:.0f}" if np.isfinite(high) else f"S/N over {low:.0f}"

        inside = [(one.snr >= low) & (one.snr < high) for one in results]
        flux = np.concatenate([one.flux[:, k] for one, k in zip(results, inside, strict=True)], axis=1)
        snr = np.concatenate([one.snr[k] for one, k in zip(results, inside, strict=True)])
        known = np.isfinite(flux).all(axis=0)
        flux, snr = flux[:, known], snr[known]
        scatter = flux[:-1].std(axis=0, ddof=1)
        add(
            f"flux, {label}: bias, scatter, largest; mean image; noise; stars",
            "{:+.1%} +- {:.1%}, {:.1%}; {:+.1%}; {:.1%}; {}",
            (
                median(flux[:-1].mean(axis=0) - 1),
                median(scatter),
                float(scatter.max(initial=0.0)),
                median(flux[-1] - 1),
                median(1 / snr),
                flux.shape[1],
            ),
        )
    add(
        "steps, seconds",
        "{:.0f}, {:.0f}",
        (
            median(np.concatenate([one.steps for one in results])),
            median(np.concatenate([one.seconds for one in results])),
        ),
    )
    width = max(len(label) for label, _ in rows) + 2
    return "\n".join(label.ljust(width) + values for label, values in rows)


def _over_seeds(values: list[np.ndarray]) -> tuple[float, float, float]:
    """Return mean and scatter over seeds, and the mean image's; averaged over
    fields.
    """
    table = np.array(values)
    return (
        float(table[:, :-1].mean()),
        float(table[:, :-1].std(axis=1, ddof=1).mean()),
        float(table[:, -1].mean()),
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    add_fields(parser, seeds=(301,), size=192, visits=8)
    parser.add_argument("--trainings", type=int, default=10, help="number of trainings on each field")
    add_jobs(parser)


def _run(options: argparse.Namespace, folder: Path) -> None:
    """Train on all fields and print the table."""
    paths = write_fields(options, folder)
    jobs: list[Job] = [(f"trainings {seed}", train, (paths[seed], options.trainings)) for seed in paths]
    done = run_jobs(jobs, options.workers, options.log)
    print(
        f"{options.trainings} trainings from different seeds on {options.visits} exposures of "
        f"{options.size}x{options.size} pixels, fields {', '.join(map(str, paths))}"
    )
    print(format_table([done[name] for name, *_ in jobs]))


COMMAND = Command(name="seeds", description=__doc__, add_options=_add_options, run=_run)
"""The command line (`Command`)."""

if __name__ == "__main__":
    COMMAND.main()
