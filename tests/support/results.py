# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Results of a restoration without one."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from stacks import unchecked

from lsst.drp.restore.outputs.restored_stack import RestoredStack
from lsst.drp.restore.restoration.characterize import Characterization
from lsst.drp.restore.restoration.measurable import Measurable
from lsst.drp.restore.restoration.restoration import Restoration
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.reference_coadd import naive_mean, reference_coadd


def make_restored(stack: ExposureStack, restoration: Restoration, **fields: Any) -> RestoredStack:
    """Return results with a given latent image, the reference coadd as the
    image for photometry, and the first quarter of the rows inconsistent.

    Fields of `RestoredStack` can be given.
    """
    reference = fields.pop("reference", None) or reference_coadd(stack)
    shape = reference.image.shape
    restored = RestoredStack(
        stack=stack,
        checks=unchecked(stack),
        naive=naive_mean(stack),
        reference=reference,
        kernel_fit=None,
        restoration=restoration,
        measurable=Measurable(
            image=reference.image,
            variance=reference.variance,
            kernels=reference.kernels,
            coverage=np.ones(shape, np.float32),
            noise_realizations=[],
        ),
        characterization=Characterization(
            variance=np.ones([size * stack.oversampling for size in shape], np.float32),
            kernels=reference.kernels,
            noise_realizations=[],
            inconsistent=np.arange(shape[0])[:, np.newaxis] < np.full(shape, shape[0] // 4),
            pedestal=0.125,
            residuals=np.float32([3.0, 2.5, 4.5, 2.0, 1.0]),
            beyond=np.array([0, 0, 7, 0, 0]),
        ),
    )
    return dataclasses.replace(restored, **fields)
