# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""An image with its noise and its PSF, as sources are found and measured on."""

from __future__ import annotations

__all__ = ("SourceImage", "nearest_pixel")

import dataclasses

import numpy as np
from scipy.signal import fftconvolve


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SourceImage:
    """An image with its noise and its PSF.

    Parameters
    ----------
    image, variance : `numpy.ndarray`
        Flux per pixel, nJy, and its variance, nJy**2, shape ``(height,
        width)``; not finite where there is no data.
    kernels : `numpy.ndarray`
        PSF by cell, shape ``(cells_y, cells_x, k, k)``; zero or not finite in
        cells that have none.
    cell_shape : `tuple` [`int`, `int`]
        Height and width of a cell, pixels.
    """

    image: np.ndarray
    variance: np.ndarray
    kernels: np.ndarray
    cell_shape: tuple[int, int]

    @property
    def valid(self) -> np.ndarray:
        """Pixels with data, `bool`, shape ``(height, width)``
        (`numpy.ndarray`).
        """
        return np.isfinite(self.image) & np.isfinite(self.variance) & (self.variance > 0)

    def mean_kernel(self) -> np.ndarray | None:
        """Return the average PSF of the cells, shape ``(k, k)``
        (`numpy.ndarray`), or `None` if no cell has one.
        """
        kernels = self.kernels.reshape(-1, *self.kernels.shape[-2:])
        kernels = kernels[np.isfinite(kernels).all(axis=(1, 2)) & (kernels != 0).any(axis=(1, 2))]
        return kernels.mean(axis=0, dtype=np.float64) if len(kernels) else None

    def sky_width(self) -> float:
        """Measure the width of the distribution of the signal-to-noise ratio of
        point sources over all pixels.

        Returns
        -------
        width : `float`
            Robust standard deviation of the half below the median; NaN if
            there is no PSF or no data.  Faint sources make it larger than 1
            even if the variance is right, by the same factor in all images of
            the same sky.
        """
        kernel, valid = self.mean_kernel(), self.valid
        if kernel is None or not valid.any():
            return np.nan
        kernel = kernel[::-1, ::-1]
        flux = fftconvolve(np.where(valid, self.image, 0.0), kernel, mode="same")
        noise = fftconvolve(np.where(valid, self.variance, 0.0), kernel**2, mode="same")
        ratio = flux[valid] / np.sqrt(np.maximum(noise[valid], np.finfo(np.float32).tiny))
        median = np.median(ratio)
        return float(1.4826 * np.median(median - ratio[ratio <= median]))


def nearest_pixel(x: np.ndarray, y: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Find the pixels nearest to positions.

    Parameters
    ----------
    x, y : `numpy.ndarray`
        Positions, pixels, shape ``(n,)``.
    shape : `tuple` [`int`, `int`]
        Height and width of the image.

    Returns
    -------
    row, column : `numpy.ndarray`
        Indices of pixels inside of the image, same shape.
    """
    row = np.clip(np.rint(y).astype(int), 0, shape[0] - 1)
    return row, np.clip(np.rint(x).astype(int), 0, shape[1] - 1)
