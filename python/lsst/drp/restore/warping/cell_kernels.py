# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The PSF kernels of one visit image, by cell of the patch."""

from __future__ import annotations

__all__ = ("CellKernels",)

import dataclasses

import numpy as np

from lsst.images import Box
from lsst.images.psfs import PointSpreadFunction

from ..errors import describe_error
from ..stack.kernel_shape import gaussian_kernel
from .detector_overlap import DetectorOverlap
from .psf_drawing import psf_kernel
from .warp import PixelMap


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class CellKernels:
    """PSF kernels of one visit image by cell.

    Parameters
    ----------
    array : `numpy.ndarray`
        Kernels, shape ``(cells_y, cells_x, k, k)``; zero where there are none.
    fraction : `numpy.ndarray`
        Their sums, shape ``(cells_y, cells_x)``.
    failures : `list` [`str`]
        Why there is none, for each cell that the visit image covers where
        there is none.
    damaged : `bool`, optional
        Whether the PSF model raised an error in one of them.
    """

    array: np.ndarray
    fraction: np.ndarray
    failures: list[str]
    damaged: bool = False

    @property
    def exists(self) -> np.ndarray:
        """Whether there is a kernel in each cell (`numpy.ndarray`)."""
        return self.fraction > 0.0

    @classmethod
    def draw(
        cls,
        psf: PointSpreadFunction,
        footprint: DetectorOverlap,
        pixel_map: PixelMap,
        *,
        size: int,
        max_loss: float,
    ) -> CellKernels:
        """Draw a PSF in each cell that its visit image covers.

        Parameters
        ----------
        psf : `lsst.images.psfs.PointSpreadFunction`
            PSF model.  It is evaluated at the centroid of the covered part of
            each cell.
        footprint : `DetectorOverlap`
            Where the visit image falls on the patch.
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
        array = np.zeros((*footprint.x.shape, size, size), dtype=np.float32)
        fraction = np.zeros(footprint.x.shape)
        failures: list[str] = []
        damaged = False
        for i, j in np.argwhere(footprint.overlap_fraction > 0.0):
            x_patch, y_patch = footprint.x[i, j], footprint.y[i, j]
            x, y = (float(value) for value in pixel_map.exact(x_patch, y_patch))
            jacobian = pixel_map.jacobian(x_patch, y_patch)
            # A model is code and data from elsewhere and may raise anything.
            try:
                kernel, inside = psf_kernel(psf, *_clamped(x, y, psf.bounds.bbox), jacobian, size)
            except Exception as err:
                failures.append(f"its PSF fails ({describe_error(err)})")
                damaged = True
                continue
            if not inside >= 1.0 - max_loss:
                failures.append(
                    f"its PSF kernel of {size}x{size} pixels misses {1.0 - inside:.1%} of the flux, more "
                    f"than maxKernelLoss={max_loss}"
                )
                continue
            array[i, j], fraction[i, j] = kernel, inside
        return cls(array=array, fraction=fraction, failures=failures, damaged=damaged)

    @classmethod
    def gaussian(cls, footprint: DetectorOverlap, *, size: int, fwhm: float) -> CellKernels:
        """Draw a round Gaussian in each cell that a visit image covers.

        Parameters
        ----------
        footprint : `DetectorOverlap`
            Where the visit image falls on the patch.
        size : `int`
            Height and width of the kernels, odd, pixels.
        fwhm : `float`
            Full width at half maximum, pixels.

        Returns
        -------
        kernels : `CellKernels`
            The kernels, with sum 1.
        """
        covered = footprint.overlap_fraction > 0.0
        array = np.zeros((*covered.shape, size, size), dtype=np.float32)
        array[covered] = gaussian_kernel(fwhm, size)
        return cls(array=array, fraction=covered.astype(np.float64), failures=[])


def _clamped(x: float, y: float, bbox: Box) -> tuple[float, float]:
    """Return the point of a box that is nearest to a point."""
    return min(max(x, bbox.x.min), bbox.x.max), min(max(y, bbox.y.min), bbox.y.max)
