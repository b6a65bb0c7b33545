# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a patch of a survey takes: time and memory by stage, how they grow with
the area and with the number of exposures, and other methods beside.

Run by ``make bench-scale``.  Prints tables.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .fields import FieldOptions
from .jobs import prepare_field, quiet, run_method
from .methods import IMAGEMM_STEPS
from .stages import Stage, Stages

_TOP = Path(__file__).resolve().parent.parent
_BORDER = 25
_CELL = 150
# Whole-field epochs of the papers.
_PAPER_EPOCHS = 450
# The field on which all methods can be run.
_BESIDE = FieldOptions(seed=901)
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
        What each stage took.
    """
    quiet()
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
        from lsst.drp.restore.restoration.forward_model import ForwardModel
        from lsst.drp.restore.restoration.majorize_minimize import majorize_minimize

        image = latent.copy()
        with stages.stage(_IMAGEMM):
            for _ in majorize_minimize(
                ForwardModel(stack), image, image > 0.0, steps=1, delta=2.0, max_factor=4.0
            ):
                pass
        return run(self, stack, reference, latent, **options)

    task.run = watched


def _command(*words: Any) -> None:
    """Run a command that is installed beside this Python."""
    program, *arguments = map(str, words)
    subprocess.run([str(Path(sys.executable).parent / program), *arguments], check=True, stdout=sys.stderr)


def _fresh(threads: int, function: Any, *arguments: Any) -> Any:
    """Call a function in a process of its own."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def print_growth(results: dict[tuple[int, int], dict[str, Stage]]) -> None:
    """Print time and memory by stage.

    Parameters
    ----------
    results : `dict`
        Results of `restore` by size and number of exposures.
    """
    columns = list(results)
    print("\nwall time, s (CPU time, s; peak memory, GiB)")
    print("".ljust(22) + "".join(f"{visits}x{size}x{size}".rjust(26) for size, visits in columns))
    for name in (*_STAGES, _IMAGEMM):
        cells = [_cell(results[column].get(name)) for column in columns]
        print(name.ljust(22) + "".join(cell.rjust(26) for cell in cells))
    totals = [_total(results[column]) for column in columns]
    print("all but ImageMM".ljust(22) + "".join(_cell(total).rjust(26) for total in totals))


def _cell(stage: Stage | None) -> str:
    return "-" if stage is None else f"{stage.seconds:.1f} ({stage.cpu:.1f}; {stage.peak:.2f})"


def _total(stages: dict[str, Stage]) -> Stage:
    ours = [stage for name, stage in stages.items() if name != _IMAGEMM]
    return Stage(
        seconds=sum(s.seconds for s in ours), cpu=sum(s.cpu for s in ours), peak=max(s.peak for s in ours)
    )


def print_imagemm(results: dict[tuple[int, int], dict[str, Stage]]) -> None:
    """Print the time to a restored image beside that of ImageMM.

    Parameters
    ----------
    results : `dict`
        Results of `restore` by size and number of exposures.
    """
    print(f"\nCPU time from the first estimate to consistency over {IMAGEMM_STEPS} steps of ImageMM")
    for (size, visits), stages in results.items():
        ours = sum(stages[name].cpu for name in _RESTORATION)
        theirs = IMAGEMM_STEPS * stages[_IMAGEMM].cpu
        print(f"{visits}x{size}x{size}".ljust(22) + f"{ours:.0f} s / {theirs:.0f} s = {ours / theirs:.2f}")


def compare_methods(methods: Sequence[str], folder: Path) -> None:
    """Run methods side by side on a field that all can take.

    Parameters
    ----------
    methods : `~collections.abc.Sequence` [`str`]
        Keys of `METHODS`.
    folder : `pathlib.Path`
        For the field.
    """
    path = folder / "field.pkl"
    cutout = _fresh(1, prepare_field, _BESIDE, path, 128)
    print(
        f"\non one thread, {_BESIDE.visits}x{_BESIDE.size}x{_BESIDE.size} (STARRED: a cutout of 128x128), "
        f"seed {_BESIDE.seed}; network as published: {_PAPER_EPOCHS} whole-field epochs; "
        f"default: its variance and PSF included"
    )
    print(
        "".ljust(28)
        + "".join(t.rjust(12) for t in ("CPU, s", "peak, GB", "PSNR, dB", "in cutout", "FWHM", "S_F"))
    )
    for method in methods:
        result = _fresh(1, run_method, method, path, cutout)
        if result.failure:
            print(f"{method.ljust(28)}{result.failure}")
        for name, values in result.measurements.items():
            quality = (values[key] for key in ("psnr", "cutout psnr", "fwhm / reference", "S_F"))
            numbers = (result.cpu, result.peak, *quality)
            print(name.ljust(28) + "".join(f"{number:.3g}".rjust(12) for number in numbers), flush=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Parameters
    ----------
    arguments : `~collections.abc.Sequence` [`str`], optional
        Words of it.

    Returns
    -------
    options : `argparse.Namespace`
        The options.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--size", type=int, default=4200, help="height and width of the patch, pixels")
    parser.add_argument("--visits", type=int, default=33, help="number of exposures")
    parser.add_argument("--cores", type=int, default=2, help="CPU cores")
    parser.add_argument(
        "--repo", type=Path, help="repository to keep: the exposures are not simulated where there is one"
    )
    parser.add_argument(
        "--methods",
        nargs="*",
        default=("default", "imagemm", "paper", "starred"),
        help="methods to run side by side on a small field",
    )
    options = parser.parse_args(arguments)
    if options.size % (4 * _CELL) or options.size < 4 * _CELL:
        parser.error(f"--size must be a multiple of {4 * _CELL}")
    if options.visits < 8:
        parser.error("--visits must be at least 8: a quarter of them are restored, too")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark.

    Parameters
    ----------
    arguments : `~collections.abc.Sequence` [`str`], optional
        Words of the command line.
    """
    options = parse(arguments)
    start = time.perf_counter()
    sizes = (options.size // 4, options.size // 2, options.size)
    with tempfile.TemporaryDirectory() as temporary:
        repo = options.repo or Path(temporary) / "repo"
        if not (repo / "butler.yaml").exists():
            simulate(repo, sizes, options.visits)
            print(f"simulated {options.visits} exposures in {time.perf_counter() - start:.0f} s", flush=True)
        few = [(sizes[0], visits) for visits in (options.visits // 4, options.visits // 2)]
        results = {}
        for size, visits in (*few, *((size, options.visits) for size in sizes)):
            results[size, visits] = _fresh(options.cores, restore, repo, size, visits, options.cores)
            total = _total(results[size, visits])
            print(f"{visits}x{size}x{size}: {total.seconds:.0f} s, {total.peak:.2f} GiB", flush=True)
        print_growth(results)
        print_imagemm(results)
        if options.methods:
            compare_methods(options.methods, Path(temporary))
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes in all")


if __name__ == "__main__":
    main()
