# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from source_fields import SHAPE, SIGMA, make_images

from lsst.drp.restore.sources.source_image import nearest_pixel


def test_valid_pixels_have_data_and_a_positive_variance() -> None:
    _, image = make_images(np.empty((0, 3)))
    pixels, variance = image.image.copy(), image.variance.copy()
    pixels[0, 0], variance[0, 1], variance[0, 2], variance[0, 3] = np.nan, np.nan, 0.0, np.inf
    valid = dataclasses.replace(image, image=pixels, variance=variance).valid
    assert np.argwhere(~valid).tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]


def test_mean_kernel_leaves_out_cells_without_psf() -> None:
    _, image = make_images(np.empty((0, 3)))
    kernels = np.array(image.kernels)
    kernels[0, 0], kernels[0, 1], kernels[1, 1] = np.nan, 0.0, 3 * kernels[2, 2]
    n = kernels.shape[0] * kernels.shape[1] - 2
    mean = dataclasses.replace(image, kernels=kernels).mean_kernel()
    assert mean is not None
    np.testing.assert_allclose(mean, kernels[2, 2] * (n + 2) / n, rtol=1e-5)
    assert dataclasses.replace(image, kernels=np.zeros_like(kernels)).mean_kernel() is None


def test_sky_width_is_the_ratio_of_true_and_stated_noise() -> None:
    rng = np.random.default_rng(2)
    stars = np.column_stack(
        [rng.uniform(0, SHAPE[1], 5), rng.uniform(0, SHAPE[0], 5), np.full(5, 500 * SIGMA)]
    )
    _, image = make_images(stars)
    assert image.sky_width() == pytest.approx(1.0, abs=0.07)
    understated = dataclasses.replace(image, variance=image.variance / 4)
    assert understated.sky_width() == pytest.approx(2 * image.sky_width(), rel=1e-5)
    assert np.isnan(dataclasses.replace(image, kernels=np.zeros_like(image.kernels)).sky_width())
    assert np.isnan(dataclasses.replace(image, image=np.full(SHAPE, np.nan)).sky_width())


def test_nearest_pixel_is_inside_of_the_image() -> None:
    row, column = nearest_pixel(np.array([2.4, -8.0, 50.0]), np.array([3.6, 4.0, 11.7]), (10, 20))
    np.testing.assert_array_equal(row, [4, 4, 9])
    np.testing.assert_array_equal(column, [2, 0, 19])
