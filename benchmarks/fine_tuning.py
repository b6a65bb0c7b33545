# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Compare the network as it is shipped with the network fine-tuned on each
patch: ``python -m benchmarks.fine_tuning``.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lsst.drp.restore.outputs.image_quality import psnr, sky_noise
from lsst.drp.restore.restoration.restoration import Restoration
from lsst.drp.restore.restoration.target_psf import TARGET_FWHM, convolution_kernels
from lsst.drp.restore.restore_coadd import RestoreStackConfig, RestoreStackTask
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.reference_coadd import reference_coadd

from .command import Command, add_jobs
from .fields import FieldOptions, make_field
from .held_out import HALVES, decam_folder, load_stack, median_chi2, predict, source_chi2, source_pixels
from .jobs import Job, run_jobs
from .morphologies import cosmos_scene, jwst_scene, real_images_folder
from .shapes import COMMON_FWHM
from .true_images import bring_to, truth_at

_BRIGHTEST = 300.0  # of the real images, see `DEPTHS`

Figures = dict[str, dict[int, float]]


def measure_field(seed: int, wide: bool, steps: Sequence[int], rate: float) -> Figures:
    """Restore a simulated field.

    Parameters
    ----------
    seed : `int`
        Its seed.
    wide : `bool`
        See `FieldOptions`.
    steps : `~collections.abc.Sequence` [`int`]
        Steps of fine-tuning to try.
    rate : `float`
        Its learning rate.

    Returns
    -------
    figures : `dict`
        Figures by name and number of steps.
    """
    field = make_field(FieldOptions(seed=seed, wide=wide))
    softening = sky_noise(reference_coadd(field.stack).image)
    truth = truth_at(field, COMMON_FWHM)
    name = f"{'wide' if wide else 'designed'} field {seed}"
    return _measure(
        lambda: field.stack, lambda r: {f"{name}, PSNR": _psnr(r, truth, softening)}, name, steps, rate
    )


def measure_real_image(name: str, steps: Sequence[int], rate: float) -> Figures:
    """Restore exposures of a real image from space.

    Parameters
    ----------
    name : `str`
        ``JWST`` or ``COSMOS``.
    steps, rate
        See `measure_field`.

    Returns
    -------
    figures : `dict`
        Figures by name and number of steps; empty if data are missing.
    """
    try:
        scene = {"JWST": jwst_scene, "COSMOS": cosmos_scene}[name](real_images_folder(), _BRIGHTEST)
    except FileNotFoundError:
        return {}
    truth = bring_to(scene.truth, TARGET_FWHM, COMMON_FWHM)
    return _measure(
        lambda: scene.stack, lambda r: {f"{name}, PSNR": _psnr(r, truth, scene.softening)}, name, steps, rate
    )


def measure_decam(half: str, steps: Sequence[int], rate: float) -> Figures:
    """Predict real exposures from others, on which the network is fine-tuned.

    Parameters
    ----------
    half : `str`
        Key of `HALVES`.
    steps, rate
        See `measure_field`.

    Returns
    -------
    figures : `dict`
        Figures by name and number of steps; empty if data are missing.
    """
    if not (decam_folder() / "load.py").is_file():
        return {}
    load = functools.partial(load_stack, decam_folder())
    fitted, held = HALVES[half]
    sources = source_pixels(reference_coadd(load(fitted)))
    others = load(held)
    RestoreStackTask(config=RestoreStackConfig()).sky.run(others)
    kernels = dataclasses.replace(others, kernels=convolution_kernels(others.kernels))

    def measure(restoration: Restoration) -> dict[str, float]:
        prediction = predict(restoration.latent, kernels)
        return {
            f"DECam, {half}: median chi2": median_chi2(others, prediction),
            f"DECam, {half}: chi2 on sources": source_chi2(others, prediction, sources),
        }

    return _measure(lambda: load(fitted), measure, f"DECam, {half}", steps, rate)


def _measure(
    load: Callable[[], ExposureStack],
    measure: Callable[[Restoration], dict[str, float]],
    name: str,
    steps: Sequence[int],
    rate: float,
) -> Figures:
    """Restore exposures with several numbers of steps."""
    figures: Figures = {}
    for number in steps:
        config = RestoreStackConfig()
        config.restorer.update(fineTuneSteps=number, fineTuneRate=rate)
        config.characterize.numRealizations = 2
        restoration = RestoreStackTask(config=config).restore(load()).restoration
        for label, value in (measure(restoration) | {f"{name}: s": restoration.seconds}).items():
            figures.setdefault(label, {})[number] = value
    return figures


def _psnr(restoration: Restoration, truth: np.ndarray, softening: float) -> float:
    """Compare at a common resolution, as `benchmarks.measure` does."""
    image = bring_to(restoration.image, restoration.target_fwhm, COMMON_FWHM)
    return psnr(*(np.arcsinh(pixels / softening) for pixels in (image, truth)))


def format_table(figures: Figures) -> str:
    """Make a table.

    Parameters
    ----------
    figures : `dict`
        Figures by name and number of steps.

    Returns
    -------
    table : `str`
        In Markdown, a row for each name.
    """
    steps = sorted({number for row in figures.values() for number in row})
    lines = ["| | " + " | ".join(f"{n} steps" if n else "not fine-tuned" for n in steps) + " |"]
    lines.append("|---" * (len(steps) + 1) + "|")
    for name, row in figures.items():
        digits = 0 if name.endswith(": s") else 4 if "chi2" in name else 2
        cells = (f"{row[n]:.{digits}f}" if n in row else "-" for n in steps)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    add = parser.add_argument
    rate = RestoreStackConfig().restorer.fineTuneRate
    add("--steps", type=int, nargs="+", default=[0, 100, 300], help="steps to try; 0 is the shipped network")
    add("--rate", type=float, default=rate, help="learning rate")
    add("--seeds", type=int, nargs="*", default=[102], help="seeds of the simulated fields")
    add_jobs(parser)


def _run(options: argparse.Namespace, folder: Path) -> None:
    """Restore all fields with all numbers of steps and print the table."""
    rest = (options.steps, options.rate)
    jobs: list[Job] = [
        *(
            (f"{'wide' if wide else 'designed'} field {seed}", measure_field, (seed, wide, *rest))
            for seed in options.seeds
            for wide in (False, True)
        ),
        *((name, measure_real_image, (name, *rest)) for name in ("JWST", "COSMOS")),
        *((half, measure_decam, (half, *rest)) for half in HALVES),
    ]
    results = run_jobs(jobs, options.workers, options.log)
    print(format_table({name: row for job, *_ in jobs for name, row in results[job].items()}))


COMMAND = Command(name="fine_tuning", description=__doc__, add_options=_add_options, run=_run)
"""The command line (`Command`)."""

if __name__ == "__main__":
    COMMAND.main()
