# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The output datasets of a restored patch."""

from __future__ import annotations

__all__ = ("describe_patch", "make_datasets")

import dataclasses
from collections.abc import Mapping
from typing import Any

import astropy.units as u

import lsst.pipe.base as pipeBase
from lsst.images import Image, MaskedImage

from ..warping.patch_geometry import PatchGeometry
from ..warping.stack_input import StackedInputs
from .coadds import make_measurable_coadd, make_reference_coadd, make_restored_coadd
from .metrics import measure_metrics
from .pixel_flags import flag_pixels
from .plot_history import plot_history
from .plot_kernel_fit import plot_kernel_fit
from .plot_kernels import plot_kernels
from .plot_restoration import plot_restoration
from .restored_stack import RestoredStack
from .software_provenance import describe_computation
from .weights_table import make_weights_table


def describe_patch(geometry: PatchGeometry, band: str | None) -> str:
    """Name a patch.

    Parameters
    ----------
    geometry : `PatchGeometry`
        Its pixel grid.
    band : `str` or `None`
        Name of the band, if it has one.

    Returns
    -------
    title : `str`
        For figures and messages.
    """
    return f"{geometry.skymap}, tract {geometry.tract}, patch {geometry.patch.id}, {band}"


def make_datasets(
    restored: RestoredStack,
    inputs: StackedInputs,
    geometry: PatchGeometry,
    band: str,
    *,
    coadd: MaskedImage | None = None,
    few_exposures: int = 3,
    backend: Mapping[str, Any],
) -> pipeBase.Struct:
    """Make the output datasets.

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
    coadd : `lsst.images.MaskedImage`, optional
        The pipeline's coadd of the patch, for comparison.
    few_exposures : `int`, optional
        Pixels with fewer exposures than this are FEW_EXPOSURES.
    backend : `~collections.abc.Mapping`
        From `describe_backend`.

    Returns
    -------
    outputs : `lsst.pipe.base.Struct`
        One attribute by output connection of `RestoreCoaddTask`.
    """
    stack, restoration = restored.stack, restored.restoration
    title = describe_patch(geometry, band)
    if restored.kernel_fit is not None:
        fitted = [item.with_kernels(stack.kernels[item.exposure]) for item in inputs.inputs]
        inputs = dataclasses.replace(inputs, seeing=restored.kernel_fit.fwhm, inputs=fitted)
    flags = flag_pixels(restored, few_exposures=few_exposures, inexact_psf=inputs.inexact_psf)
    metrics = measure_metrics(
        restored, flags, geometry=geometry, seeing=inputs.seeing, dropped=inputs.dropped, coadd=coadd
    )
    metrics["provenance"] = describe_computation(backend, restoration.network)
    outputs = pipeBase.Struct(
        restored_coadd=make_restored_coadd(restored, flags, inputs.inputs, geometry, band),
        restored_coadd_measurable=make_measurable_coadd(restored, flags, inputs.inputs, geometry, band),
        restored_coadd_reference=make_reference_coadd(restored.reference, inputs.inputs, geometry, band),
        restored_coadd_naive_mean=Image(
            restored.naive, bbox=geometry.outer_bbox, unit=u.nJy, sky_projection=geometry.sky_projection
        ),
        restored_coadd_training=restoration.history,
        restored_coadd_metrics=metrics,
        restored_coadd_plot=plot_restoration(restored, geometry=geometry, title=title),
        restored_coadd_training_plot=plot_history(restoration.history, title=title),
        restored_coadd_kernels=stack.kernels,
        restored_coadd_kernels_plot=plot_kernels(stack, geometry=geometry, title=title),
        restored_coadd_weights=make_weights_table(restoration.weights),
    )
    if restored.kernel_fit is not None:
        metrics["kernel_fit"] = restored.kernel_fit.metrics(stack.names)
        outputs.restored_coadd_kernel_fit_plot = plot_kernel_fit(
            restored.kernel_fit, stack.names, title=title
        )
    return outputs
