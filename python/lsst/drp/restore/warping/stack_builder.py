# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The arrays of a stack while it is filled, exposure by exposure."""

from __future__ import annotations

__all__ = ("PlacedInput", "StackBuilder")

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..stack.exposure_stack import ExposureStack
from ..stack.memory_map import release, scratch_array
from .cell_kernels import CellKernels
from .detector_overlap import DetectorOverlap
from .handle_input import HandleInput
from .patch_geometry import PatchGeometry
from .stack_input import StackInput, kernel_moments_by_cell
from .warp import Warp


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PlacedInput:
    """A visit image or a warp on the pixel grid of a patch.

    Parameters
    ----------
    overlap : `DetectorOverlap`
        Its overlap with the patch.
    warp : `Warp`
        Its pixels on the patch's grid.
    kernels : `CellKernels`
        Its PSF kernels.
    inputs : `~collections.abc.Sequence` [`StackInput`] or `None`, optional
        The visit images that it was made of, if it is a coadd.
    inexact_psf : `numpy.ndarray` of `bool` or `None`, optional
        Pixels of the patch of which the PSF is not that of their cell.
    """

    overlap: DetectorOverlap
    warp: Warp
    kernels: CellKernels
    inputs: Sequence[StackInput] | None = None
    inexact_psf: np.ndarray | None = None


class StackBuilder:
    """The arrays of a stack while it is filled, exposure by exposure.

    Inputs are added to the current exposure, which is then kept or discarded.

    Parameters
    ----------
    geometry : `PatchGeometry`
        The pixel grid of the patch.
    n : `int`
        Largest number of exposures.
    kernel_size : `int`
        Height and width of the PSF kernels, pixels.
    on_disk : `bool`, optional
        Whether to keep the pixels in temporary files instead of memory.

    Raises
    ------
    OSError
        Raised if there is no room for these files.
    """

    def __init__(self, geometry: PatchGeometry, n: int, kernel_size: int, *, on_disk: bool = False) -> None:
        cells = geometry.n_cells
        self._geometry = geometry
        self._bbox = geometry.outer_bbox
        make = scratch_array if on_disk else np.zeros
        self._image = make((n, *self._bbox.shape), np.float32)
        self._variance = make((n, *self._bbox.shape), np.float32)
        self._good = make((n, *self._bbox.shape), np.bool_)
        for plane in self._variance:
            plane[:] = np.inf
            release(self._variance)
        self._kernels = np.zeros((n, *cells, kernel_size, kernel_size), dtype=np.float32)
        self._correlation = np.ones((n, *cells), dtype=np.float32)
        # Sum of the inverse correlation over the good pixels of the current exposure, by cell.
        self._inverse_correlation = np.zeros(cells)
        # Number of good pixels, by cell, of the detector whose kernel the cell has.
        self._owner_count = np.zeros(cells, dtype=int)
        self._names: list[str] = []
        self._pending: list[StackInput] = []
        self.inputs: list[StackInput] = []
        self.inexact_psf: np.ndarray | None = None

    @property
    def n_exposures(self) -> int:
        """Number of exposures kept so far (`int`)."""
        return len(self._names)

    @property
    def good_fraction(self) -> float:
        """Fraction of good pixels in the current exposure (`float`)."""
        return float(self._good[self.n_exposures].mean())

    def add(self, visit_input: HandleInput, placed: PlacedInput) -> None:
        """Add a detector, or all detectors of a visit, to the current
        exposure.

        Parameters
        ----------
        visit_input : `HandleInput`
            The visit image or warp.
        placed : `PlacedInput`
            The same on the patch's grid.
        """
        # Reading these may fail, and nothing must have been added by then.
        identity: dict[str, Any] = {}
        if placed.inputs is None:
            identity = {
                name: getattr(visit_input, name)
                for name in ("instrument", "visit", "detector", "physical_filter", "day_obs")
            }
        n, by_cell = self.n_exposures, self._geometry.by_cell
        warp, kernels = placed.warp, placed.kernels
        target = warp.bbox.slice_within(self._bbox)
        mine = np.zeros(self._bbox.shape, dtype=bool)
        # Where detectors of a visit overlap, the first has the pixel.
        mine[target] = warp.good & ~self._good[n][target]
        by_cell(mine)[:] &= kernels.exists[:, np.newaxis, :, np.newaxis]
        part = mine[target]
        self._image[n][target][part] = warp.image[part]
        self._variance[n][target][part] = warp.variance[part]
        self._good[n] |= mine

        inverse_correlation = np.zeros(self._bbox.shape, dtype=np.float32)
        inverse_correlation[target][part] = warp.inverse_correlation[part]
        self._inverse_correlation += by_cell(inverse_correlation).sum(axis=(1, 3), dtype=np.float64)
        count = by_cell(mine).sum(axis=(1, 3))
        best = count > self._owner_count
        self._kernels[n][best] = kernels.array[best]
        self._owner_count = np.maximum(count, self._owner_count)
        if placed.inputs is None:
            self._pending.append(self._stack_input(identity, placed, mine, count))
        else:
            self._pending += placed.inputs
            self.inexact_psf = placed.inexact_psf

    def _stack_input(
        self, identity: dict[str, Any], placed: PlacedInput, mine: np.ndarray, count: np.ndarray
    ) -> StackInput:
        """Describe the contribution of an input, its pixels ``mine``, of which
        each cell has ``count``.
        """
        variance, pixels = map(self._geometry.by_cell, (self._variance[self.n_exposures], mine))
        weight = np.zeros(count.shape)
        for i, j in np.argwhere(count):
            weight[i, j] = 1.0 / np.median(variance[i, :, j][pixels[i, :, j]])
        moments = kernel_moments_by_cell(placed.kernels.array, count > 0)
        return StackInput(
            **identity,
            exposure=self.n_exposures,
            polygon=placed.overlap.polygon,
            overlap_fraction=placed.overlap.overlap_fraction,
            overlaps_center=placed.overlap.overlaps_center,
            unmasked_fraction=count / np.prod(self._geometry.cell_shape),
            weight=weight,
            kernel_fraction=np.where(count > 0, placed.kernels.fraction, np.nan),
            psf_xx=moments[0],
            psf_yy=moments[1],
            psf_xy=moments[2],
        )

    def keep(self, name: str) -> None:
        """Keep the current exposure and go on to the next.

        Parameters
        ----------
        name : `str`
            Label of this one.
        """
        n = self.n_exposures
        count = self._geometry.by_cell(self._good[n]).sum(axis=(1, 3))
        np.divide(count, self._inverse_correlation, out=self._correlation[n], where=count > 0)
        self.inputs += self._pending
        self._names.append(name)
        self._reset()

    def discard(self) -> None:
        """Empty the current exposure."""
        n = self.n_exposures
        self._image[n], self._variance[n], self._good[n], self._kernels[n] = 0.0, np.inf, False, 0.0
        self._reset()

    def _reset(self) -> None:
        """Reset the sums over the current exposure."""
        self._pending = []
        self._owner_count[:] = 0
        self._inverse_correlation[:] = 0.0
        release(self._image, self._variance, self._good)

    def stack(self, oversampling: int = 1) -> ExposureStack:
        """Return the exposures that were kept.

        Parameters
        ----------
        oversampling : `int`, optional
            Latent pixels along each axis in a pixel of the patch.

        Returns
        -------
        stack : `ExposureStack`
            The exposures.
        """
        n = self.n_exposures
        return ExposureStack(
            image=self._image[:n],
            variance=self._variance[:n],
            good=self._good[:n],
            kernels=self._kernels[:n],
            correlation=self._correlation[:n],
            cell_shape=self._geometry.cell_shape,
            names=tuple(self._names),
            oversampling=oversampling,
        )
