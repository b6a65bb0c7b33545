# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Compare restored coadds with other methods, on fields with a known truth and
on real images.

Run by ``make bench-quality``.  Prints a report; writes it, the figures and all
numbers into ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import pickle
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .command import Command, add_fields, add_jobs
from .fields import FieldOptions
from .held_out import DATA_VARIABLE, HALVES, decam_folder, run_half
from .hsc_hst import FIELDS, run_on_coadd
from .jobs import Job, draw_noise, prepare_field, prepare_scene, run_jobs, run_method, run_scene
from .morphologies import DEPTHS, cosmos_scene, jwst_scene, real_images_folder
from .scenes import crowded_scene, empty_scene
from .tables import DEEP_SIZE, DEEP_VISITS

RESULTS = Path(__file__).resolve().parent / "results"

# Methods that fields other than the designed ones are restored by.
_SOME = ("default", "from_coadd", "imagemm", "sgp", "rubin", "proper", "reference")


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    add_fields(parser, seeds=(931, 932, 933), size=512, visits=16)
    add = parser.add_argument
    add("--methods", nargs="+", help="methods to run  [default: all]")
    add("--paper-seeds", type=int, default=1, help="seeds that the network as published is trained on")
    add("--cutout", type=int, default=96, help="height and width of STARRED's cutout, pixels")
    add("--draws", type=int, default=20, help="draws of the noise, 0 for none")
    add("--draw-size", type=int, default=192, help="height and width of their field, pixels")
    add("--draw-visits", type=int, default=8, help="their number of exposures")
    add("--no-wide", action="store_true", help="leave out the wide and the deep field")
    add("--no-scenes", action="store_true", help="leave out real morphologies, crowded field and pure noise")
    add("--no-real", action="store_true", help="leave out the real exposures of HSC and DECam")
    add("--results", type=Path, default=RESULTS, help="folder to write to")
    add_jobs(parser)


def _run(options: argparse.Namespace, folder: Path) -> None:
    """Run the benchmark; print and write its results."""
    start = time.perf_counter()
    options.results.mkdir(parents=True, exist_ok=True)
    results, images = Benchmark(options, folder).run()
    from .report import format_report

    results["seconds"] = time.perf_counter() - start
    text = format_report(results)
    print(text)
    (options.results / "quality.txt").write_text(text + "\n")
    (options.results / "quality.json").write_text(json.dumps(_plain(results), indent=1, allow_nan=False))
    draw_figures(results, images, options.results)


class Benchmark:
    """All fields, and all methods on them.

    Parameters
    ----------
    options : `argparse.Namespace`
        From the command line, see `COMMAND`.
    folder : `pathlib.Path`
        For temporary files.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        from .methods import METHODS

        self._options = options
        self._folder = folder
        self._methods = [name for name in METHODS if not options.methods or name in options.methods]
        self._skipped: list[str] = []

    def run(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Simulate, restore and measure.

        Returns
        -------
        results : `dict` [`str`, `object`]
            All numbers; see `format_report`.
        images : `dict` [`str`, `object`]
            Images for the figures; see `draw_figures`.
        """
        cutouts, scenes = self._simulate()
        jobs = [*self._designed_jobs(cutouts), *self._other_jobs(cutouts, scenes), *self._real_jobs()]
        jobs += self._draw_jobs()
        done = run_jobs(jobs, self._options.workers, self._options.log)
        return self._collect(done, cutouts, scenes)

    def _simulate(self) -> tuple[dict[str, Any], list[str]]:
        """Make all fields; return the cutouts of the simulated ones, and the
        names of the scenes.
        """
        options = self._options
        fields = {
            str(seed): FieldOptions(seed=seed, size=options.size, visits=options.visits)
            for seed in options.seeds
        }
        if not options.no_wide:
            fields["wide"] = dataclasses.replace(fields[str(options.seeds[0])], wide=True)
        if not options.no_wide and options.size > DEEP_SIZE:
            fields["deep"] = FieldOptions(
                seed=options.seeds[0], size=DEEP_SIZE, visits=DEEP_VISITS, wide=True
            )
        scenes: dict[str, tuple[Any, tuple[Any, ...]]] = {}
        if not options.no_scenes:
            folder = real_images_folder()
            for name, make in (("JWST", jwst_scene), ("COSMOS", cosmos_scene)):
                scenes |= {f"{name}{depth}": (make, (folder, peak)) for depth, peak in DEPTHS.items()}
            scenes["crowded"] = (crowded_scene, (options.seeds[0], options.size))
            scenes["pure noise"] = (empty_scene, (options.seeds[0], options.size))
        jobs: list[Job] = [
            (name, prepare_field, (field, self._path(name), options.cutout)) for name, field in fields.items()
        ]
        jobs += [
            (name, prepare_scene, (make, arguments, self._path(name)))
            for name, (make, arguments) in scenes.items()
        ]
        # The field with most exposures takes longest.
        jobs.sort(key=lambda job: job[0] != "deep")
        done = run_jobs(jobs, options.workers, options.log)
        self._skipped += [f"{name}: {done[name]}" for name in scenes if done[name]]
        return {name: done[name] for name in fields}, [name for name in scenes if not done[name]]

    def _designed_jobs(self, cutouts: dict[str, Any]) -> Iterable[Job]:
        """Run every method on the designed fields."""
        for method in self._methods:
            seeds = self._options.seeds
            for seed in map(str, seeds[: self._options.paper_seeds] if method == "paper" else seeds):
                yield f"{method} {seed}", run_method, (method, self._path(seed), cutouts[seed])

    def _other_jobs(self, cutouts: dict[str, Any], scenes: Iterable[str]) -> Iterable[Job]:
        """Run some methods on the other fields."""
        for method in (method for method in _SOME if method in self._methods):
            for name in ("deep", "wide"):
                if name in cutouts:
                    yield f"{method} {name}", run_method, (method, self._path(name), cutouts[name], True)
            for name in scenes:
                yield f"{method} {name}", run_scene, (method, self._path(name))

    def _real_jobs(self) -> Iterable[Job]:
        """Restore real exposures."""
        if self._options.no_real:
            return
        decam, hires = decam_folder(), real_images_folder()
        if (decam / "load.py").is_file():
            yield from ((half, run_half, (decam, half)) for half in HALVES)
        else:
            self._skipped.append(f"DECam: there is no load.py in {decam} ({DATA_VARIABLE} says where)")
        if not (hires / "Cut_HST.fits").is_file():
            self._skipped.append(f"HSC: there is no Cut_HST.fits in {hires}")
            return
        for name in FIELDS:
            # The default method has the coadd alone here.
            for method in (method for method in _SOME if method in self._methods and method != "from_coadd"):
                yield f"{method} HSC {name}", run_on_coadd, (method, hires, name)

    def _draw_jobs(self) -> Iterable[Job]:
        """Restore draws of the noise."""
        options = self._options
        for n in range(options.draws):
            draw = FieldOptions(
                seed=options.seeds[0], size=options.draw_size, visits=options.draw_visits, noise_seed=n + 1
            )
            yield f"draw {n}", draw_noise, (draw,)

    def _collect(
        self, done: dict[str, Any], cutouts: dict[str, Any], scenes: list[str]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Put the results of all jobs together."""
        from .fields import counts
        from .report import combine, summarize_draws
        from .targets import compare_with_targets

        options = self._options
        first = str(options.seeds[0])
        by_image: dict[str, dict[str, Any]] = {}
        costs: dict[str, dict[str, tuple[float, float, float]]] = {}
        notes: dict[str, str] = {}
        pictures: dict[str, Any] = {}
        for method in self._methods:
            for seed in map(str, options.seeds):
                result = done.get(f"{method} {seed}")
                if result is None:
                    continue
                if result.failure:
                    notes[method] = f"not run: {result.failure}"
                for image, measurements in result.measurements.items():
                    by_image.setdefault(image, {})[seed] = measurements
                    costs.setdefault(image, {})[seed] = (result.seconds, result.cpu, result.peak)
                pictures |= result.images if seed == first else {}
        for image, by_seed in by_image.items():
            if len(by_seed) < len(options.seeds):
                notes[image] = f"only seed {', '.join(by_seed)}, for time."
        medians = {image: combine(by_seed) for image, by_seed in by_image.items()}

        truths = {name: self._truths(name) for name in cutouts}
        results: dict[str, Any] = {
            "options": {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()},
            "by_image": by_image,
            "medians": medians,
            "costs": {
                image: [_median([one[k] for one in by_seed.values()]) for k in range(3)]
                for image, by_seed in costs.items()
            },
            "costs_by_seed": costs,
            "notes": notes,
            "truth": {
                name: combine({seed: truths[seed][name] for seed in map(str, options.seeds)})
                for name in truths[first]
            },
            "scenes": {name: self._measurements(done, name) for name in scenes},
            "hst": {},
            "decam": {half: done[half] for half in HALVES if half in done},
            "draws": summarize_draws([done[f"draw {n}"] for n in range(options.draws)])
            if options.draws
            else {},
            "skipped": self._skipped,
        }
        for name in ("wide", "deep"):
            results[name] = self._measurements(done, name) | truths[name] if name in cutouts else {}
        if "wide" in cutouts:
            results["counts"] = counts(self._load("wide")[0])
        images: dict[str, Any] = {"designed": pictures, "cutout": cutouts[first], "HST": {}}
        for name in FIELDS:
            for method in self._methods:
                correlations, restored = done.get(f"{method} HSC {name}", ({}, {}))
                results["hst"].setdefault(name, {}).update(correlations)
                images["HST"].setdefault(name, {}).update(restored)
        if not any(results["hst"].values()):
            results["hst"], images["HST"] = {}, {}
        results["targets"] = compare_with_targets(results)
        images["field"], images["truth"] = self._load(first)
        images["scenes"] = {
            name: (self._load(name), self._images(done, name))
            for name in scenes
            if name not in ("pure noise",)
        }
        return results, images

    def _truths(self, name: str) -> dict[str, dict[str, Any]]:
        """Measure the truth of a field, by its PSF."""
        from lsst.drp.restore.restoration.target_psf import TARGET_FWHM

        from .measure import measure_sky
        from .sky_image import SkyImage
        from .true_images import truth_at

        field, truth = self._load(name)
        return {
            "truth in pixels": measure_sky(truth, SkyImage(image=field.truth)),
            "truth at the target PSF": measure_sky(truth, SkyImage(image=truth_at(field, TARGET_FWHM))),
        }

    def _measurements(self, done: dict[str, Any], field: str) -> dict[str, Any]:
        """Return the measurements on the images of a field."""
        found = [done[f"{method} {field}"] for method in self._methods if f"{method} {field}" in done]
        return {image: numbers for result in found for image, numbers in result.measurements.items()}

    def _images(self, done: dict[str, Any], field: str) -> dict[str, Any]:
        """Return the images of a field."""
        found = [done[f"{method} {field}"] for method in self._methods if f"{method} {field}" in done]
        return {image: pixels for result in found for image, pixels in result.images.items()}

    def _path(self, field: str) -> Path:
        """Return the file of a field."""
        return self._folder / f"{field}.pickle"

    def _load(self, field: str) -> Any:
        """Read the file of a field."""
        return pickle.loads(self._path(field).read_bytes())


def draw_figures(results: dict[str, Any], images: dict[str, Any], folder: Path) -> None:
    """Draw the figures.

    Parameters
    ----------
    results, images : `dict` [`str`, `object`]
        From `Benchmark.run`.
    folder : `pathlib.Path`
        Where to write them.
    """
    from .figures import plot_completeness, plot_cutouts, plot_fluxes
    from .pictures import plot_hst, plot_scenes

    plot_cutouts(
        images["designed"],
        {image: numbers["fwhm"] for image, numbers in results["medians"].items()},
        images["field"],
        images["cutout"],
        images["truth"].softening,
        folder / "quality_cutouts.png",
    )
    plot_fluxes(results["by_image"], folder / "quality_fluxes.png")
    plot_completeness(results["medians"], folder / "quality_completeness.png")
    for kind in ("JWST", "COSMOS", "crowded"):
        scenes = {name: scene for name, scene in images["scenes"].items() if name.startswith(kind)}
        if scenes:
            plot_scenes(scenes, results["scenes"], folder / f"quality_{kind.lower()}.png")
    if images["HST"]:
        plot_hst(images["HST"], results["hst"], folder / "quality_hst.png")


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _plain(value: Any) -> Any:
    """Make JSON of results: no NaN, no NumPy, no tuples."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else value.item()


COMMAND = Command(name="quality", description=__doc__, add_options=_add_options, run=_run)
"""The command line (`Command`)."""

if __name__ == "__main__":
    COMMAND.main()
