# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

import dataclasses

import numpy as np
import pytest
from stacks import star_field


def test_properties() -> None:
    stack, latent, _ = star_field(n=2, shape=(64, 96))
    assert stack.n_exposures == 2
    assert stack.shape == (64, 96)
    assert latent.shape == (64 + 2 * stack.padding, 96 + 2 * stack.padding)
    assert stack.kernel_size == 25
    assert stack.has_kernel.all()
    covered = np.zeros(stack.shape, dtype=int)
    for _, _, rows, cols in stack.cells():
        covered[rows, cols] += 1
    assert (covered == 1).all()


def test_without_pixels() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), bad_fraction=0.0)
    pixels = np.zeros(stack.image.shape, dtype=bool)
    pixels[1, 3, 4] = True
    fewer = stack.without(pixels)
    np.testing.assert_array_equal(fewer.good, ~pixels)
    assert stack.good.all()
    assert fewer.image is stack.image and fewer.variance is stack.variance
    # Without any weight, however they are read.
    for image, variance in (
        (fewer.masked_image()[1, 3, 4], fewer.masked_variance()[1, 3, 4]),
        (fewer.masked_image(slice(3, 9), slice(4, 9))[1, 0, 0], fewer.masked_variance(slice(3, 9))[1, 0, 4]),
    ):
        assert image == 0.0 and np.isposinf(variance)
    (_, _, _, _), (t, image, variance, good) = fewer.planes()
    assert (t, image[3, 4], good[3, 4]) == (1, 0.0, False) and np.isposinf(variance[3, 4])
    np.testing.assert_array_equal(image[good], stack.image[1][good])
    np.testing.assert_array_equal(variance[good], stack.variance[1][good])
    assert not fewer.noise_variance()[1, 3, 4]


def test_noise_variance_is_that_of_fluxes() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 96))
    rng = np.random.default_rng(1)
    stack.correlation[:] = rng.uniform(1, 2, stack.correlation.shape)
    whole = stack.noise_variance()
    assert whole.dtype == np.float32 and not whole[~stack.good].any()
    for t, y, x in ((0, 0, 0), (1, 31, 32), (1, 32, 31), (0, 63, 95)):
        expected = stack.variance[t, y, x] * stack.correlation[t, y // 32, x // 32]
        assert not stack.good[t, y, x] or whole[t, y, x] == pytest.approx(expected)
    part = stack.noise_variance(slice(20, 50), slice(-40, None))
    np.testing.assert_array_equal(part, whole[:, 20:50, 56:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variance": np.ones((2, 64, 32), np.float32)}, "differ in shape"),
        ({"cell_shape": (30, 32)}, "do not tile"),
        ({"kernels": np.ones((2, 2, 3, 25, 25), np.float32)}, "expected"),
        ({"kernels": np.ones((2, 2, 2, 24, 24), np.float32)}, "odd size"),
        ({"correlation": np.ones((2, 2, 3), np.float32)}, "Correlations have shape"),
        ({"correlation": np.zeros((2, 2, 2), np.float32)}, "must be positive"),
        ({"correlation": np.full((2, 2, 2), np.nan, np.float32)}, "must be positive"),
        ({"names": ("one",)}, "1 names for 2"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(stack, **change)
