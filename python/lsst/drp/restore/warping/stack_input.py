# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A stack of exposures and the datasets it was made from."""

from __future__ import annotations

__all__ = ("StackInput", "StackedInputs", "kernel_moments_by_cell")

import dataclasses

import numpy as np

from lsst.images import Polygon

from ..stack.exposure_stack import ExposureStack
from ..stack.kernel_shape import kernel_moments


def kernel_moments_by_cell(kernels: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Measure the second moments of an exposure's kernels.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        Kernels, shape ``(cells_y, cells_x, k, k)``.
    used : `numpy.ndarray` of `bool`
        Cells to measure, shape ``(cells_y, cells_x)``.

    Returns
    -------
    moments : `numpy.ndarray`
        Moments xx, yy and xy, pixels**2, shape ``(3, cells_y, cells_x)``; NaN
        in other cells, and where the measurement fails.
    """
    moments = np.full((3, *used.shape), np.nan)
    for i, j in np.argwhere(used):
        moments[:, i, j] = kernel_moments(kernels[i, j])
    return moments


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StackInput:
    """One visit image or warp in a stack, and its contribution to each cell.

    Parameters
    ----------
    instrument, physical_filter : `str`
        Names of the instrument and the filter.
    visit, detector : `int`
        IDs of the visit and the detector; the latter is
        ``WarpInput.ALL_DETECTORS`` for a warp.
    day_obs : `int`
        Observing night as YYYYMMDD, 0 if not known.
    exposure : `int`
        Index of the visit's exposure in the stack.
    polygon : `lsst.images.Polygon`
        Outline of its overlap with the patch, pixels of the tract.
    overlap_fraction : `numpy.ndarray`
        Fraction of each cell that it covers, shape ``(cells_y, cells_x)``.
    overlaps_center : `numpy.ndarray` of `bool`
        Whether it covers the center of each cell, same shape.
    unmasked_fraction : `numpy.ndarray`
        Fraction of the pixels of each cell that are its good pixels, same
        shape.
    weight : `numpy.ndarray`
        Inverse of the median variance of those pixels, nJy**-2, same shape;
        zero where there are none.
    kernel_fraction : `numpy.ndarray`
        Fraction of the PSF's flux inside of the kernel, same shape; NaN where
        there are no good pixels.
    psf_xx, psf_yy, psf_xy : `numpy.ndarray`
        Second moments of the kernel, pixels**2, same shape; NaN where there
        are no good pixels or the measurement fails.
    """

    instrument: str
    visit: int
    detector: int
    physical_filter: str
    day_obs: int
    exposure: int
    polygon: Polygon
    overlap_fraction: np.ndarray
    overlaps_center: np.ndarray
    unmasked_fraction: np.ndarray
    weight: np.ndarray
    kernel_fraction: np.ndarray
    psf_xx: np.ndarray
    psf_yy: np.ndarray
    psf_xy: np.ndarray

    def with_kernels(self, kernels: np.ndarray) -> StackInput:
        """Describe the same pixels with other PSF kernels.

        Parameters
        ----------
        kernels : `numpy.ndarray`
            The kernels of its exposure, shape ``(cells_y, cells_x, k, k)``.

        Returns
        -------
        stack_input : `StackInput`
            The description.
        """
        used = self.weight > 0.0
        moments = kernel_moments_by_cell(kernels, used)
        fraction = np.full(self.weight.shape, np.nan)
        for i, j in np.argwhere(used):
            fraction[i, j] = kernels[i, j].sum(dtype=np.float64)
        return dataclasses.replace(
            self, kernel_fraction=fraction, psf_xx=moments[0], psf_yy=moments[1], psf_xy=moments[2]
        )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StackedInputs:
    """The stack of a patch and the datasets it was made from.

    Parameters
    ----------
    stack : `ExposureStack`
        One exposure per visit, ordered by instrument and visit.
    inputs : `list` [`StackInput`]
        The visit images or warps in it.
    seeing : `numpy.ndarray`
        Full width at half maximum of each exposure's mean kernel, pixels of
        the patch, shape ``(n,)``.
    dropped : `list` [`tuple` [`str`, `str`]]
        Inputs that cannot be used, and why.
    inexact_psf : `numpy.ndarray` of `bool` or `None`, optional
        Pixels of which the PSF is not that of their cell, shape of the patch,
        if the stack is a coadd.
    """

    stack: ExposureStack
    inputs: list[StackInput]
    seeing: np.ndarray
    dropped: list[tuple[str, str]]
    inexact_psf: np.ndarray | None = None
