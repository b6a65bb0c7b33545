# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import correlate1d
from scipy.signal import fftconvolve
from stacks import moffat_kernel

from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.reference_coadd import constrained_pixels, naive_mean, reference_coadd

NO_CLIPPING = 1e9


def make_noise_stack(n: int = 5, seed: int = 1) -> ExposureStack:
    """Noise of another depth in every exposure, many bad pixels, one exposure
    that misses a column of cells, and one cell that nobody has.
    """
    rng = np.random.default_rng(seed)
    shape, cell_shape, k = (20, 24), (10, 8), 5
    kernels = rng.uniform(0.01, 1.0, (n, 2, 3, k, k)).astype(np.float32)
    good = rng.uniform(size=(n, *shape)) < 0.7
    kernels[1, :, 2] = 0
    good[1, :, 16:] = False
    kernels[:, 1, 0] = 0
    good[:, 10:, :8] = False
    good[:, 3, 5] = False
    sigma = rng.uniform(0.5, 2.0, (n, 1, 1))
    variance = sigma**2 * rng.uniform(0.8, 1.2, (n, *shape))
    image = 10 + rng.normal(size=(n, *shape)) * np.sqrt(variance)
    return ExposureStack(
        image=np.where(good, image, 0).astype(np.float32),
        variance=np.where(good, variance, np.inf).astype(np.float32),
        good=good,
        kernels=kernels,
        correlation=rng.uniform(1.0, 2.0, kernels.shape[:3]).astype(np.float32),
        cell_shape=cell_shape,
        names=tuple(f"visit {t}" for t in range(n)),
    )


def test_mean_variance_and_psf_are_those_of_plain_loops() -> None:
    stack = make_noise_stack()
    coadd = reference_coadd(stack, clip_sigma=NO_CLIPPING)
    height, width = stack.shape
    ch, cw = stack.cell_shape
    empty = 0
    for y in range(height):
        for x in range(width):
            i, j = y // ch, x // cw
            total = noise = norm = 0.0
            count = 0
            for t in range(stack.n_exposures):
                if not stack.good[t, y, x]:
                    continue
                cell = [
                    float(stack.variance[t, yy, xx])
                    for yy in range(i * ch, (i + 1) * ch)
                    for xx in range(j * cw, (j + 1) * cw)
                    if stack.good[t, yy, xx]
                ]
                weight = 1 / (np.median(cell) * stack.correlation[t, i, j])
                total += weight * float(stack.image[t, y, x])
                noise += weight**2 * float(stack.variance[t, y, x])
                norm += weight
                count += 1
            assert coadd.n_exposures[y, x] == count
            if count == 0:
                empty += 1
                assert np.isnan(coadd.image[y, x])
                assert np.isnan(coadd.variance[y, x])
            else:
                np.testing.assert_allclose(coadd.image[y, x], total / norm, rtol=1e-5)
                np.testing.assert_allclose(coadd.variance[y, x], noise / norm**2, rtol=1e-5)
    assert empty >= 81
    for i in range(2):
        for j in range(3):
            weights = coadd.weights[:, i, j].astype(float)
            expected = np.zeros((5, 5))
            if weights.sum() > 0:
                expected = (
                    sum(w * k for w, k in zip(weights, stack.kernels[:, i, j], strict=True)) / weights.sum()
                )
            np.testing.assert_allclose(coadd.kernels[i, j], expected, rtol=1e-5, atol=1e-12)
    assert not coadd.kernels[1, 0].any()
    assert coadd.correlation[1, 0] == 1.0
    assert not coadd.weights[1, :, 2].any()
    assert not coadd.clipped.any()
    assert coadd.image.dtype == coadd.variance.dtype == coadd.kernels.dtype == np.float32
    assert coadd.n_exposures.dtype == np.int16
    assert coadd.clipped.dtype == bool


def test_variance_is_the_scatter_of_the_mean() -> None:
    stack = make_noise_stack()
    rng = np.random.default_rng(2)
    sigma = np.where(stack.good, np.sqrt(stack.variance), 0)
    means = []
    for _ in range(100):
        noisy = (sigma * rng.normal(size=sigma.shape)).astype(np.float32)
        coadd = reference_coadd(dataclasses.replace(stack, image=noisy), clip_sigma=NO_CLIPPING)
        means.append(coadd.image)
    covered = coadd.n_exposures > 0
    ratio = np.var(means, axis=0)[covered] / coadd.variance[covered]
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.03)


def test_correlation_is_that_of_fluxes_on_the_mean() -> None:
    """Exposures of the same noise, smoothed as interpolation does: single
    pixels of the smoothest have least of it, fluxes have the same.
    """
    rng = np.random.default_rng(3)
    n, size = 4, 60
    kernels = np.array([moffat_kernel(3.5)] * n)
    taps = [np.array([share, 1 - 2 * share, share]) for share in (0.0, 0.02, 0.04, 0.06)]
    pixel_variance = np.array([(tap**2).sum() ** 2 for tap in taps])
    weight = moffat_kernel(3.5, size=11)
    stack = ExposureStack(
        image=np.zeros((n, size, size), np.float32),
        variance=np.broadcast_to(pixel_variance[:, None, None], (n, size, size)).astype(np.float32),
        good=np.ones((n, size, size), bool),
        kernels=kernels[:, None, None],
        correlation=(1 / pixel_variance)[:, None, None].astype(np.float32),
        cell_shape=(size, size),
        names=("a", "b", "c", "d"),
    )
    fluxes = []
    for _ in range(100):
        for t, tap in enumerate(taps):
            noise = rng.normal(size=(size, size))
            stack.image[t] = correlate1d(correlate1d(noise, tap, 0, mode="wrap"), tap, 1, mode="wrap")
        coadd = reference_coadd(stack, clip_sigma=NO_CLIPPING)
        fluxes.append(fftconvolve(coadd.image, weight, mode="valid"))
    # The exposures count the same, as their fluxes do.
    np.testing.assert_allclose(coadd.weights, 1.0, rtol=1e-5)
    pixels = (weight.astype(float) ** 2).sum() * coadd.variance[0, 0]
    assert np.var(fluxes) == pytest.approx(coadd.correlation[0, 0] * pixels, rel=0.05)
    assert coadd.correlation[0, 0] > 1.2
    assert coadd.correlation.dtype == np.float32


@pytest.mark.parametrize("flux", [30.0, 3e5])
def test_psf_does_not_depend_on_brightness(flux: float) -> None:
    """The photon noise of a star is part of its variance, but must not be part
    of the weights.
    """
    n, size = 4, 50
    widths, sigma = (2.5, 3.2, 4.0, 4.75), np.array([1.0, 0.7, 1.2, 0.9])
    kernels = np.array([moffat_kernel(width) for width in widths])
    image = np.zeros((n, size, size), np.float32)
    image[:, 13:38, 13:38] = flux * kernels
    variance = sigma[:, None, None] ** 2 + 0.01 * image
    stack = ExposureStack(
        image=image,
        variance=variance.astype(np.float32),
        good=np.ones(image.shape, bool),
        kernels=kernels[:, None, None],
        correlation=np.ones((n, 1, 1), np.float32),
        cell_shape=(size, size),
        names=("a", "b", "c", "d"),
    )
    coadd = reference_coadd(stack)
    assert not coadd.clipped.any()
    np.testing.assert_allclose(coadd.image[13:38, 13:38], flux * coadd.kernels[0, 0], rtol=1e-4)
    expected = np.average(kernels, axis=0, weights=1 / np.median(variance, axis=(1, 2)))
    np.testing.assert_allclose(coadd.kernels[0, 0], expected, rtol=1e-4)


def test_naive_mean_counts_good_pixels_only() -> None:
    stack = make_noise_stack()
    expected = np.ma.array(stack.image, mask=~stack.good).mean(axis=0).filled(np.nan)
    np.testing.assert_allclose(naive_mean(stack), expected, rtol=1e-5)
    assert np.isnan(naive_mean(stack)[3, 5])


def test_naive_mean_keeps_outliers() -> None:
    stack = make_noise_stack()
    stack.good[:, 2, 2] = True
    stack.image[:, 2, 2] = [0, 0, 500, 0, 0]
    stack.variance[:, 2, 2] = 1
    assert naive_mean(stack)[2, 2] == 100
    assert reference_coadd(stack).image[2, 2] == 0


def test_one_exposure_is_its_own_coadd() -> None:
    stack = make_noise_stack(n=2)
    one = ExposureStack(
        image=stack.image[:1],
        variance=stack.variance[:1],
        good=stack.good[:1],
        kernels=stack.kernels[:1],
        correlation=stack.correlation[:1],
        cell_shape=stack.cell_shape,
        names=stack.names[:1],
    )
    coadd = reference_coadd(one)
    np.testing.assert_allclose(coadd.image[one.good[0]], one.image[one.good], rtol=1e-6)
    np.testing.assert_allclose(coadd.variance[one.good[0]], one.variance[one.good], rtol=1e-6)
    assert np.isnan(coadd.image[~one.good[0]]).all()


def test_constrained_pixels_are_those_in_reach_of_data() -> None:
    stack = make_noise_stack()
    empty = np.zeros(stack.image.shape, bool)
    empty[:, :6] = True
    stack = stack.without(empty)
    reference = reference_coadd(stack, clip_sigma=NO_CLIPPING)
    constrained = constrained_pixels(stack, reference)
    height, width = stack.shape
    reach = stack.kernel_size // 2
    for y in range(height):
        for x in range(width):
            near = stack.good[:, max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
            missing = y >= 10 and x < 8
            assert constrained[y, x] == (near.any() and not missing)
    assert not constrained[:4].any()
    assert np.isnan(reference.image[5]).all() and constrained[5].all()


def test_inputs_are_left_alone() -> None:
    stack = make_noise_stack()
    before = dataclasses.replace(
        stack,
        image=stack.image.copy(),
        variance=stack.variance.copy(),
        good=stack.good.copy(),
        kernels=stack.kernels.copy(),
    )
    reference_coadd(stack)
    for name in ("image", "variance", "good", "kernels"):
        np.testing.assert_array_equal(getattr(stack, name), getattr(before, name))
