# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""From the warps of a patch to its stack of exposures."""

from __future__ import annotations

__all__ = ("StackWarpsConfig", "StackWarpsTask")

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

import lsst.pex.config as pexConfig
from lsst.images import Box, Image, NoOverlapError

from ..errors import DamagedInputError, InputError, describe_error
from ..stack.exposure_stack import expand_cells
from .build_stack import NotUsableError, OutsideError, StackConfig, StackTask
from .cell_kernels import CellKernels
from .detector_overlap import DetectorOverlap
from .noise_correlation import measure_correlation
from .patch_geometry import PatchGeometry
from .stack_builder import StackBuilder
from .warp import Warp
from .warp_input import KernelImages, WarpImage, WarpInput


class StackWarpsConfig(StackConfig):
    """Configuration of `StackWarpsTask`."""

    correlation = pexConfig.RangeField(
        dtype=float,
        doc="Power of the warps' noise at low spatial frequencies in units of their variance: 1 if their "
        "pixels are independent, 1.27 after Lanczos-3 interpolation onto pixels of the camera's size. None: "
        "measured in the empty sky of each warp.",
        default=None,
        optional=True,
        min=0.1,
        max=10.0,
    )
    maxMisalignment = pexConfig.RangeField(
        dtype=float,
        doc="Largest distance on the sky of a warp's pixels from those of the patch, pixels.",
        default=0.05,
        min=0.0,
        inclusiveMin=False,
    )

    def setDefaults(self) -> None:
        """Set the mask planes that every warp has."""
        super().setDefaults()
        # What is not finite is not used either, masked or not.
        self.badMaskPlanes = ["BAD", "CR", "INTRP", "NO_DATA", "SAT", "SUSPECT"]


class StackWarpsTask(StackTask[WarpInput]):
    """Stacks warps: images of a visit that are on the patch's pixel grid
    already.

    Unlike `BuildStackTask` it does not know how the pixels were interpolated:
    ``ExposureStack.correlation`` is measured or configured, and the PSF, which
    already contains the interpolation, is drawn at the good pixel of each cell
    that is nearest to its center.
    """

    ConfigClass: ClassVar = StackWarpsConfig
    _DefaultName: ClassVar[str] = "stackWarps"
    config: StackWarpsConfig

    def _open(self, handle: Any) -> WarpInput:
        return WarpInput(handle)

    def _check(
        self, inputs: list[WarpInput], geometry: PatchGeometry
    ) -> Mapping[WarpInput, DetectorOverlap | None]:
        # A warp is read once, whole.
        return {}

    def _add(
        self,
        builder: StackBuilder,
        visit_input: WarpInput,
        geometry: PatchGeometry,
        footprints: Mapping[WarpInput, DetectorOverlap | None],
    ) -> None:
        warp = visit_input.read(self.config.badMaskPlanes)
        # Warps have a border that the patch does not have.
        try:
            bbox = warp.bbox.intersection(geometry.outer_bbox)
        except NoOverlapError as err:
            raise InputError(
                f"The {visit_input} has the pixels {warp.bbox}, none of which is in patch "
                f"{geometry.patch.id} of tract {geometry.tract}, {geometry.outer_bbox}. "
                f"{self._remedy(geometry)}",
                dataset=str(visit_input),
            ) from err
        self._require_alignment(visit_input, warp, bbox, geometry)

        inside = bbox.slice_within(warp.bbox)
        target = bbox.slice_within(geometry.outer_bbox)
        image, variance = np.zeros((2, *geometry.outer_bbox.shape), dtype=np.float32)
        data, good = np.zeros((2, *geometry.outer_bbox.shape), dtype=bool)
        image[target], variance[target] = warp.image[inside], warp.variance[inside]
        data[target] = True
        data &= np.isfinite(image) & np.isfinite(variance) & (variance > 0.0)
        if not data.any():
            raise OutsideError("it has no data on the patch")
        good[target] = data[target] & ~warp.masked[inside]
        if not good.any():
            raise NotUsableError(
                f"none of its {np.count_nonzero(data)} pixels with data on the patch is good: all are masked "
                f"by one of {', '.join(self.config.badMaskPlanes)}"
            )
        kernels = self._draw_kernels(visit_input, warp.psf, good, geometry)
        correlation = self._correlation(visit_input, image, variance, good, geometry)
        cell_shape = _cell_shape(geometry)
        builder.add(
            visit_input,
            _footprint(geometry, bbox, data),
            Warp(
                bbox=geometry.outer_bbox,
                image=np.where(good, image, np.float32(0.0)),
                variance=np.where(good, variance, np.float32(np.inf)),
                good=good,
                inverse_correlation=np.where(good, expand_cells(1.0 / correlation, cell_shape), 0.0),
            ),
            kernels,
        )

    def _remedy(self, geometry: PatchGeometry) -> str:
        return (
            f"Warps can only be restored on the grid they were made for: choose the patchGeometry that gives "
            f"skymap {geometry.skymap!r} of the warps, or restore from visit images "
            "(inputType='visit_image')."
        )

    def _require_alignment(
        self, visit_input: WarpInput, warp: WarpImage, bbox: Box, geometry: PatchGeometry
    ) -> None:
        """Check that the warp's pixels are the patch's."""
        x = np.repeat([bbox.x.min, bbox.x.center, bbox.x.max], 3).astype(float)
        y = np.tile([bbox.y.min, bbox.y.center, bbox.y.max], 3).astype(float)
        ra, dec = warp.to_sky(x, y)
        there = geometry.sky_projection.sky_to_pixel_transform.apply_forward(x=ra, y=dec)
        distance = float(np.max(np.hypot(there.x - x, there.y - y)))
        # The comparison is False for NaN.
        if not distance <= self.config.maxMisalignment:
            raise InputError(
                f"The {visit_input} is up to {distance:.3g} pixels away from the grid of patch "
                f"{geometry.patch.id} of tract {geometry.tract}, more than "
                f"maxMisalignment={self.config.maxMisalignment}. {self._remedy(geometry)}",
                dataset=str(visit_input),
            )

    def _draw_kernels(
        self, visit_input: WarpInput, psf: KernelImages, good: np.ndarray, geometry: PatchGeometry
    ) -> CellKernels:
        """Draw the PSF in each cell that has good pixels."""
        size, max_loss = self.config.kernelSize, self.config.maxKernelLoss
        cells = geometry.patch.cells
        shape = (cells.grid_size.i, cells.grid_size.j)
        array = np.zeros((*shape, size, size), dtype=np.float32)
        fraction = np.zeros(shape)
        failures: list[str] = []
        damaged = False
        height, width = _cell_shape(geometry)
        for i, j in np.ndindex(shape):
            y, x = np.nonzero(good[i * height : (i + 1) * height, j * width : (j + 1) * width])
            if not y.size:
                continue
            nearest = np.argmin(np.hypot(y - 0.5 * (height - 1), x - 0.5 * (width - 1)))
            # A model is code and data from elsewhere and may raise anything.
            try:
                stamp = psf.compute_kernel_image(
                    x=float(cells.bbox.x.start + j * width + x[nearest]),
                    y=float(cells.bbox.y.start + i * height + y[nearest]),
                )
                kernel = _center_kernel(stamp, size)
            except Exception as err:
                failures.append(f"its PSF fails ({describe_error(err)})")
                damaged = True
                continue
            inside = float(kernel.sum(dtype=np.float64))
            if not inside >= 1.0 - max_loss:
                failures.append(
                    f"its PSF kernel of {size}x{size} pixels misses {1.0 - inside:.1%} of the flux, more "
                    f"than maxKernelLoss={max_loss}"
                )
                continue
            array[i, j], fraction[i, j] = kernel, inside
        kernels = CellKernels(array=array, fraction=fraction, failures=failures, damaged=damaged)
        if not kernels.exists.any():
            raise (DamagedInputError if damaged else NotUsableError)(failures[0])
        if failures:
            self.log.warning(
                "The %s is not used in %d of its %d cells, in the first because %s.",
                visit_input,
                len(failures),
                len(failures) + np.count_nonzero(kernels.exists),
                failures[0],
            )
        return kernels

    def _correlation(
        self,
        visit_input: WarpInput,
        image: np.ndarray,
        variance: np.ndarray,
        good: np.ndarray,
        geometry: PatchGeometry,
    ) -> np.ndarray:
        """Return the correlation of the noise by cell."""
        cells = geometry.patch.cells
        if self.config.correlation is not None:
            return np.full((cells.grid_size.i, cells.grid_size.j), self.config.correlation)
        correlation = measure_correlation(image, variance, good, _cell_shape(geometry))
        if not np.isfinite(correlation).all():
            self.log.warning(
                "The %s has too little empty sky to measure the correlation of its noise: pixels are taken "
                "as independent. Set the configuration field correlation.",
                visit_input,
            )
            return np.ones_like(correlation)
        self.log.verbose("The %s has correlations of noise of %.2f.", visit_input, np.median(correlation))
        return correlation


def _center_kernel(stamp: Image, size: int) -> np.ndarray:
    """Cut or pad the image of a PSF to the size of a kernel.

    The sum of a PSF's image is the fraction of the flux in it (interpolation
    may have made that a bit more than 1), unless it is not normalized.
    """
    total = float(stamp.array.sum(dtype=np.float64))
    if not np.isfinite(total) or total <= 0.0:
        raise ValueError(f"The PSF model's image has a sum of {total}.")
    kernel = np.zeros((size, size), dtype=np.float32)
    box = Box.from_shape((size, size), start=(-(size // 2), -(size // 2)))
    common = box.intersection(stamp.bbox)
    kernel[common.slice_within(box)] = stamp.array[common.slice_within(stamp.bbox)]
    return kernel / total if total > 1.01 else kernel


def _cell_shape(geometry: PatchGeometry) -> tuple[int, int]:
    shape = geometry.patch.cells.cell_shape
    return shape.y, shape.x


def _footprint(geometry: PatchGeometry, bbox: Box, data: np.ndarray) -> DetectorOverlap:
    """Describe where a warp has data on the patch."""
    height, width = _cell_shape(geometry)
    by_cell = data.reshape(data.shape[0] // height, height, data.shape[1] // width, width)
    cells = geometry.patch.cells.bbox
    y = cells.y.start + height * (np.arange(by_cell.shape[0]) + 0.5) - 0.5
    x = cells.x.start + width * (np.arange(by_cell.shape[2]) + 0.5) - 0.5
    columns, rows = np.meshgrid(x, y)
    return DetectorOverlap(
        bbox=bbox,
        detector_bbox=bbox,
        sky_projection=geometry.sky_projection,
        bounds=bbox,
        polygon=bbox.to_polygon(),
        overlap_fraction=by_cell.mean(axis=(1, 3)),
        overlaps_center=by_cell[:, height // 2, :, width // 2],
        x=columns,
        y=rows,
    )
