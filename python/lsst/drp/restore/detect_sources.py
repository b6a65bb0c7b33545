# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The pipeline task that makes the source list of a restored coadd."""

from __future__ import annotations

__all__ = (
    "DetectRestoredSourcesConfig",
    "DetectRestoredSourcesConnections",
    "DetectRestoredSourcesTask",
)

import dataclasses
from typing import Any, ClassVar

import astropy.units as u
import numpy as np

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from lsst.images.cells import CellCoadd

from .errors import InputError
from .outputs.datasets import describe_patch
from .outputs.plot_sources import plot_sources
from .sources.compare import compare_sources, format_source_metrics
from .sources.find_sources import FIT_RADIUS, FindSourcesTask
from .sources.source_image import SourceImage
from .sources.source_table import PatchFrame, make_source_table, near_missing
from .stack.oversampling import bin_pixels
from .warping.patch_geometry import PatchGeometry

_PATCH = ("skymap", "tract", "patch", "band")


class DetectRestoredSourcesConnections(pipeBase.PipelineTaskConnections, dimensions=_PATCH):
    """Datasets of `DetectRestoredSourcesTask`."""

    restored_coadd = cT.Input(
        doc="The restored coadd, on which sources are deblended.",
        name="restored_coadd",
        storageClass="CellCoadd",
        dimensions=_PATCH,
    )
    restored_coadd_measurable = cT.Input(
        doc="The measurable coadd, on which sources are detected and measured.",
        name="restored_coadd_measurable",
        storageClass="CellCoadd",
        dimensions=_PATCH,
    )
    restored_coadd_reference = cT.Input(
        doc="The reference coadd, for comparison.",
        name="restored_coadd_reference",
        storageClass="CellCoadd",
        dimensions=_PATCH,
    )
    restored_source = cT.Output(
        doc="Sources of the restored coadd.",
        name="restored_source",
        storageClass="ArrowAstropy",
        dimensions=_PATCH,
    )
    restored_source_metrics = cT.Output(
        doc="Comparison of these sources with those that are detected on the reference coadd.",
        name="restored_source_metrics",
        storageClass="StructuredDataDict",
        dimensions=_PATCH,
    )
    restored_source_plot = cT.Output(
        doc="The sources marked on the reference and on the restored coadd.",
        name="restored_source_plot",
        storageClass="Plot",
        dimensions=_PATCH,
    )


class DetectRestoredSourcesConfig(
    pipeBase.PipelineTaskConfig, pipelineConnections=DetectRestoredSourcesConnections
):
    """Configuration of `DetectRestoredSourcesTask`."""

    find: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=FindSourcesTask, doc="Detects, deblends and measures sources."
    )
    matchRadius = pexConfig.RangeField(
        dtype=float,
        doc="Largest distance of a source of the restored coadd from the same one of the reference coadd, "
        "pixels, in restored_source_metrics: about half of the seeing.",
        default=2.5,
        min=0.0,
        inclusiveMin=False,
    )


class DetectRestoredSourcesTask(pipeBase.PipelineTask):
    """List the sources of a patch that was restored in one band."""

    ConfigClass = DetectRestoredSourcesConfig
    _DefaultName: ClassVar[str] = "detectRestoredSources"
    config: DetectRestoredSourcesConfig
    find: FindSourcesTask

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.makeSubtask("find")

    def run(
        self,
        restored_coadd: CellCoadd,
        restored_coadd_measurable: CellCoadd,
        restored_coadd_reference: CellCoadd,
    ) -> pipeBase.Struct:
        """List the sources of a patch.

        Parameters
        ----------
        restored_coadd : `lsst.images.cells.CellCoadd`
            The restored coadd.
        restored_coadd_measurable : `lsst.images.cells.CellCoadd`
            The measurable coadd.
        restored_coadd_reference : `lsst.images.cells.CellCoadd`
            The reference coadd.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            One attribute by output connection:

            ``restored_source``
                Table of the sources, see
                `~lsst.drp.restore.sources.source_table.make_source_table`.
            ``restored_source_metrics``
                Nested `dict` of numbers, see
                `~lsst.drp.restore.sources.compare.format_source_metrics`.
            ``restored_source_plot``
                The figure, see
                `~lsst.drp.restore.outputs.plot_sources.plot_sources`.

        Raises
        ------
        InputError
            Raised if the coadds are not on the same pixel grid.
        """
        geometry = PatchGeometry.from_coadd(restored_coadd_measurable)
        # The restored coadd may have smaller pixels.
        oversampling = max(1, restored_coadd.bbox.y.size // geometry.outer_bbox.y.size)
        for name, coadd, bbox in (
            ("restored_coadd", restored_coadd, geometry.refined(oversampling).outer_bbox),
            ("restored_coadd_reference", restored_coadd_reference, geometry.outer_bbox),
        ):
            if coadd.bbox != bbox:
                raise InputError(
                    f"Dataset {name} has the pixels {coadd.bbox}, restored_coadd_measurable "
                    f"{geometry.outer_bbox}: they are of different runs; take all three from the same one."
                )
        restored, measurable, reference = (
            _source_image(coadd)
            for coadd in (restored_coadd, restored_coadd_measurable, restored_coadd_reference)
        )
        # Pixels without data (the cores of saturated stars) repeat the restored
        # coadd: only the wings may be fitted.
        measurable.variance[restored_coadd_measurable.mask.get("NO_DATA")] = np.nan
        found = self.find.run(restored, measurable)
        table = make_source_table(
            found,
            _patch_frame(geometry),
            _planes(geometry.outer_bbox.shape, restored_coadd, restored_coadd_measurable),
            edge=near_missing(measurable.valid, FIT_RADIUS),
        )
        reference, noise_scale = _equal_noise(reference, measurable)
        metrics = compare_sources(
            found,
            self.find.run(None, reference),
            table,
            match_radius=self.config.matchRadius,
            pixel_scale=geometry.pixel_scale,
        )
        metrics["reference_noise_scale"] = noise_scale
        title = describe_patch(geometry, restored_coadd.band)
        self.log.info("Sources of %s:\n%s", title, format_source_metrics(metrics))
        return pipeBase.Struct(
            restored_source=table,
            restored_source_metrics=metrics,
            restored_source_plot=plot_sources(
                reference.image,
                bin_pixels(restored.image, oversampling),
                table,
                geometry=geometry,
                title=title,
            ),
        )


def _equal_noise(reference: SourceImage, measurable: SourceImage) -> tuple[SourceImage, float]:
    """Return the reference coadd with its errors scaled so that significances
    mean the same on both coadds, and the factor.

    The pixels of a mean of warped exposures are correlated; those of the
    measurable coadd are (nearly) not.
    """
    widths = reference.sky_width(), measurable.sky_width()
    scale = float(widths[0] / widths[1]) if min(widths) > 0 else 1.0
    return dataclasses.replace(reference, variance=reference.variance * scale**2), scale


def _patch_frame(geometry: PatchGeometry) -> PatchFrame:
    """Return the place of a patch's arrays."""
    box, inner = geometry.outer_bbox, geometry.patch.inner_bbox
    return PatchFrame(
        tract=geometry.tract,
        patch=geometry.patch.id,
        x0=box.x.start,
        y0=box.y.start,
        inner=(slice(inner.y.start, inner.y.stop), slice(inner.x.start, inner.x.stop)),
        pixel_to_sky=lambda x, y: geometry.sky_projection.pixel_to_sky(x=x, y=y),
    )


def _source_image(coadd: CellCoadd) -> SourceImage:
    """Extract the arrays of a coadd."""
    grid, missing = coadd.psf.grid, coadd.psf.bounds.missing
    indices = [index for index in coadd.psf.bounds.cell_indices() if index not in missing]
    size = coadd.psf.kernel_bbox.shape
    kernels = np.zeros((grid.grid_size.i, grid.grid_size.j, *size), np.float32)
    for index in indices:
        kernels[index.i, index.j] = coadd.psf[index].array
    return SourceImage(
        image=coadd.image.quantity.to_value(u.nJy),
        variance=coadd.variance.quantity.to_value(u.nJy**2).copy(),
        kernels=kernels,
        cell_shape=(grid.cell_shape.y, grid.cell_shape.x),
    )


def _planes(shape: tuple[int, ...], *coadds: CellCoadd) -> dict[str, np.ndarray]:
    """Return the mask planes of coadds by name, at the pixels of an image of the
    given shape: set where any coadd has it set in any part of the pixel.
    """
    planes: dict[str, np.ndarray] = {}
    for coadd in coadds:
        for name in coadd.mask.schema.names:
            pixels = coadd.mask.get(name)
            pixels = pixels.reshape(shape[0], pixels.shape[0] // shape[0], shape[1], -1).any(axis=(1, 3))
            planes[name] = planes[name] | pixels if name in planes else pixels
    return planes
