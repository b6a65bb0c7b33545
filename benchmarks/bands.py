# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Whether a band with few exposures is restored better beside bands with many
than alone.

Run by ``python -m benchmarks.bands``.  Prints a table.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from .fields import SNR_BINS, FieldOptions
from .jobs import Job, run_jobs
from .robust import median, robust_scatter

SHALLOW = "g"
"""The band with few exposures."""

_FIRST_VISIT = {"i": 1, "r": 101, "g": 201}


def compare(seed: int, size: int, visits: int, shallow: int, color: tuple[float, float]) -> dict[str, Any]:
    """Restore the shallow band of a field alone and beside the others.

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
        What `measure` returned of ``alone`` and ``together``.
    """
    from lsst.drp.restore.restore_multiband import RestoreMultibandCoaddTask

    from .fields import make_field
    from .jobs import quiet
    from .truth import Truth

    quiet()
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
    copy = _copy(fields[SHALLOW].stack)
    alone = task.restore_bands({SHALLOW: copy})[SHALLOW]
    together = task.restore_bands({band: field.stack for band, field in fields.items()})[SHALLOW]
    return {"alone": measure(truth, alone), "together": measure(truth, together)}


def _copy(stack: Any) -> Any:
    """Copy what a restoration changes."""
    return dataclasses.replace(
        stack, image=stack.image.copy(), variance=stack.variance.copy(), good=stack.good.copy()
    )


def measure(truth: Any, result: Any) -> dict[str, Any]:
    """Measure the restored image of the shallow band.

    Parameters
    ----------
    truth : `Truth`
        The truth of its field.
    result : `lsst.pipe.base.Struct`
        What the task made of it.

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
        What `compare` returned, by seed of the field.

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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bands", description=__doc__)
    add = parser.add_argument
    add("--fields", type=int, nargs="+", default=[301, 302, 303], help="seeds of the fields")
    add("--size", type=int, default=192, help="height and width of a field, pixels, a multiple of 64")
    add("--visits", type=int, default=8, help="exposures in i, and in r")
    add("--shallow", type=int, default=3, help="exposures in g")
    add("--color", type=float, nargs=2, default=[0.4, 0.2], help="mean and scatter of the colors, mag")
    add("--workers", type=int, default=2, help="processes side by side, one thread each")
    add("--log", type=Path, default=Path("bands.log"), help="file for what libraries print")
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
        (
            f"field {seed}",
            compare,
            (seed, options.size, options.visits, options.shallow, tuple(options.color)),
        )
        for seed in options.fields
    ]
    done = run_jobs(jobs, options.workers, options.log)
    print(format_table({seed: done[f"field {seed}"] for seed in options.fields}))
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
