# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The datasets of `RestoreCoaddTask`."""

from __future__ import annotations

__all__ = ("RestoreCoaddConnections",)

import dataclasses
import importlib.util
import logging
from typing import TYPE_CHECKING

import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT

if TYPE_CHECKING:
    from .restore_coadd import RestoreCoaddConfig

_LOG = logging.getLogger(__name__)

_PATCH = ("skymap", "tract", "patch", "band")


def _output(name: str, storage_class: str, doc: str) -> cT.Output:
    """Declare an output dataset of a patch."""
    return cT.Output(doc=doc, name=name, storageClass=storage_class, dimensions=_PATCH)


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
        storageClass="CellCoadd",
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
        doc="The pipeline's own coadd of the patch: compared with where there is one, the source of the "
        "pixel grid if patchGeometry='coadd', and the input if inputType='coadd'.",
        name="deep_coadd",
        storageClass="CellCoadd",
        dimensions=_PATCH,
        minimum=0,
        deferLoad=True,
    )
    restored_coadd = _output(
        "restored_coadd",
        "CellCoadd",
        "The restored coadd: the non-negative latent image.",
    )
    restored_coadd_measurable = _output(
        "restored_coadd_measurable",
        "CellCoadd",
        "Image for photometry: restored and residual light at a stated PSF, with its variance.",
    )
    restored_coadd_reference = _output(
        "restored_coadd_reference",
        "CellCoadd",
        "Clipped mean of the same exposures, weighted by their inverse variance.",
    )
    restored_coadd_naive_mean = _output(
        "restored_coadd_naive_mean",
        "ImageV2",
        "The papers' naive coadd: the unweighted mean of the same exposures.",
    )
    restored_coadd_training = _output("restored_coadd_training", "ArrowAstropy", "Loss by training step.")
    restored_coadd_metrics = _output(
        "restored_coadd_metrics",
        "StructuredDataDict",
        "Sharpness, noise and similarity of the restored coadd and of the images for comparison.",
    )
    restored_coadd_plot = _output(
        "restored_coadd_plot",
        "Plot",
        "An exposure, the reference coadd, the restored coadd and their difference.",
    )
    restored_coadd_training_plot = _output(
        "restored_coadd_training_plot",
        "Plot",
        "Loss by training step, as a figure.",
    )
    restored_coadd_kernels = _output(
        "restored_coadd_kernels",
        "NumpyArray",
        "PSF kernels by visit and cell, shape (visits, cells_y, cells_x, 25, 25): those of the PSF "
        "models, or the fitted ones.",
    )
    restored_coadd_kernels_plot = _output(
        "restored_coadd_kernels_plot",
        "Plot",
        "PSF kernels of the exposures at the center of the patch, and how they vary over it.",
    )
    restored_coadd_kernel_fit_plot = _output(
        "restored_coadd_kernel_fit_plot",
        "Plot",
        "Fitted PSF kernels and their start (fitKernels.mode other than 'given').",
    )
    restored_coadd_weights = _output(
        "restored_coadd_weights",
        "ArrowAstropy",
        "Weights of the network, if the restorer fits one to each patch.",
    )

    def __init__(self, *, config: RestoreCoaddConfig):
        has_afw = importlib.util.find_spec("lsst.afw") is not None
        if config.inputType == "visit_image" and "calexp" in config.connections.visit_images and not has_afw:
            # The graph will be refused with an IncompatibleDatasetTypeError if
            # they are; the remedy can only be given here.
            _LOG.warning(
                "Dataset '%s' is an afw ExposureF in most repositories, and lsst.afw, which reads it, is not "
                "installed here. If the graph is refused, run inside of the full Science Pipelines "
                "('setup drp_restore'), or bring the exposures in as visit images with "
                "'butler ingest-exposures'.",
                config.connections.visit_images,
            )
        if config.inputType != "visit_image":
            del self.visit_images
        if config.inputType == "direct_warp":
            self.direct_warps = dataclasses.replace(self.direct_warps, storageClass=config.warpStorageClass)
        else:
            del self.direct_warps
        if config.gridSource != "tract":
            del self.tract_geometry
        if config.gridSource != "skymap":
            del self.sky_map
        if config.fitKernels.value.mode == "given":
            del self.restored_coadd_kernel_fit_plot
        if not config.restorer.value.fits_weights:
            del self.restored_coadd_weights
        if config.coaddStorageClass != self.coadd.storageClass:
            self.coadd = dataclasses.replace(self.coadd, storageClass=config.coaddStorageClass)
        if config.gridSource == "coadd" or config.inputType == "coadd":
            # A patch without a coadd has no grid, or no input, then: it is no quantum.
            self.coadd = cT.Input(
                doc=self.coadd.doc,
                name=self.coadd.name,
                storageClass=self.coadd.storageClass,
                dimensions=self.coadd.dimensions,
                deferLoad=True,
            )
