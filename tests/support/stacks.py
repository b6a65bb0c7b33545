# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Small exposure stacks with a known truth, made with nothing but NumPy and
SciPy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.signal import fftconvolve
from scipy.special import erf

from lsst.drp.restore.restoration.backend import prepare_backend
from lsst.drp.restore.restoration.restoration import (
    BandImage,
    FittedRestorer,
    Restoration,
    Restorer,
    StartingPoint,
    make_history,
)
from lsst.drp.restore.restoration.seeds import Seeds
from lsst.drp.restore.restoration.target_psf import TARGET_FWHM
from lsst.drp.restore.stack.exposure_checks import ExposureChecks
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.reference_coadd import reference_coadd


def moffat_kernel(fwhm: float, *, size: int = 25, beta: float = 3.5, ellipticity: float = 0.0) -> np.ndarray:
    """Return a Moffat profile sampled at pixel centers, sum 1."""
    offset = np.arange(size) - size // 2
    radius2 = (offset[None, :] * (1 + ellipticity)) ** 2 + (offset[:, None] * (1 - ellipticity)) ** 2
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    kernel = (1 + radius2 / alpha**2) ** -beta
    return (kernel / kernel.sum()).astype(np.float32)


def pixel_gaussian(sigma: float, y: float, x: float, size: int = 25) -> np.ndarray:
    """Return a Gaussian averaged over pixels, off the middle by y and x."""
    edges = np.arange(size + 1) - size / 2
    along = [np.diff(erf((edges - offset) / sigma / np.sqrt(2))) / 2 for offset in (y, x)]
    return np.outer(*along)


def centroids(kernels: np.ndarray) -> np.ndarray:
    """Return the centroids of kernels ``(..., k, k)`` from their middle
    pixels, y and x, shape ``(2, ...)``.
    """
    axis = np.arange(kernels.shape[-1]) - kernels.shape[-1] // 2
    total = kernels.sum(axis=(-2, -1))
    return np.stack(
        [
            (kernels * axis[:, np.newaxis]).sum(axis=(-2, -1)) / total,
            (kernels * axis).sum(axis=(-2, -1)) / total,
        ]
    )


def star_field(
    *,
    seed: int = 1,
    n: int = 4,
    shape: tuple[int, int] = (96, 128),
    cell_shape: tuple[int, int] = (32, 32),
    n_stars: int = 12,
    flux: tuple[float, float] = (100.0, 5000.0),
    fwhm: tuple[float, float] = (2.8, 4.5),
    bad_fraction: float = 0.02,
) -> tuple[ExposureStack, np.ndarray, np.ndarray]:
    """Make exposures of stars at pixel centers, noise of about 1 nJy.

    Returns
    -------
    stack : `ExposureStack`
        Exposures whose PSF varies from cell to cell.
    latent : `numpy.ndarray`
        The truth on the padded grid.
    stars : `numpy.ndarray`
        Columns y, x (patch pixels) and flux.
    """
    rng = np.random.default_rng(seed)
    pad = 12
    latent = np.zeros((shape[0] + 2 * pad, shape[1] + 2 * pad), dtype=np.float32)
    # Stars on a jittered grid, so that each one is alone.
    side = int(np.ceil(np.sqrt(n_stars)))
    places = [(i, j) for i in range(side) for j in range(side)][:n_stars]
    stars = np.array(
        [
            (
                int((i + 0.5) * shape[0] / side + rng.integers(-2, 3)),
                int((j + 0.5) * shape[1] / side + rng.integers(-2, 3)),
                np.exp(rng.uniform(*np.log(flux))),
            )
            for i, j in places
        ]
    )
    for y, x, brightness in stars:
        latent[int(y) + pad, int(x) + pad] = brightness
    grid = (shape[0] // cell_shape[0], shape[1] // cell_shape[1])
    kernels = np.empty((n, *grid, 25, 25), dtype=np.float32)
    for t in range(n):
        width = rng.uniform(*fwhm)
        for i in range(grid[0]):
            for j in range(grid[1]):
                kernels[t, i, j] = moffat_kernel(width * (1 + 0.01 * i - 0.005 * j), ellipticity=0.01 * j)
    image = np.empty((n, *shape), dtype=np.float32)
    for t in range(n):
        for i in range(grid[0]):
            for j in range(grid[1]):
                y, x = i * cell_shape[0], j * cell_shape[1]
                piece = latent[y : y + cell_shape[0] + 2 * pad, x : x + cell_shape[1] + 2 * pad]
                image[t, y : y + cell_shape[0], x : x + cell_shape[1]] = fftconvolve(
                    piece, kernels[t, i, j], mode="valid"
                )
    variance = (1.0 + 0.01 * np.maximum(image, 0)).astype(np.float32)
    image += (rng.normal(size=image.shape) * np.sqrt(variance)).astype(np.float32)
    good = rng.uniform(size=image.shape) >= bad_fraction
    image[~good] = 0.0
    variance[~good] = np.inf
    stack = ExposureStack(
        image=image,
        variance=variance,
        good=good,
        kernels=kernels,
        correlation=np.ones(kernels.shape[:3], np.float32),
        cell_shape=cell_shape,
        names=tuple(f"visit {t}" for t in range(n)),
    )
    return stack, latent, stars


def make_arrays(n: int = 2, shape: tuple[int, int] = (30, 40), k: int = 5) -> dict[str, Any]:
    """Return arguments that `restore` and `stack_arrays` accept."""
    rng = np.random.default_rng(3)
    return {
        "image": rng.normal(size=(n, *shape)),
        "variance": np.ones((n, *shape)),
        "mask": np.zeros((n, *shape), bool),
        "psf": np.stack([moffat_kernel(2.0, size=k)] * n),
    }


def make_restoration(stack: ExposureStack, latent: np.ndarray, **fields: Any) -> Restoration:
    """Return a latent image as a restorer does: an image of points that
    depends on nothing, unless the fields say otherwise.
    """
    latent = latent.astype(np.float32)
    values: dict[str, Any] = {
        "latent": latent,
        "padding": stack.padding * stack.oversampling,
        "converged": True,
        "history": make_history([(1, 0.8, np.nan, np.nan, 1.0)]),
        "weights": {},
        "steps": 1,
        "loss": 0.8,
        "device": "CPU",
        "seconds": 1.0,
        "fitted": Function(lambda _: latent),
        "model": stack,
        "kernels": stack.kernels,
    }
    return Restoration(**(values | fields))


class Function(FittedRestorer):
    """A restorer that is a function of the exposures."""

    def __init__(self, function: Callable[[ExposureStack], np.ndarray]) -> None:
        self._function = function

    def restore(self, exposures: ExposureStack) -> np.ndarray:
        return self._function(exposures)


def run_restorer(
    task: Restorer,
    stack: ExposureStack,
    *,
    weights: np.ndarray | None = None,
    other_bands: Sequence[BandImage] = (),
    n_threads: int = 1,
    seed: int = 42,
) -> Restoration:
    """Run a restorer that needs no first estimate, on the CPU."""
    start = StartingPoint(
        latent=np.zeros(stack.latent_shape, np.float32),
        matched=stack,
        weights=reference_coadd(stack).weights if weights is None else weights,
        target_fwhm=TARGET_FWHM,
        other_bands=other_bands,
    )
    backend = prepare_backend(task.config.computeDevice, n_threads)
    return task.run(stack, start, backend=backend, seeds=Seeds(seed))


def linear_case(shape: tuple[int, int] = (128, 128)) -> tuple[ExposureStack, Restoration]:
    """Exposures of noise alone, variance 4 and correlation 1.5, and a restorer
    that takes half of their mean: its PSF and noise are known by arithmetic.
    """
    stack, _, _ = star_field(n=4, shape=shape, n_stars=1, bad_fraction=0.0)
    kernels = np.broadcast_to(moffat_kernel(3.0), stack.kernels.shape).copy()
    sigma = np.sqrt(4.0 * 1.5)
    stack = dataclasses.replace(
        stack,
        image=np.random.default_rng(1).normal(0.0, sigma, stack.image.shape).astype(np.float32),
        variance=np.full_like(stack.variance, 4.0),
        correlation=np.full_like(stack.correlation, 1.5),
        kernels=kernels,
    )

    def half_the_mean(exposures: ExposureStack) -> np.ndarray:
        return np.pad(0.5 * exposures.image.mean(axis=0), exposures.padding)

    return stack, make_restoration(stack, half_the_mean(stack), fitted=Function(half_the_mean))


def unchecked(stack: ExposureStack) -> ExposureChecks:
    """Return checks that have measured nothing."""
    unknown = np.full(stack.n_exposures, np.nan)
    return ExposureChecks(
        stack=stack,
        noise=unknown,
        flux_noise=unknown,
        sky=unknown,
        flux_scale=unknown,
        shift=np.full((stack.n_exposures, 2), np.nan),
        n_common=np.zeros(stack.n_exposures, int),
        kernel_offset=unknown,
        width_ratio=unknown,
        photons=unknown,
        findings=((),) * stack.n_exposures,
    )
