# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""From the warps of a patch to its stack of exposures."""

from __future__ import annotations

__all__ = ("MAX_MISALIGNMENT", "StackWarpsConfig", "StackWarpsTask")

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

import lsst.pex.config as pexConfig
from lsst.images import Box, NoOverlapError

from ..errors import InputError
from ..stack.exposure_stack import expand_cells
from .cell_kernels import CellKernels
from .detector_overlap import DetectorOverlap
from .noise_correlation import measure_correlation
from .patch_geometry import PatchGeometry
from .stack_builder import PlacedInput
from .stack_task import NotUsableError, OutsideError, StackConfig, StackTask
from .warp import Warp
from .warp_image import WarpImage
from .warp_input import WarpInput

MAX_MISALIGNMENT = 0.05
"""Largest distance on the sky of a warp's pixels from those of the patch,
pixels: well above the differences between representations of the same grid,
and below what changes the shape of a PSF.
"""


class StackWarpsConfig(StackConfig):
    """Configuration of `StackWarpsTask`."""

    correlation = pexConfig.RangeField(
        dtype=float,
        doc="Power of the warps' noise at low spatial frequencies in units of their variance: 1 if their "
        "pixels are independent, 1.27 after Lanczos-3 interpolation onto pixels of the camera's size. None: "
        "measured in the empty sky of each warp. Set it for crowded fields, which have little empty sky.",
        default=None,
        optional=True,
        min=0.1,
        max=10.0,
    )

    def setDefaults(self) -> None:
        """Set the mask planes that every warp has."""
        super().setDefaults()
        # Pixels that are not finite are not used either, masked or not.
        self.badMaskPlanes = ["BAD", "CR", "INTRP", "NO_DATA", "SAT", "SUSPECT"]


class StackWarpsTask(StackTask[WarpInput]):
    """Stacks warps: images of a visit that are on the patch's pixel grid
    already.

    Unlike `BuildStackTask` it has no information on the interpolation:
    ``ExposureStack.correlation`` is measured or configured, and the PSF, which
    already contains the interpolation, is drawn at the good pixel of each cell
    that is nearest to its center.
    """

    ConfigClass: ClassVar = StackWarpsConfig
    _DefaultName: ClassVar[str] = "stackWarps"
    config: StackWarpsConfig

    def _open(self, handle: Any) -> WarpInput:
        return WarpInput(handle)

    def _place(
        self,
        visit_input: WarpInput,
        geometry: PatchGeometry,
        overlaps: Mapping[WarpInput, DetectorOverlap | None],
    ) -> PlacedInput:
        """Read one warp, whole."""
        warp = visit_input.read(self.config.badMaskPlanes, needs_psf=self.config.psf == "model")
        bbox = _common_pixels(visit_input, warp, geometry)
        _require_alignment(visit_input, warp, bbox, geometry)

        # Warps have a border that the patch does not have.
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
        overlap = DetectorOverlap.of_warp(geometry, bbox, data)
        kernels = self._draw_kernels(visit_input, warp, good, overlap, geometry)
        correlation = self._correlation(visit_input, image, variance, good, geometry)
        return PlacedInput(
            overlap=overlap,
            warp=Warp(
                bbox=geometry.outer_bbox,
                image=np.where(good, image, np.float32(0.0)),
                variance=np.where(good, variance, np.float32(np.inf)),
                good=good,
                inverse_correlation=np.where(good, expand_cells(1.0 / correlation, geometry.cell_shape), 0.0),
            ),
            kernels=kernels,
        )

    def _draw_kernels(
        self,
        visit_input: WarpInput,
        warp: WarpImage,
        good: np.ndarray,
        overlap: DetectorOverlap,
        geometry: PatchGeometry,
    ) -> CellKernels:
        """Draw the PSF in each cell that has good pixels."""
        size = self.config.kernelSize
        if self.config.psf == "gaussian":
            return CellKernels.gaussian(overlap, size=size, fwhm=self.config.gaussianFwhm)
        assert warp.psf is not None, "Required by read."
        kernels = CellKernels.from_warp(
            warp.psf, good, geometry, size=size, max_loss=self.config.maxKernelLoss
        )
        return self._require_kernels(visit_input, kernels)

    def _correlation(
        self,
        visit_input: WarpInput,
        image: np.ndarray,
        variance: np.ndarray,
        good: np.ndarray,
        geometry: PatchGeometry,
    ) -> np.ndarray:
        """Return the correlation of the noise by cell."""
        if self.config.correlation is not None:
            return np.full(geometry.n_cells, self.config.correlation)
        correlation = measure_correlation(image, variance, good, geometry.cell_shape)
        if not np.isfinite(correlation).all():
            self.log.warning(
                "%s has too little empty sky to measure the correlation of its noise: pixels are taken "
                "as independent. Set the configuration field correlation.",
                visit_input,
            )
            return np.ones_like(correlation)
        self.log.verbose("%s has correlations of noise of %.2f.", visit_input, np.median(correlation))
        return correlation


def _common_pixels(visit_input: WarpInput, warp: WarpImage, geometry: PatchGeometry) -> Box:
    """Return the pixels of the patch that a warp has."""
    try:
        return warp.bbox.intersection(geometry.outer_bbox)
    except NoOverlapError as err:
        raise InputError(
            f"{visit_input} has the pixels {warp.bbox}, none of which is in patch {geometry.patch.id} of "
            f"tract {geometry.tract}, {geometry.outer_bbox}. {_remedy(geometry)}",
            dataset=str(visit_input),
        ) from err


def _require_alignment(visit_input: WarpInput, warp: WarpImage, bbox: Box, geometry: PatchGeometry) -> None:
    """Check that the warp's pixels are the patch's."""
    x = np.repeat([bbox.x.min, bbox.x.center, bbox.x.max], 3).astype(float)
    y = np.tile([bbox.y.min, bbox.y.center, bbox.y.max], 3).astype(float)
    ra, dec = warp.to_sky(x, y)
    there = geometry.sky_projection.sky_to_pixel_transform.apply_forward(x=ra, y=dec)
    distance = float(np.max(np.hypot(there.x - x, there.y - y)))
    # The comparison is False for NaN.
    if not distance <= MAX_MISALIGNMENT:
        raise InputError(
            f"{visit_input} is up to {distance:.3g} pixels away from the grid of patch {geometry.patch.id} "
            f"of tract {geometry.tract}, more than {MAX_MISALIGNMENT}. {_remedy(geometry)}",
            dataset=str(visit_input),
        )


def _remedy(geometry: PatchGeometry) -> str:
    return (
        f"Warps can only be restored on the grid they were made for: choose the patchGeometry that gives "
        f"skymap {geometry.skymap!r} of the warps, or restore from visit images (inputType='visit_image')."
    )
