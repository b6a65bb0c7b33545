# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Images of the sky that the methods return."""

from __future__ import annotations

__all__ = ("Cutout", "SkyImage", "gaussian_cells")

import dataclasses

import numpy as np

from lsst.drp.restore.restoration.target_psf import TARGET_FWHM
from lsst.drp.restore.stack.kernel_shape import fwhm, gaussian_kernel

# Relative difference of two widths that are the same.
_TOLERANCE = 0.03


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cutout:
    """A square part of the patch.

    Parameters
    ----------
    row, column : `int`
        First pixel.
    size : `int`
        Height and width, pixels.
    """

    row: int
    column: int
    size: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The pixels (`tuple` [`slice`, `slice`])."""
        return slice(self.row, self.row + self.size), slice(self.column, self.column + self.size)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SkyImage:
    """An image of the sky, with its stated variance and PSF.

    Parameters
    ----------
    image : `numpy.ndarray`
        Flux per pixel, nJy, shape ``(height, width)``; NaN where the method
        has no result.
    variance : `numpy.ndarray` or `None`
        Its variance, nJy**2, if it states one.
    kernels : `numpy.ndarray` or `None`
        Its PSF by cell, shape ``(cells_y, cells_x, k, k)``, if it states one,
        normalized to the flux of a source.
    """

    image: np.ndarray
    variance: np.ndarray | None = None
    kernels: np.ndarray | None = None

    @property
    def stated_fwhm(self) -> float:
        """FWHM of the stated PSF, pixels (`float`); 0 if there is none."""
        return 0.0 if self.kernels is None else fwhm(self.kernels.mean(axis=(0, 1)))

    @property
    def at_target(self) -> bool:
        """Whether the stated PSF is the target Gaussian (`bool`)."""
        return abs(self.stated_fwhm / TARGET_FWHM - 1) < _TOLERANCE


def gaussian_cells(fwhm: float, grid: tuple[int, int], size: int) -> np.ndarray:
    """Make the kernels of an image whose PSF is the same Gaussian everywhere.

    Parameters
    ----------
    fwhm : `float`
        Full width at half maximum, pixels.
    grid : `tuple` [`int`, `int`]
        Number of cells along y and x.
    size : `int`
        Height and width of a kernel, pixels.

    Returns
    -------
    kernels : `numpy.ndarray`
        Kernels of sum 1, shape ``(cells_y, cells_x, size, size)``.
    """
    return np.broadcast_to(gaussian_kernel(fwhm, size), (*grid, size, size))
