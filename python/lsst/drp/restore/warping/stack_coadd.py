# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""From the coadd of a patch to a stack of one exposure."""

from __future__ import annotations

__all__ = ("StackCoaddConfig", "StackCoaddTask")

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

import lsst.pipe.base as pipeBase

from ..errors import InputError
from .coadd_input import CoaddInput
from .detector_overlap import DetectorOverlap
from .patch_geometry import PatchGeometry
from .stack_builder import PlacedInput
from .stack_task import Losses
from .stack_warps import StackWarpsConfig, StackWarpsTask
from .warp_input import WarpInput

INEXACT_PSF = "INEXACT_PSF"
"""Mask plane of pixels to which other visits contribute than to the PSF model
of their cell.
"""


class StackCoaddConfig(StackWarpsConfig):
    """Configuration of `StackCoaddTask`.  The field ``minExposures`` does not
    apply.
    """

    def setDefaults(self) -> None:
        """Set the mask planes of coadds with bad pixels."""
        super().setDefaults()
        # COSMIC_RAY and INTERPOLATED are set where pixels of single visits were left out of the coadd: the
        # others are good. Where many visits are saturated, the PSF is not that of the cell.
        self.badMaskPlanes = ["NO_DATA", "SATURATED"]


class StackCoaddTask(StackWarpsTask):
    """Takes the coadd of a patch as one exposure, with its own PSF of each
    cell, its variance and its mask.

    Mask planes that a coadd does not have are ignored.  Pixels with the mask
    plane ``INEXACT_PSF`` are used, and have it in the results, too.
    """

    ConfigClass: ClassVar = StackCoaddConfig
    _DefaultName: ClassVar[str] = "stackCoadd"
    config: StackCoaddConfig

    def _open(self, handle: Any) -> CoaddInput:
        return CoaddInput(handle)

    def _open_visits(self, handles: Sequence[Any]) -> dict[str, list[WarpInput]]:
        coadds = map(self._open, handles)
        return {str(coadd): [coadd] for coadd in coadds}

    def _require_enough(self, n_visits: int, patch: str, losses: Losses) -> None:
        if n_visits:
            return
        problem = f"The coadd of {patch} cannot be restored: {'; '.join(losses.reasons)}."
        if losses.n_damaged:
            # NoWorkFound would count as done, and nobody would look at the patch again.
            raise InputError(f"{problem} Repair or replace the dataset, or leave the patch out of the query.")
        raise pipeBase.NoWorkFound(problem)

    def _place(
        self,
        visit_input: WarpInput,
        geometry: PatchGeometry,
        overlaps: Mapping[WarpInput, DetectorOverlap | None],
    ) -> PlacedInput:
        assert isinstance(visit_input, CoaddInput), "Opened here."
        placed = super()._place(visit_input, geometry, overlaps)
        visits = visit_input.visits(geometry.n_cells)
        inexact = visit_input.pixels_with(INEXACT_PSF, geometry.outer_bbox)
        placed = dataclasses.replace(placed, inputs=visits, inexact_psf=inexact)
        self._report(visit_input, placed, len({(visit.instrument, visit.visit) for visit in visits}))
        return placed

    def _report(self, coadd: CoaddInput, placed: PlacedInput, n_visits: int) -> None:
        """Log the properties of the coadd that decide on its use."""
        exists = placed.kernels.exists
        self.metadata["n_cells"] = exists.size
        self.metadata["n_cells_empty"] = n_empty = int(exists.size - np.count_nonzero(exists))
        self.log.info(
            "%s: %s, %d of %d cells are empty.",
            coadd,
            f"{n_visits} visits" if n_visits else "visits not known",
            n_empty,
            exists.size,
        )
        if background := coadd.describe_background():
            self.log.info("%s: %s; what is left of the background is subtracted here.", coadd, background)
        if placed.inexact_psf is not None and placed.inexact_psf.any():
            self.metadata["inexact_psf_fraction"] = fraction = float(placed.inexact_psf.mean())
            used = INEXACT_PSF not in self.config.badMaskPlanes
            self.log.info(
                "%s: %.1f%% of the pixels have the mask plane %s and are %s.",
                coadd,
                100.0 * fraction,
                INEXACT_PSF,
                "used with the PSF of their cell (stackCoadd.badMaskPlanes)" if used else "not used",
            )
