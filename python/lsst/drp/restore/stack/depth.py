# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Depth of a stack of exposures."""

from __future__ import annotations

__all__ = ("point_depth",)

import numpy as np

from .exposure_stack import ExposureStack


def point_depth(stack: ExposureStack) -> float:
    """Compute the depth of exposures for point sources.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.

    Returns
    -------
    depth : `float`
        Mean over the patch of the inverse variance of a point source's flux in
        all exposures together, nJy**-2.
    """
    total = 0.0
    for i, j, rows, columns in stack.cells():
        power = (stack.kernels[:, i, j].astype(np.float64) ** 2).sum(axis=(1, 2))
        variance = stack.noise_variance(rows, columns)
        inverse = np.divide(1.0, variance, out=np.zeros_like(variance), where=variance > 0.0)
        total += float((power * inverse.sum(axis=(1, 2), dtype=np.float64)).sum())
    return total / (stack.shape[0] * stack.shape[1])
