# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Measure restored coadds on fields with a known truth, beside other methods.

Run by ``make bench-quality``.  Prints one table; writes it, the figures and all
numbers into ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .fields import FieldOptions
from .jobs import draw_noise, prepare_field, run_jobs, run_method

RESULTS = Path(__file__).resolve().parent / "results"
_HELD_OUT = Path(__file__).resolve().parent / "held_out.py"


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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[901, 902, 903], help="seeds of the fields")
    add("--size", type=int, default=512, help="height and width of a field, pixels, a multiple of 64")
    add("--visits", type=int, default=16, help="number of exposures")
    add("--methods", nargs="+", help="methods to run  [default: all]")
    add("--paper-seeds", type=int, default=1, help="seeds that the network as published is trained on")
    add("--cutout", type=int, default=96, help="height and width of STARRED's cutout, pixels")
    add("--draws", type=int, default=20, help="draws of the noise, 0 for none")
    add("--draw-size", type=int, default=192, help="height and width of their field, pixels")
    add("--draw-visits", type=int, default=8, help="their number of exposures")
    add("--no-wide", action="store_true", help="leave out the wide field")
    add("--no-held-out", action="store_true", help="leave out the real exposures")
    add("--workers", type=int, default=2, help="processes side by side, one thread each")
    add("--results", type=Path, default=RESULTS, help="folder to write to")
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
    options.results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        results, images = run(options, Path(folder))
    from .report import format_report

    results["seconds"] = time.perf_counter() - start
    text = format_report(results) + f"\n{results['seconds'] / 60:.1f} minutes in all"
    print(text)
    (options.results / "quality.txt").write_text(text + "\n")
    (options.results / "quality.json").write_text(json.dumps(_plain(results), indent=1, allow_nan=False))
    draw_figures(results, images, options.results)
    return 0


def run(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Simulate, restore and measure.

    Parameters
    ----------
    options : `argparse.Namespace`
        See `parse`.
    folder : `pathlib.Path`
        For temporary files.

    Returns
    -------
    results : `dict` [`str`, `object`]
        All numbers; see `format_report`.
    images : `dict` [`str`, `object`]
        Images of the first seed, for the figures.
    """
    import pickle

    from .fields import counts
    from .jobs import Job
    from .measure import measure_sky
    from .methods import METHODS
    from .sky_image import SkyImage
    from .report import combine, summarize_draws, targets

    fields = {
        str(seed): FieldOptions(seed=seed, size=options.size, visits=options.visits) for seed in options.seeds
    }
    if not options.no_wide:
        fields["wide"] = FieldOptions(
            seed=options.seeds[0], size=options.size, visits=options.visits, wide=True
        )
    paths = {name: folder / f"{name}.pickle" for name in fields}
    log = options.results / "quality.log"
    log.unlink(missing_ok=True)
    simulations: list[Job] = [
        (f"field {name}", prepare_field, (fields[name], paths[name], options.cutout)) for name in fields
    ]
    cutouts = run_jobs(simulations, options.workers, log)
    methods = [name for name in METHODS if not options.methods or name in options.methods]
    jobs: list[Job] = []
    for method in methods:
        seeds = options.seeds[: options.paper_seeds] if method == "paper" else options.seeds
        jobs += [
            (f"{method} {seed}", run_method, (method, paths[str(seed)], cutouts[f"field {seed}"]))
            for seed in seeds
        ]
        if method in ("reference", "naive", "default", "fast", "imagemm") and "wide" in fields:
            jobs.append((f"{method} wide", run_method, (method, paths["wide"], cutouts["field wide"], False)))
    for n in range(options.draws):
        draw = FieldOptions(
            seed=options.seeds[0], size=options.draw_size, visits=options.draw_visits, noise_seed=n + 1
        )
        jobs.append((f"draw {n}", draw_noise, (draw,)))
    done = run_jobs(jobs, options.workers, log)

    by_image: dict[str, dict[str, Any]] = {}
    costs: dict[str, dict[str, tuple[float, float, float]]] = {}
    notes: dict[str, str] = {}
    pictures: dict[str, Any] = {}
    for method in methods:
        for seed in map(str, options.seeds):
            result = done.get(f"{method} {seed}")
            if result is None:
                continue
            if result.failure:
                notes[method] = f"not run: {result.failure}"
            for image, measurements in result.measurements.items():
                by_image.setdefault(image, {})[seed] = measurements
                costs.setdefault(image, {})[seed] = (result.seconds, result.cpu, result.peak)
            if seed == str(options.seeds[0]):
                pictures |= result.images
    if "network as published" in by_image and len(by_image["network as published"]) < len(options.seeds):
        notes["network as published"] = f"only seed {', '.join(by_image['network as published'])}, for time."
    medians = {image: combine(by_seed) for image, by_seed in by_image.items()}

    wide: dict[str, Any] = {}
    if "wide" in fields:
        from lsst.drp.restore.image_quality import sharpness, sky_noise

        field, _ = pickle.loads(paths["wide"].read_bytes())
        for method in methods:
            if f"{method} wide" in done:
                wide |= done[f"{method} wide"].measurements
        wide["truth"] = {"S_F": sharpness(field.truth), "sigma_sky": sky_noise(field.truth)}
        wide["counts"] = counts(field)
    draws = summarize_draws([done[f"draw {n}"] for n in range(options.draws)]) if options.draws else {}
    true_sky = {}
    for seed in reversed(options.seeds):
        field, truth = pickle.loads(paths[str(seed)].read_bytes())
        true_sky[str(seed)] = measure_sky(truth, SkyImage(image=field.truth))
    results = {
        "options": {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()},
        "by_image": by_image,
        "medians": medians,
        "costs": {
            image: [_median([one[k] for one in by_seed.values()]) for k in range(3)]
            for image, by_seed in costs.items()
        },
        "costs_by_seed": costs,
        "notes": notes,
        "truth": combine(true_sky),
        "wide": wide,
        "draws": draws,
        "targets": targets(medians, wide, draws),
        "held_out": "" if options.no_held_out else held_out(),
    }
    return results, {
        "images": pictures,
        "truth": field.truth,
        "sigma": truth.softening,
        "cutout": cutouts[f"field {options.seeds[0]}"],
    }


def held_out() -> str:
    """Run the benchmark on real exposures, if there is one.

    Returns
    -------
    line : `str`
        The last line that it prints.
    """
    if not _HELD_OUT.exists():
        return "DECam, held-out half: no benchmark"
    command = [sys.executable, "-m", "benchmarks.held_out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    printed = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return printed[-1] if printed else "DECam, held-out half: nothing printed"


def draw_figures(results: dict[str, Any], images: dict[str, Any], folder: Path) -> None:
    """Draw the figures.

    Parameters
    ----------
    results, images : `dict` [`str`, `object`]
        From `run`.
    folder : `pathlib.Path`
        Where to write them.
    """
    from .figures import plot_completeness, plot_cutouts, plot_fluxes

    plot_cutouts(
        images["images"],
        images["truth"],
        images["cutout"],
        images["sigma"],
        folder / "quality_cutouts.png",
    )
    plot_fluxes(results["by_image"], folder / "quality_fluxes.png")
    plot_completeness(results["medians"], folder / "quality_completeness.png")


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _plain(value: Any) -> Any:
    """Make JSON of results: no NaN, no NumPy, no tuples."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else value.item()


if __name__ == "__main__":
    sys.exit(main())
