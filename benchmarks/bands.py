# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Compare a band with few exposures, restored together with deeper bands, with
the same band restored alone.

Run by ``python -m benchmarks.bands``.  Prints a table.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from .command import Command, add_fields, add_jobs
from .fields import SNR_BINS, FieldOptions
from .jobs import Job, run_jobs
from .robust import median, robust_scatter

SHALLOW = "g"
"""The band with few exposures."""

_FIRST_VISIT = {"i": 1, "r": 101, "g": 201}


def compare(seed: int, size: int, visits: int, shallow: int, color: tuple[float, float]) -> dict[str, Any]:
    """Restore the shallow band of a field alone and together with the others.

    Parameters
    ----------
    seed : `int`
        Seed of the field.
    size : `int`
        Height and width of the field, pixels.
    visits, shallow : `int`
        Exposures in i and in r, and in g.
    color : `tuple` [`float`, `float`]
        Mean and scatter of the sources' colors, see `SimulationConfig`.

    Returns
    -------
    results : `dict` [`str`, `dict`]
        Results of `measure` of ``alone`` and ``together``.
    """
    from lsst.drp.restore.restore_multiband import RestoreMultibandCoaddTask

    from .fields import make_field
    from .truth import Truth

    options = FieldOptions(seed=seed, size=size, visits=visits, design_visits=visits, color=color)
    fields = {
        band: make_field(
            dataclasses.replace(
                options, band=band, first_visit=first, visits=shallow if band == SHALLOW else visits
            )
        )
        for band, first in _FIRST_VISIT.items()
    }
    truth = Truth.of(fields[SHALLOW])
    config = RestoreMultibandCoaddTask.ConfigClass()
    task = RestoreMultibandCoaddTask(config=config)
    alone = task.restore_bands({SHALLOW: fields[SHALLOW].stack})[SHALLOW]
    together = task.restore_bands({band: field.stack for band, field in fields.items()})[SHALLOW]
    return {"alone": measure(truth, alone), "together": measure(truth, together)}


def measure(truth: Any, result: Any) -> dict[str, Any]:
    """Measure the restored image of the shallow band.

    Parameters
    ----------
    truth : `Truth`
        The truth of its field.
    result : `lsst.pipe.base.Struct`
        Output of the task.

    Returns
    -------
    results : `dict` [`str`, `object`]
        Numbers and, for the fluxes, lists of numbers by source.
    """
    from .measure import measure_image
    from .photometry import aperture_flux
    from .sky_image import Cutout, SkyImage
    from .truth import APERTURE

    image = result.restoration.image
    sky = SkyImage(
        image=image, variance=result.characterization.variance, kernels=result.characterization.kernels
    )
    measurable = SkyImage(
        image=result.measurable.image, variance=result.measurable.variance, kernels=result.measurable.kernels
    )
    measured = measure_image(truth, sky, Cutout(row=0, column=0, size=64), measurable)
    catalog = truth.field.catalog
    chosen = np.flatnonzero((catalog["role"] == "point") & truth.usable)
    x, y = np.asarray(catalog["x"])[chosen], np.asarray(catalog["y"])[chosen]
    flux = aperture_flux(image, x, y, APERTURE) / np.asarray(catalog["flux_nJy"])[chosen]
    names = (
        "psnr",
        "ssim",
        "common psnr",
        "common ssim",
        "fwhm",
        "pairs",
        "completeness 5-10",
        "empty scatter",
    )
    return {name: measured[name] for name in names} | {
        "loss": result.restoration.loss,
        "seconds": result.restoration.seconds,
        "flux": (flux - 1).tolist(),
        "snr": truth.snr[chosen].tolist(),
    }


def format_table(results: dict[int, dict[str, Any]]) -> str:
    """Format the results.

    Parameters
    ----------
    results : `dict` [`int`, `dict`]
        Results of `compare` by seed of the field.

    Returns
    -------
    table : `str`
        A line for each quantity: each field alone and together, and the
        median of the differences.
    """
    cases = ("alone", "together")
    names = [
        name for name, value in results[next(iter(results))]["alone"].items() if not isinstance(value, list)
    ]
    lines = [
        "".ljust(24)
        + "".join(f"{seed} alone, together".rjust(24) for seed in results)
        + "difference".rjust(14)
    ]
    for name in names:
        pairs = [[one[case][name] for case in cases] for one in results.values()]
        cells = [f"{alone:.4g}, {together:.4g}".rjust(24) for alone, together in pairs]
        change = median(np.array([together - alone for alone, together in pairs]))
        lines.append(name.ljust(24) + "".join(cells) + f"{change:+.4g}".rjust(14))
    lines.append("")
    for low, high in SNR_BINS:
        cells = []
        for case in cases:
            snr = np.concatenate([one[case]["snr"] for one in results.values()])
            error = np.concatenate([one[case]["flux"] for one in results.values()])
            error = error[(snr >= low) & (snr < high) & np.isfinite(error)]
            cells.append(f"{case} {median(error):+.3f} +- {robust_scatter(error):.3f} ({len(error)})")
        lines.append(f"flux of points, aperture, S/N {low:.0f} to {high:.0f}: {'; '.join(cells)}")
    return "\n".join(lines)


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    add_fields(parser, seeds=(301, 302, 303), size=192, visits=8)
    add = parser.add_argument
    add("--shallow", type=int, default=3, help="exposures in g; --visits is their number in i, and in r")
    add("--color", type=float, nargs=2, default=[0.4, 0.2], help="mean and scatter of the colors, mag")
    add_jobs(parser)


def _run(options: argparse.Namespace, folder: Path) -> None:
    """Restore all fields and print the table."""
    rest = (options.size, options.visits, options.shallow, tuple(options.color))
    jobs: list[Job] = [(f"field {seed}", compare, (seed, *rest)) for seed in options.seeds]
    done = run_jobs(jobs, options.workers, options.log)
    print(format_table({seed: done[f"field {seed}"] for seed in options.seeds}))


COMMAND = Command(name="bands", description=__doc__, add_options=_add_options, run=_run)
"""The command line (`Command`)."""

if __name__ == "__main__":
    COMMAND.main()
