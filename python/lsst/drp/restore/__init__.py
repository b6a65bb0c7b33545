# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restored coadds of ground-based surveys by AstroClearNet."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .astro_clear_net import AstroClearNetConfig, AstroClearNetTask
    from .build_stack import BuildStackConfig, BuildStackTask
    from .consistency import ConsistencyConfig, ConsistencyTask
    from .detect_sources import (
        DetectRestoredSourcesConfig,
        DetectRestoredSourcesConnections,
        DetectRestoredSourcesTask,
    )
    from .errors import InputError, RestorationError
    from .exposure_stack import ExposureStack
    from .find_sources import FindSourcesConfig, FindSourcesTask
    from .fit_kernels import FitKernelsConfig, FitKernelsTask, KernelFit
    from .image_mm import ImageMMConfig, ImageMMTask
    from .measurable import Measurable, MeasurableConfig, MeasurableTask
    from .patch_geometry import PatchGeometry
    from .published_net import PublishedNetConfig, PublishedNetTask
    from .restoration import Restoration
    from .restore_arrays import ImageWithPsf, RestoredArrays, restore
    from .restore_coadd import RestoreCoaddConfig, RestoreCoaddConnections, RestoreCoaddTask
    from .restore_multiband import (
        RestoreMultibandCoaddConfig,
        RestoreMultibandCoaddConnections,
        RestoreMultibandCoaddTask,
    )
    from .stack_warps import StackWarpsConfig, StackWarpsTask

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
    "RestoredArrays",
    "StackWarpsConfig",
    "StackWarpsTask",
    "restore",
)

_MODULES = {
    "AstroClearNetConfig": "astro_clear_net",
    "AstroClearNetTask": "astro_clear_net",
    "BuildStackConfig": "build_stack",
    "BuildStackTask": "build_stack",
    "ConsistencyConfig": "consistency",
    "ConsistencyTask": "consistency",
    "DetectRestoredSourcesConfig": "detect_sources",
    "DetectRestoredSourcesConnections": "detect_sources",
    "DetectRestoredSourcesTask": "detect_sources",
    "ExposureStack": "exposure_stack",
    "FitKernelsConfig": "fit_kernels",
    "FitKernelsTask": "fit_kernels",
    "FindSourcesConfig": "find_sources",
    "FindSourcesTask": "find_sources",
    "ImageMMConfig": "image_mm",
    "ImageMMTask": "image_mm",
    "ImageWithPsf": "restore_arrays",
    "InputError": "errors",
    "KernelFit": "fit_kernels",
    "Measurable": "measurable",
    "MeasurableConfig": "measurable",
    "MeasurableTask": "measurable",
    "PatchGeometry": "patch_geometry",
    "PublishedNetConfig": "published_net",
    "PublishedNetTask": "published_net",
    "Restoration": "restoration",
    "RestorationError": "errors",
    "RestoreCoaddConfig": "restore_coadd",
    "RestoreCoaddConnections": "restore_coadd",
    "RestoreCoaddTask": "restore_coadd",
    "RestoreMultibandCoaddConfig": "restore_multiband",
    "RestoreMultibandCoaddConnections": "restore_multiband",
    "RestoreMultibandCoaddTask": "restore_multiband",
    "RestoredArrays": "restore_arrays",
    "StackWarpsConfig": "stack_warps",
    "StackWarpsTask": "stack_warps",
    "restore": "restore_arrays",
}


# Every call of the ``butler`` command imports this package for its
# subcommands; what the tasks need is imported when they are asked for.
def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
