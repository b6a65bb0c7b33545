# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The pipeline task: from the visit images that overlap a patch to its
restored coadd.
"""

from __future__ import annotations

__all__ = ("RestoreCoaddConfig", "RestoreCoaddConnections", "RestoreCoaddTask")

import dataclasses
import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import astropy.units as u

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from lsst.daf.butler import Butler
from lsst.images import Image, MaskedImage

from .errors import describe_error, find_environment_error
from .outputs.coadds import (
    make_measurable_coadd,
    make_reference_coadd,
    make_restored_coadd,
    make_weights_table,
)
from .outputs.metrics import format_metrics, measure_metrics
from .outputs.plot_kernel_fit import plot_kernel_fit
from .outputs.plot_kernels import plot_kernels
from .outputs.plot_restoration import plot_history, plot_restoration
from .outputs.software_provenance import describe_computation
from .psf_fitting.fit_kernels import FitKernelsTask
from .restoration.astro_clear_net import AstroClearNetTask
from .restoration.backend import describe_backend, prepare_backend
from .restoration.characterize import CharacterizeTask
from .restoration.divergence import require_finite
from .restoration.image_mm import ImageMMTask
from .restoration.measurable import MeasurableTask
from .restoration.published_net import PublishedNetTask
from .restoration.restoration import Guide, StartingPoint
from .restoration.target_psf import TARGET_FWHM
from .stack.exposure_stack import ExposureStack
from .stack.reference_coadd import naive_mean, reference_coadd
from .stack.subtract_sky import SubtractSkyTask
from .warping.build_stack import BuildStackTask
from .warping.patch_geometry import PatchGeometry
from .warping.stack_warps import StackWarpsTask
from .warping.warp_input import coadd_from_afw

_LOG = logging.getLogger(__name__)

_PATCH = ("skymap", "tract", "patch", "band")


class RestoreCoaddConnections(pipeBase.PipelineTaskConnections, dimensions=_PATCH):
    """Datasets of `RestoreCoaddTask`."""

    visit_images = cT.Input(
        doc="Calibrated exposures that overlap the patch, with PSF, variance and mask.",
        name="visit_image",
        storageClass="VisitImage",
        dimensions=("instrument", "visit", "detector"),
        multiple=True,
        deferLoad=True,
    )
    direct_warps = cT.Input(
        doc="Visits on the patch's pixel grid (inputType='direct_warp').",
        name="direct_warp",
        # What lsst.afw writes where it is installed, lsst.images elsewhere.
        storageClass="ExposureF" if importlib.util.find_spec("lsst.afw") else "CellCoadd",
        dimensions=("skymap", "tract", "patch", "instrument", "visit"),
        multiple=True,
        deferLoad=True,
    )
    tract_geometry = cT.Input(
        doc="Pixel grids of the patches of a tract, from 'butler register-tract' (patchGeometry='tract').",
        name="tract_geometry",
        storageClass="StructuredDataDict",
        dimensions=("skymap", "tract"),
    )
    sky_map = cT.Input(
        doc="The skymap of the full Science Pipelines (patchGeometry='skymap').",
        name="skyMap",
        storageClass="SkyMap",
        dimensions=("skymap",),
    )
    coadd = cT.PrerequisiteInput(
        doc="The pipeline's own coadd of the patch: compared with where there is one, and the source of the "
        "pixel grid if patchGeometry='coadd'.",
        name="deep_coadd",
        storageClass="CellCoadd",
        dimensions=_PATCH,
        minimum=0,
        deferLoad=True,
    )
    restored_coadd = cT.Output(
        doc="The restored coadd: the non-negative latent image.",
        name="restored_coadd",
        storageClass="CellCoadd",
        dimensions=_PATCH,
    )
    restored_coadd_measurable = cT.Output(
        doc="The image to measure on: restored and residual light at a stated PSF, with its variance.",
        name="restored_coadd_measurable",
        storageClass="CellCoadd",
        dimensions=_PATCH,
    )
    restored_coadd_reference = cT.Output(
        doc="Clipped mean of the same exposures, weighted by their inverse variance.",
        name="restored_coadd_reference",
        storageClass="CellCoadd",
        dimensions=_PATCH,
    )
    restored_coadd_naive_mean = cT.Output(
        doc="The papers' naive coadd: the unweighted mean of the same exposures.",
        name="restored_coadd_naive_mean",
        storageClass="ImageV2",
        dimensions=_PATCH,
    )
    restored_coadd_training = cT.Output(
        doc="Loss by training step.",
        name="restored_coadd_training",
        storageClass="ArrowAstropy",
        dimensions=_PATCH,
    )
    restored_coadd_metrics = cT.Output(
        doc="Sharpness, noise and similarity of the restored coadd and of what it is compared with.",
        name="restored_coadd_metrics",
        storageClass="StructuredDataDict",
        dimensions=_PATCH,
    )
    restored_coadd_plot = cT.Output(
        doc="An exposure, the reference coadd, the restored coadd and their difference.",
        name="restored_coadd_plot",
        storageClass="Plot",
        dimensions=_PATCH,
    )
    restored_coadd_training_plot = cT.Output(
        doc="Loss by training step, as a figure.",
        name="restored_coadd_training_plot",
        storageClass="Plot",
        dimensions=_PATCH,
    )
    restored_coadd_kernels = cT.Output(
        doc="PSF kernels by visit and cell, shape (visits, cells_y, cells_x, 25, 25): those of the PSF "
        "models, or the fitted ones.",
        name="restored_coadd_kernels",
        storageClass="NumpyArray",
        dimensions=_PATCH,
    )
    restored_coadd_kernels_plot = cT.Output(
        doc="PSF kernels of the exposures at the center of the patch, and how they vary over it.",
        name="restored_coadd_kernels_plot",
        storageClass="Plot",
        dimensions=_PATCH,
    )
    restored_coadd_kernel_fit_plot = cT.Output(
        doc="Fitted PSF kernels and what they were fitted from (fitKernels.mode other than 'given').",
        name="restored_coadd_kernel_fit_plot",
        storageClass="Plot",
        dimensions=_PATCH,
    )
    restored_coadd_weights = cT.Output(
        doc="Weights of the network, if the restorer fits one to each patch.",
        name="restored_coadd_weights",
        storageClass="ArrowAstropy",
        dimensions=_PATCH,
    )

    def __init__(self, *, config: RestoreCoaddConfig):
        has_afw = importlib.util.find_spec("lsst.afw") is not None
        if config.inputType == "visit_image" and "calexp" in config.connections.visit_images and not has_afw:
            # The graph will be refused with an IncompatibleDatasetTypeError if
            # they are; what to do about it can only be said here.
            _LOG.warning(
                "Dataset '%s' is an afw ExposureF in most repositories, and lsst.afw, which reads it, is not "
                "installed here. If the graph is refused, run inside of the full Science Pipelines "
                "('setup drp_restore'), or bring the exposures in as visit images with "
                "'butler ingest-exposures'.",
                config.connections.visit_images,
            )
        if config.inputType == "direct_warp":
            del self.visit_images
        else:
            del self.direct_warps
        if config.patchGeometry != "tract":
            del self.tract_geometry
        if config.patchGeometry != "skymap":
            del self.sky_map
        if config.fitKernels.value.mode == "given":
            del self.restored_coadd_kernel_fit_plot
        if not getattr(config.restorer.value, "fits_weights", False):
            del self.restored_coadd_weights
        if config.coaddStorageClass != self.coadd.storageClass:
            self.coadd = dataclasses.replace(self.coadd, storageClass=config.coaddStorageClass)
        if config.patchGeometry == "coadd":
            # A patch without a coadd has no grid then: it is no quantum.
            self.coadd = cT.Input(
                doc=self.coadd.doc,
                name=self.coadd.name,
                storageClass=self.coadd.storageClass,
                dimensions=self.coadd.dimensions,
                deferLoad=True,
            )


class RestoreCoaddConfig(pipeBase.PipelineTaskConfig, pipelineConnections=RestoreCoaddConnections):
    """Configuration of `RestoreCoaddTask`."""

    inputType = pexConfig.ChoiceField[str](
        doc="What is restored.",
        default="visit_image",
        allowed={
            "visit_image": "Visit images, which are warped here.",
            "direct_warp": "Warps: visits that are on the patch's pixel grid already.",
        },
        optional=False,
    )
    patchGeometry = pexConfig.ChoiceField[str](
        doc="Where the pixel grid of the patch comes from.",
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
        doc="Height and width in pixels of the cells of patches whose skymap defines none.",
        default=150,
        min=25,
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
    sky: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=SubtractSkyTask, doc="Removes the background that the exposures' sky subtraction left."
    )
    clipSigma = pexConfig.RangeField(
        dtype=float,
        doc="Pixels of an exposure that differ from the others' median by more than this many sigma, and by "
        "more than differences between the PSFs explain, are outliers: neither coadded nor fitted.",
        default=5.0,
        min=1.0,
    )
    fitKernels: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=FitKernelsTask, doc="Fits the PSF kernels to the exposures, for a blind restoration."
    )
    superResolution = pexConfig.RangeField(
        dtype=int,
        doc="Pixels of the restored coadd along each axis in a pixel of the patch: 2 for one with pixels "
        "half as large, which tells closer sources apart. All other datasets keep the patch's pixels.",
        default=1,
        min=1,
        max=4,
    )
    restorer: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=AstroClearNetTask, doc="Restores the latent image."
    )
    targetFwhm = pexConfig.RangeField(
        dtype=float,
        doc="Full width at half maximum of the restored coadd's PSF, a Gaussian, pixels of the restored "
        "coadd. The default is a standard deviation of 0.8 pixels, the model PSF of the Rubin deblender; "
        "the network is trained at it, and larger ones are smoothed. ImageMMTask and PublishedNetTask end in "
        "pixels instead, as published.",
        default=TARGET_FWHM,
        min=TARGET_FWHM,
        max=8.0,
    )
    measurable: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=MeasurableTask, doc="Makes the image that one measures on."
    )
    characterize: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=CharacterizeTask, doc="Measures variance and PSF of the restored image."
    )
    fewExposures = pexConfig.RangeField(
        dtype=int,
        doc="Pixels with fewer exposures than this get the mask plane FEW_EXPOSURES.",
        default=3,
        min=0,
    )

    def validate(self) -> None:
        """Check that the fields fit together."""
        super().validate()
        if self.patchGeometry == "coadd" and self.coaddStorageClass != "CellCoadd":
            raise pexConfig.FieldValidationError(
                RestoreCoaddConfig.coaddStorageClass, self, "must be 'CellCoadd' if patchGeometry='coadd'"
            )


@contextmanager
def all_or_nothing(butlerQC: pipeBase.QuantumContext) -> Iterator[None]:
    """Return a context in which all datasets are written or none is.

    A run that is killed between two of its outputs leaves a repository in
    which ``--skip-existing`` finds the quantum neither done nor to do.  A
    transaction of the repository prevents that; `QuantumContext` does not
    offer it, so it is asked of the butler behind it.  A butler without a
    registry (``pipetask run-qbb``) has no transactions and needs none: its
    datasets are registered when the whole graph has run.
    """
    butler = butlerQC._QuantumContext__butler  # type: ignore[attr-defined]
    try:
        with butler.transaction() if isinstance(butler, Butler) else nullcontext():
            yield
    except Exception as err:
        if (cause := find_environment_error(err)) is None:
            raise
        # The Butler's message only says which dataset it was.
        raise RuntimeError(
            f"The patch cannot be written ({describe_error(cause)}), and nothing of it is left. Remove the "
            f"cause and run again with --extend-run --skip-existing --clobber-outputs. {err}"
        ) from err


class RestoreCoaddTask(pipeBase.PipelineTask):
    """Restore one patch in one band from the visit images that overlap it."""

    ConfigClass = RestoreCoaddConfig
    _DefaultName: ClassVar[str] = "restoreCoadd"
    config: RestoreCoaddConfig
    buildStack: BuildStackTask
    stackWarps: StackWarpsTask
    sky: SubtractSkyTask
    fitKernels: FitKernelsTask
    restorer: AstroClearNetTask | ImageMMTask | PublishedNetTask
    measurable: MeasurableTask
    characterize: CharacterizeTask

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.makeSubtask("buildStack")
        self.makeSubtask("stackWarps")
        self.makeSubtask("sky")
        self.makeSubtask("fitKernels")
        self.makeSubtask("restorer")
        self.makeSubtask("measurable")
        self.makeSubtask("characterize")

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
        outputs = self.run(
            inputs[self._input_name],
            geometry,
            data_id["band"],
            coadd=self._read_coadd(coadd) if coadd is not None else None,
            num_cores=butlerQC.resources.num_cores,
        )
        with all_or_nothing(butlerQC):
            butlerQC.put(outputs, outputRefs)

    def _read_coadd(self, handle: Any) -> MaskedImage:
        coadd = handle.get()
        return coadd if isinstance(coadd, MaskedImage) else coadd_from_afw(coadd)

    @property
    def _input_name(self) -> str:
        """Connection with what is restored."""
        return "direct_warps" if self.config.inputType == "direct_warp" else "visit_images"

    @property
    def _stacker(self) -> BuildStackTask | StackWarpsTask:
        return self.stackWarps if self.config.inputType == "direct_warp" else self.buildStack

    def _geometry(self, inputs: Mapping[str, Any], data_id: Mapping[str, Any], coadd: Any) -> PatchGeometry:
        """Return the patch's pixel grid; ``coadd`` is the handle of a coadd of
        it, if there is one.
        """
        match self.config.patchGeometry:
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
        raise AssertionError(self.config.patchGeometry)

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
            Deferred handles of the visit images, or the warps: ``dataId``,
            and ``get`` with ``component`` and ``parameters``.
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
        result = self.restore(inputs.stack, n_threads=num_cores)
        return self._pack(result, inputs, geometry, band, coadd)

    def _pack(
        self,
        result: pipeBase.Struct,
        inputs: pipeBase.Struct,
        geometry: PatchGeometry,
        band: str,
        coadd: MaskedImage | None,
    ) -> pipeBase.Struct:
        """Make the datasets from what `restore` returned."""
        stack: ExposureStack = inputs.stack
        if result.kernel_fit is not None:
            stack = dataclasses.replace(stack, kernels=result.kernel_fit.cell_kernels)
        fine = geometry.refined(stack.oversampling)
        reference, restoration = result.reference, result.restoration
        if result.kernel_fit is not None:
            inputs.seeing = result.kernel_fit.fwhm
            inputs.inputs = [item.with_kernels(stack.kernels[item.exposure]) for item in inputs.inputs]
        metrics = measure_metrics(result, stack, geometry=geometry, inputs=inputs, coadd=coadd)
        if result.kernel_fit is not None:
            metrics["kernel_fit"] = result.kernel_fit.metrics(stack.names)
        metrics["provenance"] = describe_computation(describe_backend(), restoration.network)
        title = f"{geometry.skymap}, tract {geometry.tract}, patch {geometry.patch.id}, {band}"
        self.log.info("Restored %s:\n%s", title, format_metrics(metrics))
        outputs = pipeBase.Struct(
            restored_coadd=make_restored_coadd(
                restoration,
                result.character,
                stack,
                reference,
                inputs.inputs,
                fine,
                band,
                self.config.fewExposures,
            ),
            restored_coadd_measurable=make_measurable_coadd(
                result.measurable, stack, reference, inputs.inputs, geometry, band, self.config.fewExposures
            ),
            restored_coadd_reference=make_reference_coadd(reference, inputs.inputs, geometry, band),
            restored_coadd_naive_mean=Image(
                result.naive, bbox=geometry.outer_bbox, unit=u.nJy, sky_projection=geometry.sky_projection
            ),
            restored_coadd_training=restoration.history,
            restored_coadd_metrics=metrics,
            restored_coadd_plot=plot_restoration(stack, reference, restoration, title=title, geometry=fine),
            restored_coadd_training_plot=plot_history(restoration.history, title=title),
            restored_coadd_kernels=stack.kernels,
            restored_coadd_kernels_plot=plot_kernels(stack, geometry=geometry, title=title),
        )
        if getattr(self.config.restorer.value, "fits_weights", False):
            outputs.restored_coadd_weights = make_weights_table(restoration.weights)
        if result.kernel_fit is not None:
            outputs.restored_coadd_kernel_fit_plot = plot_kernel_fit(
                result.kernel_fit, stack.names, title=title
            )
        return outputs

    def restore(
        self,
        stack: ExposureStack,
        *,
        n_threads: int = 1,
        guides: Sequence[Guide] = (),
    ) -> pipeBase.Struct:
        """Restore a stack of exposures: the part of `run` that knows only
        arrays.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures.  Changed in place: their background is subtracted,
            and their outliers are taken out.
        n_threads : `int`, optional
            CPU threads to use.
        guides : `~collections.abc.Sequence` [`Guide`], optional
            Restored images of the patch in deeper bands.

        Returns
        -------
        result : `lsst.pipe.base.Struct`
            Result struct with these attributes:

            ``naive``
                Plain mean of the exposures (`numpy.ndarray`).
            ``reference``
                Their weighted and clipped mean (`ReferenceCoadd`).
            ``kernel_fit``
                The fitted kernels (`KernelFit`), `None` if the given ones are
                used.
            ``restoration``
                The latent image (`Restoration`).
            ``measurable``
                The image to measure on (`Measurable`).
            ``character``
                Variance, PSF and dubious pixels of the latent image
                (`Characterization`).

        Raises
        ------
        RestorationError
            Raised if the configuration is wrong, or the training fails.
        """
        self.metadata["background_rms"] = self.sky.run(stack).rms.tolist()
        naive = naive_mean(stack)
        reference = reference_coadd(stack, clip_sigma=self.config.clipSigma)
        clipped = stack.image[reference.clipped], stack.variance[reference.clipped]
        stack.reject(reference.clipped)
        # Kernels are of the exposures' own pixels; the arrays are shared.
        whole_pixels = dataclasses.replace(stack, oversampling=1)
        kernel_fit = self.fitKernels.run(whole_pixels, reference, n_threads=n_threads)
        if kernel_fit is not None:
            stack = dataclasses.replace(stack, kernels=kernel_fit.cell_kernels)
            # What is an outlier depends on the kernels: look again at what the first ones made one.
            stack.unreject(reference.clipped, *clipped)
            reference = reference_coadd(stack, clip_sigma=self.config.clipSigma)
            stack.reject(reference.clipped)
        prepare_backend(self.restorer.config.computeDevice, n_threads, seed=0)
        from .restoration.first_estimate import first_estimate

        latent = first_estimate(stack)
        white = self.measurable.run(stack, reference, latent, target_fwhm=0.0)
        measurable = white
        if self.measurable.config.targetFwhm:
            measurable = self.measurable.run(stack, reference, latent)
        start = StartingPoint(
            latent=latent, measurable=white, target_fwhm=self.config.targetFwhm, guides=guides
        )
        restoration = require_finite(
            self.restorer.run(stack, reference, start=start, n_threads=n_threads), stack
        )
        self.metadata["n_retries"] = restoration.n_retries
        return pipeBase.Struct(
            naive=naive,
            reference=reference,
            kernel_fit=kernel_fit,
            restoration=restoration,
            measurable=measurable,
            character=self.characterize.run(stack, restoration, white),
        )
