# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Filters of the exposures for a coadd with a given PSF or white noise."""

from __future__ import annotations

__all__ = ("coadd_filters", "kernel_transfer", "transfer_kernel")

import numpy as np
import scipy.fft

from .kernel_shape import gaussian_profile

# Added to every transfer function: at frequencies where all PSFs are rounding
# errors, the filters become those of a plain weighted mean instead of following
# the errors.  The signal-to-noise ratio falls by 2e-4.
_FLOOR = 0.01


def coadd_filters(
    kernels: np.ndarray, weights: np.ndarray, *, target_fwhm: float = 0.0, ridge: float = 1e-4
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the filters of exposures for their coadd.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        PSF kernels ``K`` of the exposures, shape ``(n, k, k)``.
    weights : `numpy.ndarray`
        Inverse variance ``W`` of each, shape ``(n,)``; zero for exposures that
        are not used.
    target_fwhm : `float`, optional
        Full width at half maximum of a Gaussian PSF, pixels; 0 for white
        noise.
    ridge : `float`, optional
        Spatial frequencies of which the exposures pass less than this fraction
        (squared transfer function relative to frequency 0) are damped; with
        ``target_fwhm`` only.

    Returns
    -------
    filters : `numpy.ndarray`
        Filters ``R``, shape ``(n, k, k)``, scaled such that the sum of the
        filtered exposures has a source's flux.
    psf : `numpy.ndarray`
        PSF of that sum, shape ``(k, k)``: ``sum_t R[t] * K[t]``, or the
        Gaussian.

    Notes
    -----
    With white noise, ``R[t] = W[t] K[t]^* / sqrt(sum_s W[s] |K[s]|^2)`` in
    Fourier space (B. Zackay and E. O. Ofek 2017, ApJ 836, 188): a sufficient
    statistic of all exposures, whatever their PSFs.  With a Gaussian ``G``,
    ``R[t] = G W[t] K[t]^* / (sum_s W[s] |K[s]|^2 + ridge sum_s W[s])``.
    """
    size = kernels.shape[-1]
    grid = scipy.fft.next_fast_len(4 * size, real=True)
    transfer = kernel_transfer(kernels, grid)
    weight = np.asarray(weights, np.float64)[:, np.newaxis, np.newaxis]
    if target_fwhm:
        profile = gaussian_profile(np.arange(size) - size // 2, target_fwhm)
        psf = np.outer(profile, profile) / profile.sum() ** 2
        power = (weight * np.abs(transfer) ** 2).sum(axis=0)
        spectrum = kernel_transfer(psf, grid) * weight * transfer.conj() / (power + ridge * power[0, 0])
    else:
        raised = transfer + _FLOOR
        power = (weight * np.abs(raised) ** 2).sum(axis=0)
        spectrum = weight * raised.conj() / np.sqrt(power)
    filters = transfer_kernel(spectrum, grid, size)
    filters /= filters.sum()
    if not target_fwhm:
        # Of the filters as they are, cut at the stamp's edge.
        psf = transfer_kernel((kernel_transfer(filters, grid) * transfer).sum(axis=0), grid, size)
    return filters.astype(np.float32), psf.astype(np.float32)


def kernel_transfer(stamps: np.ndarray, grid: int) -> np.ndarray:
    """Fourier-transform kernels on a larger grid, with their middle pixels at
    the origin.

    Parameters
    ----------
    stamps : `numpy.ndarray`
        Kernels, shape ``(..., k, k)``.
    grid : `int`
        Height and width of the grid, pixels.

    Returns
    -------
    transfer : `numpy.ndarray`
        Transfer functions, shape ``(..., grid, grid // 2 + 1)``.
    """
    size = stamps.shape[-1]
    padded = np.zeros((*stamps.shape[:-2], grid, grid))
    padded[..., :size, :size] = stamps
    return scipy.fft.rfft2(np.roll(padded, (-(size // 2), -(size // 2)), axis=(-2, -1)))


def transfer_kernel(transfer: np.ndarray, grid: int, size: int) -> np.ndarray:
    """Invert `kernel_transfer`.

    Parameters
    ----------
    transfer : `numpy.ndarray`
        Transfer functions, shape ``(..., grid, grid // 2 + 1)``.
    grid : `int`
        Height and width of the grid, pixels.
    size : `int`
        Height and width of the kernels, odd, pixels; they are cut off there.

    Returns
    -------
    stamps : `numpy.ndarray`
        Kernels, shape ``(..., size, size)``.
    """
    stamps = scipy.fft.irfft2(transfer, s=(grid, grid))
    return np.roll(stamps, (size // 2, size // 2), axis=(-2, -1))[..., :size, :size]
