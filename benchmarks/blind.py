# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""How well PSF kernels are fitted, and what that does to the restored stars::

python -m benchmarks.blind --seeds 201 202 203 --visits 8
"""

from __future__ import annotations

__all__ = ("measure_blind", "start_stack")

import argparse
import dataclasses

import numpy as np

from lsst.drp.restore import ImageMMTask, RestoreCoaddConfig, RestoreCoaddTask
from lsst.drp.restore.outputs.image_quality import star_fwhm
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.kernel_shape import fwhm, gaussian_kernel

from .fields import Field, FieldOptions, make_field

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
    """Copy a field's exposures with the kernels to start from.

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
        The copy.
    """
    names = ("image", "variance", "good", "kernels")
    stack = dataclasses.replace(field.stack, **{name: getattr(field.stack, name).copy() for name in names})
    if factor:
        for t, width in enumerate(mean_widths(field.stack)):
            stack.kernels[t] = gaussian_kernel(factor * width, stack.kernel_size)
    return stack


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
    config = RestoreCoaddConfig()
    config.restorer.retarget(ImageMMTask)
    config.restorer.maxSteps = 60
    config.restorer.computeDevice = "cpu"
    config.characterize.numRealizations = 2
    config.fitKernels.mode = mode
    config.fitKernels.initialFwhm = [float(width * (factor or 0.0)) for width in true]
    stack = start_stack(field, factor)
    result = RestoreCoaddTask(config=config).restore(stack)
    if result.kernel_fit is not None:
        stack = dataclasses.replace(stack, kernels=result.kernel_fit.cell_kernels)
    image = result.restoration.image
    stars = field.catalog[field.catalog["role"] == "point"]
    stars = stars[stars["flux_nJy"] > np.median(stars["flux_nJy"])]
    widths = [star_fwhm(image, x, y) for x, y in zip(stars["x"], stars["y"], strict=True)]
    return mean_widths(stack) / true - 1, float(np.nanmedian(widths))


def main() -> None:
    """Print a table for some fields."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[201, 202, 203])
    parser.add_argument("--visits", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    print(f"{'seed':>4}  {'kernels':<22}{'median':>8}{'worst':>8}  error of the width, %;  star FWHM, pixels")
    for seed in options.seeds:
        field = make_field(FieldOptions(seed=seed, size=options.size, visits=options.visits))
        for name, mode, factor in _CASES:
            error, width = measure_blind(field, mode, factor)
            size = 100 * np.abs(error)
            print(f"{seed:>4}  {name:<22}{np.median(size):8.2f}{size.max():8.2f}{width:42.3f}", flush=True)


if __name__ == "__main__":
    main()
