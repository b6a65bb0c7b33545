# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Measure time and memory of a patch of a survey by stage, their growth with
the area and with the number of exposures, and those of other methods.

Run by ``make bench-scale``.  Prints tables.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command import Command
from .fields import FieldOptions
from .jobs import Job, prepare_field, run_jobs, run_method
from .methods import IMAGEMM_STEPS
from .stages import Stage, Stages
from .tables import block

_TOP = Path(__file__).resolve().parent.parent
_BORDER = 25
_CELL = 150
# Whole-field epochs of the papers.
_PAPER_EPOCHS = 450
# The field on which all methods can be run.
_SMALL = FieldOptions(seed=901)
_STAGES = (
    *("read", "warp", "kernels", "stack", "clip, coadd"),
    *("first estimate", "measurable", "network", "consistency"),
    *("characterize", "metrics, figures", "write", "source list", "other"),
)
_RESTORATION = ("first estimate", "measurable", "network", "consistency")
_IMAGEMM = "one step of ImageMM"


def simulate(repo: Path, sizes: Sequence[int], visits: int) -> None:
    """Simulate exposures of a patch, and register smaller ones in its middle.

    Parameters
    ----------
    repo : `pathlib.Path`
        Repository to make.
    sizes : `~collections.abc.Sequence` [`int`]
        Heights and widths of the patches, pixels.
    visits : `int`
        Number of visits.
    """
    _command("butler", "create", repo)
    for size in sizes:
        _command(
            *("butler", "register-tract", repo, f"scale{size}", "--ra", "150.0", "--dec", "2.2"),
            *("--patch-size", size - 2 * _BORDER, "--patch-border", _BORDER, "--cell-size", _CELL),
        )
    _command(
        *("butler", "simulate-exposures", repo, "--skymap", f"scale{max(sizes)}", "--n-visits", visits),
        *("--seed", "7", "--psf", "kernel"),
    )


def restore(repo: Path, size: int, visits: int, cores: int) -> dict[str, Stage]:
    """Restore a patch through the Butler, in this process.

    Parameters
    ----------
    repo : `pathlib.Path`
        Repository from `simulate`.
    size : `int`
        Height and width of the patch, pixels.
    visits : `int`
        Number of visits to use.
    cores : `int`
        CPU cores to use.

    Returns
    -------
    stages : `dict` [`str`, `Stage`]
        Time and memory of each stage.
    """
    stages = Stages()
    from lsst.drp.restore import restore_coadd, restore_stack
    from lsst.drp.restore.detect_sources import DetectRestoredSourcesTask
    from lsst.drp.restore.restoration import first_estimate
    from lsst.drp.restore.restoration.characterize import CharacterizeTask
    from lsst.drp.restore.restoration.consistency import ConsistencyTask
    from lsst.drp.restore.restoration.measurable import MeasurableTask
    from lsst.drp.restore.restoration.trained_network import TrainedNetwork
    from lsst.drp.restore.stack.subtract_sky import SubtractSkyTask
    from lsst.drp.restore.warping import build_stack
    from lsst.drp.restore.warping.visit_input import VisitInput
    from lsst.pipe.base import ExecutionResources, QuantumContext
    from lsst.pipe.base.simple_pipeline_executor import SimplePipelineExecutor

    stages.watch(VisitInput, "get", "read")
    stages.watch(VisitInput, "read", "read")
    stages.watch(build_stack, "PixelMap", "warp")
    stages.watch(build_stack, "warp", "warp")
    stages.watch(build_stack.BuildStackTask, "_draw_kernels", "kernels")
    stages.watch(build_stack.BuildStackTask, "run", "stack")
    stages.watch(SubtractSkyTask, "run", "clip, coadd")
    stages.watch(restore_stack, "reference_coadd", "clip, coadd")
    stages.watch(first_estimate, "first_estimate", "first estimate", whole=True)
    stages.watch(TrainedNetwork, "apply", "network", whole=True)
    stages.watch(ConsistencyTask, "run", "consistency", whole=True)
    stages.watch(MeasurableTask, "run", "measurable", whole=True)
    stages.watch(CharacterizeTask, "run", "characterize", whole=True)
    stages.watch(restore_coadd, "make_datasets", "metrics, figures")
    stages.watch(QuantumContext, "put", "write", whole=True)
    stages.watch(DetectRestoredSourcesTask, "runQuantum", "source list", whole=True)
    _watch_imagemm(stages, MeasurableTask)

    skymap = f"scale{size}"
    output = f"u/{skymap}/{visits}"
    butler = SimplePipelineExecutor.prep_butler(str(repo), inputs=["sim", "skymaps"], output=output)
    executor = SimplePipelineExecutor.from_pipeline_filename(
        str(_TOP / "pipelines" / "restoreCoadd.yaml"),
        where=f"skymap='{skymap}' AND tract=0 AND patch=0 AND visit <= {visits}",
        butler=butler,
        resources=ExecutionResources(num_cores=cores),
    )
    executor.run(register_dataset_types=True)
    return stages.table()


def _watch_imagemm(stages: Stages, task: Any) -> None:
    """Take a step of ImageMM with every stack that is restored, to compare
    with.
    """
    run = task.run

    def watched(self: Any, stack: Any, reference: Any, latent: Any, **options: Any) -> Any:
        from lsst.drp.restore.restoration.likelihood import Likelihood
        from lsst.drp.restore.restoration.majorize_minimize import majorize_minimize

        image = latent.copy()
        with stages.stage(_IMAGEMM):
            for _ in majorize_minimize(
                Likelihood(stack, delta=2.0), image, image > 0.0, steps=1, max_factor=4.0
            ):
                pass
        return run(self, stack, reference, latent, **options)

    task.run = watched


def _command(*words: Any) -> None:
    """Run a command that is installed with this Python."""
    program, *arguments = map(str, words)
    subprocess.run([str(Path(sys.executable).parent / program), *arguments], check=True, stdout=sys.stderr)


def _alone(threads: int, function: Any, *arguments: Any) -> Any:
    """Call a function in a process of its own."""
    job: Job = (function.__name__, function, arguments)
    return run_jobs([job], 1, Path(os.devnull), threads=threads)[function.__name__]


def print_growth(results: dict[tuple[int, int], dict[str, Stage]]) -> None:
    """Print time and memory by stage.

    Parameters
    ----------
    results : `dict`
        Results of `restore` by size and number of exposures.
    """
    rows: dict[str, list[float | str]] = {
        name: [_cell(stages.get(name)) for stages in results.values()] for name in (*_STAGES, _IMAGEMM)
    }
    rows["all but ImageMM"] = [_cell(_total(stages)) for stages in results.values()]
    header = [f"{visits}x{size}x{size}" for size, visits in results]
    print("\n".join(block("wall time, s (CPU time, s; peak memory, GiB)", header, rows, "")))


def _cell(stage: Stage | None) -> str:
    return "-" if stage is None else f"{stage.seconds:.1f} ({stage.cpu:.1f}; {stage.peak:.2f})"


def _total(stages: dict[str, Stage]) -> Stage:
    ours = [stage for name, stage in stages.items() if name != _IMAGEMM]
    return Stage(
        seconds=sum(s.seconds for s in ours), cpu=sum(s.cpu for s in ours), peak=max(s.peak for s in ours)
    )


def print_imagemm(results: dict[tuple[int, int], dict[str, Stage]]) -> None:
    """Print the time to a restored image, and that of ImageMM.

    Parameters
    ----------
    results : `dict`
        Results of `restore` by size and number of exposures.
    """
    rows = {}
    for (size, visits), stages in results.items():
        ours = sum(stages[name].cpu for name in _RESTORATION)
        theirs = IMAGEMM_STEPS * stages[_IMAGEMM].cpu
        rows[f"{visits}x{size}x{size}"] = [ours, theirs, ours / theirs]
    title = f"CPU time from the first estimate to consistency, and of {IMAGEMM_STEPS} steps of ImageMM"
    print("\n".join(block(title, ("restored, s", "ImageMM, s", "ratio"), rows, ".3g")))


def compare_methods(methods: Sequence[str], folder: Path) -> None:
    """Run several methods on a field that is small enough for all of them.

    Parameters
    ----------
    methods : `~collections.abc.Sequence` [`str`]
        Keys of `METHODS`.
    folder : `pathlib.Path`
        For the field.
    """
    path = folder / "field.pkl"
    cutout = _alone(1, prepare_field, _SMALL, path, 128)
    rows: dict[str, list[float | str]] = {}
    for method in methods:
        result = _alone(1, run_method, method, path, cutout)
        if result.failure:
            print(f"{method}: {result.failure}")
        for name, values in result.measurements.items():
            quality = (values[key] for key in ("psnr", "cutout psnr", "fwhm / reference", "S_F"))
            rows[name] = [result.cpu, result.peak, *quality]
    title = (
        f"on one thread, {_SMALL.visits}x{_SMALL.size}x{_SMALL.size} (STARRED: a cutout of 128x128), "
        f"seed {_SMALL.seed}; network as published: {_PAPER_EPOCHS} whole-field epochs; "
        f"default: its variance and PSF included"
    )
    header = ("CPU, s", "peak, GB", "PSNR, dB", "in cutout", "FWHM", "S_F")
    print("\n".join(block(title, header, rows, ".3g")))


def _size(text: str) -> int:
    """Read a size of which a quarter is a whole number of cells."""
    size = int(text)
    if size % (4 * _CELL) or size < 4 * _CELL:
        raise argparse.ArgumentTypeError(f"must be a multiple of {4 * _CELL}")
    return size


def _visits(text: str) -> int:
    """Read a number of exposures of which a quarter can be restored."""
    visits = int(text)
    if visits < 8:
        raise argparse.ArgumentTypeError("must be at least 8: a quarter of them are restored, too")
    return visits


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    add = parser.add_argument
    add("--size", type=_size, default=4200, help="height and width of the patch, pixels")
    add("--visits", type=_visits, default=33, help="number of exposures")
    add("--cores", type=int, default=2, help="CPU cores")
    add("--repo", type=Path, help="repository to keep: the exposures are not simulated where there is one")
    add(
        "--methods",
        nargs="*",
        default=("default", "imagemm", "paper", "starred"),
        help="methods to run on a small field",
    )


def _run(options: argparse.Namespace, folder: Path) -> None:
    """Simulate, restore patches of all sizes and print the tables."""
    start = time.perf_counter()
    sizes = (options.size // 4, options.size // 2, options.size)
    repo = options.repo or folder / "repo"
    if not (repo / "butler.yaml").exists():
        simulate(repo, sizes, options.visits)
        print(f"simulated {options.visits} exposures in {time.perf_counter() - start:.0f} s", flush=True)
    few = [(sizes[0], visits) for visits in (options.visits // 4, options.visits // 2)]
    results = {}
    for size, visits in (*few, *((size, options.visits) for size in sizes)):
        results[size, visits] = _alone(options.cores, restore, repo, size, visits, options.cores)
        total = _total(results[size, visits])
        print(f"{visits}x{size}x{size}: {total.seconds:.0f} s, {total.peak:.2f} GiB", flush=True)
    print_growth(results)
    print_imagemm(results)
    if options.methods:
        compare_methods(options.methods, folder)


COMMAND = Command(name="scale", description=__doc__, add_options=_add_options, run=_run)
"""The command line (`Command`)."""

if __name__ == "__main__":
    COMMAND.main()
