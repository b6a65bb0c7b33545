# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The arrays of a stack while it is filled, and what went into it."""

from __future__ import annotations

__all__ = ("StackBuilder",)


import numpy as np

from ..stack.exposure_stack import ExposureStack
from ..stack.kernel_shape import kernel_moments
from ..stack.memory_map import release, scratch_array
from .cell_kernels import CellKernels
from .detector_overlap import DetectorOverlap
from .patch_geometry import PatchGeometry
from .stack_input import StackInput
from .visit_input import VisitInput
from .warp import Warp
from .warp_input import WarpInput


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
        footprint: DetectorOverlap,
        warped: Warp,
        kernels: CellKernels,
    ) -> None:
        """Add one detector, or all of a visit's, to the current plane.

        Parameters
        ----------
        visit_input : `VisitInput` or `WarpInput`
            The visit image or warp.
        footprint : `DetectorOverlap`
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
        footprint: DetectorOverlap,
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

    def stack(self, oversampling: int = 1) -> ExposureStack:
        """Return the planes that were kept.

        Parameters
        ----------
        oversampling : `int`, optional
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
            oversampling=oversampling,
        )
