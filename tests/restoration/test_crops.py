# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stacks import star_field

from lsst.drp.restore.restoration.crops import Crop, CropSampler, NetworkInput

STACK, _, _ = star_field(n=3, shape=(96, 128), cell_shape=(32, 32), bad_fraction=0.05)
FILL = np.full(STACK.shape, 7.0, dtype=np.float32)


def make_sampler(**kwargs: object) -> CropSampler:
    arguments = dict(
        crop_shape=(24, 24), batch_size=2, validation_fraction=0.1, min_good_fraction=0.3, seed=4
    )
    return CropSampler(NetworkInput(STACK, FILL, margin=5), **(arguments | kwargs))


def test_input_has_no_holes() -> None:
    field = NetworkInput(STACK, FILL, margin=5)
    context = field.context(Crop(40, 50, 10, 12))
    reach = STACK.padding + 5
    assert context.shape == (10 + 2 * reach, 12 + 2 * reach, 3)
    rows, cols = slice(40 - reach, 50 + reach), slice(50 - reach, 62 + reach)
    expected = np.where(STACK.good, STACK.image, 7.0)[:, rows, cols] / field.scale
    np.testing.assert_allclose(np.moveaxis(context, -1, 0), expected, rtol=1e-6)


def test_no_data_anywhere_is_sky() -> None:
    field = NetworkInput(STACK, np.full(STACK.shape, np.nan), margin=0)
    assert np.isfinite(field.context(Crop(0, 0, *STACK.shape))).all()


@settings(max_examples=20, deadline=None)
@given(size=st.integers(10, 200), margin=st.integers(0, 9))
def test_tiles_cover_the_latent_image_once(size: int, margin: int) -> None:
    field = NetworkInput(STACK, FILL, margin)
    shape = [extent + 2 * STACK.padding for extent in STACK.shape]
    whole = field.context(Crop(0, 0, *STACK.shape))
    covered = np.zeros(shape, dtype=int)
    for rows, cols, tile in field.tiles(size):
        covered[rows, cols] += 1
        expected = whole[rows.start : rows.stop + 2 * margin, cols.start : cols.stop + 2 * margin]
        np.testing.assert_array_equal(tile[0], expected)
    assert (covered == 1).all()


def test_training_crops_avoid_the_held_out_ones() -> None:
    sampler = make_sampler()
    assert sampler.validation_crops
    for _ in range(300):
        crop = sampler.draw()
        for held in sampler.validation_crops:
            apart_y = crop.y + crop.height <= held.y or held.y + held.height <= crop.y
            apart_x = crop.x + crop.width <= held.x or held.x + held.width <= crop.x
            assert apart_y or apart_x


def test_draws_are_reproducible() -> None:
    first, second, other = make_sampler(), make_sampler(), make_sampler(seed=5)
    crops = [first.draw() for _ in range(20)]
    assert crops == [second.draw() for _ in range(20)]
    assert crops != [other.draw() for _ in range(20)]


def test_crops_with_few_good_pixels_are_drawn_again() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 128), bad_fraction=0.0)
    pixels = np.zeros(stack.image.shape, dtype=bool)
    pixels[:, :, :64] = True
    stack = stack.without(pixels)
    sampler = CropSampler(
        NetworkInput(stack, FILL[:64], margin=5),
        crop_shape=(24, 24),
        batch_size=1,
        validation_fraction=0.1,
        min_good_fraction=0.5,
        seed=1,
    )
    crops = [sampler.draw() for _ in range(100)] + sampler.validation_crops
    assert all(stack.good[crop.pixels].mean() >= 0.5 for crop in crops)


def test_batch_is_what_equation_4_needs() -> None:
    sampler = make_sampler()
    crop = Crop(33, 40, 24, 24)
    inputs, target, weight = sampler.batch([crop])
    good = STACK.good[crop.pixels]
    np.testing.assert_array_equal(weight[0], good)
    sigma = np.sqrt(STACK.variance[crop.pixels])
    np.testing.assert_allclose(target[0][good], (STACK.image[crop.pixels] / sigma)[good], rtol=1e-5)
    assert (target[0][~good] == 0).all()
    assert (inputs["inverse_sigma"][0][~good] == 0).all()
    # The center (45, 52) is in cell (1, 1).
    np.testing.assert_array_equal(inputs["kernels"][0, 0, 0], STACK.kernels[:, 1, 1])


def test_exposure_without_kernel_stays_out_of_the_loss() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), bad_fraction=0.0)
    stack.kernels[1, 0, 0] = 0.0
    sampler = CropSampler(
        NetworkInput(stack, FILL[:64, :64], margin=3),
        crop_shape=(20, 20),
        batch_size=1,
        validation_fraction=0.0,
        min_good_fraction=0.0,
        seed=1,
    )
    _, _, weight = sampler.batch([Crop(10, 10, 20, 20)])
    assert weight[0, 0].all()
    assert not weight[0, 1].any()


def test_whole_field_keeps_every_kernel() -> None:
    sampler = make_sampler(crop_shape=STACK.shape, batch_size=1, validation_fraction=0.0)
    inputs, target, weight = sampler.training_batch()
    np.testing.assert_array_equal(inputs["kernels"][0], np.moveaxis(STACK.kernels, 0, 2))
    np.testing.assert_array_equal(weight[0], STACK.good)
    assert target.shape == (1, *STACK.image.shape)
    assert not sampler.validation_batches()


def test_crops_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit into a patch of 96x128"):
        make_sampler(crop_shape=(100, 24))
    with pytest.raises(ValueError, match="next to the 1 held-out"):
        make_sampler(crop_shape=(80, 120))


def test_held_out_crops_do_not_grow_with_the_patch() -> None:
    # 384 crops fit side by side.
    numbers = [
        len(make_sampler(crop_shape=(8, 4), validation_fraction=f).validation_crops) for f in (0.02, 0.5)
    ]
    assert numbers == [8, 64]
