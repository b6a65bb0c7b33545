# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Stamps of stars as a linear function of the PSF kernels."""

from __future__ import annotations

__all__ = ("StarStamps",)

import dataclasses
import functools

import numpy as np

from ..stack.exposure_stack import ExposureStack
from ..stack.subpixel import shift_matrix
from .point_sources import PointSources


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StarStamps:
    """Stamps of stars on all exposures, with the stars' fluxes and positions.

    Parameters
    ----------
    image : `numpy.ndarray`
        Pixels, nJy, shape ``(s, n, k, k)``.
    weight : `numpy.ndarray`
        Inverse variance, nJy**-2, zero where a pixel is not to be used, same
        shape.
    variation : `numpy.ndarray`
        The factor by which the kernel in the star's cell differs from the
        exposure's mean kernel, same shape.
    dy, dx : `numpy.ndarray`
        Position of the star from the middle of the stamp, pixels, shape
        ``(s,)``.
    flux : `numpy.ndarray`
        Flux of the star, nJy, shape ``(s,)``.
    """

    image: np.ndarray
    weight: np.ndarray
    variation: np.ndarray
    dy: np.ndarray
    dx: np.ndarray
    flux: np.ndarray

    @classmethod
    def cut(cls, stack: ExposureStack, stars: PointSources, variation: np.ndarray) -> StarStamps:
        """Cut the stamps out of a stack.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures.
        stars : `PointSources`
            The stars.
        variation : `numpy.ndarray`
            The factor by which kernels differ between cells, shape ``(n,
            cells_y, cells_x, k, k)``.

        Returns
        -------
        stamps : `StarStamps`
            The stamps.
        """
        size, half = stack.kernel_size, stack.kernel_size // 2
        row, column = np.rint(stars.y).astype(int), np.rint(stars.x).astype(int)
        offset = np.arange(size) - half
        rows = (row[:, np.newaxis] + offset)[:, :, np.newaxis]
        columns = (column[:, np.newaxis] + offset)[:, np.newaxis]
        image = np.moveaxis(stack.masked_image(rows, columns), 0, 1).astype(np.float64)
        variance = np.moveaxis(stack.masked_variance(rows, columns), 0, 1).astype(np.float64)
        cells = (row // stack.cell_shape[0], column // stack.cell_shape[1])
        return cls(
            image=image,
            weight=stars.clear[:, np.newaxis] / variance,
            variation=np.moveaxis(variation[:, cells[0], cells[1]], 0, 1).astype(np.float64),
            dy=stars.y - row,
            dx=stars.x - column,
            flux=stars.flux.astype(np.float64),
        )

    def select(self, chosen: np.ndarray) -> StarStamps:
        """Return the stamps of some of the stars.

        Parameters
        ----------
        chosen : `numpy.ndarray`
            `bool`, shape ``(s,)``, or indices.

        Returns
        -------
        stamps : `StarStamps`
            Their stamps.
        """
        return StarStamps(**{f.name: getattr(self, f.name)[chosen] for f in dataclasses.fields(self)})

    def of_exposure(self, t: int, shift: np.ndarray) -> StarStamps:
        """Return the stamps of one exposure.

        Parameters
        ----------
        t : `int`
            Index of the exposure.
        shift : `numpy.ndarray`
            Position of its stars from those of the others, y and x, pixels,
            shape ``(2,)``.

        Returns
        -------
        stamps : `StarStamps`
            Its stamps, ``n = 1``.
        """
        return StarStamps(
            image=self.image[:, t : t + 1],
            weight=self.weight[:, t : t + 1],
            variation=self.variation[:, t : t + 1],
            dy=self.dy + shift[0],
            dx=self.dx + shift[1],
            flux=self.flux,
        )

    def predict(self, kernels: np.ndarray) -> np.ndarray:
        """Predict stars of unit flux.

        Parameters
        ----------
        kernels : `numpy.ndarray`
            The exposures' mean kernels, shape ``(n, k, k)``.

        Returns
        -------
        image : `numpy.ndarray`
            Shape ``(s, n, k, k)``.
        """
        matrix_y, matrix_x = self._matrices
        return matrix_y @ (kernels * self.variation) @ np.swapaxes(matrix_x, -1, -2)

    def back_project(self, image: np.ndarray) -> np.ndarray:
        """Apply the adjoint of `predict`.

        Parameters
        ----------
        image : `numpy.ndarray`
            Shape ``(s, n, k, k)``.

        Returns
        -------
        kernels : `numpy.ndarray`
            Shape ``(n, k, k)``.
        """
        matrix_y, matrix_x = self._matrices
        return ((np.swapaxes(matrix_y, -1, -2) @ image @ matrix_x) * self.variation).sum(axis=0)

    @functools.cached_property
    def _matrices(self) -> np.ndarray:
        """The matrices that shift kernels to the stars in y and in x, shape
        ``(2, s, 1, k, k)``.
        """
        return shift_matrix(np.stack([self.dy, self.dx]), self.image.shape[-1])[:, :, np.newaxis]

    def robust_weight(self, residual: np.ndarray, delta: float) -> np.ndarray:
        """Return the weights that a Huber loss gives to pixels.

        Parameters
        ----------
        residual : `numpy.ndarray`
            Image minus prediction, nJy, shape ``(s, n, k, k)``.
        delta : `float`
            Residual in units of sigma beyond which the loss is linear.

        Returns
        -------
        weight : `numpy.ndarray`
            ``m / v * min(1, delta / abs(r))``, nJy**-2, same shape.
        """
        size = np.abs(residual) * np.sqrt(self.weight)
        return self.weight * np.minimum(1.0, delta / np.maximum(size, delta))
