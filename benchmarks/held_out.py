# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Measures how well a restoration of half of some real exposures predicts the
other half: ``python -m benchmarks.held_out``.

The exposures are ten of DECam, ``e[0]`` to ``e[9]``, five each of two years,
on one pixel grid of 256x256, with their masks, flux scales and PSFs.  The data
have a loader, ``load.py``, that returns them as arrays.

The image is restored from the even ones.  Prediction of an odd exposure is
this image convolved with that exposure's PSF; for the coadd it is the coadd as
it is.  The figure is the median of ``(y - prediction)**2 / v`` over all good
pixels of all five odd exposures that are at least 16 pixels from the edges,
divided by its value for Gaussian noise of variance ``v``, 0.4549.  Stars are
too few to matter to a median: it is the sky's and the faint wings' that is
measured.  By this definition the coadd has 1.02 and 300 steps of ImageMM have
0.865.  A perfect image would have about 0.85, as the resampling of these data
has lowered the noise of their pixels below ``v``.

A second time the halves are exchanged, for which there is no target.

Where the background of the exposures is subtracted before they are restored,
that of the others is subtracted by the same task from themselves alone.
"""

from __future__ import annotations

__all__ = ("load_stack", "main", "median_chi2", "predict")

import argparse
import importlib.util
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve

from lsst.drp.restore.exposure_stack import ExposureStack
from lsst.drp.restore.image_mm import ImageMMConfig, ImageMMTask
from lsst.drp.restore.reference_coadd import reference_coadd, weighted_mean

from .methods import default_task

TARGET = 0.87
"""Largest median chi2 that the default configuration may have."""

EDGE = 16
"""Width of the frame of pixels that are not compared, pixels."""

_VARIABLE = "DRP_RESTORE_DECAM"
_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "decam_i"

# Median of the square of a standard normal variate.
_GAUSSIAN_MEDIAN = 0.454936

_CELL_SIZE = 64


def load_stack(folder: Path, members: Sequence[int]) -> ExposureStack:
    """Read some of the exposures.

    Parameters
    ----------
    folder : `~pathlib.Path`
        Folder of the data and their ``load.py``.
    members : `~collections.abc.Sequence` [`int`]
        Which exposures.

    Returns
    -------
    stack : `ExposureStack`
        The exposures, in counts on their common flux scale.
    """
    spec = importlib.util.spec_from_file_location("decam_load", folder / "load.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"Cannot import {folder / 'load.py'}.")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    data = loader.load()
    part = list(members)
    good = ~data["mask"][part]
    cells = (len(part), good.shape[1] // _CELL_SIZE, good.shape[2] // _CELL_SIZE)
    kernels = data["psf"][part].astype(np.float32)[:, np.newaxis, np.newaxis]
    return ExposureStack(
        image=np.where(good, data["image"][part], 0).astype(np.float32),
        variance=np.where(good, data["variance"][part], np.inf).astype(np.float32),
        good=good,
        kernels=np.broadcast_to(kernels, cells + kernels.shape[-2:]).copy(),
        correlation=np.ones(cells, np.float32),
        cell_shape=(_CELL_SIZE, _CELL_SIZE),
        names=tuple(data["name"][t] for t in part),
    )


def predict(latent: np.ndarray, stack: ExposureStack) -> np.ndarray:
    """Predict exposures that have one PSF each.

    Parameters
    ----------
    latent : `numpy.ndarray`
        Restored image with its padding, shape ``(height + k - 1, width + k -
        1)``.
    stack : `ExposureStack`
        The exposures, of which only the PSFs are used.

    Returns
    -------
    image : `numpy.ndarray`
        Their pixels without noise, shape ``(n, height, width)``.
    """
    return np.stack([fftconvolve(latent, kernels[0, 0], mode="valid") for kernels in stack.kernels])


def median_chi2(stack: ExposureStack, prediction: np.ndarray) -> float:
    """Compare exposures with their prediction.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.
    prediction : `numpy.ndarray`
        Their predicted pixels, shape ``(n, height, width)`` or that of one.

    Returns
    -------
    chi2 : `float`
        Median over the good pixels inside of the frame, 1 for a perfect
        prediction of Gaussian noise that has the stated variance.
    """
    inside = np.s_[:, EDGE:-EDGE, EDGE:-EDGE]
    good = (stack.good & np.isfinite(prediction))[inside]
    residual = (stack.image - prediction)[inside][good]
    return float(np.median(residual**2 / stack.variance[inside][good]) / _GAUSSIAN_MEDIAN)


def _measure(folder: Path, fitted: Sequence[int], held: Sequence[int], *, without_sky: bool) -> float:
    """Print a line for each method and return the figure of the default
    configuration.
    """
    title = "even exposures predict odd ones" if fitted[0] == 0 else "odd exposures predict even ones"
    print(f"{title}:")

    def show(method: str, chi2: float, start: float) -> None:
        print(f"  {method:<45}{chi2:7.4f}{time.perf_counter() - start:8.1f} s", flush=True)

    others = load_stack(folder, held)
    start = time.perf_counter()
    stack = load_stack(folder, fitted)
    reference = reference_coadd(stack)
    stack.reject(reference.clipped)
    show("coadd", median_chi2(others, weighted_mean(stack, reference.weights)), start)
    for steps in (100, 300):
        start = time.perf_counter()
        config = ImageMMConfig()
        config.maxSteps = steps
        restoration = ImageMMTask(config=config).run(stack, reference, n_threads=1)
        show(f"ImageMM, {steps} steps", median_chi2(others, predict(restoration.latent, others)), start)

    figure = np.nan
    for order in (-1, None) if without_sky else (None,):
        start = time.perf_counter()
        stack, others = load_stack(folder, fitted), load_stack(folder, held)
        task = default_task()
        if order is None:
            task.sky.run(stack)
            task.sky.run(others)
        reference = reference_coadd(stack, clip_sigma=task.config.clipSigma)
        stack.reject(reference.clipped)
        restoration = task.refine.run(stack, task.restorer.run(stack, reference, n_threads=1))
        figure = median_chi2(others, predict(restoration.latent, others))
        name = "default configuration" + (" without background subtraction" if order is not None else "")
        show(name, figure, start)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print one line for each method, and a summary.

    Parameters
    ----------
    arguments : `~collections.abc.Sequence` [`str`], optional
        Those of the command line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.held_out", description="Predict real exposures."
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get(_VARIABLE) or _FOLDER),
        help=f"folder of the exposures and their load.py (default: the environment variable {_VARIABLE}, "
        "or shared/data/decam_i beside the checkout)",
    )
    parser.add_argument(
        "--without-sky",
        action="store_true",
        help="restore also without background subtraction: as long again",
    )
    options = parser.parse_args(arguments)
    label = "DECam, held-out half"
    if not (options.data / "load.py").is_file():
        print(f"{label}: skipped, there is no load.py in {options.data} (--data or {_VARIABLE} says where)")
        return
    logging.disable(logging.WARNING)
    even, odd = range(0, 10, 2), range(1, 10, 2)
    figure = _measure(options.data, even, odd, without_sky=options.without_sky)
    exchanged = _measure(options.data, odd, even, without_sky=options.without_sky)
    print(
        f"{label}: median chi2 {figure:.4f} with the default configuration, target at most {TARGET}: "
        f"{'yes' if figure <= TARGET else 'NO'} (halves exchanged {exchanged:.4f})"
    )


if __name__ == "__main__":
    main()
