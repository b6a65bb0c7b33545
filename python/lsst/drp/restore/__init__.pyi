# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from .deconvolve_deep_coadd import (
    DeconvolveDeepCoaddConfig,
    DeconvolveDeepCoaddConnections,
    DeconvolveDeepCoaddTask,
)
from .detect_sources import (
    DetectRestoredSourcesConfig,
    DetectRestoredSourcesConnections,
    DetectRestoredSourcesTask,
)
from .errors import DivergedError, InputError, RestorationError
from .outputs.plot_history import plot_history
from .outputs.plot_kernel_fit import plot_kernel_fit
from .outputs.plot_kernels import plot_kernels
from .outputs.plot_restoration import plot_comparison, plot_restoration
from .outputs.plot_sources import plot_sources
from .outputs.restored_stack import RestoredStack
from .psf_fitting.fit_kernels import FitKernelsConfig, FitKernelsTask
from .psf_fitting.kernel_fit import KernelFit
from .restoration.astro_clear_net import AstroClearNetConfig, AstroClearNetTask
from .restoration.consistency import ConsistencyConfig, ConsistencyTask
from .restoration.fine_tuning import fine_tune
from .restoration.image_mm import ImageMMConfig, ImageMMTask
from .restoration.measurable import Measurable, MeasurableConfig, MeasurableTask
from .restoration.published_net import PublishedNetConfig, PublishedNetTask
from .restoration.restoration import Restoration
from .restoration.target_psf import TARGET_FWHM
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
from .stack.reference_coadd import ReferenceCoadd, reference_coadd
from .warping.build_stack import BuildStackConfig, BuildStackTask
from .warping.patch_geometry import PatchGeometry
from .warping.stack_coadd import StackCoaddConfig, StackCoaddTask
from .warping.stack_warps import StackWarpsConfig, StackWarpsTask

__all__ = [
    "AstroClearNetConfig",
    "AstroClearNetTask",
    "BuildStackConfig",
    "BuildStackTask",
    "ConsistencyConfig",
    "ConsistencyTask",
    "DeconvolveDeepCoaddConfig",
    "DeconvolveDeepCoaddConnections",
    "DeconvolveDeepCoaddTask",
    "DetectRestoredSourcesConfig",
    "DetectRestoredSourcesConnections",
    "DetectRestoredSourcesTask",
    "DivergedError",
    "ExposureStack",
    "FindSourcesConfig",
    "FindSourcesTask",
    "FitKernelsConfig",
    "FitKernelsTask",
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
    "ReferenceCoadd",
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
    "StackCoaddConfig",
    "StackCoaddTask",
    "StackWarpsConfig",
    "StackWarpsTask",
    "TARGET_FWHM",
    "fine_tune",
    "plot_comparison",
    "plot_history",
    "plot_kernel_fit",
    "plot_kernels",
    "plot_restoration",
    "plot_sources",
    "reference_coadd",
    "restore",
]
