# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the description of inputs."""

from __future__ import annotations

import numpy as np
import pytest
from visit_images import build, make_image

from lsst.drp.restore.stack.kernel_shape import gaussian_kernel
from lsst.drp.restore.warping.stack_input import kernel_moments_by_cell


def test_moments_of_the_cells_that_are_used() -> None:
    kernels = np.zeros((2, 3, 25, 25), np.float32)
    kernels[0, 1], kernels[1, 2] = gaussian_kernel(4.0, 25), gaussian_kernel(6.0, 25)
    used = np.array([[True, True, False], [False, False, True]])
    moments = kernel_moments_by_cell(kernels, used)
    assert moments.shape == (3, 2, 3)
    for cell, width in (((0, 1), 4.0), ((1, 2), 6.0)):
        expected = (width / 2.3548) ** 2
        assert moments[:, *cell] == pytest.approx((expected, expected, 0.0), abs=0.02 * expected)
    # An empty kernel, and cells that are not used.
    assert np.isnan(moments[:, 0, 0]).all()
    assert np.isnan(moments[:, ~used]).all()


def test_other_kernels() -> None:
    """The pixels stay, the description of the PSF changes."""
    stacked = build(make_image(1, center=(10.0, 35.0)), make_image(2))
    old = stacked.inputs[0]
    kernels = np.zeros((4, 4, 25, 25), np.float32)
    kernels[:] = 0.9 * gaussian_kernel(5.0, 25)
    new = old.with_kernels(kernels)
    used = old.weight > 0.0
    assert used.any() and not used.all()
    np.testing.assert_allclose(new.kernel_fraction[used], 0.9, rtol=1e-5)
    np.testing.assert_allclose(new.psf_xx[used], (5.0 / 2.3548) ** 2, rtol=0.02)
    assert np.isnan(new.kernel_fraction[~used]).all() and np.isnan(new.psf_yy[~used]).all()
    assert new.weight is old.weight and new.unmasked_fraction is old.unmasked_fraction
    assert (new.visit, new.exposure, new.polygon) == (old.visit, old.exposure, old.polygon)
