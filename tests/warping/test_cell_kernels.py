# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the PSF kernels by cell."""

from __future__ import annotations

import numpy as np
import pytest
from skies import detector_projection, make_geometry, tan_wcs
from warps import gaussian_kernel

from lsst.drp.restore.stack.kernel_shape import fwhm
from lsst.drp.restore.warping.cell_kernels import CellKernels
from lsst.drp.restore.warping.detector_overlap import DetectorOverlap
from lsst.drp.restore.warping.pixel_map import PixelMap
from lsst.images import Box, Image
from lsst.images.psfs import GaussianPointSpreadFunction

GEOMETRY = make_geometry(cells=(2, 3), cell_size=40, start=(10, 20))
DETECTOR = Box.from_shape((100, 90))


def overlap_and_map() -> tuple[DetectorOverlap, PixelMap]:
    """Return the overlap with a detector that misses the last column of
    cells: its columns start at -0.5, 39.5 and 79.5.
    """
    projection = detector_projection(tan_wcs(center=(69.0, 49.5)), Box.from_shape((100, 80)))
    overlap = DetectorOverlap.find(GEOMETRY, projection, Box.from_shape((100, 80)), Box.from_shape((100, 80)))
    assert overlap is not None
    pixel_map = PixelMap(GEOMETRY.sky_projection, projection, overlap.bbox, overlap.detector_bbox)
    return overlap, pixel_map


class Psf(GaussianPointSpreadFunction):
    """A Gaussian PSF that remembers where it was drawn, and fails right of a
    column.
    """

    def __init__(self, sigma: float, *, limit: float = np.inf, bounds: Box = DETECTOR) -> None:
        super().__init__(sigma, bounds=bounds, stamp_size=31)
        self.limit = limit
        self.positions: list[tuple[float, float]] = []

    def compute_kernel_image(self, *, x: float, y: float) -> Image:
        self.positions.append((x, y))
        if x > self.limit:
            raise RuntimeError("no stars\nthere")
        return super().compute_kernel_image(x=x, y=y)


def test_detector_has_kernels_where_it_covers_cells() -> None:
    overlap, pixel_map = overlap_and_map()
    np.testing.assert_array_equal(overlap.overlap_fraction > 0.0, [[True, True, False]] * 2)
    psf = Psf(1.6)
    kernels = CellKernels.from_detector(psf, overlap, pixel_map, size=25, max_loss=0.05)
    assert kernels.array.shape == (2, 3, 25, 25) and kernels.array.dtype == np.float32
    np.testing.assert_array_equal(kernels.exists, overlap.overlap_fraction > 0.0)
    assert not kernels.array[~kernels.exists].any()
    np.testing.assert_allclose(kernels.fraction, kernels.array.sum(axis=(-2, -1)), rtol=1e-6)
    assert fwhm(kernels.array[1, 1]) == pytest.approx(1.6 * 2.3548, rel=0.01)
    assert kernels.failures == [] and not kernels.damaged
    # The patch's first pixel is the detector's at (9.5, 10), so that the cells
    # start at its 9, 49 and 89, and the detector ends at 79.5.
    np.testing.assert_allclose(np.unique(np.round(psf.positions, 2)[:, 0]), [29.0, 64.25], atol=0.02)


def test_detector_psf_is_drawn_within_its_bounds() -> None:
    overlap, pixel_map = overlap_and_map()
    psf = Psf(1.6, bounds=Box.factory[35:60, 40:50])
    CellKernels.from_detector(psf, overlap, pixel_map, size=25, max_loss=0.05)
    x, y = np.transpose(psf.positions)
    assert set(x) == {40.0, 49.0}
    assert y.min() == 35.0 and y.max() == 59.0


def test_failures_are_those_of_single_cells() -> None:
    overlap, pixel_map = overlap_and_map()
    kernels = CellKernels.from_detector(Psf(1.6, limit=40.0), overlap, pixel_map, size=25, max_loss=0.05)
    np.testing.assert_array_equal(kernels.exists, [[True, False, False]] * 2)
    assert kernels.failures == ["its PSF fails (RuntimeError: no stars)"] * 2
    assert kernels.damaged


def test_wide_psf_is_lost_but_not_damaged() -> None:
    overlap, pixel_map = overlap_and_map()
    kernels = CellKernels.from_detector(Psf(4.0), overlap, pixel_map, size=7, max_loss=0.1)
    assert not kernels.exists.any() and not kernels.array.any()
    assert len(kernels.failures) == 4 and not kernels.damaged
    assert "of 7x7 pixels misses 6" in kernels.failures[0]
    assert "more than maxKernelLoss=0.1" in kernels.failures[0]
    assert CellKernels.from_detector(Psf(4.0), overlap, pixel_map, size=7, max_loss=0.7).failures == []


def test_warp_is_drawn_at_the_good_pixel_nearest_to_each_center() -> None:
    good = np.zeros(GEOMETRY.outer_bbox.shape, bool)
    good[:40, :40] = True  # all of the first cell
    good[60, 41], good[79, 79] = True, True  # two pixels of the cell (1, 1)
    positions = []

    class WarpPsf:
        def compute_kernel_image(self, *, x: float, y: float) -> Image:
            positions.append((x, y))
            return Image(gaussian_kernel(), bbox=Box.factory[-15:16, -15:16])

    kernels = CellKernels.from_warp(WarpPsf(), good, GEOMETRY, size=25, max_loss=0.05)
    np.testing.assert_array_equal(kernels.exists, [[True, False, False], [False, True, False]])
    np.testing.assert_allclose(kernels.array[0, 0], gaussian_kernel()[3:-3, 3:-3], atol=1e-7)
    assert kernels.failures == []
    # The patch starts at x=20, y=10; the first of four pixels is as near to the center.
    assert positions == [(20.0 + 19.0, 10.0 + 19.0), (20.0 + 41.0, 10.0 + 60.0)]


def test_warp_without_a_psf_in_some_cells() -> None:
    class PartialPsf:
        def compute_kernel_image(self, *, x: float, y: float) -> Image:
            if x < 60.0:
                raise ValueError("no input images there")
            return Image(gaussian_kernel(), bbox=Box.factory[-15:16, -15:16])

    good = np.ones(GEOMETRY.outer_bbox.shape, bool)
    kernels = CellKernels.from_warp(PartialPsf(), good, GEOMETRY, size=25, max_loss=0.05)
    np.testing.assert_array_equal(kernels.exists, [[False, True, True]] * 2)
    assert kernels.failures == ["its PSF fails (ValueError: no input images there)"] * 2
    assert kernels.damaged


def test_gaussians_need_no_model() -> None:
    overlap, _ = overlap_and_map()
    kernels = CellKernels.gaussian(overlap, size=25, fwhm=4.0)
    np.testing.assert_array_equal(kernels.exists, overlap.overlap_fraction > 0.0)
    assert fwhm(kernels.array[1, 0]) == pytest.approx(4.0, rel=0.01)
    np.testing.assert_allclose(kernels.array[kernels.exists].sum(axis=(-2, -1)), 1.0, rtol=1e-5)
    assert not kernels.array[:, 2].any()
