# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import numpy as np
import pytest

from lsst.drp.restore.stack.ellipses import ellipse_axes


def test_axes_are_those_of_a_rotated_ellipse() -> None:
    a, b, theta = np.array([3.0, 2.0, 1.5]), np.array([1.0, 1.9, 1.5]), np.array([0.4, -1.2, 0.0])
    c, s = np.cos(theta), np.sin(theta)
    xx, yy, xy = a**2 * c**2 + b**2 * s**2, a**2 * s**2 + b**2 * c**2, (a**2 - b**2) * c * s
    measured = ellipse_axes(xx, yy, xy)
    for values, expected in zip(measured, (a, b, theta), strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("moments", [(np.nan, np.nan, np.nan), (1.0, 1.0, 2.0)])
def test_moments_of_no_ellipse(moments: tuple[float, float, float]) -> None:
    assert np.isnan(ellipse_axes(*moments)[1])
