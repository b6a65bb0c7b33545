# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation

from lsst.drp.restore.stack.saturated_stars import find_saturated_stars

SHAPE = (70, 80)
OFFSET = np.arange(25) - 12
KERNEL = (1.0 + (OFFSET[:, np.newaxis] ** 2 + OFFSET**2) / 2.5**2) ** -3.0
KERNEL *= 2.0 / (np.pi * 2.5**2)


def saturated(
    row: float, column: float, flux: float, *, level: float = 2000.0, trail: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A Moffat star with noise 1 on a patch, missing above a level."""
    y, x = np.indices(SHAPE)
    radius2 = (y - row) ** 2 + (x - column) ** 2
    image = flux * 2.0 / (np.pi * 2.5**2) * (1.0 + radius2 / 2.5**2) ** -3.0
    good = ~binary_dilation(image > level)
    middle = round(column)
    good[round(row) - trail : round(row) + trail + 1, middle - 1 : middle + 2] &= trail == 0
    image += np.random.default_rng(1).normal(size=SHAPE)
    return np.where(good, image, 0.0), good


@settings(deadline=None, max_examples=25)
@given(
    row=st.floats(30.0, 40.0),
    column=st.floats(30.0, 50.0),
    flux=st.floats(2e5, 2e6),
    trail=st.sampled_from((0, 0, 12)),
)
def test_position_and_flux_come_from_the_wings(row: float, column: float, flux: float, trail: int) -> None:
    image, good = saturated(row, column, flux, trail=trail)
    assert np.count_nonzero(~good) > 20
    (star,) = find_saturated_stars(image, good, KERNEL, 1.0)
    assert star[:2] == pytest.approx((row, column), abs=0.4)
    assert star[2] == pytest.approx(flux, rel=0.15)


def test_other_holes_are_no_stars() -> None:
    image, good = saturated(35.0, 40.0, 1e6)
    dark = good.copy()
    dark[5:15, 60:64] = False  # in empty sky
    dark[30, 10] = False  # a dead pixel
    dark[:8, 20:30] = False  # at the edge
    assert len(find_saturated_stars(np.where(dark, image, 0.0), dark, KERNEL, 1.0)) == 1
    everything = np.ones(SHAPE, bool)
    assert find_saturated_stars(np.zeros(SHAPE), everything, KERNEL, 1.0).shape == (0, 3)
