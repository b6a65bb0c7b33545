# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import numpy as np
from source_fields import PSF, SHARP_PSF, draw, kernel_of

from lsst.drp.restore.sources.cell_psf import CellPsf


def test_psf_between_pixels_and_its_derivatives() -> None:
    kernel = kernel_of(PSF)
    psf = CellPsf(kernel[np.newaxis, np.newaxis], (60, 60))
    x, y, step = 20.38, 31.71, 1e-4
    stamp = psf.stamps(np.array([x]), np.array([y]))[0]
    expected = draw(np.array([[x, y, 1.0]]), PSF, (60, 60))[32 - 12 : 32 + 13, 20 - 12 : 20 + 13]
    np.testing.assert_allclose(stamp[0], expected, atol=2e-5)
    for axis, (dx, dy) in enumerate(((step, 0.0), (0.0, step))):
        up, down = (psf.stamps(np.array([x + s * dx]), np.array([y + s * dy]))[0, 0] for s in (1, -1))
        np.testing.assert_allclose(stamp[1 + axis], (up - down) / (2 * step), atol=1e-6)


def test_sources_have_the_psf_of_their_cell() -> None:
    kernels = np.array([[kernel_of(PSF), kernel_of(SHARP_PSF)], [kernel_of(PSF), np.full((25, 25), np.nan)]])
    psf = CellPsf(kernels, (30, 40))
    # Pixel 39.5 is the border; what is outside of the grid belongs to the nearest cell.
    x, y = np.array([5.0, 39.4, 40.0, 200.0, 60.0]), np.array([5.0, 29.0, 0.0, -7.0, 45.0])
    i, j = psf.cell_of(x, y)
    assert list(zip(i, j, strict=True)) == [(0, 0), (0, 0), (0, 1), (0, 1), (1, 1)]
    stamps = psf.stamps(x, y)
    np.testing.assert_allclose(stamps[0, 0], kernels[0, 0], atol=1e-6)
    np.testing.assert_allclose(stamps[2, 0], kernels[0, 1], atol=1e-6)
    # A cell without PSF draws nothing.
    assert not stamps[4].any()
