# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from stacks import centroids, moffat_kernel

from lsst.drp.restore.psf_fitting.cell_variation import center, join_variation, move, split_variation
from lsst.drp.restore.stack.kernel_shape import fwhm, gaussian_kernel

KERNELS = arrays(np.float64, (2, 9, 9), elements=st.floats(0.0, 1.0))


@settings(max_examples=60, deadline=None)
@given(KERNELS, st.floats(0.1, 5.0))
def test_centered_kernels(noise: np.ndarray, total: float) -> None:
    kernels = (noise + 0.02) * gaussian_kernel(3.0, 9)
    kernels *= total / kernels.sum(axis=(1, 2), keepdims=True)
    result = center(kernels)
    assert (result >= 0).all()
    np.testing.assert_allclose(result.sum(axis=(1, 2)), total)
    axis = np.arange(9) - 4
    np.testing.assert_allclose((result.sum(axis=2) * axis).sum(axis=1), 0.0, atol=1e-6)
    np.testing.assert_allclose((result.sum(axis=1) * axis).sum(axis=1), 0.0, atol=1e-6)
    # Nothing is to be done a second time.
    np.testing.assert_allclose(center(result), result, rtol=1e-6, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(arrays(np.float32, (2, 2, 3, 9, 9), elements=st.floats(0.0, 1.0, width=32)), st.booleans())
def test_variation(noise: np.ndarray, hole: bool) -> None:
    kernels = ((0.1 + noise) * gaussian_kernel(3.0, 9)).astype(np.float32)
    if hole:
        kernels[1, 0, 2] = 0.0
    mean, variation = split_variation(kernels)
    np.testing.assert_allclose(mean.sum(axis=(1, 2)), 1.0, rtol=1e-5)
    assert ((variation >= 0.5) & (variation <= 2.0) | (variation == 0)).all()
    np.testing.assert_array_equal(variation.any(axis=(-2, -1)), kernels.any(axis=(-2, -1)))
    unclipped = (variation > 0.5) & (variation < 2.0)
    rebuilt = mean[:, None, None] * variation * kernels.sum(axis=(-2, -1), keepdims=True)
    bright = mean > 2e-3 * mean.max(axis=(1, 2), keepdims=True)
    chosen = unclipped & bright[:, None, None]
    np.testing.assert_allclose(rebuilt[chosen], kernels[chosen], rtol=1e-4)


def test_move() -> None:
    kernel = moffat_kernel(4.0).astype(float)
    moved = move(kernel, np.array([0.4, -0.7]))
    np.testing.assert_allclose(centroids(moved)[:, ...], [0.4, -0.7], atol=0.02)
    assert fwhm(moved) == pytest.approx(4.0, rel=0.01)


def test_joined_kernels_are_those_that_were_split() -> None:
    kernels = np.array([[[moffat_kernel(width)] for width in (3.0, 3.1)] for _ in range(2)])
    kernels[1, 1] = 0.0
    mean, variation = split_variation(kernels)
    totals = 0.9 * kernels.sum(axis=(-2, -1))
    joined = join_variation(mean, variation, totals)
    np.testing.assert_allclose(joined, 0.9 * kernels, atol=1e-3 * kernels.max())
    assert joined.dtype == np.float32 and not joined[1, 1].any()
    shift = np.array([[0.2, -0.1], [0.0, 0.3]])
    moved = join_variation(mean, variation, totals, shift)[:, 0, 0]
    np.testing.assert_allclose(centroids(moved.astype(float)).T, shift, atol=0.02)
    np.testing.assert_allclose(moved.sum(axis=(1, 2)), totals[:, 0, 0], rtol=1e-5)
