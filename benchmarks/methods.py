# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The methods that are compared: each makes images of a stack of exposures."""

from __future__ import annotations

__all__ = ("IMAGEMM_STEPS", "METHODS", "coadd_as_exposure", "default_task")

from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lsst.drp.restore.restoration.backend import prepare_backend
from lsst.drp.restore.restoration.image_mm import ImageMMTask
from lsst.drp.restore.restoration.restoration import Restoration, StartingPoint
from lsst.drp.restore.restoration.seeds import Seeds
from lsst.drp.restore.restore_coadd import RestoreStackConfig, RestoreStackTask
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.reference_coadd import ReferenceCoadd, naive_mean, reference_coadd

from .peers import deconvolve_rubin, proper_coadd, scaled_gradient_projection
from .sky_image import Cutout, SkyImage, gaussian_cells
from .starred_peer import STARRED_FWHM, restore_starred
from .tables import FROM_COADD

_TOP = Path(__file__).resolve().parent.parent

IMAGEMM_STEPS = ImageMMTask.ConfigClass.maxSteps.default
"""Steps of the row ImageMM."""


def naive(stack: ExposureStack, cutout: Cutout | None) -> dict[str, SkyImage]:
    """Average the exposures, without weights and without clipping."""
    good = stack.good.sum(axis=0)
    variance = np.where(stack.good, stack.variance, 0.0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "naive mean": SkyImage(
                image=naive_mean(stack), variance=variance / good**2, kernels=stack.kernels.mean(axis=0)
            )
        }


def reference(stack: ExposureStack, cutout: Cutout | None) -> dict[str, SkyImage]:
    """Average the exposures with weights and clipping."""
    coadd = reference_coadd(stack)
    image = SkyImage(image=coadd.image, variance=coadd.variance, kernels=coadd.kernels)
    return {"reference coadd": image}


def paper(stack: ExposureStack, cutout: Cutout | None) -> dict[str, SkyImage]:
    """Restore with the network as published (config/paper.py)."""
    return {"network as published": _configured("paper", stack)}


def image_mm(stack: ExposureStack, cutout: Cutout | None) -> dict[str, SkyImage]:
    """Restore with ImageMM (config/imageMM.py)."""
    return {"ImageMM": _configured("imageMM", stack)}


def proper(stack: ExposureStack, cutout: Cutout | None) -> dict[str, SkyImage]:
    """Make the proper coadd of Zackay and Ofek."""
    return {"proper coadd": proper_coadd(*without_outliers(stack))}


def rubin(stack: ExposureStack, cutout: Cutout | None) -> dict[str, SkyImage]:
    """Deconvolve the reference coadd as the Rubin Science Pipelines do."""
    return {"Rubin deconvolution": deconvolve_rubin(reference_coadd(stack))}


def sgp(stack: ExposureStack, cutout: Cutout | None) -> dict[str, SkyImage]:
    """Restore by scaled gradient projection."""
    stack, _ = without_outliers(stack)
    latent, _ = deque(scaled_gradient_projection(stack), maxlen=1).pop()
    return {"SGP": SkyImage(image=latent[stack.latent_patch])}


def default_task() -> RestoreStackTask:
    """Make this project's task as it is by default.

    Returns
    -------
    task : `RestoreStackTask`
        The task.
    """
    return RestoreStackTask(config=RestoreStackConfig())


def default(stack: ExposureStack, cutout: Cutout | None) -> dict[str, SkyImage]:
    """Restore with this project's default configuration."""
    result = default_task().restore(stack, n_threads=1)
    characterization, measurable = result.characterization, result.measurable
    return {
        "restored_coadd": SkyImage(
            image=result.restoration.image,
            variance=characterization.variance,
            kernels=characterization.kernels,
        ),
        "restored_coadd_measurable": SkyImage(
            image=measurable.image, variance=measurable.variance, kernels=measurable.kernels
        ),
    }


def from_coadd(stack: ExposureStack, cutout: Cutout | None) -> dict[str, SkyImage]:
    """Restore the reference coadd with this project's default configuration,
    as one exposure (``inputType='coadd'``).
    """
    restored, _ = default(coadd_as_exposure(reference_coadd(stack), stack.cell_shape), cutout).values()
    return {FROM_COADD: restored}


def coadd_as_exposure(coadd: ReferenceCoadd, cell_shape: tuple[int, int]) -> ExposureStack:
    """Make a stack of one exposure of a coadd.

    Parameters
    ----------
    coadd : `ReferenceCoadd`
        The coadd.
    cell_shape : `tuple` [`int`, `int`]
        Height and width of a cell, pixels.

    Returns
    -------
    stack : `ExposureStack`
        The coadd with its variance, PSF and correlation of noise.
    """
    good = coadd.n_exposures > 0
    return ExposureStack(
        image=np.where(good, coadd.image, np.float32(0.0))[np.newaxis],
        variance=np.where(good, coadd.variance, np.float32(np.inf))[np.newaxis],
        good=good[np.newaxis],
        kernels=coadd.kernels[np.newaxis],
        correlation=coadd.correlation[np.newaxis],
        cell_shape=cell_shape,
        names=("coadd",),
    )


def starred(stack: ExposureStack, cutout: Cutout | None) -> dict[str, SkyImage]:
    """Restore a cutout with STARRED, from all exposures on their pixels."""
    if cutout is None:
        raise ValueError("STARRED needs a cutout.")
    stack, coadd = without_outliers(stack)
    image = np.full(stack.shape, np.nan, np.float32)
    image[cutout.slices] = restore_starred(stack, coadd, cutout)
    kernels = gaussian_cells(STARRED_FWHM, stack.kernels.shape[1:3], stack.kernel_size)
    return {"STARRED": SkyImage(image=image, kernels=kernels)}


METHODS: dict[str, Callable[[ExposureStack, Cutout | None], dict[str, SkyImage]]] = {
    "paper": paper,
    "default": default,
    "from_coadd": from_coadd,
    "starred": starred,
    "imagemm": image_mm,
    "sgp": sgp,
    "rubin": rubin,
    "proper": proper,
    "reference": reference,
    "naive": naive,
}
"""The methods by name, about the slowest first (`dict`): each takes exposures
and the cutout for methods that cannot take more.
"""


def restore_alone(
    stack: ExposureStack, reference: ReferenceCoadd, config: RestoreStackConfig, seed: int = 0
) -> Restoration:
    """Run a restorer that needs no first estimate.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures, without outliers.
    reference : `ReferenceCoadd`
        Their coadd, for the weights.
    config : `RestoreStackConfig`
        Its ``restorer`` is used.
    seed : `int`, optional
        Seed of random numbers.

    Returns
    -------
    restoration : `Restoration`
        The latent image, without its uncertainty.
    """
    start = StartingPoint(
        latent=np.zeros(stack.latent_shape, np.float32),
        matched=stack,
        weights=reference.weights,
        target_fwhm=config.targetFwhm,
    )
    backend = prepare_backend("cpu", 1)
    return config.restorer.apply(name="restorer").run(stack, start, backend=backend, seeds=Seeds(seed))


def without_outliers(stack: ExposureStack) -> tuple[ExposureStack, ReferenceCoadd]:
    """Make the reference coadd, and take the outliers out of the exposures.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.

    Returns
    -------
    clean : `ExposureStack`
        The exposures without outliers.
    coadd : `ReferenceCoadd`
        Their coadd.
    """
    coadd = reference_coadd(stack)
    return stack.without(coadd.clipped), coadd


def _configured(name: str, stack: ExposureStack) -> SkyImage:
    """Make the latent image alone, with a configuration of this project."""
    config = RestoreStackConfig()
    config.load(str(_TOP / "config" / f"{name}.py"))
    return SkyImage(image=restore_alone(*without_outliers(stack), config).image)
