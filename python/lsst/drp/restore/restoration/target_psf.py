# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Kernels between a PSF and the Gaussian at which the sky is restored."""

from __future__ import annotations

__all__ = ("TARGET_FWHM", "convolution_kernels", "deconvolution_kernels", "target_kernel")

import numpy as np
import scipy.fft

from ..stack.coadd_filters import kernel_transfer, transfer_kernel
from ..stack.kernel_shape import gaussian_kernel

TARGET_FWHM = 1.884
"""FWHM of the restored image's PSF by default, pixels: a Gaussian with a
standard deviation of 0.8 pixels, the model PSF of the Rubin deblender.
"""

# Squared transfer function below which a spatial frequency of the target is
# left alone rather than divided by: the corner of the Fourier plane alone.
_RIDGE = 1e-5

# FWHM in pixels from which a Gaussian can be sampled on them.
_SAMPLED_FWHM = 1.5

# Squared transfer function of a PSF at which a deconvolution stops (Wiener).
_WIENER_RIDGE = 0.01


def target_kernel(fwhm: float = TARGET_FWHM, size: int = 25) -> np.ndarray:
    """Draw the PSF of the restored image.

    Parameters
    ----------
    fwhm : `float`, optional
        Full width at half maximum, pixels.
    size : `int`, optional
        Height and width of the kernel, odd, pixels.

    Returns
    -------
    kernel : `numpy.ndarray`
        Gaussian with sum 1, `numpy.float32`, shape ``(size, size)``.
    """
    return gaussian_kernel(fwhm, size).astype(np.float32)


def convolution_kernels(kernels: np.ndarray, fwhm: float = TARGET_FWHM) -> np.ndarray:
    """Compute the kernels that blur an image at the target resolution to
    given PSFs.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        PSF kernels, shape ``(..., k, k)``.
    fwhm : `float`, optional
        Full width at half maximum of the target, pixels of the kernels.

    Returns
    -------
    kernels : `numpy.ndarray`
        ``h`` with ``h * G = f`` for the target ``G`` and each PSF ``f``, same
        shape, `numpy.float32`.

    Notes
    -----
    The quotient of the transfer functions.  The target is narrower than any
    well-sampled PSF, so that nothing is amplified but in the corner of the
    Fourier plane, where a ridge limits it.
    """
    grid, transfer = _transfer(kernels)
    target = _target_transfer(fwhm, kernels.shape[-1], grid)
    return _stamp(transfer * target.conj() / (np.abs(target) ** 2 + _RIDGE), grid, kernels.shape[-1])


def deconvolution_kernels(kernels: np.ndarray, fwhm: float = TARGET_FWHM) -> np.ndarray:
    """Compute the kernels that bring images with given PSFs to the target
    resolution, as far as noise allows.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        PSF kernels, shape ``(..., k, k)``.
    fwhm : `float`, optional
        Full width at half maximum of the target, pixels.

    Returns
    -------
    kernels : `numpy.ndarray`
        Wiener filters, same shape, `numpy.float32`.
    """
    grid, transfer = _transfer(kernels)
    target = _target_transfer(fwhm, kernels.shape[-1], grid)
    power = np.abs(transfer) ** 2
    return _stamp(target * transfer.conj() / (power + _WIENER_RIDGE), grid, kernels.shape[-1])


def _transfer(kernels: np.ndarray) -> tuple[int, np.ndarray]:
    """Return a grid that no quotient wraps around on, and the transfer
    functions on it.
    """
    grid = scipy.fft.next_fast_len(4 * kernels.shape[-1], real=True)
    return grid, kernel_transfer(kernels, grid)


def _target_transfer(fwhm: float, size: int, grid: int) -> np.ndarray:
    """Return the transfer function of the target."""
    if fwhm >= _SAMPLED_FWHM:
        # As the images have it: aliased at the highest frequencies.
        return kernel_transfer(target_kernel(fwhm, size), grid)
    # That of an image on smaller pixels.
    squares = scipy.fft.fftfreq(grid)[:, np.newaxis] ** 2 + scipy.fft.rfftfreq(grid) ** 2
    return np.exp(-(np.pi**2) * fwhm**2 * squares / (4.0 * np.log(2.0)))


def _stamp(transfer: np.ndarray, grid: int, size: int) -> np.ndarray:
    """Return the kernels of transfer functions, cut to a stamp but with the
    flux of the whole.
    """
    kernels = transfer_kernel(transfer, grid, size)
    total = kernels.sum(axis=(-2, -1), keepdims=True)
    whole = transfer[..., :1, :1].real
    return (kernels * np.divide(whole, total, out=np.ones_like(total), where=total != 0.0)).astype(np.float32)
