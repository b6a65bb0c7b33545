# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""From the visit images that overlap a patch to its stack of exposures."""

from __future__ import annotations

__all__ = (
    "BuildStackConfig",
    "BuildStackTask",
    "NotUsableError",
    "OutsideError",
    "StackConfig",
    "StackInput",
    "StackTask",
)

import abc
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
from lsst.images import Box, VisitImage

from ..errors import (
    DamagedInputError,
    InputError,
    RestorationError,
    describe_error,
    find_cause,
    find_environment_error,
)
from ..stack.kernel_shape import fwhm
from .cell_kernels import CellKernels
from .detector_overlap import DetectorOverlap
from .patch_geometry import PatchGeometry
from .stack_builder import StackBuilder
from .stack_input import StackInput
from .visit_input import VisitInput, scale_to_njy
from .warp import PixelMap, WarpError, warp
from .warp_input import WarpInput

# Memory of a restoration, bytes: what it takes for any patch, what it takes
# more for each pixel of the patch, and for each pixel of an exposure that is
# kept in memory, as `make bench-scale` measured them.
_BASE_MEMORY = 1.5e9
_MEMORY_PER_PIXEL = 330
_MEMORY_PER_EXPOSURE_PIXEL = 15


class StackConfig(pexConfig.Config):
    """Configuration of any `StackTask`."""

    badMaskPlanes = pexConfig.ListField[str](
        doc="Mask planes of the inputs whose pixels are not used. Every input must have all of them.",
        default=["BAD", "COSMIC_RAY", "INTERPOLATED", "NO_DATA", "SATURATED", "SUSPECT", "UNMASKED_NAN"],
    )
    minExposures = pexConfig.RangeField(
        dtype=int, doc="Smallest number of usable visits from which a patch is restored.", default=2, min=1
    )
    minGoodFraction = pexConfig.RangeField(
        dtype=float,
        doc="Smallest fraction of the patch's pixels that a visit must have as good ones to be used.",
        default=0.01,
        min=0.0,
        max=1.0,
    )
    psf = pexConfig.ChoiceField[str](
        doc="Where the PSF kernels come from.",
        default="model",
        allowed={
            "model": "The visit images' PSF models.",
            "gaussian": "Gaussians of gaussianFwhm, to start a blind restoration (fitKernels.mode) from; the "
            "models may be missing or wrong.",
        },
        optional=False,
    )
    gaussianFwhm = pexConfig.RangeField(
        dtype=float,
        doc="Full width at half maximum of these Gaussians, pixels of the patch.",
        default=4.0,
        min=1.0,
    )
    kernelSize = pexConfig.RangeField(
        dtype=int, doc="Height and width of the PSF kernels, pixels of the patch; odd.", default=25, min=3
    )
    maxKernelLoss = pexConfig.RangeField(
        dtype=float,
        doc="Largest fraction of a PSF model's flux that may fall outside of its kernel. Where more does, "
        "the exposure is not used in that cell.",
        default=0.05,
        min=0.0,
        max=1.0,
    )

    maxMemory = pexConfig.RangeField(
        dtype=float,
        doc="Memory, GiB, that the restoration of a patch may take. Where the pixels of the exposures do not "
        "fit into it beside all else, they are kept in temporary files (in the directory TMPDIR) and "
        "streamed.",
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


class BuildStackConfig(StackConfig):
    """Configuration of `BuildStackTask`."""

    maxBadWeight = pexConfig.RangeField(
        dtype=float,
        doc="Largest sum of the absolute interpolation weights of bad or missing pixels of the visit image "
        "in a good pixel of the stack.",
        default=0.01,
        min=0.0,
        max=0.5,
    )
    maxPositionError = pexConfig.RangeField(
        dtype=float,
        doc="Largest error with which a pixel's position on the detector is interpolated, pixels.",
        default=1e-3,
        min=0.0,
        inclusiveMin=False,
    )


class NotUsableError(Exception):
    """An input cannot be used; the message says why."""


class OutsideError(Exception):
    """An input has no pixel on the patch, as regions in a repository are only
    bounds.
    """


class StackTask[T: (VisitInput, WarpInput)](pipeBase.Task, abc.ABC):
    """Brings what overlaps a patch onto its pixel grid: one plane per visit,
    with a PSF kernel for each cell of the patch.
    """

    config: StackConfig

    def run(
        self,
        visit_images: Sequence[Any],
        geometry: PatchGeometry,
        band: str,
        *,
        oversampling: int = 1,
        n_beside: int = 0,
    ) -> pipeBase.Struct:
        """Build the stack.

        Parameters
        ----------
        visit_images : `~collections.abc.Sequence` [handle]
            Deferred handles of the visit images or warps
            (`lsst.daf.butler.DeferredDatasetHandle`), in any order.
        geometry : `PatchGeometry`
            The pixel grid of the patch.
        band : `str`
            Name of the band, for messages.
        oversampling : `int`, optional
            Pixels of the restored image along each axis in a pixel of the
            patch.
        n_beside : `int`, optional
            Visits of other bands that are in memory at the same time.

        Returns
        -------
        result : `lsst.pipe.base.Struct`
            Result struct with these attributes:

            ``stack``
                One plane per visit, ordered by instrument and visit
                (`ExposureStack`).
            ``inputs``
                The visit images in it (`list` [`StackInput`]).
            ``seeing``
                Full width at half maximum of each plane's mean kernel,
                pixels, shape ``(n,)`` (`numpy.ndarray`).
            ``dropped``
                Visit images that cannot be used, and why (`list` [`tuple`
                [`str`, `str`]]).

        Raises
        ------
        InputError
            Raised if a visit image lacks a mask plane, has no unit of flux,
            or cannot be read here; or if there would be ``minExposures``
            visits if their datasets were not damaged.
        lsst.pipe.base.NoWorkFound
            Raised if fewer than ``minExposures`` visits can be used.
        """
        where = f"patch {geometry.patch.id} of tract {geometry.tract} in band {band}"
        inputs = sorted(map(self._open, visit_images), key=lambda i: (i.instrument, i.visit, i.detector))
        visits = {
            f"{instrument} visit {visit}": list(members)
            for (instrument, visit), members in itertools.groupby(inputs, lambda i: (i.instrument, i.visit))
        }
        self._require_enough(len(visits), where, [])
        footprints = self._check(inputs, geometry)

        on_disk = self._on_disk(len(visits) + n_beside, geometry, oversampling, where)
        builder = StackBuilder(geometry, len(visits), self.config.kernelSize, on_disk=on_disk)
        dropped: list[tuple[str, str]] = []
        outside: list[str] = []
        n_damaged = n_lost = 0
        for name, members in visits.items():
            used: list[str] = []
            is_damaged = False
            for visit_input in members:
                try:
                    self._add(builder, visit_input, geometry, footprints)
                    used.append(str(visit_input))
                except OutsideError as err:
                    outside.append(f"{visit_input}: {err}")
                    self.log.info("%s is not used: %s.", visit_input, err)
                except NotUsableError as err:
                    dropped.append((str(visit_input), str(err)))
                    self.log.warning("Dropping %s: %s.", visit_input, err)
                except DamagedInputError as err:
                    n_damaged += 1
                    is_damaged = True
                    dropped.append((str(visit_input), str(err)))
                    # The details have the file's name, which is no concern of the metrics.
                    self.log.warning("Dropping %s: %s. Details: %s", visit_input, err, err.__cause__)
                finally:
                    visit_input.close()
            fraction = builder.good_fraction
            if used and (fraction == 0.0 or fraction < self.config.minGoodFraction):
                reason = (
                    f"its visit has good pixels on only {fraction:.2%} of the patch, less than "
                    f"minGoodFraction={self.config.minGoodFraction}"
                )
                dropped += [(label, reason) for label in used]
                self.log.warning("Dropping %s: %s.", name, reason)
                used = []
            if used:
                builder.keep(name)
                self.log.info(
                    "%s: %.1f%% of the patch, from %d of %d images.",
                    name,
                    100.0 * fraction,
                    len(used),
                    len(members),
                )
            else:
                n_lost += is_damaged
                builder.discard()

        reasons = [f"{label}: {reason}" for label, reason in dropped]
        self.metadata["n_visit_images"] = len(inputs)
        self.metadata["n_visit_images_dropped"] = len(dropped)
        self.metadata["n_visit_images_damaged"] = n_damaged
        self.metadata["n_visit_images_outside"] = len(outside)
        self.metadata["n_exposures"] = builder.n_exposures
        if reasons:
            self.metadata["dropped"] = reasons
        self._require_enough(builder.n_exposures, where, reasons + outside, n_lost)
        stack = builder.stack(oversampling)
        seeing = np.array(
            [fwhm(kernels[kernels.any(axis=(-2, -1))].mean(axis=0)) for kernels in stack.kernels]
        )
        fractions = stack.kernels.sum(axis=(-2, -1), dtype=np.float64)[stack.has_kernel]
        self.metadata["kernel_fraction_min"] = float(fractions.min())
        self.metadata["kernel_fraction_median"] = float(np.median(fractions))
        self.log.info(
            "Stacked %d visits on %s: seeing %.2f to %.2f pixels, kernels hold %.1f%% to %.1f%% of the flux.",
            stack.n_exposures,
            where,
            seeing.min(),
            seeing.max(),
            100.0 * fractions.min(),
            100.0 * fractions.max(),
        )
        return pipeBase.Struct(stack=stack, inputs=builder.inputs, seeing=seeing, dropped=dropped)

    def _require_enough(self, n_visits: int, where: str, reasons: list[str], n_lost: int = 0) -> None:
        """Check that there are enough visits; ``n_lost`` others are damaged."""
        if n_visits >= self.config.minExposures:
            return
        problem = f"{n_visits} usable visits on {where}, fewer than minExposures={self.config.minExposures}"
        detail = "".join(f"\n  {reason}" for reason in reasons)
        if n_visits + n_lost >= self.config.minExposures:
            # No work would count as done, and the patch would be forgotten.
            raise InputError(
                f"{problem}, but {n_lost} others are damaged. Repair or replace their datasets and run again "
                "with --extend-run --skip-existing --clobber-outputs, or leave the patch out of the data "
                f"query.{detail}"
            )
        raise pipeBase.NoWorkFound(f"{problem}.{detail}")

    def _on_disk(self, n_visits: int, geometry: PatchGeometry, oversampling: int, where: str) -> bool:
        """Decide whether the pixels of ``n_visits``, those of other bands
        included, are kept in memory or in files.

        Raises
        ------
        RestorationError
            Raised if the patch does not fit into ``maxMemory`` either way.
        """
        pixels = geometry.outer_bbox.area
        least = (_BASE_MEMORY + _MEMORY_PER_PIXEL * oversampling**2 * pixels) / 2**30
        most = least + _MEMORY_PER_EXPOSURE_PIXEL * n_visits * pixels / 2**30
        if least > self.config.maxMemory:
            raise RestorationError(
                f"The restoration of {where} takes about {least:.1f} GiB of memory without the pixels of its "
                f"exposures, more than maxMemory={self.config.maxMemory}: allow for more, or make smaller "
                "patches."
            )
        if most > self.config.maxMemory:
            self.log.info(
                "Keeping the pixels of %d visits in temporary files: in memory, the restoration would take "
                "about %.1f GiB, more than maxMemory=%s.",
                n_visits,
                most,
                self.config.maxMemory,
            )
        return most > self.config.maxMemory

    @abc.abstractmethod
    def _open(self, handle: Any) -> T:
        """Return the reader of an input."""

    @abc.abstractmethod
    def _check(self, inputs: list[T], geometry: PatchGeometry) -> Mapping[T, DetectorOverlap | None]:
        """Find wrong inputs before any pixel is read.

        Returns
        -------
        footprints : `~collections.abc.Mapping`
            Where the inputs that were looked at fall on the patch.
        """

    @abc.abstractmethod
    def _add(
        self,
        builder: StackBuilder,
        visit_input: T,
        geometry: PatchGeometry,
        footprints: Mapping[T, DetectorOverlap | None],
    ) -> None:
        """Add one input to the current plane of the stack."""


class BuildStackTask(StackTask[VisitInput]):
    """Brings the visit images that overlap a patch onto its pixel grid.

    The detectors of one visit become one plane, with a PSF kernel for each
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
        """Find wrong units and missing mask planes before any pixel is read.

        Returns
        -------
        footprints : `~collections.abc.Mapping` [`VisitInput`, `DetectorOverlap`]
            Where the visit images that were looked at fall on the patch.
        """
        footprints: dict[VisitInput, DetectorOverlap | None] = {}
        for visit_input in inputs:
            try:
                if visit_input.is_whole:
                    # To look at it was to read it whole, which is to happen
                    # once and with one image in memory: the rest wait.
                    break
                footprints[visit_input] = self._check_one(visit_input, geometry)
            except DamagedInputError:
                # Its turn to be dropped will come.
                continue
        return footprints

    def _check_one(self, visit_input: VisitInput, geometry: PatchGeometry) -> DetectorOverlap | None:
        footprint = DetectorOverlap.find(
            geometry, visit_input.get("sky_projection"), visit_input.get("bounds"), visit_input.get("bbox")
        )
        if footprint is not None:
            visit_input.require_flux()
            visit_input.require_planes(set(self.config.badMaskPlanes))
        return footprint

    def _add(
        self,
        builder: StackBuilder,
        visit_input: VisitInput,
        geometry: PatchGeometry,
        footprints: Mapping[VisitInput, DetectorOverlap | None],
    ) -> None:
        """Add one visit image to the current plane of the stack."""
        if visit_input in footprints:
            footprint = footprints[visit_input]
        else:
            footprint = self._check_one(visit_input, geometry)
        if footprint is None:
            raise OutsideError("it has no pixel on the patch")
        try:
            pixel_map = PixelMap(
                geometry.sky_projection,
                footprint.sky_projection,
                footprint.bbox,
                footprint.detector_bbox,
                tolerance=self.config.maxPositionError,
            )
        except WarpError as err:
            raise NotUsableError(str(err)) from err
        kernels = self._draw_kernels(visit_input, footprint, pixel_map)

        image = visit_input.read(footprint.detector_bbox)
        good = self._good_pixels(image, footprint)
        scale = scale_to_njy(image)
        warped = warp(
            image.image.array * scale,
            image.variance.array * scale**2,
            good,
            image.bbox,
            pixel_map,
            max_bad_weight=self.config.maxBadWeight,
        )
        if not warped.good.any():
            raise OutsideError("only the edge of its valid pixels touches the patch")
        builder.add(visit_input, footprint, warped, kernels)

    def _draw_kernels(
        self, visit_input: VisitInput, footprint: DetectorOverlap, pixel_map: PixelMap
    ) -> CellKernels:
        """Draw the PSF in each cell, and tell where it cannot be used."""
        if self.config.psf == "gaussian":
            return CellKernels.gaussian(footprint, size=self.config.kernelSize, fwhm=self.config.gaussianFwhm)
        # A model is code and data from elsewhere and may raise anything.
        try:
            psf = visit_input.get("psf")
        except DamagedInputError:
            raise
        except Exception as err:
            cause, machine = find_cause(err), find_environment_error(err)
            is_alone = cause is err and machine is None
            # Software may be missing for some images' models only.
            if not (is_alone or isinstance(machine, ImportError)):
                raise
            raise DamagedInputError(f"its PSF cannot be read ({describe_error(cause)})") from err
        kernels = CellKernels.draw(
            psf, footprint, pixel_map, size=self.config.kernelSize, max_loss=self.config.maxKernelLoss
        )
        if not kernels.exists.any():
            raise (DamagedInputError if kernels.damaged else NotUsableError)(kernels.failures[0])
        if kernels.failures:
            self.log.warning(
                "%s is not used in %d of its %d cells, in the first because %s.",
                visit_input,
                len(kernels.failures),
                len(kernels.failures) + np.count_nonzero(kernels.exists),
                kernels.failures[0],
            )
        return kernels

    def _good_pixels(self, image: VisitImage, footprint: DetectorOverlap) -> np.ndarray:
        """Return which pixels of an image are valid measurements."""
        planes = list(self.config.badMaskPlanes)
        masked = (image.mask.array & image.mask.schema.bitmask(*planes)).any(axis=-1)
        finite = np.isfinite(image.image.array) & np.isfinite(image.variance.array)
        positive = image.variance.array > 0.0
        if isinstance(footprint.bounds, Box):
            valid = np.ones(masked.shape, dtype=bool)
        else:
            grid = image.bbox.meshgrid()
            valid = footprint.bounds.contains(x=grid.x, y=grid.y)
        good = ~masked & finite & positive & valid
        if not good.any():
            raise NotUsableError(
                f"none of its {good.size} pixels on the patch is good ({masked.mean():.0%} masked by one of "
                f"{', '.join(planes)}; {1.0 - finite.mean():.0%} not finite; "
                f"{1.0 - positive.mean():.0%} without a positive variance; "
                f"{1.0 - valid.mean():.0%} outside of its bounds)"
            )
        return good
