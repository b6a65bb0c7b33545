# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSF kernels on the patch grid, and the width and shape of a kernel."""

from __future__ import annotations

__all__ = ("psf_kernel",)

import numpy as np

from lsst.images.psfs import PointSpreadFunction

from .lanczos import HALF_WIDTH, interpolate


def psf_kernel(
    psf: PointSpreadFunction, x: float, y: float, jacobian: np.ndarray, size: int = 25
) -> tuple[np.ndarray, float]:
    """Draw a PSF on the patch grid.

    The PSF's image on the detector is taken through the local affine
    transform by the interpolation that the exposure's pixels go through, so
    it is the image of a point source on the warped exposure: ``f`` of the
    papers (equation 1).

    Parameters
    ----------
    psf : `lsst.images.psfs.PointSpreadFunction`
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
    fraction : `float`
        That sum.

    Raises
    ------
    ValueError
        Raised if the model's image is not finite, or its sum is not positive.
    """
    image = psf.compute_kernel_image(x=float(x), y=float(y))
    stamp = np.asarray(image.array, dtype=np.float64)
    total = stamp.sum()
    if not np.isfinite(total) or total <= 0.0:
        raise ValueError(f"The PSF model's image at x={x:.1f}, y={y:.1f} has a sum of {total}.")
    # The stamp's outside is empty sky, not missing data: pad it by more than
    # the interpolation's footprint.
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
    return kernel, float(kernel.sum(dtype=np.float64))
