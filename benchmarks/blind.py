# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Measure the errors of fitted PSF kernels, and of the stars that are restored
with them.

Run by ``python -m benchmarks.blind``.  Prints a table for each field.
"""

from __future__ import annotations

__all__ = ("COMMAND", "mean_widths", "measure_blind", "measure_cases", "start_stack")

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from lsst.drp.restore import ImageMMTask, RestoreStackConfig, RestoreStackTask
from lsst.drp.restore.outputs.image_quality import star_fwhm
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.kernel_shape import fwhm, gaussian_kernel

from .command import Command, add_fields, add_jobs
from .fields import Field, FieldOptions, make_field
from .jobs import Job, run_jobs
from .tables import block

# Name, fitKernels.mode, and the width of the Gaussians at the start as a fraction of the true one: none for
# the true kernels, 0 for a measured width.
_CASES: tuple[tuple[str, str, float | None], ...] = (
    ("right kernels", "given", None),
    ("20% too narrow, kept", "given", 0.8),
    ("20% too narrow", "gaussian", 0.8),
    ("20% too wide", "gaussian", 1.2),
    ("measured seeing", "gaussian", 0.0),
    ("right, refined", "refined", None),
)


def start_stack(field: Field, factor: float | None) -> ExposureStack:
    """Replace the kernels of a field's exposures by those to start from.

    Parameters
    ----------
    field : `Field`
        The field.
    factor : `float` or `None`
        Width of Gaussians as a fraction of the mean kernel's; the true
        kernels if `None` or 0.

    Returns
    -------
    stack : `~lsst.drp.restore.ExposureStack`
        The exposures with these kernels.
    """
    kernels = field.stack.kernels.copy()
    if factor:
        for t, width in enumerate(mean_widths(field.stack)):
            kernels[t] = gaussian_kernel(factor * width, field.stack.kernel_size)
    return dataclasses.replace(field.stack, kernels=kernels)


def mean_widths(stack: ExposureStack) -> np.ndarray:
    """Return the width of each exposure's mean kernel, pixels, shape
    ``(n,)``.
    """
    return np.array([fwhm(kernels[kernels.any(axis=(-2, -1))].mean(axis=0)) for kernels in stack.kernels])


def measure_blind(field: Field, mode: str, factor: float | None) -> tuple[np.ndarray, float]:
    """Restore a field with ImageMM and kernels that are fitted.

    Parameters
    ----------
    field : `Field`
        The field.
    mode : `str`
        ``fitKernels.mode``.
    factor : `float` or `None`
        See `start_stack`; 0 measures the seeing.

    Returns
    -------
    error : `numpy.ndarray`
        Relative error of the width of each exposure's mean kernel, shape
        ``(n,)``.
    width : `float`
        Median full width at half maximum of the brighter half of the restored
        stars, pixels.
    """
    true = mean_widths(field.stack)
    config = RestoreStackConfig()
    config.restorer.retarget(ImageMMTask)
    config.restorer.maxSteps = 60
    config.restorer.computeDevice = "cpu"
    config.characterize.numRealizations = 2
    config.fitKernels.mode = mode
    config.fitKernels.initialFwhm = [float(width * (factor or 0.0)) for width in true]
    stack = start_stack(field, factor)
    restored = RestoreStackTask(config=config).restore(stack)
    image = restored.restoration.image
    stars = field.catalog[field.catalog["role"] == "point"]
    stars = stars[stars["flux_nJy"] > np.median(stars["flux_nJy"])]
    widths = [star_fwhm(image, x, y) for x, y in zip(stars["x"], stars["y"], strict=True)]
    return mean_widths(restored.stack) / true - 1, float(np.nanmedian(widths))


def measure_cases(seed: int, size: int, visits: int) -> dict[str, list[float]]:
    """Restore a field from each start.

    Parameters
    ----------
    seed : `int`
        Seed of the field.
    size : `int`
        Height and width of the field, pixels.
    visits : `int`
        Number of exposures.

    Returns
    -------
    rows : `dict` [`str`, `list` [`float`]]
        By name of the case, median and largest error of the kernels' widths,
        per cent, and the width of the restored stars, pixels.
    """
    field = make_field(FieldOptions(seed=seed, size=size, visits=visits))
    rows = {}
    for name, mode, factor in _CASES:
        error, width = measure_blind(field, mode, factor)
        rows[name] = [float(np.median(100 * np.abs(error))), float(100 * np.abs(error).max()), width]
    return rows


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    add_fields(parser, seeds=(201, 202, 203), size=256, visits=8)
    add_jobs(parser)


def _run(options: argparse.Namespace, folder: Path) -> None:
    """Restore all fields and print a table for each."""
    jobs: list[Job] = [
        (f"seed {seed}", measure_cases, (seed, options.size, options.visits)) for seed in options.seeds
    ]
    done = run_jobs(jobs, options.workers, options.log)
    header = ("kernels, median %", "worst %", "star FWHM, pixels")
    for name, *_ in jobs:
        print(
            "\n".join(block(f"{name}: error of the kernels' FWHM; restored stars", header, done[name], ".3f"))
        )


COMMAND = Command(name="blind", description=__doc__, add_options=_add_options, run=_run)
"""The command line (`Command`)."""

if __name__ == "__main__":
    COMMAND.main()
