# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Jobs of the benchmarks, each run in a process of its own."""

from __future__ import annotations

__all__ = (
    "Draw",
    "Job",
    "MethodResult",
    "draw_noise",
    "prepare_field",
    "prepare_scene",
    "run_jobs",
    "run_method",
    "run_scene",
    "write_field",
    "write_fields",
)

import argparse
import concurrent.futures
import dataclasses
import logging
import multiprocessing
import os
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Environment variables with the number of threads of the libraries that compute.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_ONE_THREAD = {
    **{"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"},
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MethodResult:
    """Result of a method on a field.

    Parameters
    ----------
    measurements : `dict` [`str`, `dict`]
        Results of `measure_image` by image.
    images : `dict` [`str`, `numpy.ndarray`]
        The images.
    seconds : `float`
        Wall time of the method, s; without starting Python.
    cpu : `float`
        CPU time of the method, s.
    peak : `float`
        Largest memory of its process, GB; Python and its libraries included.
    failure : `str`
        Reason why there is no image, if there is none.
    """

    measurements: dict[str, dict[str, Any]]
    images: dict[str, np.ndarray]
    seconds: float
    cpu: float
    peak: float
    failure: str = ""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Draw:
    """Result of the default configuration on one realization of the noise.

    Parameters
    ----------
    images, variances : `dict` [`str`, `numpy.ndarray` or `None`]
        Images and their stated variances.
    fluxes : `dict` [`str`, `numpy.ndarray`]
        PSF flux of each isolated point and its stated standard deviation, nJy,
        shape ``(n, 2)``.
    regions : `dict` [`str`, `numpy.ndarray`]
        See `Truth.regions`.
    snr : `numpy.ndarray`
        S/N of the isolated points, shape ``(n,)``.
    """

    images: dict[str, np.ndarray]
    variances: dict[str, np.ndarray | None]
    fluxes: dict[str, np.ndarray]
    regions: dict[str, np.ndarray]
    snr: np.ndarray


Job = tuple[str, Callable[..., Any], tuple[Any, ...]]
"""Name, function and arguments of a job."""


def run_jobs(jobs: Sequence[Job], workers: int, log: Path, *, threads: int = 1) -> dict[str, Any]:
    """Run jobs, each in a fresh process.

    Parameters
    ----------
    jobs : `~collections.abc.Sequence` [`tuple`]
        Name, function and arguments; the first are begun first.
    workers : `int`
        Number of jobs that run at the same time.
    log : `pathlib.Path`
        File for all that the jobs and their libraries print.
    threads : `int`, optional
        Number of threads of each job.

    Returns
    -------
    results : `dict` [`str`, `object`]
        Results of the functions, by name.
    """
    os.environ.update(dict.fromkeys(_THREADS, str(threads)), TF_CPP_MIN_LOG_LEVEL="3")
    if threads == 1:
        os.environ.update(_ONE_THREAD)
    start, results = time.perf_counter(), {}
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        futures = {
            pool.submit(_run, log.absolute(), function, arguments): name for name, function, arguments in jobs
        }
        for future in concurrent.futures.as_completed(futures):
            name = futures[future]
            results[name] = future.result()
            print(
                f"[{time.perf_counter() - start:5.0f} s] {len(results)} of {len(jobs)}: {name}",
                file=sys.stderr,
                flush=True,
            )
    return results


def _run(log: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Run a job in its process, of which the output goes to a file and
    warnings nowhere: the tables are to be read.  Errors are raised in the main
    process anyway.
    """
    logging.disable(logging.WARNING)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    return function(*arguments)


def prepare_field(options: Any, path: Path, size: int) -> Any:
    """Simulate a field, and write it and its truth to a file.

    Parameters
    ----------
    options : `FieldOptions`
        Which field.
    path : `pathlib.Path`
        The file.
    size : `int`
        Height and width of the cutout for methods that cannot take more,
        pixels.

    Returns
    -------
    cutout : `Cutout`
        The cutout with the most sources.
    """
    return write_field(options, path).crowded(size)


def write_field(options: Any, path: Path) -> Any:
    """Simulate a field, and write it and its truth to a file.

    Parameters
    ----------
    options : `FieldOptions`
        Which field.
    path : `pathlib.Path`
        The file.

    Returns
    -------
    truth : `Truth`
        The truth, without the exposures.
    """
    from .fields import make_field
    from .truth import Truth

    field = make_field(options)
    truth = Truth.of(field).slim()
    path.write_bytes(pickle.dumps((field, truth), protocol=5))
    return truth


def write_fields(options: argparse.Namespace, folder: Path) -> dict[int, Path]:
    """Simulate the fields that the options name, see
    `~benchmarks.command.add_fields` and `~benchmarks.command.add_jobs`.

    Parameters
    ----------
    options : `argparse.Namespace`
        The options.
    folder : `pathlib.Path`
        Folder to write to.

    Returns
    -------
    paths : `dict` [`int`, `pathlib.Path`]
        Files from `write_field` by seed.
    """
    from .fields import FieldOptions

    paths = {seed: folder / f"{seed}.pickle" for seed in options.seeds}
    jobs: list[Job] = [
        (
            f"field {seed}",
            write_field,
            (FieldOptions(seed=seed, size=options.size, visits=options.visits), path),
        )
        for seed, path in paths.items()
    ]
    run_jobs(jobs, options.workers, options.log)
    return paths


def run_method(method: str, path: Path, cutout: Any, wide: bool = False) -> MethodResult:
    """Run a method on a field and measure its images.

    Parameters
    ----------
    method : `str`
        Key of `METHODS`.
    path : `pathlib.Path`
        File from `prepare_field`.
    cutout : `Cutout`
        For the methods that cannot take more.
    wide : `bool`, optional
        Whether the field is a random sky, on which there is less to measure.

    Returns
    -------
    result : `MethodResult`
        The images and measurements.
    """
    from .measure import measure_image, measure_wide

    field, truth = pickle.loads(path.read_bytes())
    images, result = _restore(method, field.stack, cutout)
    measured = images.get("restored_coadd_measurable") or _white(path)
    measure = measure_wide if wide else measure_image
    result.measurements.update({name: measure(truth, sky, cutout, measured) for name, sky in images.items()})
    return result


def run_scene(method: str, path: Path) -> MethodResult:
    """Run a method on exposures of a given image and measure its images.

    Parameters
    ----------
    method : `str`
        Key of `METHODS`.
    path : `pathlib.Path`
        File with a `Scene`.

    Returns
    -------
    result : `MethodResult`
        The images and the results of `measure_scene`.
    """
    from .scenes import measure_scene

    scene = pickle.loads(path.read_bytes())
    images, result = _restore(method, scene.stack, None)
    measured = images.get("restored_coadd_measurable") or _white(path)
    result.measurements.update({name: measure_scene(scene, sky, measured) for name, sky in images.items()})
    return result


def prepare_scene(make: Callable[..., Any], arguments: tuple[Any, ...], path: Path) -> str:
    """Make exposures of a given image, and write them to a file.

    Parameters
    ----------
    make : `~collections.abc.Callable`
        Makes a `Scene`.
    arguments : `tuple`
        Its arguments.
    path : `pathlib.Path`
        The file.

    Returns
    -------
    problem : `str`
        Why there is no scene, if data are missing.
    """
    try:
        scene = make(*arguments)
    except FileNotFoundError as error:
        return str(error)
    path.write_bytes(pickle.dumps(scene, protocol=5))
    return ""


def _restore(method: str, stack: Any, cutout: Any) -> tuple[dict[str, Any], MethodResult]:
    """Run a method and measure its cost; no images if it is not installed."""
    from lsst.utils.usage import get_peak_mem_usage

    from .methods import METHODS

    start, start_cpu = time.perf_counter(), time.process_time()
    images, failure = {}, ""
    try:
        images = METHODS[method](stack, cutout)
    except ImportError as error:
        failure = str(error)
    return images, MethodResult(
        measurements={},
        images={name: sky.image for name, sky in images.items()},
        seconds=time.perf_counter() - start,
        cpu=time.process_time() - start_cpu,
        peak=float(get_peak_mem_usage()[0].to_value("GB")),
        failure=failure,
    )


def _white(path: Path) -> Any:
    """Make the proper coadd of the exposures in a file, for the photometry of
    source lists of methods that make no such image.
    """
    from .methods import METHODS

    content = pickle.loads(path.read_bytes())
    stack = content[0].stack if isinstance(content, tuple) else content.stack
    return METHODS["proper"](stack, None)["proper coadd"]


def draw_noise(options: Any) -> Draw:
    """Simulate a field with other noise and restore it, training included.

    Parameters
    ----------
    options : `FieldOptions`
        Which field; ``noise_seed`` says which noise.

    Returns
    -------
    draw : `Draw`
        The images.
    """
    from .fields import make_field
    from .measure import measure_points
    from .methods import METHODS
    from .sky_image import Cutout
    from .truth import Truth

    field = make_field(options)
    truth = Truth.of(field)
    images = METHODS["default"](field.stack, Cutout(row=0, column=0, size=64))
    points = {name: measure_points(truth, sky) for name, sky in images.items()}
    return Draw(
        images={name: sky.image for name, sky in images.items()},
        variances={name: sky.variance for name, sky in images.items()},
        fluxes={name: np.stack([p.flux, p.sigma], axis=1) for name, p in points.items()},
        regions=truth.regions(),
        snr=points["restored_coadd"].snr,
    )
