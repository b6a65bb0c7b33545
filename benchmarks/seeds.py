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
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from lsst.drp.restore.outputs.image_quality import psnr

from .fields import SNR_BINS, FieldOptions
from .jobs import Job, run_jobs, write_field
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


def train(path: Path, log: Path, n_seeds: int) -> SeedResult:
    """Train from several seeds on a field and measure each image.

    Parameters
    ----------
    path : `pathlib.Path`
        File from `write_field`.
    log : `pathlib.Path`
        File for a line by training.
    n_seeds : `int`
        Number of seeds.

    Returns
    -------
    result : `SeedResult`
        The measurements.
    """
    from lsst.drp.restore.restoration.forward_model import ForwardModel
    from lsst.drp.restore.stack.reference_coadd import reference_coadd

    from .jobs import quiet
    from .methods import restore_alone

    quiet()
    field, truth = pickle.loads(path.read_bytes())
    task, stack = make_task(0), field.stack
    stack = task.sky.run(stack).stack
    reference = reference_coadd(stack, clip_sigma=task.config.clipSigma)
    stack = stack.without(reference.clipped)
    restorations = []
    for seed in range(n_seeds):
        restorations.append(restore_alone(stack, reference, task.config, seed))
        with log.open("a") as file:
            print(f"seed {seed}: {restorations[-1].loss:.5f}", file=file)
    latent = np.mean([one.latent for one in restorations], axis=0)
    mean = dataclasses.replace(
        restorations[0],
        latent=latent,
        loss=ForwardModel(stack).huber_loss(latent, task.config.restorer.huberDelta),
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seeds", description=__doc__)
    add = parser.add_argument
    add("--fields", type=int, nargs="+", default=[301], help="seeds of the fields")
    add("--size", type=int, default=192, help="height and width of a field, pixels, a multiple of 64")
    add("--visits", type=int, default=8, help="number of exposures")
    add("--seeds", type=int, default=10, help="number of trainings")
    add("--workers", type=int, default=2, help="processes side by side, one thread each")
    add("--log", type=Path, default=Path("seeds.log"), help="file for progress and what libraries print")
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
    with tempfile.TemporaryDirectory() as folder:
        paths = {seed: Path(folder) / f"{seed}.pickle" for seed in options.fields}
        simulations: list[Job] = [
            (
                f"field {seed}",
                write_field,
                (FieldOptions(seed=seed, size=options.size, visits=options.visits), path),
            )
            for seed, path in paths.items()
        ]
        run_jobs(simulations, options.workers, options.log)
        jobs: list[Job] = [
            (f"seeds {seed}", train, (paths[seed], options.log, options.seeds)) for seed in options.fields
        ]
        done = run_jobs(jobs, options.workers, options.log)
    results = [done[f"seeds {seed}"] for seed in options.fields]
    print(
        f"{options.seeds} trainings from different seeds on {options.visits} exposures of "
        f"{options.size}x{options.size} pixels, fields {', '.join(map(str, options.fields))}"
    )
    print(format_table(results))
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
