# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSF models as kernels on the patch grid."""

from __future__ import annotations

__all__ = ("KernelImages", "psf_kernel", "resampled_psf_kernel")

from typing import Protocol

import numpy as np

from lsst.images import Box, Image

from .lanczos import HALF_WIDTH, interpolate

# Sums of a PSF's image up to this are the fraction of the flux in it, to which
# interpolation may have added a bit; larger ones mean that it is not normalized.
_MAX_SUM = 1.01


class KernelImages(Protocol):
    """The part of a PSF model that kernels are drawn from:
    `lsst.images.psfs.PointSpreadFunction` without its bounds.
    """

    def compute_kernel_image(self, *, x: float, y: float) -> Image:
        """Draw the model at a position, centered on pixel (0, 0)."""


def resampled_psf_kernel(
    psf: KernelImages, x: float, y: float, jacobian: np.ndarray, size: int = 25
) -> np.ndarray:
    """Draw a detector's PSF on the patch grid.

    The PSF's image on the detector is resampled through the local affine
    transform by the interpolation that is applied to the exposure's pixels.
    It is therefore the image of a point source on the resampled exposure:
    ``f`` of the papers (equation 1).

    Parameters
    ----------
    psf : `KernelImages`
        PSF model of the detector.
    x, y : `float`
        Where to evaluate it, pixels of the detector.
    jacobian : `numpy.ndarray`
        Derivative of the detector's pixel coordinates by the patch's, shape
        ``(2, 2)``: rows are x and y of the detector, columns x and y of the
        patch.
    size : `int`, optional
        Height and width of the kernel, odd, pixels of the patch.

    Returns
    -------
    kernel : `numpy.ndarray`
        Kernel centered on its middle pixel, `numpy.float32`, shape ``(size,
        size)``, normalized to the total flux of the model's own image: its
        sum is the fraction of the flux that falls inside of it.

    Raises
    ------
    ValueError
        Raised if the model's image is not finite, or its sum is not positive.
    """
    image = psf.compute_kernel_image(x=float(x), y=float(y))
    stamp = np.asarray(image.array, dtype=np.float64)
    total = stamp.sum()
    _require_flux(total, x, y)
    # The stamp's outside is empty sky, not missing data: it is padded by more
    # than the half width of the interpolation.
    border = HALF_WIDTH + 1
    stamp = np.pad(stamp / total, border)
    offset = np.arange(size) - size // 2
    jacobian = np.asarray(jacobian, dtype=np.float64)
    x_stamp = jacobian[0, 0] * offset + jacobian[0, 1] * offset[:, np.newaxis]
    y_stamp = jacobian[1, 0] * offset + jacobian[1, 1] * offset[:, np.newaxis]
    kernel, _ = interpolate(
        stamp,
        np.ones(stamp.shape, dtype=bool),
        x_stamp - image.bbox.x.start + border,
        y_stamp - image.bbox.y.start + border,
    )
    kernel *= abs(np.linalg.det(jacobian))
    return kernel


def psf_kernel(psf: KernelImages, x: float, y: float, size: int = 25) -> np.ndarray:
    """Draw a PSF that is on the patch grid already.

    Parameters
    ----------
    psf : `KernelImages`
        PSF model in pixels of the patch.
    x, y : `float`
        Where to evaluate it, pixels of the tract.
    size : `int`, optional
        Height and width of the kernel, odd, pixels of the patch.

    Returns
    -------
    kernel : `numpy.ndarray`
        The model's image, cut or padded, `numpy.float32`, shape ``(size,
        size)``.  Its sum is the fraction of the flux that falls inside of it.

    Raises
    ------
    ValueError
        Raised if the model's image is not finite, or its sum is not positive.
    """
    stamp = psf.compute_kernel_image(x=float(x), y=float(y))
    total = float(stamp.array.sum(dtype=np.float64))
    _require_flux(total, x, y)
    kernel = np.zeros((size, size), dtype=np.float32)
    box = Box.from_shape((size, size), start=(-(size // 2), -(size // 2)))
    common = box.intersection(stamp.bbox)
    kernel[common.slice_within(box)] = stamp.array[common.slice_within(stamp.bbox)]
    return kernel / total if total > _MAX_SUM else kernel


def _require_flux(total: float, x: float, y: float) -> None:
    if not np.isfinite(total) or total <= 0.0:
        raise ValueError(f"The PSF model's image at x={x:.1f}, y={y:.1f} has a sum of {total}.")
