# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Depth of a stack."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from stacks import star_field

from lsst.drp.restore.stack.depth import point_depth


def test_depth_is_that_of_point_sources() -> None:
    stack, _, _ = star_field(n=3, shape=(64, 64), bad_fraction=0.0)
    flat = dataclasses.replace(stack, variance=np.full_like(stack.variance, 4.0))
    expected = (stack.kernels**2).sum(axis=(3, 4)).mean(axis=(1, 2)).sum() / 4
    assert point_depth(flat) == pytest.approx(expected, rel=1e-5)
    correlated = dataclasses.replace(flat, correlation=np.full_like(flat.correlation, 2.0))
    assert point_depth(correlated) == pytest.approx(expected / 2, rel=1e-5)
    nothing = stack.without(np.ones_like(stack.good))
    assert point_depth(nothing) == 0.0
