# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The results of the restoration of a stack of exposures."""

from __future__ import annotations

__all__ = ("RestoredStack",)

import dataclasses

import numpy as np

from ..psf_fitting.kernel_fit import KernelFit
from ..restoration.characterize import Characterization
from ..restoration.measurable import Measurable
from ..restoration.restoration import Restoration
from ..stack.exposure_checks import ExposureChecks
from ..stack.exposure_stack import ExposureStack
from ..stack.reference_coadd import ReferenceCoadd


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RestoredStack:
    """Results of `RestoreStackTask`.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures as they were restored: without their background and
        outliers, with the fitted kernels.
    checks : `ExposureChecks`
        Properties of each exposure, and findings.
    naive : `numpy.ndarray`
        Plain mean of the exposures, nJy, shape ``(height, width)``.
    reference : `ReferenceCoadd`
        Their weighted and clipped mean.
    kernel_fit : `KernelFit` or `None`
        The fitted kernels; `None` if the given ones are used.
    restoration : `Restoration`
        The latent image.
    measurable : `Measurable`
        The image for photometry.
    characterization : `Characterization`
        Variance, PSF and flagged pixels of the latent image.
    """

    stack: ExposureStack
    checks: ExposureChecks
    naive: np.ndarray
    reference: ReferenceCoadd
    kernel_fit: KernelFit | None
    restoration: Restoration
    measurable: Measurable
    characterization: Characterization
