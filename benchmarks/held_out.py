# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Measure how well a restoration of half of some real exposures predicts the
other half: ``python -m benchmarks.held_out``.

The exposures are ten of DECam, ``e[0]`` to ``e[9]``, five each of two years,
on one pixel grid of 256x256, with their masks, flux scales and PSFs.  The data
have a loader, ``load.py``, that returns them as arrays.

The image is restored from the even ones.  Prediction of an odd exposure is
this image at that exposure's PSF; for the coadd it is the coadd as it is.  Two
figures compare ``chi2 = (y - prediction)**2 / v`` over the good pixels of all
five odd exposures that are at least 16 pixels from the edges:

- its median, divided by its value for Gaussian noise of variance ``v``,
  0.4549.  Sources are too few to matter to a median: it is the sky's and the
  faint wings' that is measured.  A perfect image would have about 0.85, as
  the resampling of these data has lowered the noise of their pixels below
  ``v``.  The coadd has 1.02;
- the mean of ``min(chi2, 25)`` over the pixels of sources: where the
  reference coadd of the even exposures is above 3 sigma.  The brightest star,
  which moves, is left out.

A second time the halves are exchanged.

Where the background of the exposures is subtracted before they are restored,
that of the others is subtracted by the same task from themselves alone.
"""

from __future__ import annotations

__all__ = (
    "COMMAND",
    "DATA_VARIABLE",
    "HALVES",
    "HeldOut",
    "decam_folder",
    "load_stack",
    "measure_half",
    "median_chi2",
    "predict",
    "run_half",
    "source_chi2",
    "source_pixels",
)

import argparse
import dataclasses
import importlib.util
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve

from lsst.drp.restore import ImageMMTask, RestoreStackConfig
from lsst.drp.restore.restoration.target_psf import convolution_kernels
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.reference_coadd import ReferenceCoadd, reference_coadd, weighted_mean

from .command import Command, add_jobs
from .jobs import run_jobs
from .methods import default_task, restore_alone
from .robust import GAUSSIAN_MEDIAN
from .tables import block

DATA_VARIABLE = "DRP_RESTORE_DECAM"
"""Environment variable that names the folder of the exposures."""

HALVES = {
    "even predict odd": (range(0, 10, 2), range(1, 10, 2)),
    "odd predict even": (range(1, 10, 2), range(0, 10, 2)),
}
"""The exposures that are restored and those that are predicted (`dict`)."""

EDGE = 16
"""Width of the frame of pixels that are not compared, pixels."""

_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "decam_i"

# Reference coadd over its sigma at a pixel of a source; largest chi2 that
# counts; position x, y (pixels) of a star that moves, and the radius around it
# that is left out.
_SOURCE_SNR = 3.0
_LARGEST = 25.0
_MOVING_STAR = (57.6, 180.4)
_STAR_RADIUS = 12.0

_CELL_SIZE = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """How well a method predicts exposures.

    Parameters
    ----------
    median : `float`
        See `median_chi2`.
    source : `float`
        See `source_chi2`.
    seconds : `float`
        Wall time, s.
    """

    median: float
    source: float
    seconds: float


def decam_folder() -> Path:
    """Return the folder of the exposures (`pathlib.Path`): from the
    environment, else ``shared/data/decam_i`` beside the checkout.
    """
    return Path(os.environ.get(DATA_VARIABLE) or _FOLDER)


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
        The exposures, of which only the kernels are used: from the latent
        image to their PSFs.

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
    return float(np.median(residual**2 / stack.variance[inside][good]) / GAUSSIAN_MEDIAN)


def source_pixels(coadd: ReferenceCoadd) -> np.ndarray:
    """Choose the pixels of sources.

    Parameters
    ----------
    coadd : `ReferenceCoadd`
        The coadd of the exposures that are restored.

    Returns
    -------
    pixels : `numpy.ndarray`
        `bool`, shape ``(height, width)``: above 3 sigma, inside of the frame,
        away from the star that moves.
    """
    with np.errstate(invalid="ignore"):
        pixels = coadd.image > _SOURCE_SNR * np.sqrt(coadd.variance)
    rows, columns = np.indices(pixels.shape)
    pixels &= np.hypot(columns - _MOVING_STAR[0], rows - _MOVING_STAR[1]) >= _STAR_RADIUS
    inside = np.zeros_like(pixels)
    inside[EDGE:-EDGE, EDGE:-EDGE] = True
    return pixels & inside


def source_chi2(stack: ExposureStack, prediction: np.ndarray, pixels: np.ndarray) -> float:
    """Compare exposures with their prediction on sources.

    Parameters
    ----------
    stack, prediction
        See `median_chi2`.
    pixels : `numpy.ndarray`
        The pixels to compare, `bool`, shape ``(height, width)``.

    Returns
    -------
    chi2 : `float`
        Mean of ``min(chi2, 25)`` over the good ones.
    """
    good = stack.good & np.isfinite(prediction) & pixels
    residual = (stack.image - prediction)[good]
    return float(np.mean(np.minimum(residual**2 / stack.variance[good], _LARGEST)))


def measure_half(folder: Path, half: str) -> dict[str, HeldOut]:
    """Predict one half of the exposures from the other.

    Parameters
    ----------
    folder : `~pathlib.Path`
        Folder of the exposures.
    half : `str`
        Key of `HALVES`.

    Returns
    -------
    figures : `dict` [`str`, `HeldOut`]
        Figures of the reference coadd, of ImageMM and of the default
        configuration.
    """
    fitted, held = HALVES[half]
    others, stack = load_stack(folder, held), load_stack(folder, fitted)
    reference = reference_coadd(stack)
    stack = stack.without(reference.clipped)
    sources = source_pixels(reference)
    figures: dict[str, HeldOut] = {}

    def add(method: str, others: ExposureStack, prediction: np.ndarray, start: float) -> None:
        figures[method] = HeldOut(
            median=median_chi2(others, prediction),
            source=source_chi2(others, np.broadcast_to(prediction, others.image.shape), sources),
            seconds=time.perf_counter() - start,
        )

    start = time.perf_counter()
    add("reference coadd", others, weighted_mean(stack, reference.weights), start)
    start = time.perf_counter()
    config = RestoreStackConfig()
    config.restorer.retarget(ImageMMTask)
    restoration = restore_alone(stack, reference, config)
    add("ImageMM", others, predict(restoration.latent, others), start)
    start = time.perf_counter()
    task = default_task()
    result = task.restore(load_stack(folder, fitted), n_threads=1)
    seconds = time.perf_counter()
    others = task.sky.run(others).stack
    restoration = result.restoration
    if restoration.target_fwhm:
        others = dataclasses.replace(
            others, kernels=convolution_kernels(others.kernels, restoration.target_fwhm)
        )
    prediction = predict(restoration.latent, others)
    add("restored_coadd", others, prediction, start + time.perf_counter() - seconds)
    return figures


def run_half(folder: Path, half: str) -> dict[str, dict[str, float]]:
    """Run `measure_half` as a job.

    Parameters
    ----------
    folder, half
        See `measure_half`.

    Returns
    -------
    figures : `dict` [`str`, `dict`]
        The same figures, as plain numbers.
    """
    return {method: dataclasses.asdict(figure) for method, figure in measure_half(folder, half).items()}


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--data",
        type=Path,
        default=decam_folder(),
        help="folder of the exposures and their load.py (default: the environment variable "
        f"{DATA_VARIABLE}, or shared/data/decam_i beside the checkout)",
    )
    add_jobs(parser)


def _run(options: argparse.Namespace, folder: Path) -> None:
    """Predict both halves and print a table for each."""
    if not (options.data / "load.py").is_file():
        print(f"DECam: skipped, there is no load.py in {options.data} (--data or {DATA_VARIABLE} says where)")
        return
    done = run_jobs([(half, run_half, (options.data, half)) for half in HALVES], options.workers, options.log)
    for half in HALVES:
        rows = {method: list(figures.values()) for method, figures in done[half].items()}
        print("\n".join(block(f"DECam, {half}", ("median chi2", "chi2 on sources", "s"), rows, ".4f")))


COMMAND = Command(name="held_out", description=__doc__, add_options=_add_options, run=_run)
"""The command line (`Command`)."""

if __name__ == "__main__":
    COMMAND.main()
