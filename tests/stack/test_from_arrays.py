# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Stacks made of arrays."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stacks import make_arrays

from lsst.drp.restore import InputError
from lsst.drp.restore.stack.from_arrays import stack_arrays


@settings(max_examples=40)
@given(st.data())
def test_any_shape_fits_into_cells(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 3))
    shape = data.draw(st.tuples(st.integers(5, 60), st.integers(5, 60)))
    cell_size = data.draw(st.none() | st.integers(1, 70))
    arrays = make_arrays(n, shape, k=data.draw(st.sampled_from([3, 5])))
    rng = np.random.default_rng(data.draw(st.integers(0, 100)))
    for kind, array in enumerate((arrays["image"], arrays["variance"], arrays["variance"], arrays["mask"])):
        array[rng.uniform(size=array.shape) < 0.1] = (np.nan, 0.0, np.inf, True)[kind]
    good = np.isfinite(arrays["image"]) & (arrays["variance"] > 0) & np.isfinite(arrays["variance"])
    good &= ~arrays["mask"]
    stacked = stack_arrays(**arrays, kernel_size=5, max_cell_size=25, cell_size=cell_size)
    stack, used, scale = stacked.stack, stacked.used, stacked.scale
    height, width = shape
    assert scale == 1.0
    assert list(used) == list(np.flatnonzero(good.any(axis=(1, 2))))
    assert all(0 <= size - extent for size, extent in zip(stack.shape, shape, strict=True))
    assert all(
        size - extent < cell for size, extent, cell in zip(stack.shape, shape, stack.cell_shape, strict=True)
    )
    if cell_size is None:
        assert max(stack.cell_shape) <= 25
    else:
        assert stack.cell_shape == (cell_size, cell_size)
    np.testing.assert_array_equal(stack.good[:, :height, :width], good[used])
    assert np.count_nonzero(stack.good) == np.count_nonzero(good)
    np.testing.assert_array_equal(stack.image[stack.good], arrays["image"][good].astype(np.float32))
    assert (stack.image[~stack.good] == 0).all()
    assert np.isposinf(stack.variance[~stack.good]).all()
    assert stack.kernels.sum(axis=(3, 4)) == pytest.approx(1.0)


@given(cells=st.tuples(st.integers(1, 9), st.integers(1, 9)), shape=st.tuples(*[st.integers(5, 60)] * 2))
def test_cells_of_the_kernels(cells: tuple[int, int], shape: tuple[int, int]) -> None:
    """They cover the field, each with a part of it, or are refused."""
    arrays = make_arrays(1, shape)
    arrays["psf"] = np.broadcast_to(arrays["psf"][:, None, None], (1, *cells, 5, 5))
    if cells != (1, 1) and any(
        (count - 1) * -(-extent // count) >= extent for count, extent in zip(cells, shape, strict=True)
    ):
        with pytest.raises(InputError, match="do not cover"):
            stack_arrays(**arrays, kernel_size=5)
    else:
        stack = stack_arrays(**arrays, kernel_size=5).stack
        assert stack.kernels.shape[1:3] == cells


@given(exponent=st.integers(-30, 30))
def test_any_unit(exponent: int) -> None:
    arrays = make_arrays()
    arrays["image"] *= 10.0**exponent
    arrays["variance"] *= 10.0 ** (2 * exponent)
    stacked = stack_arrays(**arrays, kernel_size=5)
    stack, scale = stacked.stack, stacked.scale
    assert np.frexp(scale)[0] == 0.5
    assert 0.99e-4 < stack.median_sigma < 1.01e4
    np.testing.assert_allclose(stack.image / scale, arrays["image"], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(stack.variance.astype(float)) / scale, 10.0**exponent, rtol=1e-6)


def test_bad_pixels_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    arrays = make_arrays()
    arrays["image"][0, :2, 0] = np.nan
    arrays["variance"][1, 0, :3] = [0.0, -1.0, np.nan]
    arrays["mask"][1, 0, 0] = True
    arrays["psf"] = np.repeat(arrays["psf"][:, None, None], 2, axis=1)
    arrays["psf"][1, 0] = np.nan
    with caplog.at_level(logging.INFO, logger="lsst"):
        stack = stack_arrays(**arrays, names=["left", "right"], kernel_size=5).stack
    assert caplog.messages == [
        "left: 2 pixels are not finite. They count as bad.",
        "right: 2 pixels have a variance that is not finite or not positive. They count as bad.",
    ]
    assert not stack.good[1, :15].any()
    assert not stack.kernels[1, 0].any()
    assert stack.good[1, 15:].all()
    arrays["mask"] = ~arrays["mask"]
    arrays["mask"][1] = False
    with caplog.at_level(logging.INFO, logger="lsst"):
        stacked = stack_arrays(**arrays, names=["left", "right"], kernel_size=5)
    stack, used = stacked.stack, stacked.used
    assert "left has no good pixel where it has a PSF: it is left out." in caplog.messages
    assert list(used) == [1]
    assert stack.names == ("right",)


def test_masked_arrays_and_correlation() -> None:
    arrays = make_arrays()
    arrays["image"] = np.ma.masked_greater(arrays["image"], 1.0)
    stack = stack_arrays(**arrays | {"mask": None}, kernel_size=5, correlation=[1.0, 1.5]).stack
    np.testing.assert_array_equal(stack.good, arrays["image"].data <= 1.0)
    np.testing.assert_array_equal(stack.correlation.ravel(), np.float32([1.0, 1.5]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((30, 40))}, r"image\[np.newaxis\]"),
        ({"image": np.zeros((0, 30, 40))}, "no exposures"),
        ({"image": np.zeros((2, 4, 40))}, "smaller than a PSF kernel, 5x5"),
        ({"image": np.zeros((2, 30, 40), complex)}, "'image' must be an array of real numbers"),
        ({"variance": np.ones(2)}, "np.broadcast_to"),
        ({"mask": np.zeros((2, 30, 40), int)}, "choose the bits"),
        ({"mask": np.zeros((30, 40), bool)}, "'mask' has shape"),
        ({"mask": np.ones((2, 30, 40), bool)}, "No exposure has a good pixel.*exposure 0, exposure 1"),
        ({"variance": np.zeros((2, 30, 40))}, "No exposure has a good pixel"),
        ({"psf": np.ones((5, 5)) / 25}, r"expected \(2, k, k\)"),
        ({"psf": np.ones((3, 5, 5)) / 25}, r"expected \(2, k, k\)"),
        ({"psf": np.ones((2, 5, 3)) / 15}, r"expected \(2, k, k\)"),
        ({"psf": np.ones((2, 4, 4)) / 16}, "no middle pixel"),
        ({"psf": np.ones((2, 9, 9)) / 81}, r"psf\[..., 2:7, 2:7\].*set kernel_size=9"),
        ({"psf": np.ones((2, 5, 5))}, "exposure 0: the PSF kernel has a sum of 25.*normalize_psf=True"),
        ({"psf": -np.ones((2, 5, 5)), "normalize_psf": True}, "sum of -25"),
        ({"psf": np.fft.ifftshift(make_arrays()["psf"], axes=(1, 2))}, "np.fft.fftshift"),
        ({"psf": np.where(np.eye(5), np.nan, 0.05) * np.ones((2, 1, 1))}, "not finite"),
        ({"psf": np.zeros((2, 5, 5))}, "No exposure has a good pixel"),
        ({"psf": np.ones((2, 2, 2, 5, 5)) / 25, "cell_size": 10}, "2x2 cells.*cell_size=10"),
        ({"cell_size": 0}, "'cell_size'"),
        ({"correlation": 0.0}, "'correlation'"),
        ({"correlation": [1.0, 1.0, 1.0]}, "'correlation'"),
        ({"names": ["one"]}, "'names'"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        stack_arrays(**make_arrays() | {"kernel_size": 5} | change)


def test_kernels_may_be_normalized(caplog: pytest.LogCaptureFixture) -> None:
    arrays = make_arrays(k=11)
    arrays["psf"] = np.roll(arrays["psf"] * 80.0, 1, axis=1)
    stack = stack_arrays(**arrays, kernel_size=11, normalize_psf=True).stack
    assert stack.kernels.sum(axis=(3, 4)) == pytest.approx(1.0)
    assert "exposure 0: the PSF is 1.0 pixels off the middle" in caplog.text
