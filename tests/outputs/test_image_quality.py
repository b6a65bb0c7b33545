# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from stacks import moffat_kernel

from lsst.drp.restore.outputs.image_quality import psnr, sharpness, sky_noise, ssim, star_fwhm


@pytest.mark.parametrize("shape", [(64, 64), (63, 65), (50, 81)])
def test_sharpness_of_a_point_is_its_brightness(shape: tuple[int, int]) -> None:
    image = np.zeros(shape)
    image[17, 30] = 1000.0
    assert sharpness(image) == pytest.approx(3.0, abs=1e-5)


@pytest.mark.parametrize("shape", [(64, 64), (63, 65), (50, 81)])
def test_sharpness_is_the_mean_over_the_full_transform(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).normal(size=shape)
    expected = np.mean(np.log10(np.abs(np.fft.fft2(image))))
    assert sharpness(image) == pytest.approx(expected, abs=1e-5)


def test_sharpness_of_white_noise() -> None:
    """The magnitude has a Rayleigh distribution."""
    sigma, size = 3.0, 400
    image = np.random.default_rng(2).normal(scale=sigma, size=(size, size))
    mean_square = size**2 * sigma**2
    expected = 0.5 * (np.log(mean_square) + scipy.special.digamma(1.0)) / np.log(10)
    assert sharpness(image) == pytest.approx(expected, abs=0.002)


def test_sharpness_falls_with_blur() -> None:
    image = np.zeros((60, 60))
    image[30, 30] = 1.0
    values = [sharpness(image)]
    for fwhm in (2.0, 3.0, 4.0):
        image[18:43, 18:43] = moffat_kernel(fwhm)
        values.append(sharpness(image))
    assert values == sorted(values, reverse=True)


def test_sharpness_counts_nan_as_zero() -> None:
    image = np.zeros((30, 30), np.float32)
    image[4, 4] = 10.0
    image[20:25, 3:9] = np.nan
    assert sharpness(image) == pytest.approx(1.0, abs=1e-5)


def noise_with_sources(sigma: float, size: int = 512) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    image = rng.normal(scale=sigma, size=(size, size))
    sources = np.zeros_like(image)
    for _ in range(60):
        y, x = rng.integers(12, size - 12, 2)
        sources[y - 12 : y + 13, x - 12 : x + 13] += 10 ** rng.uniform(1, 4) * sigma * moffat_kernel(3.5)
    return image, sources


def test_sky_noise_is_that_of_the_background() -> None:
    image, sources = noise_with_sources(2.5)
    assert sky_noise(image) == pytest.approx(2.5, rel=0.025)
    assert np.std(image + sources) > 5.0
    assert sky_noise(image + sources) == pytest.approx(2.5, rel=0.04)


def test_sky_noise_ignores_masked_and_missing_pixels() -> None:
    image, _ = noise_with_sources(1.0)
    bad = np.zeros(image.shape, bool)
    bad[:, 100:420] = True
    image[bad] = np.random.default_rng(4).normal(scale=50.0, size=np.count_nonzero(bad))
    image[400:, :] = np.nan
    assert sky_noise(image) > 2.0
    assert sky_noise(image, bad) == pytest.approx(1.0, rel=0.02)


def test_sky_noise_without_pixels_is_nan() -> None:
    assert np.isnan(sky_noise(np.full((20, 20), np.nan)))
    assert np.isnan(sky_noise(np.zeros((20, 20)), np.ones((20, 20), bool)))


def test_sky_noise_of_an_empty_restoration_is_zero() -> None:
    image = np.zeros((200, 200), np.float32)
    image[::40, ::40] = 100.0
    assert sky_noise(image) == pytest.approx(0.0, abs=1e-3)
    assert sky_noise(np.random.default_rng(1).normal(size=(256, 256))) == pytest.approx(1.0, rel=0.03)


@given(offset=st.floats(1e-3, 1e3), scale=st.floats(0.1, 1e4))
def test_psnr_of_an_offset(offset: float, scale: float) -> None:
    reference = scale * np.random.default_rng(5).uniform(size=(20, 30))
    reference[0, 0], reference[3, 3] = 0.0, scale
    assert psnr(reference + offset, reference) == pytest.approx(20 * np.log10(scale / offset), abs=1e-6)


def test_psnr_is_that_of_scikit_image() -> None:
    rng = np.random.default_rng(6)
    image, reference = rng.normal(size=(2, 40, 50))
    expected = peak_signal_noise_ratio(reference, image, data_range=reference.max() - reference.min())
    assert psnr(image, reference) == pytest.approx(expected, abs=1e-9)


def test_psnr_leaves_out_missing_pixels() -> None:
    rng = np.random.default_rng(7)
    image, reference = rng.normal(size=(2, 40, 50))
    expected = psnr(image[:, :30], reference[:, :30])
    image[:, 30:40] = np.nan
    reference[:, 40:] = np.nan
    assert psnr(image, reference) == pytest.approx(expected)
    assert np.isnan(psnr(image, np.full_like(image, np.nan)))
    assert psnr(reference, reference) == np.inf


def test_ssim_is_that_of_scikit_image() -> None:
    rng = np.random.default_rng(8)
    reference = rng.normal(size=(60, 50)).cumsum(axis=0)
    image = reference + rng.normal(size=(60, 50))
    expected = structural_similarity(image, reference, data_range=reference.max() - reference.min())
    assert ssim(image, reference) == pytest.approx(expected, abs=1e-5)
    assert ssim(reference, reference) == pytest.approx(1.0)


def test_ssim_leaves_out_windows_with_missing_pixels() -> None:
    rng = np.random.default_rng(9)
    reference = rng.normal(size=(60, 50)).cumsum(axis=0)
    reference[0, 0], reference[59, 0] = reference.min() - 1, reference.max() + 1
    image = reference + rng.normal(size=(60, 50))
    expected = ssim(image[:, :30], reference[:, :30])
    image[:, 30:] = np.nan
    assert ssim(image, reference) == pytest.approx(expected, abs=1e-5)
    assert np.isnan(ssim(np.full_like(image, np.nan), reference))


@pytest.mark.parametrize("fwhm", [2.0, 3.5, 5.0])
@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.4, -0.3)])
def test_star_fwhm(fwhm: float, offset: tuple[float, float]) -> None:
    beta, x0, y0 = 3.5, 40 + offset[0], 50 + offset[1]
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    y, x = np.mgrid[:100, :90]
    image = 1000 * (1 + ((x - x0) ** 2 + (y - y0) ** 2) / alpha**2) ** -beta
    image += 300.0 + np.random.default_rng(10).normal(size=image.shape)
    # The position is known to a pixel or so.
    for dx, dy in ((0.0, 0.0), (1.3, -1.4)):
        assert star_fwhm(image, x0 + dx, y0 + dy) == pytest.approx(fwhm, rel=0.03)


def test_star_fwhm_at_the_edge_is_nan() -> None:
    image = np.zeros((60, 60))
    image[:13, :13] = moffat_kernel(3.0)[12:, 12:]
    assert np.isnan(star_fwhm(image, 0.0, 0.0))
    assert np.isnan(star_fwhm(np.full((60, 60), np.nan), 30.0, 30.0))
