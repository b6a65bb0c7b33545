# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The PSF of a coadd: constant in cells, drawn at any position."""

from __future__ import annotations

__all__ = ("CellPsf",)

import numpy as np
import scipy.fft

from ..stack.subpixel import phase_ramp


class CellPsf:
    """A PSF that is constant in cells, at any position.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        Kernels by cell, centered on their middle pixel, shape ``(cells_y,
        cells_x, k, k)``, ``k`` odd.  Not finite or zero where there is none.
    cell_shape : `tuple` [`int`, `int`]
        Height and width of a cell, pixels.
    """

    def __init__(self, kernels: np.ndarray, cell_shape: tuple[int, int]) -> None:
        self.size = kernels.shape[-1]
        self.kernels = np.where(np.isfinite(kernels), kernels, 0.0)
        self.cell_shape = cell_shape
        # Padded: a kernel that is shifted by less than a pixel must not wrap
        # around.
        self._grid = scipy.fft.next_fast_len(self.size + 4, real=True)
        self._transfer = scipy.fft.rfft2(self.kernels, s=(self._grid, self._grid))

    def cell_of(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the cells of positions.

        Parameters
        ----------
        x, y : `numpy.ndarray`
            Positions, pixels, shape ``(n,)``.

        Returns
        -------
        i, j : `numpy.ndarray`
            Indices of the cells along y and x, same shape.  A position outside
            of the grid belongs to the nearest cell.
        """
        i = np.clip(np.rint(y).astype(int) // self.cell_shape[0], 0, self.kernels.shape[0] - 1)
        j = np.clip(np.rint(x).astype(int) // self.cell_shape[1], 0, self.kernels.shape[1] - 1)
        return i, j

    def stamps(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Draw sources of unit flux.

        Parameters
        ----------
        x, y : `numpy.ndarray`
            Positions, pixels, shape ``(n,)``.

        Returns
        -------
        stamps : `numpy.ndarray`
            Image of each source and its derivatives with respect to the
            source's x and y, per pixel, shape ``(n, 3, k, k)``, centered on the
            pixel nearest to the source.
        """
        transfer = self._transfer[self.cell_of(x, y)]
        fy = scipy.fft.fftfreq(self._grid)[:, np.newaxis]
        fx = scipy.fft.rfftfreq(self._grid)
        shifted = transfer * phase_ramp(y - np.rint(y), x - np.rint(x), self._grid)
        spectra = np.stack([shifted, -2j * np.pi * fx * shifted, -2j * np.pi * fy * shifted], axis=1)
        return scipy.fft.irfft2(spectra, s=(self._grid, self._grid))[..., : self.size, : self.size]
