# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import numpy as np
import pytest
from source_fields import PSF, draw

from lsst.drp.restore.sources.saturated_cores import find_saturated_cores

STAR = (40.3, 30.6, 5000.0)


def star_with_hole(rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an image of one star, its valid pixels and its footprint."""
    image = draw(np.array([STAR]), PSF, (60, 80))
    valid = np.ones(image.shape, bool)
    valid[rows, columns] = False
    footprints = np.zeros(image.shape, np.int32)
    footprints[15:46, 25:56] = 3
    return np.where(valid, image, np.nan), valid, footprints


def test_core_is_in_the_middle_of_the_hole() -> None:
    image, valid, footprints = star_with_hole(slice(28, 34), slice(38, 43))
    positions, near = find_saturated_cores(image, valid, footprints, max_size=20)
    np.testing.assert_array_equal(positions, [[40.0, 30.5]])
    expected = np.zeros(image.shape, bool)
    # Two pixels beyond it on all sides.
    expected[26:36, 36:45] = True
    np.testing.assert_array_equal(near, expected)


@pytest.mark.parametrize(
    ("rows", "columns", "max_size"),
    [
        # Four bad pixels.
        (slice(30, 32), slice(40, 42), 20),
        # A gap.
        (slice(16, 45), slice(39, 42), 20),
        (slice(28, 34), slice(38, 43), 5),
        # A hole in the wings: the star's brightest pixels are elsewhere.
        (slice(18, 23), slice(28, 33), 20),
        # Outside of the footprint.
        (slice(0, 6), slice(0, 6), 20),
    ],
)
def test_other_holes_are_no_cores(rows: slice, columns: slice, max_size: int) -> None:
    positions, near = find_saturated_cores(*star_with_hole(rows, columns), max_size=max_size)
    assert positions.shape == (0, 2)
    assert not near.any()


def test_image_without_footprints_has_no_cores() -> None:
    image = np.full((20, 30), np.nan)
    positions, near = find_saturated_cores(
        image, np.zeros(image.shape, bool), np.zeros(image.shape, np.int32), max_size=20
    )
    assert positions.shape == (0, 2)
    assert not near.any()
