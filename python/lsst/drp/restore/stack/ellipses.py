# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Ellipses with given second moments."""

from __future__ import annotations

__all__ = ("ellipse_axes",)

import numpy as np
import numpy.typing as npt


def ellipse_axes(
    xx: npt.ArrayLike, yy: npt.ArrayLike, xy: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Convert second moments to the ellipse that has them.

    Parameters
    ----------
    xx, yy, xy : array_like
        Second moments, pixels**2, any shape.

    Returns
    -------
    a, b : `numpy.ndarray`
        Semi-major and semi-minor axis (standard deviations along them),
        pixels, same shape; NaN where the moments are not those of an ellipse.
    theta : `numpy.ndarray`
        Angle of the major axis from x towards y, -pi/2 to pi/2, radian.
    """
    xx, yy, xy = np.asarray(xx), np.asarray(yy), np.asarray(xy)
    mean, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    with np.errstate(invalid="ignore"):
        return np.sqrt(mean + half), np.sqrt(mean - half), 0.5 * np.arctan2(2 * xy, xx - yy)
