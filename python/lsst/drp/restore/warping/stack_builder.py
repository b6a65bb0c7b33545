# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The arrays of a stack while it is filled, and what went into it."""

from __future__ import annotations

__all__ = ("StackBuilder", "StackInput")

import dataclasses

import numpy as np

from lsst.images import Polygon

from ..stack.exposure_stack import ExposureStack
from ..stack.memory_map import release, scratch_array
from .cell_kernels import CellKernels
from .detector_overlap import Footprint
from .patch_geometry import PatchGeometry
from .psf_drawing import kernel_moments
from .visit_input import VisitInput
from .warp import Warp
from .warp_input import WarpInput


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StackInput:
    """One visit image that went into a stack, and what it gave to each cell.

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
        Index of the visit's plane in the stack.
    polygon : `lsst.images.Polygon`
        Outline of its overlap with the patch, pixels of the tract.
    overlap_fraction : `numpy.ndarray`
        Fraction of each cell that it covers, shape ``(cells_y, cells_x)``.
    overlaps_center : `numpy.ndarray` of `bool`
        Whether it covers the centre of each cell, same shape.
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
            The kernels of its plane, shape ``(cells_y, cells_x, k, k)``.

        Returns
        -------
        stack_input : `StackInput`
            The description.
        """
        moments = np.full((3, *self.weight.shape), np.nan)
        fraction = np.full(self.weight.shape, np.nan)
        for i, j in np.argwhere(self.weight > 0.0):
            moments[:, i, j] = kernel_moments(kernels[i, j])
            fraction[i, j] = kernels[i, j].sum(dtype=np.float64)
        return dataclasses.replace(
            self, kernel_fraction=fraction, psf_xx=moments[0], psf_yy=moments[1], psf_xy=moments[2]
        )


class StackBuilder:
    """The arrays of a stack while its planes are filled one by one.

    Parameters
    ----------
    geometry : `PatchGeometry`
        The pixel grid of the patch.
    n : `int`
        Largest number of planes.
    kernel_size : `int`
        Height and width of the PSF kernels.
    on_disk : `bool`, optional
        Whether to keep the pixels in a temporary file instead of memory.
    """

    def __init__(self, geometry: PatchGeometry, n: int, kernel_size: int, *, on_disk: bool = False) -> None:
        grid = geometry.patch.cells
        cells = (grid.grid_size.i, grid.grid_size.j)
        self._bbox = geometry.outer_bbox
        self._cell_shape = (grid.cell_shape.y, grid.cell_shape.x)
        make = scratch_array if on_disk else np.zeros
        self._image = make((n, *self._bbox.shape), np.float32)
        self._variance = make((n, *self._bbox.shape), np.float32)
        self._good = make((n, *self._bbox.shape), np.bool_)
        for plane in self._variance:
            plane[:] = np.inf
            release(self._variance)
        self._kernels = np.zeros((n, *cells, kernel_size, kernel_size), dtype=np.float32)
        self._correlation = np.ones((n, *cells), dtype=np.float32)
        # Of the current plane, by cell: the sum of the inverse correlation over its good pixels.
        self._inverse_correlation = np.zeros(cells)
        # Good pixels, by cell, of the detector whose kernel the cell has.
        self._owner_count = np.zeros(cells, dtype=int)
        self._names: list[str] = []
        self._pending: list[StackInput] = []
        self.inputs: list[StackInput] = []

    @property
    def n_exposures(self) -> int:
        """Number of planes kept so far (`int`)."""
        return len(self._names)

    @property
    def good_fraction(self) -> float:
        """Fraction of good pixels in the current plane (`float`)."""
        return float(self._good[self.n_exposures].mean())

    def _by_cell(self, plane: np.ndarray) -> np.ndarray:
        """View a plane as ``(cells_y, height, cells_x, width)``."""
        height, width = self._cell_shape
        return plane.reshape(plane.shape[0] // height, height, plane.shape[1] // width, width)

    def add(
        self,
        visit_input: VisitInput | WarpInput,
        footprint: Footprint,
        warped: Warp,
        kernels: CellKernels,
    ) -> None:
        """Add one detector, or all of a visit's, to the current plane.

        Parameters
        ----------
        visit_input : `VisitInput` or `WarpInput`
            The visit image or warp.
        footprint : `Footprint`
            Where it falls on the patch.
        warped : `Warp`
            Its pixels on the patch's grid.
        kernels : `CellKernels`
            Its PSF kernels.
        """
        n = self.n_exposures
        target = warped.bbox.slice_within(self._bbox)
        mine = np.zeros(self._bbox.shape, dtype=bool)
        # Should detectors of a visit overlap, the first has the pixel.
        mine[target] = warped.good & ~self._good[n][target]
        self._by_cell(mine)[:] &= kernels.exists[:, np.newaxis, :, np.newaxis]
        part = mine[target]
        self._image[n][target][part] = warped.image[part]
        self._variance[n][target][part] = warped.variance[part]
        self._good[n] |= mine

        inverse_correlation = np.zeros(self._bbox.shape, dtype=np.float32)
        inverse_correlation[target][part] = warped.inverse_correlation[part]
        self._inverse_correlation += self._by_cell(inverse_correlation).sum(axis=(1, 3), dtype=np.float64)
        count = self._by_cell(mine).sum(axis=(1, 3))
        best = count > self._owner_count
        self._kernels[n][best] = kernels.array[best]
        self._owner_count = np.maximum(count, self._owner_count)
        self._pending.append(self._stack_input(visit_input, footprint, kernels, mine, count))

    def _stack_input(
        self,
        visit_input: VisitInput | WarpInput,
        footprint: Footprint,
        kernels: CellKernels,
        mine: np.ndarray,
        count: np.ndarray,
    ) -> StackInput:
        """Describe what a detector gave to each cell."""
        variance, pixels = self._by_cell(self._variance[self.n_exposures]), self._by_cell(mine)
        weight = np.zeros(count.shape)
        moments = np.full((3, *count.shape), np.nan)
        for i, j in np.argwhere(count):
            weight[i, j] = 1.0 / np.median(variance[i, :, j][pixels[i, :, j]])
            moments[:, i, j] = kernel_moments(kernels.array[i, j])
        return StackInput(
            instrument=visit_input.instrument,
            visit=visit_input.visit,
            detector=visit_input.detector,
            physical_filter=visit_input.physical_filter,
            day_obs=visit_input.day_obs,
            exposure=self.n_exposures,
            polygon=footprint.polygon,
            overlap_fraction=footprint.overlap_fraction,
            overlaps_center=footprint.overlaps_center,
            unmasked_fraction=count / (self._cell_shape[0] * self._cell_shape[1]),
            weight=weight,
            kernel_fraction=np.where(count > 0, kernels.fraction, np.nan),
            psf_xx=moments[0],
            psf_yy=moments[1],
            psf_xy=moments[2],
        )

    def keep(self, name: str) -> None:
        """Go on to the next plane.

        Parameters
        ----------
        name : `str`
            Label of this one.
        """
        n = self.n_exposures
        count = self._by_cell(self._good[n]).sum(axis=(1, 3))
        np.divide(count, self._inverse_correlation, out=self._correlation[n], where=count > 0)
        self.inputs += self._pending
        self._names.append(name)
        self._reset()

    def discard(self) -> None:
        """Empty the current plane."""
        n = self.n_exposures
        self._image[n], self._variance[n], self._good[n], self._kernels[n] = 0.0, np.inf, False, 0.0
        self._reset()

    def _reset(self) -> None:
        """Forget what was summed over the current plane."""
        self._pending = []
        self._owner_count[:] = 0
        self._inverse_correlation[:] = 0.0
        release(self._image, self._variance, self._good)

    def stack(self, factor: int = 1) -> ExposureStack:
        """Return the planes that were kept.

        Parameters
        ----------
        factor : `int`, optional
            Latent pixels along each axis in a pixel of the patch.

        Returns
        -------
        stack : `ExposureStack`
            The planes.
        """
        n = self.n_exposures
        return ExposureStack(
            image=self._image[:n],
            variance=self._variance[:n],
            good=self._good[:n],
            kernels=self._kernels[:n],
            correlation=self._correlation[:n],
            cell_shape=self._cell_shape,
            names=tuple(self._names),
            factor=factor,
        )
