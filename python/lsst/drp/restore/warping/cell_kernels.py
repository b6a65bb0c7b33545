# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The PSF kernels of one input, by cell of the patch."""

from __future__ import annotations

__all__ = ("CellKernels",)

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from lsst.images import Box
from lsst.images.psfs import PointSpreadFunction

from ..errors import describe_error
from ..stack.kernel_shape import gaussian_kernel
from .detector_overlap import DetectorOverlap
from .patch_geometry import PatchGeometry
from .pixel_map import PixelMap
from .psf_drawing import KernelImages, psf_kernel, resampled_psf_kernel
from .read_errors import is_software_error

# A cell and the function that draws its kernel.
type _Drawing = tuple[tuple[int, int], Callable[[], np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class CellKernels:
    """PSF kernels of one visit image or warp by cell.

    Parameters
    ----------
    array : `numpy.ndarray`
        Kernels, `numpy.float32`, shape ``(cells_y, cells_x, k, k)``; zero where
        there are none.
    fraction : `numpy.ndarray`
        Their sums, the fractions of the flux inside of them, shape ``(cells_y,
        cells_x)``.
    failures : `list` [`str`]
        For each cell that the input covers, but that has no kernel, why not.
    damaged : `bool`, optional
        Whether the PSF model raised an error in one of them.
    """

    array: np.ndarray
    fraction: np.ndarray
    failures: list[str]
    damaged: bool = False

    @property
    def exists(self) -> np.ndarray:
        """Whether there is a kernel in each cell (`numpy.ndarray` of `bool`,
        shape ``(cells_y, cells_x)``).
        """
        return self.fraction > 0.0

    @classmethod
    def from_detector(
        cls,
        psf: PointSpreadFunction,
        overlap: DetectorOverlap,
        pixel_map: PixelMap,
        *,
        size: int,
        max_loss: float,
    ) -> CellKernels:
        """Draw a detector's PSF in each cell that its image covers.

        Parameters
        ----------
        psf : `lsst.images.psfs.PointSpreadFunction`
            PSF model.  It is evaluated at the centroid of the covered part of
            each cell.
        overlap : `DetectorOverlap`
            Overlap of the detector and the patch.
        pixel_map : `PixelMap`
            Maps the patch to the detector.
        size : `int`
            Height and width of the kernels, odd, pixels.
        max_loss : `float`
            Largest fraction of the flux outside of a kernel.

        Returns
        -------
        kernels : `CellKernels`
            The kernels.
        """

        def draw(x: float, y: float, jacobian: np.ndarray) -> np.ndarray:
            return resampled_psf_kernel(psf, *_clamped(x, y, psf.bounds.bbox), jacobian, size)

        def drawings() -> Iterator[_Drawing]:
            for i, j in np.argwhere(overlap.overlap_fraction > 0.0):
                x_patch, y_patch = overlap.x[i, j], overlap.y[i, j]
                x, y = (float(value) for value in pixel_map.exact(x_patch, y_patch))
                yield (i, j), functools.partial(draw, x, y, pixel_map.jacobian(x_patch, y_patch))

        return cls._draw(drawings(), overlap.overlap_fraction.shape, size, max_loss)

    @classmethod
    def from_warp(
        cls, psf: KernelImages, good: np.ndarray, geometry: PatchGeometry, *, size: int, max_loss: float
    ) -> CellKernels:
        """Draw a warp's PSF in each cell that has good pixels.

        Parameters
        ----------
        psf : `KernelImages`
            PSF model on the patch's grid.  It is evaluated at the good pixel
            of each cell that is nearest to its center: it may not exist
            elsewhere.
        good : `numpy.ndarray` of `bool`
            Good pixels, shape of the patch.
        geometry : `PatchGeometry`
            The pixel grid of the patch.
        size : `int`
            Height and width of the kernels, odd, pixels.
        max_loss : `float`
            Largest fraction of the flux outside of a kernel.

        Returns
        -------
        kernels : `CellKernels`
            The kernels.
        """
        start = geometry.outer_bbox.start
        height, width = geometry.cell_shape

        def drawings() -> Iterator[_Drawing]:
            for i, j in np.ndindex(geometry.n_cells):
                y, x = np.nonzero(good[i * height : (i + 1) * height, j * width : (j + 1) * width])
                if y.size:
                    nearest = np.argmin(np.hypot(y - 0.5 * (height - 1), x - 0.5 * (width - 1)))
                    x_tract = float(start.x + j * width + x[nearest])
                    y_tract = float(start.y + i * height + y[nearest])
                    yield (i, j), functools.partial(psf_kernel, psf, x_tract, y_tract, size)

        return cls._draw(drawings(), geometry.n_cells, size, max_loss)

    @classmethod
    def _draw(
        cls, drawings: Iterator[_Drawing], n_cells: tuple[int, ...], size: int, max_loss: float
    ) -> CellKernels:
        array = np.zeros((*n_cells, size, size), dtype=np.float32)
        fraction = np.zeros(n_cells)
        failures: list[str] = []
        damaged = False
        for cell, draw in drawings:
            # A model is data from elsewhere and may raise anything but errors of software.
            try:
                kernel = draw()
            except Exception as err:
                if is_software_error(err):
                    raise
                failures.append(f"its PSF fails ({describe_error(err)})")
                damaged = True
                continue
            inside = float(kernel.sum(dtype=np.float64))
            # The comparison is False for NaN.
            if not inside >= 1.0 - max_loss:
                failures.append(
                    f"its PSF kernel of {size}x{size} pixels misses {1.0 - inside:.1%} of the flux, more "
                    f"than maxKernelLoss={max_loss}"
                )
                continue
            array[cell], fraction[cell] = kernel, inside
        return cls(array=array, fraction=fraction, failures=failures, damaged=damaged)

    @classmethod
    def gaussian(cls, overlap: DetectorOverlap, *, size: int, fwhm: float) -> CellKernels:
        """Draw a round Gaussian in each cell that an input covers.

        Parameters
        ----------
        overlap : `DetectorOverlap`
            Overlap of the input and the patch.
        size : `int`
            Height and width of the kernels, odd, pixels.
        fwhm : `float`
            Full width at half maximum, pixels.

        Returns
        -------
        kernels : `CellKernels`
            The kernels, with sum 1.
        """
        covered = overlap.overlap_fraction > 0.0
        array = np.zeros((*covered.shape, size, size), dtype=np.float32)
        array[covered] = gaussian_kernel(fwhm, size)
        return cls(array=array, fraction=covered.astype(np.float64), failures=[])


def _clamped(x: float, y: float, bbox: Box) -> tuple[float, float]:
    """Return the point of a box that is nearest to a point."""
    return min(max(x, bbox.x.min), bbox.x.max), min(max(y, bbox.y.min), bbox.y.max)
