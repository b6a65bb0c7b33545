# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSF of restored images from injected sources."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from stacks import linear_case, moffat_kernel

from lsst.drp.restore.restoration.injected_sources import measure_psf
from lsst.drp.restore.restoration.point_signal import point_signal
from lsst.drp.restore.restoration.seeds import Seeds


def test_psf_of_a_linear_restorer() -> None:
    stack, restoration = linear_case()
    before = stack.image.copy()
    _, depth = point_signal(stack)
    buffer = np.empty_like(stack.image)
    kernels = measure_psf(stack, restoration, depth, buffer, seeds=Seeds(2))
    assert kernels.shape == (4, 4, 25, 25) and kernels.dtype == np.float32
    # Half of the kernel, up to its band limit.
    np.testing.assert_allclose(kernels[1, 1], 0.5 * moffat_kernel(3.0), atol=2e-3)
    assert kernels[1, 1].sum() == pytest.approx(0.5, rel=0.02)
    np.testing.assert_array_equal(stack.image, before)
    other = measure_psf(stack, restoration, depth, buffer, seeds=Seeds(5))
    assert (other != kernels).any()
    np.testing.assert_allclose(other[1, 1], kernels[1, 1], atol=2e-3)


def test_cells_without_a_psf_and_patches_without_data() -> None:
    stack, restoration = linear_case()
    kernels = stack.kernels.copy()
    kernels[:, :, 3] = 0.0
    hole = np.zeros(stack.good.shape, bool)
    hole[:, :, 96:] = True
    part = dataclasses.replace(stack, kernels=kernels).without(hole)
    buffer = np.empty_like(stack.image)
    measured = measure_psf(part, restoration, point_signal(part)[1], buffer, seeds=Seeds(2))
    assert not measured[:, 3].any() and measured[:, :3].any(axis=(2, 3)).all()
    # Nothing is injected where a source would not be seen.
    shallow = np.zeros(stack.latent_shape, np.float32)
    shallow[:40] = 1.0
    shallow[40:] = 1e-3
    upper = measure_psf(stack, restoration, shallow, buffer, seeds=Seeds(2))
    # All cells have that of the sources in the upper part.
    assert np.isfinite(upper).all() and upper.any(axis=(2, 3)).all()
