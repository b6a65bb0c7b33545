# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Robust statistics."""

from __future__ import annotations

__all__ = ("GAUSSIAN_MEDIAN", "median", "robust_scatter")

import numpy as np

GAUSSIAN_MEDIAN = 0.454936
"""Median of the square of a standard normal variate."""


def median(values: np.ndarray) -> float:
    """Return the median of the values that are finite; NaN if none is."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else np.nan


def robust_scatter(values: np.ndarray) -> float:
    """Return the standard deviation of the Gaussian with the same median
    absolute deviation; NaN for fewer than 3 values.
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) < 3:
        return np.nan
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
