# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Residuals of a restored image, by scale."""

from __future__ import annotations

__all__ = ("NUM_SCALES", "matched_residual", "scale_residuals", "starlet")

import dataclasses

import numpy as np
import scipy.ndimage

from ..stack.exposure_stack import ExposureStack
from .restoration import Restoration
from .target_psf import convolution_kernels

NUM_SCALES = 5
"""Scales of `starlet`: structures of about 1, 2, 4, 8 and 16 pixels."""

_B3_SPLINE = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0


def matched_residual(matched: ExposureStack, restoration: Restoration, *, n_threads: int = 1) -> np.ndarray:
    """Subtract a restored image from the white-noise coadd of its exposures.

    Parameters
    ----------
    matched : `ExposureStack`
        The white-noise coadd (`matched_stack`).
    restoration : `Restoration`
        The restored image.
    n_threads : `int`, optional
        CPU threads to use.

    Returns
    -------
    residual : `numpy.ndarray`
        In units of the coadd's standard deviation, shape of the patch; zero
        where the coadd has too few data.
    """
    from .forward_model import ForwardModel

    kernels = matched.kernels
    if restoration.target_fwhm:
        kernels = convolution_kernels(kernels, restoration.target_fwhm / matched.oversampling)
    model = ForwardModel(dataclasses.replace(matched, kernels=kernels), n_threads=n_threads)
    predicted = model.forward(restoration.latent)[0]
    residual = (matched.image[0] - predicted) / np.sqrt(matched.variance[0])
    return np.where(matched.good[0], residual, np.float32(0.0))


def starlet(image: np.ndarray) -> np.ndarray:
    """Take an image apart by scale.

    Parameters
    ----------
    image : `numpy.ndarray`
        Shape ``(height, width)``.

    Returns
    -------
    scales : `numpy.ndarray`
        Coefficients of the isotropic undecimated wavelet transform with B3
        splines (J.-L. Starck, F. Murtagh and J. Fadili 2010), finest first,
        shape ``(5, height, width)``; with the smooth rest they add up to the
        image.
    """
    scales = np.empty((NUM_SCALES, *image.shape), np.float32)
    smooth = image
    for scale in range(NUM_SCALES):
        taps = np.zeros(4 * 2**scale + 1)
        taps[:: 2**scale] = _B3_SPLINE
        smoother = smooth
        for axis in (0, 1):
            smoother = scipy.ndimage.convolve1d(smoother, taps, axis=axis, mode="constant")
        scales[scale] = smooth - smoother
        smooth = smoother
    return scales


def scale_residuals(residual: np.ndarray) -> np.ndarray:
    """Take a residual apart by scale, in units of the noise at each.

    Parameters
    ----------
    residual : `numpy.ndarray`
        In units of the standard deviation of white noise, shape ``(height,
        width)``.

    Returns
    -------
    scales : `numpy.ndarray`
        `starlet` coefficients in units of their standard deviation, shape
        ``(5, height, width)``.
    """
    point = np.zeros((8 * 2**NUM_SCALES + 1,) * 2, np.float32)
    point[len(point) // 2, len(point) // 2] = 1.0
    noise = np.sqrt((starlet(point) ** 2).sum(axis=(1, 2)))
    return starlet(residual) / noise[:, np.newaxis, np.newaxis]
