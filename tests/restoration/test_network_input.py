# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
import numpy as np
import pytest

from lsst.drp.restore.restoration.network_input import frame, starting_image, turned

SHAPE = (70, 80)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_stars_of_the_starting_image(factor: int) -> None:
    padding = 12
    shape = tuple((extent + 2 * padding) * factor for extent in SHAPE)
    stars = np.array([[20.3, 31.6, 5e4], [50.0, 60.0, 1e5]])
    empty = starting_image(shape, stars[:0], 2.0, padding, factor)
    assert empty.min() == empty.max() > 0.0
    image = starting_image(shape, stars, 2.0, padding, factor) - empty
    assert image.sum(dtype=float) == pytest.approx(1.5e5, rel=1e-4)
    # Centroids in pixels of the exposures.
    part = image[: 40 * factor + padding * factor].astype(float)
    y, x = (np.arange(extent) for extent in part.shape)
    row = (part.sum(axis=1) @ y) / part.sum()
    column = (part.sum(axis=0) @ x) / part.sum()
    assert (row + 0.5) / factor - 0.5 - padding == pytest.approx(20.3, abs=0.02)
    assert (column + 0.5) / factor - 0.5 - padding == pytest.approx(31.6, abs=0.02)


def test_frame() -> None:
    pixels = frame(7, 2)
    assert pixels.shape == (7, 7) and np.count_nonzero(~pixels) == 9
    assert not pixels[2:5, 2:5].any()


def test_all_eight_orientations() -> None:
    images = np.random.default_rng(1).normal(size=(2, 5, 5))
    results = [turned(images, turns, mirrored) for turns in range(4) for mirrored in (False, True)]
    assert len({result.tobytes() for result in map(np.ascontiguousarray, results)}) == 8
    np.testing.assert_array_equal(results[0], images)
    for result in results:
        np.testing.assert_array_equal(np.sort(result, axis=None), np.sort(images, axis=None))
        # The middle pixel stays.
        np.testing.assert_array_equal(result[:, 2, 2], images[:, 2, 2])
