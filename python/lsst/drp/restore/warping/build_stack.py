# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""From the visit images that overlap a patch to its stack of exposures."""

from __future__ import annotations

__all__ = ("BuildStackConfig", "BuildStackTask")

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from lsst.images import Box, VisitImage
from lsst.images.psfs import PointSpreadFunction

from ..errors import DamagedInputError, describe_error, find_cause
from .cell_kernels import CellKernels
from .detector_overlap import DetectorOverlap
from .patch_geometry import PatchGeometry
from .pixel_map import PixelMap, PixelMapError
from .read_errors import is_software_error
from .stack_builder import PlacedInput
from .stack_task import NotUsableError, OutsideError, StackConfig, StackTask
from .visit_input import VisitInput, noise_correlation, scale_to_njy
from .warp import warp


class BuildStackConfig(StackConfig):
    """Configuration of `BuildStackTask`."""


class BuildStackTask(StackTask[VisitInput]):
    """Brings the visit images that overlap a patch onto its pixel grid.

    The detectors of one visit become one exposure, with a PSF kernel for each
    cell of the patch.
    """

    ConfigClass: ClassVar = BuildStackConfig
    _DefaultName: ClassVar[str] = "buildStack"
    config: BuildStackConfig

    def _open(self, handle: Any) -> VisitInput:
        return VisitInput(handle)

    def _check(
        self, inputs: list[VisitInput], geometry: PatchGeometry
    ) -> Mapping[VisitInput, DetectorOverlap | None]:
        """Find wrong units and missing mask planes before any pixel is read."""
        overlaps: dict[VisitInput, DetectorOverlap | None] = {}
        for visit_input in inputs:
            try:
                if visit_input.is_whole:
                    # It has just been read whole. Each image is read once, and
                    # one at a time is in memory: the rest is checked later.
                    break
                overlaps[visit_input] = self._check_one(visit_input, geometry)
            except DamagedInputError:
                # It is dropped when its visit is stacked.
                continue
        return overlaps

    def _check_one(self, visit_input: VisitInput, geometry: PatchGeometry) -> DetectorOverlap | None:
        overlap = DetectorOverlap.find(
            geometry, visit_input.get("sky_projection"), visit_input.get("bounds"), visit_input.get("bbox")
        )
        if overlap is not None:
            visit_input.require_flux()
            visit_input.require_planes(set(self.config.badMaskPlanes))
        return overlap

    def _place(
        self,
        visit_input: VisitInput,
        geometry: PatchGeometry,
        overlaps: Mapping[VisitInput, DetectorOverlap | None],
    ) -> PlacedInput:
        """Resample one visit image."""
        if visit_input in overlaps:
            overlap = overlaps[visit_input]
        else:
            overlap = self._check_one(visit_input, geometry)
        if overlap is None:
            raise OutsideError("it has no pixel on the patch")
        try:
            pixel_map = PixelMap(
                geometry.sky_projection, overlap.sky_projection, overlap.bbox, overlap.detector_bbox
            )
        except PixelMapError as err:
            raise NotUsableError(str(err)) from err
        kernels = self._draw_kernels(visit_input, overlap, pixel_map)

        image = visit_input.read(overlap.detector_bbox)
        good = self._good_pixels(image, overlap)
        scale = scale_to_njy(image)
        warped = warp(
            image.image.array * scale,
            image.variance.array * scale**2,
            good,
            image.bbox,
            pixel_map,
            correlation=noise_correlation(image),
        )
        if not warped.good.any():
            raise OutsideError("only the edge of its valid pixels touches the patch")
        return PlacedInput(overlap=overlap, warp=warped, kernels=kernels)

    def _draw_kernels(
        self, visit_input: VisitInput, overlap: DetectorOverlap, pixel_map: PixelMap
    ) -> CellKernels:
        """Draw the PSF in each cell."""
        size = self.config.kernelSize
        if self.config.psf == "gaussian":
            return CellKernels.gaussian(overlap, size=size, fwhm=self.config.gaussianFwhm)
        kernels = CellKernels.from_detector(
            _read_psf(visit_input), overlap, pixel_map, size=size, max_loss=self.config.maxKernelLoss
        )
        return self._require_kernels(visit_input, kernels)

    def _good_pixels(self, image: VisitImage, overlap: DetectorOverlap) -> np.ndarray:
        """Return which pixels of an image are valid measurements."""
        planes = list(self.config.badMaskPlanes)
        masked = (image.mask.array & image.mask.schema.bitmask(*planes)).any(axis=-1)
        finite = np.isfinite(image.image.array) & np.isfinite(image.variance.array)
        positive = image.variance.array > 0.0
        if isinstance(overlap.bounds, Box):
            valid = np.ones(masked.shape, dtype=bool)
        else:
            grid = image.bbox.meshgrid()
            valid = overlap.bounds.contains(x=grid.x, y=grid.y)
        good = ~masked & finite & positive & valid
        if not good.any():
            raise NotUsableError(
                f"none of its {good.size} pixels on the patch is good ({masked.mean():.0%} masked by one of "
                f"{', '.join(planes)}; {1.0 - finite.mean():.0%} not finite; "
                f"{1.0 - positive.mean():.0%} without a positive variance; "
                f"{1.0 - valid.mean():.0%} outside of its bounds)"
            )
        return good


def _read_psf(visit_input: VisitInput) -> PointSpreadFunction:
    """Read a PSF model; one that cannot be read is a damaged input."""
    # A model is data from elsewhere and may raise anything but errors of software.
    try:
        return visit_input.get("psf")
    except DamagedInputError:
        raise
    except Exception as err:
        if find_cause(err) is not err or is_software_error(err):
            raise
        raise DamagedInputError(f"its PSF cannot be read ({describe_error(err)})") from err
