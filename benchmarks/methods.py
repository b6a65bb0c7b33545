# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The methods that are compared: each makes images of a stack of exposures."""

from __future__ import annotations

__all__ = ("METHODS", "Cutout", "SkyImage", "deconvolve_coadd", "default_task")

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from lsst.drp.restore.compute import prepare_backend
from lsst.drp.restore.exposure_stack import ExposureStack, expand_cells
from lsst.drp.restore.image_mm import ImageMMTask
from lsst.drp.restore.reference_coadd import ReferenceCoadd, naive_mean, reference_coadd
from lsst.drp.restore.restore_coadd import RestoreCoaddConfig, RestoreCoaddTask

_TOP = Path(__file__).resolve().parent.parent

IMAGEMM_STEPS = ImageMMTask.ConfigClass.maxSteps.default
"""Steps of the row ImageMM."""

DECONVOLUTION_STEPS = 300
"""Steps of the deconvolution of the coadd."""

STARRED_FWHM = 2.0
"""FWHM of the Gaussian that STARRED restores the sky to, pixels: its own
choice.
"""

# Three times as many change the fluxes of stars by less than a tenth.
_STARRED_ITERATIONS = 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cutout:
    """A square part of the patch.

    Parameters
    ----------
    row, column : `int`
        First pixel.
    size : `int`
        Height and width, pixels.
    """

    row: int
    column: int
    size: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The pixels (`tuple` [`slice`, `slice`])."""
        return slice(self.row, self.row + self.size), slice(self.column, self.column + self.size)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SkyImage:
    """An image of the sky and what it says of itself.

    Parameters
    ----------
    image : `numpy.ndarray`
        Flux per pixel, nJy, shape ``(height, width)``; NaN where the method
        says nothing.
    variance : `numpy.ndarray` or `None`
        Its variance, nJy**2, if it states one.
    kernels : `numpy.ndarray` or `None`
        Its PSF by cell, shape ``(cells_y, cells_x, k, k)``, if it states one,
        normalized to the flux of a source.
    """

    image: np.ndarray
    variance: np.ndarray | None = None
    kernels: np.ndarray | None = None


def naive(stack: ExposureStack, cutout: Cutout) -> dict[str, SkyImage]:
    """Average the exposures, without weights and without clipping."""
    good = stack.good.sum(axis=0)
    variance = np.where(stack.good, stack.variance, 0.0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "naive mean": SkyImage(
                image=naive_mean(stack), variance=variance / good**2, kernels=stack.kernels.mean(axis=0)
            )
        }


def reference(stack: ExposureStack, cutout: Cutout) -> dict[str, SkyImage]:
    """Average the exposures with weights and clipping."""
    coadd = reference_coadd(stack)
    image = SkyImage(image=coadd.image, variance=coadd.variance, kernels=coadd.kernels)
    return {"reference coadd": image}


def paper(stack: ExposureStack, cutout: Cutout) -> dict[str, SkyImage]:
    """Restore with the network as published (config/paper.py)."""
    return {"network as published": _configured("paper", stack)}


def fast(stack: ExposureStack, cutout: Cutout) -> dict[str, SkyImage]:
    """Restore with this project's steps alone (config/fast.py)."""
    return {"restored_coadd, fast": _configured("fast", stack)}


def image_mm(stack: ExposureStack, cutout: Cutout) -> dict[str, SkyImage]:
    """Restore with ImageMM (config/imageMM.py)."""
    return {"ImageMM": _configured("imageMM", stack)}


def single_coadd(stack: ExposureStack, cutout: Cutout) -> dict[str, SkyImage]:
    """Deconvolve the reference coadd with its own PSF."""
    coadd = reference_coadd(stack)
    latent, _ = deque(deconvolve_coadd(coadd, stack.cell_shape, DECONVOLUTION_STEPS), maxlen=1).pop()
    pad = stack.padding
    return {"deconvolved coadd": SkyImage(image=latent[pad:-pad, pad:-pad])}


def default_task() -> RestoreCoaddTask:
    """Make this project's task as it is by default.

    Returns
    -------
    task : `RestoreCoaddTask`
        The task.
    """
    return RestoreCoaddTask(config=RestoreCoaddConfig())


def default(stack: ExposureStack, cutout: Cutout) -> dict[str, SkyImage]:
    """Restore with this project's default configuration."""
    result = default_task().restore(stack, n_threads=1)
    character = getattr(result, "character", None)
    return {
        "restored_coadd": SkyImage(
            image=result.restoration.image,
            variance=None if character is None else character.variance,
            kernels=None if character is None else character.kernels,
        ),
        "restored_coadd_measurable": SkyImage(
            image=result.measurable.image,
            variance=result.measurable.variance,
            kernels=result.measurable.kernels,
        ),
    }


def starred(stack: ExposureStack, cutout: Cutout) -> dict[str, SkyImage]:
    """Restore a cutout with STARRED: all exposures, no known point sources,
    a penalty of one sigma on all scales of its starlets, on the exposures' own
    pixels.
    """
    latent = _run_starred(stack, cutout)
    image = np.full(stack.shape, np.nan, np.float32)
    image[cutout.slices] = latent
    kernel = _gaussian(STARRED_FWHM, stack.kernel_size)
    kernels = np.broadcast_to(kernel, (*stack.kernels.shape[1:3], *kernel.shape))
    return {"STARRED": SkyImage(image=image, kernels=kernels)}


METHODS: dict[str, Callable[[ExposureStack, Cutout], dict[str, SkyImage]]] = {
    "paper": paper,
    "default": default,
    "starred": starred,
    "fast": fast,
    "imagemm": image_mm,
    "deconvolution": single_coadd,
    "reference": reference,
    "naive": naive,
}
"""The methods by name, about the slowest first (`dict`)."""


def _configured(name: str, stack: ExposureStack) -> SkyImage:
    """Make the latent image alone, with a configuration of this project."""
    config = RestoreCoaddConfig()
    config.load(str(_TOP / "config" / f"{name}.py"))
    coadd = _clip(stack)
    restoration = config.restorer.apply(name="restorer").run(stack, coadd, n_threads=1)
    return SkyImage(image=config.refine.apply(name="refine").run(stack, restoration).image)


def _clip(stack: ExposureStack) -> ReferenceCoadd:
    """Make the reference coadd, and take the outliers out of the stack."""
    coadd = reference_coadd(stack)
    stack.reject(coadd.clipped)
    return coadd


def deconvolve_coadd(
    coadd: ReferenceCoadd, cell_shape: tuple[int, int], steps: int
) -> Iterator[tuple[np.ndarray, float]]:
    """Deconvolve a coadd by projected gradient steps.

    Minimizes ``0.5 * sum((c - f*x)**2 / v)`` over ``x >= 0``: a step along the
    gradient, then negative pixels are set to zero.  The Rubin Science
    Pipelines deconvolve coadds in this manner before they deblend.

    Parameters
    ----------
    coadd : `ReferenceCoadd`
        The coadd ``c`` with its variance ``v`` and PSF ``f`` by cell.
    cell_shape : `tuple` [`int`, `int`]
        Height and width of a cell, pixels.
    steps : `int`
        Number of steps.

    Yields
    ------
    latent : `numpy.ndarray`
        The latent image ``x``, nJy per pixel, with a border of half a kernel;
        the same array every time.
    loss : `float`
        Half of chi squared before the step.

    Notes
    -----
    Of the variance only the median by cell is used, the noise of the sky: the
    photons of a star make the weights at its core so small that no number of
    steps would restore it.  The step is the largest for which the loss cannot
    rise: the inverse of the largest eigenvalue of its second derivative, from
    power iteration.
    """
    prepare_backend("cpu", 1, seed=0)
    from lsst.drp.restore.decoder import FieldDecoder

    seen = np.isfinite(coadd.image)
    grid = coadd.kernels.shape[:2]
    variance = np.where(seen, coadd.variance, np.nan).reshape(grid[0], cell_shape[0], grid[1], cell_shape[1])
    sky = np.nanmedian(variance, axis=(1, 3))
    weight = np.where(seen, 1.0 / expand_cells(sky, cell_shape), 0.0).astype(np.float32)
    image = np.where(seen, coadd.image, 0.0).astype(np.float32)
    stack = ExposureStack(
        image=image[np.newaxis],
        variance=np.where(seen, coadd.variance, np.inf)[np.newaxis],
        good=seen[np.newaxis],
        kernels=coadd.kernels[np.newaxis],
        correlation=np.ones((1, *grid), np.float32),
        cell_shape=cell_shape,
        names=("coadd",),
    )
    decoder = FieldDecoder(stack)

    latent = decoder.adjoint(np.ones((1, *image.shape), np.float32))
    for _ in range(20):
        latent /= np.linalg.norm(latent)
        latent = decoder.adjoint(weight * decoder.forward(latent))
    # Power iteration comes from below: a margin of 1 %.
    step = 1.0 / (1.01 * float(np.linalg.norm(latent)))
    latent = np.zeros_like(latent)
    for _ in range(steps):
        residual = decoder.forward(latent) - image
        loss = 0.5 * float(np.sum(weight * residual**2, dtype=np.float64))
        latent -= np.float32(step) * decoder.adjoint(weight * residual)
        np.maximum(latent, 0.0, out=latent)
        yield latent, loss


def _gaussian(fwhm: float, size: int) -> np.ndarray:
    """Return a Gaussian sampled at pixel centres, sum 1."""
    offset = np.arange(size) - size // 2
    profile = np.exp(-4 * np.log(2) * offset**2 / fwhm**2)
    kernel = profile[:, np.newaxis] * profile
    return (kernel / kernel.sum()).astype(np.float32)


def _run_starred(stack: ExposureStack, cutout: Cutout) -> np.ndarray:
    """Run STARRED on a cutout; return the image at its resolution.

    Raises
    ------
    ImportError
        Raised if the extra ``benchmarks`` is not installed.
    """
    from starred.deconvolution.deconvolution import setup_model
    from starred.deconvolution.loss import Loss
    from starred.deconvolution.parameters import ParametersDeconv
    from starred.optim.optimization import Optimizer
    from starred.utils.noise_utils import propagate_noise

    _clip(stack)
    # With a border, for what is just outside of the cutout.
    border = stack.padding
    size = cutout.size + 2 * border
    row = int(np.clip(cutout.row - border, 0, stack.shape[0] - size))
    column = int(np.clip(cutout.column - border, 0, stack.shape[1] - size))
    part = (slice(None), slice(row, row + size), slice(column, column + size))
    data = stack.image[part].astype(np.float64)
    unit = stack.median_sigma
    variance = np.where(stack.good[part], stack.variance[part], 1e6 * unit**2) / unit**2
    data = data / unit
    cell = ((row + size // 2) // stack.cell_shape[0], (column + size // 2) // stack.cell_shape[1])
    narrow = np.stack([_narrow(kernels[cell]) for kernels in stack.kernels])
    model, init, up, down, fixed = setup_model(
        data, variance, narrow, xs=np.array([]), ys=np.array([]), subsampling_factor=1, initial_a=[]
    )
    fixed["kwargs_background"] = {"mean": np.zeros(len(data))}
    fixed["kwargs_analytic"] = dict(init["kwargs_analytic"])
    # From the weighted mean, with bounds in place of STARRED's penalty of
    # negative pixels, whose kink stops this optimizer where it starts; its
    # other one is far from the end after as long a time.
    mean = np.sum(data / variance, axis=0) / np.sum(1 / variance, axis=0)
    init["kwargs_background"]["h"] = np.maximum(mean, 0.0).ravel()
    down["kwargs_background"]["h"] = np.zeros(mean.size)
    weights = propagate_noise(
        model,
        np.sqrt(variance),
        init,
        wavelet_type_list=["starlet"],
        method="MC",
        num_samples=200,
        seed=1,
        likelihood_type="chi2",
        upsampling_factor=1,
    )[0]
    parameters = ParametersDeconv(init, fixed, kwargs_up=up, kwargs_down=down)
    loss = Loss(
        data,
        model,
        parameters,
        variance,
        regularization_terms="l1_starlet",
        regularization_strength_scales=1.0,
        regularization_strength_hf=1.0,
        W=weights,
    )
    Optimizer(loss, parameters, method="l-bfgs-b").minimize(maxiter=_STARRED_ITERATIONS, ftol=1e-9, gtol=1e-9)
    best = parameters.best_fit_values(as_kwargs=True)
    deconvolved, _ = model.getDeconvolved(best)
    inside = (
        slice(cutout.row - row, cutout.row - row + cutout.size),
        slice(cutout.column - column, cutout.column - column + cutout.size),
    )
    return (np.asarray(deconvolved) * unit)[inside].astype(np.float32)


def _narrow(kernel: np.ndarray) -> np.ndarray:
    """Return what turns STARRED's Gaussian into a PSF: their quotient in
    Fourier space.  A Gaussian of two pixels is not small at any frequency.
    """
    gaussian = np.fft.rfft2(np.fft.ifftshift(_gaussian(STARRED_FWHM, len(kernel)).astype(np.float64)))
    transfer = np.fft.rfft2(np.fft.ifftshift(kernel.astype(np.float64)))
    return np.fft.fftshift(np.fft.irfft2(transfer / gaussian, s=kernel.shape))
