# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Base class of the tasks that stack visit images or warps."""

from __future__ import annotations

__all__ = ("Losses", "NotUsableError", "OutsideError", "StackConfig", "StackTask")

import abc
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from ..errors import DamagedInputError, InputError, RestorationError
from ..stack.exposure_stack import ExposureStack
from ..stack.kernel_shape import fwhm
from .cell_kernels import CellKernels
from .detector_overlap import DetectorOverlap
from .handle_input import HandleInput
from .memory import MemoryEstimate
from .patch_geometry import PatchGeometry
from .stack_builder import PlacedInput, StackBuilder
from .stack_input import StackedInputs


class StackConfig(pexConfig.Config):
    """Configuration of any `StackTask`."""

    badMaskPlanes = pexConfig.ListField[str](
        doc="Mask planes of the inputs whose pixels are not used. Every input must have all of them. Extend "
        "the list with the planes of an instrument.",
        default=["BAD", "COSMIC_RAY", "INTERPOLATED", "NO_DATA", "SATURATED", "SUSPECT", "UNMASKED_NAN"],
    )
    minExposures = pexConfig.RangeField(
        dtype=int,
        doc="Smallest number of usable visits from which a patch is restored; one with fewer is skipped. "
        "Increase it where shallow patches are of no use.",
        default=2,
        min=1,
    )
    minGoodFraction = pexConfig.RangeField(
        dtype=float,
        doc="Smallest fraction of the patch's pixels that have to be good in a visit. Increase it to leave "
        "out visits that only touch the patch.",
        default=0.01,
        min=0.0,
        max=1.0,
    )
    psf = pexConfig.ChoiceField[str](
        doc="Where the PSF kernels come from.",
        default="model",
        allowed={
            "model": "The PSF models of the inputs.",
            "gaussian": "Gaussians of gaussianFwhm, to start a blind restoration (fitKernels.mode) from; the "
            "models may be missing or wrong.",
        },
        optional=False,
    )
    gaussianFwhm = pexConfig.RangeField(
        dtype=float,
        doc="Full width at half maximum of these Gaussians, pixels of the patch: a typical seeing.",
        default=4.0,
        min=1.0,
    )
    kernelSize = pexConfig.RangeField(
        dtype=int,
        doc="Height and width of the PSF kernels, pixels of the patch; odd. Increase it where visits are "
        "dropped because of maxKernelLoss; run time grows with its square.",
        default=25,
        min=3,
    )
    maxKernelLoss = pexConfig.RangeField(
        dtype=float,
        doc="Largest fraction of a PSF model's flux that may fall outside of its kernel. An exposure is not "
        "used in the cells where the fraction is larger.",
        default=0.05,
        min=0.0,
        max=1.0,
    )
    maxMemory = pexConfig.RangeField(
        dtype=float,
        doc="Memory, GiB, that the restoration of a patch may take. Where the pixels of the exposures do not "
        "fit into it together with all else, they are kept in temporary files (in the directory TMPDIR) and "
        "streamed. Set it to the memory of a job.",
        default=8.0,
        min=0.0,
        inclusiveMin=False,
    )

    def validate(self) -> None:
        """Check that the fields fit together."""
        super().validate()
        if self.kernelSize % 2 == 0:
            raise pexConfig.FieldValidationError(
                StackConfig.kernelSize, self, f"must be odd, not {self.kernelSize}"
            )


class NotUsableError(Exception):
    """An input cannot be used; the message says why."""


class OutsideError(Exception):
    """An input has no pixel on the patch, as regions in a repository are only
    bounds.
    """


@dataclasses.dataclass(eq=False)
class Losses:
    """Inputs that are not in the stack, with the reasons.

    Parameters
    ----------
    dropped, outside : `list` [`tuple` [`str`, `str`]]
        Labels and reasons of inputs that cannot be used, and of those that
        have no pixel on the patch.
    n_damaged : `int`
        Number of damaged inputs.
    n_damaged_visits : `int`
        Number of visits that are lost, damaged images being a cause.
    """

    dropped: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    outside: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    n_damaged: int = 0
    n_damaged_visits: int = 0

    @property
    def reasons(self) -> list[str]:
        """Labels with reasons (`list` [`str`])."""
        return [f"{label}: {reason}" for label, reason in self.dropped + self.outside]


class StackTask[T: HandleInput](pipeBase.Task, abc.ABC):
    """Brings the inputs that overlap a patch onto its pixel grid: one exposure
    per visit, with a PSF kernel for each cell of the patch.

    A subclass reads one input and places it on the grid.
    """

    config: StackConfig

    def run(
        self,
        handles: Sequence[Any],
        geometry: PatchGeometry,
        band: str,
        *,
        oversampling: int = 1,
        n_other_exposures: int = 0,
    ) -> StackedInputs:
        """Build the stack.

        Parameters
        ----------
        handles : `~collections.abc.Sequence` [handle]
            Deferred handles of the visit images or warps
            (`lsst.daf.butler.DeferredDatasetHandle`), in any order.
        geometry : `PatchGeometry`
            The pixel grid of the patch.
        band : `str`
            Name of the band, for messages.
        oversampling : `int`, optional
            Pixels of the restored image along each axis in a pixel of the
            patch.
        n_other_exposures : `int`, optional
            Exposures of other bands that are in memory at the same time.

        Returns
        -------
        stacked : `StackedInputs`
            The stack, and the inputs that are in it.

        Raises
        ------
        InputError
            Raised if an input lacks a mask plane, has no unit of flux, or
            cannot be read here; or if there would be ``minExposures`` visits
            if their datasets were not damaged.
        RestorationError
            Raised if the patch fits neither into memory nor on the disk.
        lsst.pipe.base.NoWorkFound
            Raised if fewer than ``minExposures`` visits can be used.
        """
        patch = f"patch {geometry.patch.id} of tract {geometry.tract} in band {band}"
        visits = self._open_visits(handles)
        self._require_enough(len(visits), patch, Losses())
        overlaps = self._check([item for members in visits.values() for item in members], geometry)

        memory = MemoryEstimate(
            n_exposures=len(visits) + n_other_exposures,
            n_pixels=geometry.outer_bbox.area,
            oversampling=oversampling,
        )
        builder = self._make_builder(len(visits), geometry, memory, patch)
        losses = Losses()
        for name, members in visits.items():
            self._stack_visit(name, members, geometry, overlaps, builder, losses)

        self._record(len(handles), builder.n_exposures, losses)
        self._require_enough(builder.n_exposures, patch, losses)
        stack = builder.stack(oversampling)
        return StackedInputs(
            stack=stack,
            inputs=builder.inputs,
            seeing=self._measure_kernels(stack, patch),
            dropped=losses.dropped,
            inexact_psf=builder.inexact_psf,
        )

    def count_exposures(self, handles: Sequence[Any]) -> int:
        """Return the number of exposures that inputs make.

        Parameters
        ----------
        handles : `~collections.abc.Sequence` [handle]
            Deferred handles of the inputs.

        Returns
        -------
        n_exposures : `int`
            Their number, if all can be used.
        """
        return len(self._open_visits(handles))

    def _open_visits(self, handles: Sequence[Any]) -> dict[str, list[T]]:
        """Return the inputs by name of the visit, in order."""
        inputs = sorted(map(self._open, handles), key=lambda i: (i.instrument, i.visit, i.detector))
        return {
            f"{instrument} visit {visit}": list(members)
            for (instrument, visit), members in itertools.groupby(inputs, lambda i: (i.instrument, i.visit))
        }

    def _require_enough(self, n_visits: int, patch: str, losses: Losses) -> None:
        """Check that there are enough visits."""
        if n_visits >= self.config.minExposures:
            return
        problem = f"{n_visits} usable visits on {patch}, fewer than minExposures={self.config.minExposures}"
        detail = "".join(f"\n  {reason}" for reason in losses.reasons)
        if n_visits + losses.n_damaged_visits >= self.config.minExposures:
            # NoWorkFound would count as done, and nobody would look at the patch again.
            raise InputError(
                f"{problem}, but {losses.n_damaged_visits} others are damaged. Repair or replace their "
                "datasets and run again with --extend-run --skip-existing --clobber-outputs, or leave the "
                f"patch out of the data query.{detail}"
            )
        raise pipeBase.NoWorkFound(f"{problem}.{detail}")

    def _make_builder(
        self, n_visits: int, geometry: PatchGeometry, memory: MemoryEstimate, patch: str
    ) -> StackBuilder:
        """Allocate the stack, in memory or in temporary files."""
        limit = self.config.maxMemory
        on_disk = memory.needs_files(limit, patch)
        if on_disk:
            self.log.info(
                "Keeping the pixels of %d visits in temporary files: in memory, the restoration would take "
                "about %.1f GiB, more than maxMemory=%s.",
                memory.n_exposures,
                memory.in_memory,
                limit,
            )
        try:
            return StackBuilder(geometry, n_visits, self.config.kernelSize, on_disk=on_disk)
        except OSError as err:
            raise RestorationError(
                f"The pixels of the exposures of {patch} fit neither into maxMemory={limit} nor on the disk "
                f"({err}). Set TMPDIR to a directory on a larger disk, or increase maxMemory."
            ) from err

    def _stack_visit(
        self,
        name: str,
        members: list[T],
        geometry: PatchGeometry,
        overlaps: Mapping[T, DetectorOverlap | None],
        builder: StackBuilder,
        losses: Losses,
    ) -> None:
        """Make one exposure of the inputs of a visit, unless too few pixels
        are good.
        """
        used: list[str] = []
        is_damaged = False
        for visit_input in members:
            label = str(visit_input)
            try:
                builder.add(visit_input, self._place(visit_input, geometry, overlaps))
                used.append(label)
            except OutsideError as err:
                losses.outside.append((label, str(err)))
                self.log.info("%s is not used: %s.", label, err)
            except NotUsableError as err:
                losses.dropped.append((label, str(err)))
                self.log.warning("Dropping %s: %s.", label, err)
            except DamagedInputError as err:
                is_damaged = True
                losses.n_damaged += 1
                losses.dropped.append((label, str(err)))
                # The details have the name of the file, which the metrics leave out.
                self.log.warning("Dropping %s: %s. Details: %s", label, err, err.__cause__)
            finally:
                visit_input.close()

        fraction = builder.good_fraction
        if used and fraction > 0.0 and fraction >= self.config.minGoodFraction:
            builder.keep(name)
            percent = 100.0 * fraction
            self.log.info(
                "%s: %.1f%% of the patch, from %d of %d images.", name, percent, len(used), len(members)
            )
            return
        builder.discard()
        losses.n_damaged_visits += is_damaged
        if used:
            reason = (
                f"its visit has good pixels on only {fraction:.2%} of the patch, less than "
                f"minGoodFraction={self.config.minGoodFraction}"
            )
            losses.dropped += [(label, reason) for label in used]
            self.log.warning("Dropping %s: %s.", name, reason)

    def _record(self, n_inputs: int, n_exposures: int, losses: Losses) -> None:
        """Write the numbers of inputs to the task's metadata."""
        self.metadata["n_visit_images"] = n_inputs
        self.metadata["n_visit_images_dropped"] = len(losses.dropped)
        self.metadata["n_visit_images_damaged"] = losses.n_damaged
        self.metadata["n_visit_images_outside"] = len(losses.outside)
        self.metadata["n_exposures"] = n_exposures
        if losses.dropped:
            self.metadata["dropped"] = [f"{label}: {reason}" for label, reason in losses.dropped]

    def _measure_kernels(self, stack: ExposureStack, patch: str) -> np.ndarray:
        """Return the seeing of each exposure, pixels, and record the fractions
        of the flux inside of the kernels.
        """
        seeing = np.array(
            [fwhm(kernels[kernels.any(axis=(-2, -1))].mean(axis=0)) for kernels in stack.kernels]
        )
        fractions = stack.kernels.sum(axis=(-2, -1), dtype=np.float64)[stack.has_kernel]
        self.metadata["kernel_fraction_min"] = float(fractions.min())
        self.metadata["kernel_fraction_median"] = float(np.median(fractions))
        self.log.info(
            "Stacked %d visits on %s: seeing %.2f to %.2f pixels, kernels hold %.1f%% to %.1f%% of the flux.",
            stack.n_exposures,
            patch,
            seeing.min(),
            seeing.max(),
            100.0 * fractions.min(),
            100.0 * fractions.max(),
        )
        return seeing

    def _require_kernels(self, visit_input: T, kernels: CellKernels) -> CellKernels:
        """Return the kernels of an input, of which there must be one; warn of
        cells without one.
        """
        n_cells = np.count_nonzero(kernels.exists)
        if not n_cells:
            raise (DamagedInputError if kernels.damaged else NotUsableError)(kernels.failures[0])
        if kernels.failures:
            self.log.warning(
                "%s is not used in %d of its %d cells, in the first because %s.",
                visit_input,
                len(kernels.failures),
                len(kernels.failures) + n_cells,
                kernels.failures[0],
            )
        return kernels

    @abc.abstractmethod
    def _open(self, handle: Any) -> T:
        """Return the reader of an input."""

    def _check(self, inputs: list[T], geometry: PatchGeometry) -> Mapping[T, DetectorOverlap | None]:
        """Find wrong inputs before any pixel is read.

        Returns
        -------
        overlaps : `~collections.abc.Mapping`
            Overlaps with the patch of the inputs that were checked; `None` for
            those that have none.
        """
        return {}

    @abc.abstractmethod
    def _place(
        self, visit_input: T, geometry: PatchGeometry, overlaps: Mapping[T, DetectorOverlap | None]
    ) -> PlacedInput:
        """Read one input and place it on the patch's grid.

        Raises
        ------
        OutsideError
            Raised if it has no pixel on the patch.
        NotUsableError
            Raised if it cannot be used.
        DamagedInputError
            Raised if it is damaged.
        """
