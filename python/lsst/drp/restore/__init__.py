# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restored coadds of ground-based surveys by AstroClearNet."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .detect_sources import (
        DetectRestoredSourcesConfig,
        DetectRestoredSourcesConnections,
        DetectRestoredSourcesTask,
    )
    from .errors import InputError, RestorationError
    from .outputs.restored_stack import RestoredStack
    from .psf_fitting.fit_kernels import FitKernelsConfig, FitKernelsTask
    from .psf_fitting.kernel_fit import KernelFit
    from .restoration.astro_clear_net import AstroClearNetConfig, AstroClearNetTask
    from .restoration.consistency import ConsistencyConfig, ConsistencyTask
    from .restoration.image_mm import ImageMMConfig, ImageMMTask
    from .restoration.measurable import Measurable, MeasurableConfig, MeasurableTask
    from .restoration.published_net import PublishedNetConfig, PublishedNetTask
    from .restoration.restoration import Restoration
    from .restore_arrays import ImageWithPsf, RestoredArrays, restore
    from .restore_coadd import RestoreCoaddConfig, RestoreCoaddTask
    from .restore_coadd_connections import RestoreCoaddConnections
    from .restore_multiband import (
        RestoreMultibandCoaddConfig,
        RestoreMultibandCoaddConnections,
        RestoreMultibandCoaddTask,
    )
    from .restore_stack import RestoreStackConfig, RestoreStackTask
    from .sources.find_sources import FindSourcesConfig, FindSourcesTask
    from .stack.exposure_stack import ExposureStack
    from .warping.build_stack import BuildStackConfig, BuildStackTask
    from .warping.patch_geometry import PatchGeometry
    from .warping.stack_warps import StackWarpsConfig, StackWarpsTask

__all__ = (
    "AstroClearNetConfig",
    "AstroClearNetTask",
    "BuildStackConfig",
    "BuildStackTask",
    "ConsistencyConfig",
    "ConsistencyTask",
    "DetectRestoredSourcesConfig",
    "DetectRestoredSourcesConnections",
    "DetectRestoredSourcesTask",
    "ExposureStack",
    "FitKernelsConfig",
    "FitKernelsTask",
    "FindSourcesConfig",
    "FindSourcesTask",
    "ImageMMConfig",
    "ImageMMTask",
    "ImageWithPsf",
    "InputError",
    "KernelFit",
    "Measurable",
    "MeasurableConfig",
    "MeasurableTask",
    "PatchGeometry",
    "PublishedNetConfig",
    "PublishedNetTask",
    "Restoration",
    "RestorationError",
    "RestoreCoaddConfig",
    "RestoreCoaddConnections",
    "RestoreCoaddTask",
    "RestoreMultibandCoaddConfig",
    "RestoreMultibandCoaddConnections",
    "RestoreMultibandCoaddTask",
    "RestoreStackConfig",
    "RestoreStackTask",
    "RestoredArrays",
    "RestoredStack",
    "StackWarpsConfig",
    "StackWarpsTask",
    "restore",
)

_MODULES = {
    "AstroClearNetConfig": "restoration.astro_clear_net",
    "AstroClearNetTask": "restoration.astro_clear_net",
    "BuildStackConfig": "warping.build_stack",
    "BuildStackTask": "warping.build_stack",
    "ConsistencyConfig": "restoration.consistency",
    "ConsistencyTask": "restoration.consistency",
    "DetectRestoredSourcesConfig": "detect_sources",
    "DetectRestoredSourcesConnections": "detect_sources",
    "DetectRestoredSourcesTask": "detect_sources",
    "ExposureStack": "stack.exposure_stack",
    "FitKernelsConfig": "psf_fitting.fit_kernels",
    "FitKernelsTask": "psf_fitting.fit_kernels",
    "FindSourcesConfig": "sources.find_sources",
    "FindSourcesTask": "sources.find_sources",
    "ImageMMConfig": "restoration.image_mm",
    "ImageMMTask": "restoration.image_mm",
    "ImageWithPsf": "restore_arrays",
    "InputError": "errors",
    "KernelFit": "psf_fitting.kernel_fit",
    "Measurable": "restoration.measurable",
    "MeasurableConfig": "restoration.measurable",
    "MeasurableTask": "restoration.measurable",
    "PatchGeometry": "warping.patch_geometry",
    "PublishedNetConfig": "restoration.published_net",
    "PublishedNetTask": "restoration.published_net",
    "Restoration": "restoration.restoration",
    "RestorationError": "errors",
    "RestoreCoaddConfig": "restore_coadd",
    "RestoreCoaddConnections": "restore_coadd_connections",
    "RestoreCoaddTask": "restore_coadd",
    "RestoreMultibandCoaddConfig": "restore_multiband",
    "RestoreMultibandCoaddConnections": "restore_multiband",
    "RestoreMultibandCoaddTask": "restore_multiband",
    "RestoreStackConfig": "restore_stack",
    "RestoreStackTask": "restore_stack",
    "RestoredArrays": "restore_arrays",
    "RestoredStack": "outputs.restored_stack",
    "StackWarpsConfig": "warping.stack_warps",
    "StackWarpsTask": "warping.stack_warps",
    "restore": "restore_arrays",
}


# Every call of the ``butler`` command imports this package for its
# subcommands; what the tasks need is imported when they are asked for.
def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
