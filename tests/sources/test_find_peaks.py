# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from lsst.drp.restore.sources.find_peaks import find_peaks, interpolate_peaks


def test_peaks_are_those_of_a_search_at_all_levels() -> None:
    rng = np.random.default_rng(7)
    image = scipy.ndimage.gaussian_filter(rng.standard_normal((40, 50)), 1.5)
    image += 0.5 - image.min()
    sigma = rng.uniform(0.02, 0.08, image.shape)
    inside = scipy.ndimage.binary_dilation(rng.uniform(size=image.shape) < 0.02, iterations=4)
    row, column = find_peaks(image, sigma, inside, min_height=10.0, min_dip=1.5)
    expected = []
    for y, x in zip(*np.nonzero(inside), strict=True):
        level = image[y, x] - 1.5 * sigma[y, x]
        # Nothing higher can be reached without going below that.
        labels, _ = scipy.ndimage.label(inside & (image >= level), structure=np.ones((3, 3)))
        if image[y, x] == image[labels == labels[y, x]].max() and image[y, x] > 10 * sigma[y, x]:
            expected.append((y, x))
    assert 5 < len(expected) < 60
    assert sorted(zip(row.tolist(), column.tolist(), strict=True)) == expected


def test_plateau_is_one_peak() -> None:
    image = np.zeros((20, 30))
    image[5:9, 4:12] = 3.0
    image[5:9, 13:20] = 3.0
    row, column = find_peaks(image, np.ones_like(image), image >= 0, min_height=1.0, min_dip=1.0)
    assert len(row) == 2
    assert sorted(image[row, column]) == [3.0, 3.0]
    image[8, 12] = 2.5
    assert len(find_peaks(image, np.ones_like(image), image >= 0, min_height=1.0, min_dip=1.0)[0]) == 1
    nothing = find_peaks(image, np.ones_like(image), image < 0, min_height=1.0, min_dip=1.0)
    assert nothing[0].shape == nothing[1].shape == (0,)


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.31, -0.44), (-0.2, 0.5)])
def test_positions_between_pixels_are_those_of_a_gaussian(offset: tuple[float, float]) -> None:
    x0, y0 = 20 + offset[0], 13 + offset[1]
    y, x = np.indices((30, 40))
    image = 50 * np.exp(-0.5 * (((x - x0) / 1.3) ** 2 + ((y - y0) / 0.9) ** 2))
    position = interpolate_peaks(image, np.array([13]), np.array([20]))
    np.testing.assert_allclose(position, [[x0, y0]], atol=1e-9)


def test_position_without_a_gaussian_is_at_the_pixel() -> None:
    image = np.zeros((10, 12))
    image[4, 5] = 1.0
    image[0, 0] = 2.0
    positions = interpolate_peaks(image, np.array([4, 0]), np.array([5, 0]))
    np.testing.assert_array_equal(positions, [[5.0, 4.0], [0.0, 0.0]])
