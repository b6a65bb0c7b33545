# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The pipeline task: from the visit images that overlap a patch to its
restored coadd.
"""

from __future__ import annotations

__all__ = ("RestoreCoaddConfig", "RestoreCoaddTask")

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
from lsst.images import MaskedImage

from .outputs.datasets import describe_patch, make_datasets
from .outputs.metrics import format_metrics
from .outputs.restored_stack import RestoredStack
from .restoration.backend import describe_backend
from .restore_coadd_connections import RestoreCoaddConnections
from .restore_stack import RestoreStackConfig, RestoreStackTask
from .transactions import all_or_nothing
from .warping.build_stack import BuildStackTask
from .warping.legacy import coadd_from_afw
from .warping.patch_geometry import MIN_CELL_SIZE, PatchGeometry
from .warping.stack_coadd import StackCoaddTask
from .warping.stack_input import StackedInputs
from .warping.stack_warps import StackWarpsTask


class RestoreCoaddConfig(
    pipeBase.PipelineTaskConfig, RestoreStackConfig, pipelineConnections=RestoreCoaddConnections
):
    """Configuration of `RestoreCoaddTask`: of its inputs, and of
    `RestoreStackTask`.
    """

    inputType = pexConfig.ChoiceField[str](
        doc="Input datasets.",
        default="visit_image",
        allowed={
            "visit_image": "Visit images, which are warped here.",
            "direct_warp": "Warps: visits that are on the patch's pixel grid already.",
            "coadd": "The pipeline's own coadd of the patch (connection coadd), by its own PSF, variance and "
            "mask: no visits are needed.",
        },
        optional=False,
    )
    patchGeometry = pexConfig.ChoiceField[str](
        doc="Where the pixel grid of the patch comes from. That of a CellCoadd that is restored "
        "(inputType='coadd') is its own, whatever is set here.",
        default="tract",
        allowed={
            "tract": "The dataset tract_geometry that 'butler register-tract' writes.",
            "coadd": "The pipeline's own coadd of the patch.",
            "skymap": "The dataset skyMap of the full Science Pipelines.",
        },
        optional=False,
    )
    cellSize = pexConfig.RangeField(
        dtype=int,
        doc="Largest height and width in pixels of the cells of patches whose skymap defines none. They are "
        "as large as tile the patch: 150 for patches of 4200 pixels, 100 for those of 4100 at the edges of a "
        "tract. Decrease it where the PSF varies within 150 pixels.",
        default=150,
        min=MIN_CELL_SIZE,
    )
    warpStorageClass = pexConfig.ChoiceField[str](
        doc="How warps are stored (inputType='direct_warp').",
        default="CellCoadd",
        allowed={
            "CellCoadd": "As lsst.images has it: those of 'butler simulate-exposures --warps'.",
            "ExposureF": "As lsst.afw has it: those of the Science Pipelines.",
        },
        optional=False,
    )
    coaddStorageClass = pexConfig.ChoiceField[str](
        doc="How the pipeline's own coadd is read.",
        default="CellCoadd",
        allowed={
            "CellCoadd": "As lsst.images has it.",
            "ExposureF": "As lsst.afw has it, to compare with: it has no patch's grid.",
        },
        optional=False,
    )
    buildStack: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=BuildStackTask, doc="Brings the visit images onto the patch's grid."
    )
    stackWarps: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=StackWarpsTask, doc="Stacks warps (inputType='direct_warp')."
    )
    stackCoadd: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=StackCoaddTask, doc="Takes the coadd as one exposure (inputType='coadd')."
    )

    @property
    def gridSource(self) -> str:  # noqa: N802
        """Where the pixel grid comes from (`str`): ``patchGeometry``, or the
        coadd that is restored.
        """
        if self.inputType == "coadd" and self.coaddStorageClass == "CellCoadd":
            return "coadd"
        return str(self.patchGeometry)

    def validate(self) -> None:
        """Check that the fields fit together."""
        super().validate()
        if self.patchGeometry == "coadd" and self.coaddStorageClass != "CellCoadd":
            raise pexConfig.FieldValidationError(
                RestoreCoaddConfig.coaddStorageClass, self, "must be 'CellCoadd' if patchGeometry='coadd'"
            )
        if self.inputType == "coadd" and self.fitKernels.value.mode != "given":
            raise pexConfig.FieldValidationError(
                RestoreCoaddConfig.fitKernels, self, "must have mode='given' if inputType='coadd'"
            )


class RestoreCoaddTask(RestoreStackTask, pipeBase.PipelineTask):
    """Restore one patch in one band from the visit images that overlap it, or
    from its coadd.
    """

    ConfigClass = RestoreCoaddConfig
    _DefaultName: ClassVar[str] = "restoreCoadd"
    config: RestoreCoaddConfig
    buildStack: BuildStackTask
    stackWarps: StackWarpsTask
    stackCoadd: StackCoaddTask

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.makeSubtask("buildStack")
        self.makeSubtask("stackWarps")
        self.makeSubtask("stackCoadd")

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Translate between the Butler and `run`.

        Parameters
        ----------
        butlerQC : `lsst.pipe.base.QuantumContext`
            Reads and writes the datasets.
        inputRefs : `lsst.pipe.base.InputQuantizedConnection`
            Input datasets.
        outputRefs : `lsst.pipe.base.OutputQuantizedConnection`
            Output datasets.
        """
        inputs = butlerQC.get(inputRefs)
        data_id: dict[str, Any] = dict(outputRefs.restored_coadd.dataId.required)
        coadd = inputs.get("coadd")
        geometry = self._geometry(inputs, data_id, coadd)
        handles = inputs[self._input_name]
        outputs = self.run(
            [handles] if handles is coadd else handles,
            geometry,
            data_id["band"],
            coadd=self._read_coadd(coadd) if coadd is not None and self._compares else None,
            num_cores=butlerQC.resources.num_cores,
        )
        with all_or_nothing(butlerQC):
            butlerQC.put(outputs, outputRefs)

    def _read_coadd(self, handle: Any) -> MaskedImage:
        coadd = handle.get()
        return coadd if isinstance(coadd, MaskedImage) else coadd_from_afw(coadd)

    @property
    def _input_name(self) -> str:
        """Name of the connection with the input datasets."""
        return {"visit_image": "visit_images", "direct_warp": "direct_warps", "coadd": "coadd"}[
            self.config.inputType
        ]

    @property
    def _stacker(self) -> BuildStackTask | StackWarpsTask:
        match self.config.inputType:
            case "direct_warp":
                return self.stackWarps
            case "coadd":
                return self.stackCoadd
        return self.buildStack

    @property
    def _compares(self) -> bool:
        """Whether the pipeline's coadd is there to compare with (`bool`); as
        the input it is the reference coadd.
        """
        return self.config.inputType != "coadd"

    def _geometry(self, inputs: Mapping[str, Any], data_id: Mapping[str, Any], coadd: Any) -> PatchGeometry:
        """Return the patch's pixel grid; ``coadd`` is the handle of a coadd of
        it, if there is one.
        """
        match self.config.gridSource:
            case "tract":
                return PatchGeometry.from_tract(inputs["tract_geometry"], data_id["patch"])
            case "coadd":
                return PatchGeometry.from_coadd(coadd)
            case "skymap":
                return PatchGeometry.from_skymap(
                    inputs["sky_map"],
                    data_id["tract"],
                    data_id["patch"],
                    skymap_name=data_id["skymap"],
                    cell_size=self.config.cellSize,
                )
        raise AssertionError(self.config.gridSource)

    def run(
        self,
        visit_images: Sequence[Any],
        geometry: PatchGeometry,
        band: str,
        *,
        coadd: MaskedImage | None = None,
        num_cores: int = 1,
    ) -> pipeBase.Struct:
        """Restore a patch.

        Parameters
        ----------
        visit_images : `~collections.abc.Sequence` [handle]
            Deferred handles of the visit images, of the warps, or of the one
            coadd: ``dataId``, and ``get`` with ``component`` and
            ``parameters``.
        geometry : `PatchGeometry`
            The pixel grid of the patch.
        band : `str`
            Name of the band.
        coadd : `lsst.images.MaskedImage`, optional
            The pipeline's coadd of the patch, for comparison.
        num_cores : `int`, optional
            CPU cores to use.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            One attribute by output connection.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            Raised if too few visit images can be used.
        RestorationError
            Raised if an input or the configuration is wrong, or the training
            fails; a `DivergedError` if it diverges.
        """
        # Before the work of hours: it may be impossible.
        geometry.refined(self.config.superResolution)
        inputs = self._stacker.run(visit_images, geometry, band, oversampling=self.config.superResolution)
        title = describe_patch(geometry, band)
        restored = self.restore(inputs.stack, n_threads=num_cores, patch=title)
        return self.make_outputs(restored, inputs, geometry, band, coadd)

    def make_outputs(
        self,
        restored: RestoredStack,
        inputs: StackedInputs,
        geometry: PatchGeometry,
        band: str,
        coadd: MaskedImage | None,
    ) -> pipeBase.Struct:
        """Make the output datasets of a band.

        Parameters
        ----------
        restored : `RestoredStack`
            The restored exposures.
        inputs : `StackedInputs`
            The stacked input datasets.
        geometry : `PatchGeometry`
            The pixel grid of the patch.
        band : `str`
            Name of the band.
        coadd : `lsst.images.MaskedImage` or `None`
            The pipeline's coadd of the patch, for comparison.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            One attribute by output connection.
        """
        outputs = make_datasets(
            restored,
            inputs,
            geometry,
            band,
            coadd=coadd,
            # The number of exposures in a pixel of a coadd is not known.
            few_exposures=self.config.fewExposures if self.config.inputType != "coadd" else 1,
            backend=describe_backend(),
        )
        self.log.info(
            "Restored %s:\n%s", describe_patch(geometry, band), format_metrics(outputs.restored_coadd_metrics)
        )
        return outputs
