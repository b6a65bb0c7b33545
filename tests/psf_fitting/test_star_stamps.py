# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
import dataclasses

import numpy as np
import pytest
from scipy.signal import fftconvolve
from stacks import moffat_kernel, star_field

from lsst.drp.restore.psf_fitting.cell_variation import split_variation
from lsst.drp.restore.psf_fitting.point_sources import find_point_sources
from lsst.drp.restore.psf_fitting.star_stamps import StarStamps
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.reference_coadd import reference_coadd
from lsst.drp.restore.stack.subpixel import point_image

AXIS = np.arange(25) - 12


@pytest.fixture(scope="module")
def field() -> ExposureStack:
    stack, _, _ = star_field(seed=3, n=5, shape=(192, 192), n_stars=25, flux=(300.0, 20000.0))
    return stack


def test_stamps_are_cut_around_the_stars(field: ExposureStack) -> None:
    stars = find_point_sources(field, reference_coadd(field), min_snr=15, max_count=4)
    _, variation = split_variation(field.kernels)
    stamps = StarStamps.cut(field, stars, variation)
    for s in range(4):
        y, x = round(float(stars.y[s])), round(float(stars.x[s]))
        window = (slice(y - 12, y + 13), slice(x - 12, x + 13))
        np.testing.assert_array_equal(stamps.image[s], field.image[:, *window])
        np.testing.assert_array_equal(stamps.weight[s] > 0, field.good[:, *window] & stars.clear[s])
        np.testing.assert_array_equal(stamps.variation[s], variation[:, y // 32, x // 32])
    chosen = stamps.select(np.array([True, False, True, False]))
    np.testing.assert_array_equal(chosen.flux, stamps.flux[::2])
    one = chosen.of_exposure(3, np.array([0.1, -0.2]))
    np.testing.assert_array_equal(one.image[:, 0], stamps.image[::2, 3])
    np.testing.assert_allclose(one.dy - chosen.dy, 0.1)
    np.testing.assert_allclose(one.dx - chosen.dx, -0.2)


def test_prediction_is_that_of_a_convolution(field: ExposureStack) -> None:
    stars = find_point_sources(field, reference_coadd(field), min_snr=15, max_count=4)
    _, variation = split_variation(field.kernels)
    stamps = dataclasses.replace(
        StarStamps.cut(field, stars, np.ones_like(variation)),
        dy=np.array([0.3, -0.4, 0.0, 0.5]),
        dx=np.array([-0.2, 0.1, 0.0, 0.45]),
    )
    kernel = moffat_kernel(3.5, ellipticity=0.05).astype(float)
    predicted = stamps.predict(np.broadcast_to(kernel, (5, 25, 25)))
    for s in range(4):
        image = point_image(24 + stamps.dy[s : s + 1], 24 + stamps.dx[s : s + 1], np.ones(1), (49, 49))
        np.testing.assert_allclose(predicted[s, 0], fftconvolve(image, kernel, "valid"), atol=1e-7)
        # Against the profile itself, evaluated there.
        y, x = AXIS[:, None] - stamps.dy[s], AXIS - stamps.dx[s]
        alpha = 3.5 / 2 / np.sqrt(2 ** (1 / 3.5) - 1)
        exact = (1 + ((x * 1.05) ** 2 + (y * 0.95) ** 2) / alpha**2) ** -3.5
        np.testing.assert_allclose(predicted[s, 0] / kernel.max(), exact, atol=3e-3)


def test_adjoint(field: ExposureStack) -> None:
    stars = find_point_sources(field, reference_coadd(field), min_snr=15, max_count=6)
    _, variation = split_variation(field.kernels)
    stamps = StarStamps.cut(field, stars, variation)
    rng = np.random.default_rng(2)
    kernels, images = rng.normal(size=(5, 25, 25)), rng.normal(size=stamps.image.shape)
    left, right = (stamps.predict(kernels) * images).sum(), (kernels * stamps.back_project(images)).sum()
    assert left == pytest.approx(right, rel=1e-10)


def test_robust_weight_is_that_of_the_huber_loss(field: ExposureStack) -> None:
    """Half of the derivative of the loss by the squared residual."""
    stars = find_point_sources(field, reference_coadd(field), min_snr=15, max_count=2)
    stamps = StarStamps.cut(field, stars, np.ones_like(field.kernels))
    residual = 4.0 * np.random.default_rng(1).normal(size=stamps.image.shape)
    size = np.abs(residual) * np.sqrt(stamps.weight)
    expected = np.where(size > 2.0, 2.0 / np.maximum(size, 1e-9), 1.0) * stamps.weight
    np.testing.assert_allclose(stamps.robust_weight(residual, 2.0), expected)
