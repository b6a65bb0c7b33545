# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the filling of a stack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from handles import StoredHandle
from skies import make_geometry
from visit_images import make_image

from lsst.drp.restore.errors import DamagedInputError
from lsst.drp.restore.stack.kernel_shape import gaussian_kernel
from lsst.drp.restore.warping.cell_kernels import CellKernels
from lsst.drp.restore.warping.detector_overlap import DetectorOverlap
from lsst.drp.restore.warping.stack_builder import PlacedInput, StackBuilder
from lsst.drp.restore.warping.visit_input import VisitInput
from lsst.drp.restore.warping.warp import Warp
from lsst.images import Box

GEOMETRY = make_geometry(cells=(1, 2), cell_size=30)


def place(
    value: float,
    columns: slice,
    *,
    fwhm: float = 4.0,
    without: tuple[int, ...] = (),
    correlation: float = 1.0,
) -> PlacedInput:
    """Return a flat input of variance ``value`` that covers some columns of
    the patch, without a kernel in some cells.
    """
    start, stop, _ = columns.indices(60)
    bbox = Box.factory[0:30, start:stop]
    data = np.zeros((30, 60), bool)
    data[:, columns] = True
    array = np.zeros((1, 2, 9, 9), np.float32)
    array[:] = gaussian_kernel(fwhm, 9)
    fraction = array.sum(axis=(-2, -1), dtype=np.float64)
    for j in without:
        array[:, j], fraction[:, j] = 0.0, 0.0
    pixels = np.full(bbox.shape, value, np.float32)
    return PlacedInput(
        overlap=DetectorOverlap.of_warp(GEOMETRY, bbox, data),
        warp=Warp(
            bbox=bbox,
            image=pixels,
            variance=pixels,
            good=np.ones(bbox.shape, bool),
            inverse_correlation=np.full(bbox.shape, 1.0 / correlation, np.float32),
        ),
        kernels=CellKernels(array=array, fraction=fraction, failures=[]),
    )


def visit_input(visit: int = 1, detector: int = 1) -> VisitInput:
    return VisitInput(StoredHandle(make_image(visit, detector)))


@pytest.mark.parametrize("on_disk", [False, True])
def test_first_of_overlapping_detectors_has_the_pixel(on_disk: bool) -> None:
    builder = StackBuilder(GEOMETRY, 3, 9, on_disk=on_disk)
    builder.add(visit_input(1, 1), place(1.0, np.s_[:40], correlation=1.5))
    builder.add(visit_input(1, 2), place(2.0, np.s_[30:55], fwhm=6.0, correlation=3.0))
    assert builder.good_fraction == pytest.approx(55 / 60)
    builder.keep("visit 1")
    builder.add(visit_input(2, 1), place(3.0, np.s_[:]))
    builder.keep("visit 2")
    stack = builder.stack(oversampling=2)
    assert stack.names == ("visit 1", "visit 2") and stack.oversampling == 2
    np.testing.assert_array_equal(stack.image[0, 7], [1.0] * 40 + [2.0] * 15 + [0.0] * 5)
    np.testing.assert_array_equal(stack.variance[0, 7], [1.0] * 40 + [2.0] * 15 + [np.inf] * 5)
    np.testing.assert_array_equal(stack.good[0, 7], [True] * 55 + [False] * 5)
    # The kernel of the detector with most pixels in the cell, the correlation of all pixels.
    np.testing.assert_array_equal(stack.kernels[0, 0, 0], gaussian_kernel(4.0, 9).astype(np.float32))
    np.testing.assert_array_equal(stack.kernels[0, 0, 1], gaussian_kernel(6.0, 9).astype(np.float32))
    np.testing.assert_allclose(stack.correlation[0, 0], [1.5, 25 / (10 / 1.5 + 15 / 3.0)], rtol=1e-6)
    np.testing.assert_allclose(stack.correlation[1, 0], [1.0, 1.0])
    assert [(i.visit, i.detector, i.exposure) for i in builder.inputs] == [(1, 1, 0), (1, 2, 0), (2, 1, 1)]
    np.testing.assert_allclose(builder.inputs[1].unmasked_fraction, [[0.0, 15 / 30]])
    np.testing.assert_allclose(builder.inputs[1].weight, [[0.0, 0.5]])
    np.testing.assert_allclose(builder.inputs[0].weight, [[1.0, 1.0]])


def test_pixels_without_a_kernel_are_not_good() -> None:
    builder = StackBuilder(GEOMETRY, 1, 9)
    builder.add(visit_input(), place(1.0, np.s_[:], without=(1,)))
    builder.keep("visit 1")
    stack = builder.stack()
    np.testing.assert_array_equal(stack.good[0, 0], [True] * 30 + [False] * 30)
    np.testing.assert_array_equal(stack.has_kernel, [[[True, False]]])
    assert np.isnan(builder.inputs[0].kernel_fraction[0, 1])


def test_discarded_exposure_leaves_nothing() -> None:
    builder = StackBuilder(GEOMETRY, 2, 9)
    builder.add(visit_input(1), place(1.0, np.s_[:40], correlation=2.0))
    builder.discard()
    assert builder.n_exposures == 0 and builder.good_fraction == 0.0 and builder.inputs == []
    builder.add(visit_input(2), place(3.0, np.s_[20:]))
    builder.keep("visit 2")
    stack = builder.stack()
    np.testing.assert_array_equal(stack.image[0, 0], [0.0] * 20 + [3.0] * 40)
    np.testing.assert_allclose(stack.correlation, 1.0)
    assert [i.visit for i in builder.inputs] == [2]


def test_input_that_cannot_be_identified_adds_nothing() -> None:
    class Damaged(VisitInput):
        @property
        def day_obs(self) -> Any:
            raise DamagedInputError("its file cannot be decoded")

    builder = StackBuilder(GEOMETRY, 1, 9)
    with pytest.raises(DamagedInputError):
        builder.add(Damaged(StoredHandle(make_image())), place(1.0, np.s_[:]))
    assert builder.good_fraction == 0.0
