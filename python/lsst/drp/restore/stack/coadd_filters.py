# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Filters with which exposures are added up."""

from __future__ import annotations

__all__ = ("coadd_filters",)

import numpy as np
import scipy.fft

from .kernel_shape import gaussian_profile

# Transfer function of a point added to every kernel: where all PSFs have
# nothing left but rounding errors, the filters become those of a plain
# weighted mean instead of following the errors.  Signal to noise falls by
# 2e-4.
_FLOOR = 0.01


def coadd_filters(
    kernels: np.ndarray, weights: np.ndarray, *, target_fwhm: float = 0.0, ridge: float = 1e-4
) -> tuple[np.ndarray, np.ndarray]:
    """Compute what to filter exposures with to add them up.

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
    transfer = _transfer(kernels, grid)
    weight = np.asarray(weights, np.float64)[:, np.newaxis, np.newaxis]
    if target_fwhm:
        profile = gaussian_profile(np.arange(size) - size // 2, target_fwhm)
        psf = np.outer(profile, profile) / profile.sum() ** 2
        power = (weight * np.abs(transfer) ** 2).sum(axis=0)
        spectrum = _transfer(psf, grid) * weight * transfer.conj() / (power + ridge * power[0, 0])
    else:
        raised = transfer + _FLOOR
        power = (weight * np.abs(raised) ** 2).sum(axis=0)
        spectrum = weight * raised.conj() / np.sqrt(power)
    filters = _central(spectrum, grid, size)
    filters /= filters.sum()
    if not target_fwhm:
        # Of the filters as they are, cut at the stamp's edge.
        psf = _central((_transfer(filters, grid) * transfer).sum(axis=0), grid, size)
    return filters.astype(np.float32), psf.astype(np.float32)


def _transfer(stamps: np.ndarray, grid: int) -> np.ndarray:
    """Fourier-transform stamps centered on their middle pixel."""
    size = stamps.shape[-1]
    padded = np.zeros((*stamps.shape[:-2], grid, grid))
    padded[..., :size, :size] = stamps
    return scipy.fft.rfft2(np.roll(padded, (-(size // 2), -(size // 2)), axis=(-2, -1)))


def _central(transfer: np.ndarray, grid: int, size: int) -> np.ndarray:
    """Invert `_transfer`, for stamps of a given size."""
    stamps = scipy.fft.irfft2(transfer, s=(grid, grid))
    return np.roll(stamps, (size // 2, size // 2), axis=(-2, -1))[..., :size, :size]
