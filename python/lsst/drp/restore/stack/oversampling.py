# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Latent pixels smaller than those of the exposures."""

from __future__ import annotations

__all__ = ("bin_pixels", "kernel_phases", "split_pixels")

import numpy as np
import scipy.fft

from .exposure_stack import expand_cells


def kernel_phases(kernels: np.ndarray, factor: int) -> np.ndarray:
    """Draw PSF kernels for point sources off the middle of a pixel.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        Kernels for sources in the middle of a pixel, shape ``(..., k, k)``.
        They are images of point sources, averages over pixels included, and
        well sampled.
    factor : `int`
        Parts that a pixel is divided into along each axis.

    Returns
    -------
    phases : `numpy.ndarray`
        The kernels for sources in the middle of each of the parts, shape
        ``(..., factor**2, k, k)``, rows of parts first, same type.

    Notes
    -----
    The kernels are shifted by the phases of their Fourier transforms.  Those
    for all parts of a pixel are the kernel on the finer grid, sorted: an image
    on that grid, convolved with it and averaged over pixels, is the sum over
    the parts of each part's image convolved with its own kernel.
    """
    size = kernels.shape[-1]
    # Nothing may come in again from the other side.
    grid = scipy.fft.next_fast_len(size + size // 2, real=True)
    offset = (np.arange(factor) - (factor - 1) / 2) / factor
    down = np.exp(-2j * np.pi * offset[:, np.newaxis] * scipy.fft.fftfreq(grid))
    right = np.exp(-2j * np.pi * offset[:, np.newaxis] * scipy.fft.rfftfreq(grid))
    phase = down[:, np.newaxis, :, np.newaxis] * right[:, np.newaxis, :]
    transfer = scipy.fft.rfft2(kernels.astype(np.float32), s=(grid, grid))
    result = np.empty((*kernels.shape[:-2], factor**2, size, size), kernels.dtype)
    for part, shift in enumerate(phase.reshape(factor**2, grid, -1).astype(np.complex64)):
        shifted = scipy.fft.irfft2(transfer * shift, s=(grid, grid))
        result[..., part, :, :] = shifted[..., :size, :size]
    return result


def bin_pixels(image: np.ndarray, factor: int) -> np.ndarray:
    """Add up the parts of each pixel.

    Parameters
    ----------
    image : `numpy.ndarray`
        Flux by part of a pixel, shape ``(height*factor, width*factor)``.
    factor : `int`
        Parts along each axis.

    Returns
    -------
    binned : `numpy.ndarray`
        Flux by pixel, shape ``(height, width)``.
    """
    height, width = image.shape[0] // factor, image.shape[1] // factor
    return image.reshape(height, factor, width, factor).sum(axis=(1, 3))


def split_pixels(image: np.ndarray, factor: int) -> np.ndarray:
    """Give every part of a pixel the pixel's value.

    Parameters
    ----------
    image : `numpy.ndarray`
        Shape ``(height, width)``.
    factor : `int`
        Parts along each axis.

    Returns
    -------
    split : `numpy.ndarray`
        Shape ``(height*factor, width*factor)``.
    """
    return image if factor == 1 else expand_cells(image, (factor, factor))
