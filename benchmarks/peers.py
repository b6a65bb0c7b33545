# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Other methods than this project's, written from their descriptions."""

from __future__ import annotations

__all__ = (
    "RUBIN_STEPS",
    "SGP_STEPS",
    "deconvolve_rubin",
    "divide_kernels",
    "integrated_gaussian",
    "proper_coadd",
    "scaled_gradient_projection",
)

from collections import deque
from collections.abc import Iterator

import numpy as np
import scipy.fft
import scipy.special

from lsst.drp.restore.restoration.backend import prepare_backend
from lsst.drp.restore.restoration.measurable import MeasurableTask
from lsst.drp.restore.restoration.seeds import Seeds
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.reference_coadd import ReferenceCoadd

from .sky_image import SkyImage

RUBIN_STEPS = 100
"""Gradient steps of the Rubin deconvolution: the most that it takes."""

SGP_STEPS = 100
"""Iterations of scaled gradient projection, as many as ImageMM takes."""

_RUBIN_SIGMA = 0.8  # of the model PSF, pixels
# Quotients of kernels: power below which a frequency of the divisor counts
# as missing.
_SMALLEST_POWER = 1e-6
# Latent pixels with less than this fraction of the median weight stay zero.
_MIN_COVERAGE = 0.01
# Of scaled gradient projection: bounds of the step lengths, decrease of the
# objective that the line search asks for, its factor, and bounds of the
# scaling matrix relative to its mean.
_STEP_BOUNDS = (1e-10, 1e5)
_SUFFICIENT = 1e-4
_SHRINK = 0.4
_SCALING_BOUND = 1e6


def proper_coadd(stack: ExposureStack, reference: ReferenceCoadd) -> SkyImage:
    """Coadd exposures to a sufficient statistic with white noise.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures, without outliers.
    reference : `ReferenceCoadd`
        Their coadd, for the weights.

    Returns
    -------
    image : `SkyImage`
        The proper coadd of B. Zackay and E. O. Ofek (2017, ApJ 836, 188), with
        its variance and PSF; missing pixels have no weight.

    Notes
    -----
    `MeasurableTask` makes it; its stand-in for missing pixels is zero here.
    """
    prepare_backend("cpu", 1)
    config = MeasurableTask.ConfigClass()
    config.numNoiseRealizations = 0
    latent = np.zeros(stack.latent_shape, np.float32)
    result = MeasurableTask(config=config).run(stack, reference, latent, target_fwhm=0.0, seeds=Seeds(0))
    return SkyImage(image=result.image, variance=result.variance, kernels=result.kernels)


def integrated_gaussian(sigma: float, size: int) -> np.ndarray:
    """Integrate a round Gaussian over pixels.

    Parameters
    ----------
    sigma : `float`
        Standard deviation of the Gaussian before the pixel, pixels.
    size : `int`
        Height and width, odd, pixels.

    Returns
    -------
    kernel : `numpy.ndarray`
        Kernel of sum 1, shape ``(size, size)``.
    """
    edges = (np.arange(size + 1) - size / 2) / (np.sqrt(2) * sigma)
    profile = np.diff(scipy.special.erf(edges)) / 2
    kernel = np.outer(profile, profile)
    return kernel / kernel.sum()


def divide_kernels(kernel: np.ndarray, divisor: np.ndarray) -> np.ndarray:
    """Compute the kernel that turns one PSF into another.

    Parameters
    ----------
    kernel, divisor : `numpy.ndarray`
        The wide and the narrow PSF, shape ``(k, k)``, ``k`` odd.

    Returns
    -------
    quotient : `numpy.ndarray`
        Kernel of the same shape whose convolution with ``divisor`` is
        ``kernel``: their quotient in Fourier space, zero at frequencies that
        the divisor does not pass.
    """
    size = len(kernel)
    grid = scipy.fft.next_fast_len(4 * size, real=True)

    def transform(stamp: np.ndarray) -> np.ndarray:
        padded = np.zeros((grid, grid))
        padded[:size, :size] = stamp
        return scipy.fft.rfft2(np.roll(padded, (-(size // 2), -(size // 2)), axis=(0, 1)))

    below = transform(divisor)
    quotient = transform(kernel) * below.conj() / (np.abs(below) ** 2 + _SMALLEST_POWER)
    stamp = scipy.fft.irfft2(quotient, s=(grid, grid))
    return np.roll(stamp, (size // 2, size // 2), axis=(0, 1))[:size, :size]


def deconvolve_rubin(coadd: ReferenceCoadd) -> SkyImage:
    """Deconvolve a coadd as the Rubin Science Pipelines do before deblending.

    Parameters
    ----------
    coadd : `ReferenceCoadd`
        The coadd.

    Returns
    -------
    image : `SkyImage`
        The last image of `rubin_steps` and its stated PSF.
    """
    image = deque(rubin_steps(coadd), maxlen=1).pop()
    grid, size = coadd.kernels.shape[:2], coadd.kernels.shape[-1]
    kernel = integrated_gaussian(_RUBIN_SIGMA, size)
    return SkyImage(image=image, kernels=np.broadcast_to(kernel, (*grid, size, size)))


def rubin_steps(coadd: ReferenceCoadd, steps: int = RUBIN_STEPS) -> Iterator[np.ndarray]:
    """Take the gradient steps of the Rubin deconvolution.

    Parameters
    ----------
    coadd : `ReferenceCoadd`
        The coadd ``c``; missing pixels count as zero.
    steps : `int`, optional
        Number of steps.

    Yields
    ------
    image : `numpy.ndarray`
        Image ``x`` at the model PSF, a Gaussian of sigma 0.8 pixels integrated
        over pixels, nJy per pixel, shape ``(height, width)``, not negative.

    Notes
    -----
    As ``DeconvolveExposureTask`` is described: one PSF ``f`` for the patch,
    that in its middle, no weights; steps ``x <- max(0, x + f^T (c - f x))``
    from the coadd itself.  The task stops earlier where the loss hardly falls
    any more.
    """
    rows, columns = coadd.kernels.shape[:2]
    size = coadd.kernels.shape[-1]
    psf = coadd.kernels[rows // 2, columns // 2].astype(np.float64)
    kernel = divide_kernels(psf / psf.sum(), integrated_gaussian(_RUBIN_SIGMA, size))
    image = np.nan_to_num(coadd.image, nan=0.0)
    shape = [scipy.fft.next_fast_len(n + size, real=True) for n in image.shape]
    padded = np.zeros(shape)
    padded[:size, :size] = kernel
    transfer = scipy.fft.rfft2(np.roll(padded, (-(size // 2), -(size // 2)), axis=(0, 1)))

    def blur(pixels: np.ndarray, by: np.ndarray) -> np.ndarray:
        blurred = scipy.fft.irfft2(scipy.fft.rfft2(pixels, s=shape) * by, s=shape)
        return blurred[: image.shape[0], : image.shape[1]]

    model = np.maximum(image, 0.0)
    for _ in range(steps):
        model = np.maximum(model + blur(image - blur(model, transfer), transfer.conj()), 0.0)
        yield model.astype(np.float32)


def scaled_gradient_projection(
    stack: ExposureStack, steps: int = SGP_STEPS
) -> Iterator[tuple[np.ndarray, float]]:
    """Minimize half of chi squared over ``x >= 0`` by scaled gradient
    projection.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures ``y`` with weights ``w`` and PSFs ``f``, without
        outliers.
    steps : `int`, optional
        Number of iterations.

    Yields
    ------
    latent : `numpy.ndarray`
        The latent image, nJy per pixel, with a border of half a kernel.
    loss : `float`
        Half of chi squared, less that of an image of zero.

    Notes
    -----
    S. Bonettini, R. Zanella and L. Zanni (2009, Inverse Problems 25, 015002);
    for several exposures M. Prato et al. (2012, A&A 539, A133).  The direction
    is the projection on ``x >= 0`` of a step along the gradient that is scaled
    by ``x / sum_t f[t]^T w[t] (f[t] * x)``, the positive part of the gradient;
    step lengths alternate between the two of Barzilai and Borwein by their
    adaptive rule; backtracking makes the objective fall.  That is quadratic:
    along a direction it is known from one product with its second derivative.
    """
    prepare_backend("cpu", 1)
    from lsst.drp.restore.restoration.forward_model import ForwardModel
    from lsst.drp.restore.restoration.likelihood import coverage, second_derivative

    decoder = ForwardModel(stack)
    movable = coverage(stack, decoder) > _MIN_COVERAGE
    weight = np.where(stack.good, 1.0 / stack.variance, 0.0).astype(np.float32)
    data = decoder.adjoint(weight * stack.image).astype(np.float64)
    latent = np.where(movable, max(float(data[movable].mean()), 0.0), 0.0)
    blurred = second_derivative(decoder, weight, latent.astype(np.float32)).astype(np.float64)
    # Of the constant image that fits best.
    factor = np.sum(data * latent) / np.sum(latent * blurred)
    latent, blurred = factor * latent, factor * blurred
    loss = 0.5 * np.sum(latent * blurred) - np.sum(latent * data)
    length, switch = 1.0, 0.5
    second_lengths: list[float] = []
    for _ in range(steps):
        gradient = blurred - data
        scaling = np.divide(latent, blurred, out=np.zeros_like(latent), where=blurred > 0)
        middle = scaling[movable].mean()
        scaling = np.clip(scaling, middle / _SCALING_BOUND, middle * _SCALING_BOUND)
        direction = np.maximum(latent - length * scaling * gradient, 0.0) - latent
        direction[~movable] = 0.0
        curved = second_derivative(decoder, weight, direction.astype(np.float32)).astype(np.float64)
        slope, curvature = np.sum(gradient * direction), np.sum(direction * curved)
        fraction = 1.0
        while (
            fraction**2 * curvature / 2 + fraction * slope > _SUFFICIENT * fraction * slope
            and fraction > 1e-6
        ):
            fraction *= _SHRINK
        latent = latent + fraction * direction
        blurred = blurred + fraction * curved
        loss += fraction * slope + fraction**2 * curvature / 2
        # Barzilai and Borwein, with the scaling; the fraction cancels but for
        # the second argument.
        scaled = direction / scaling
        first = _ratio(np.sum(scaled**2), np.sum(scaled * curved))
        second = _ratio(np.sum(direction * scaling * curved), np.sum((scaling * curved) ** 2))
        second_lengths = [*second_lengths[-2:], second]
        if second / first < switch:
            length, switch = min(second_lengths), 0.9 * switch
        else:
            length, switch = first, 1.1 * switch
        yield latent.astype(np.float32), float(loss)


def _ratio(above: float, below: float) -> float:
    """Return a step length within its bounds."""
    return float(np.clip(above / below, *_STEP_BOUNDS)) if below > 0 else _STEP_BOUNDS[1]
