# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Convolution by its definition."""

from __future__ import annotations

import numpy as np


def brute_force(latent: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve by the definition, one output pixel at a time."""
    k = kernel.shape[0]
    height, width = latent.shape[0] - k + 1, latent.shape[1] - k + 1
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            for i in range(k):
                for j in range(k):
                    result[y, x] += kernel[i, j] * latent[y + k - 1 - i, x + k - 1 - j]
    return result
