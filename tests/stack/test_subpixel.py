# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Shifts by fractions of a pixel, each against what is known by arithmetic."""

import numpy as np
import pytest
import scipy.fft
from scipy.signal import fftconvolve
from stacks import moffat_kernel, pixel_gaussian

from lsst.drp.restore.stack.subpixel import (
    kernel_phases,
    lanczos,
    phase_ramp,
    point_image,
    point_stamp,
    shift,
    shift_matrix,
)

OFFSETS = np.array([[0.5, -0.5], [0.2, 0.4], [0.0, 0.0], [-0.35, 0.1]])


@pytest.mark.parametrize("lobes", [3, 5])
def test_lanczos_interpolates(lobes: int) -> None:
    """It is one at its center, zero at all other pixels, and smooth."""
    distance = np.arange(-8, 9)
    np.testing.assert_allclose(lanczos(distance, lobes), distance == 0, atol=1e-15)
    between = lanczos(np.arange(-8, 8) + 0.5, lobes)
    assert between.sum() == pytest.approx(1.0, abs=0.01)
    assert not between[: 8 - lobes].any() and between[8 - lobes : 8 + lobes].all()


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_kernels_of_the_parts_of_a_pixel(factor: int) -> None:
    kernel = pixel_gaussian(1.4, 0, 0).astype(np.float32)
    offsets = (np.arange(factor) - (factor - 1) / 2) / factor
    expected = np.stack([pixel_gaussian(1.4, y, x) for y in offsets for x in offsets])
    phases = kernel_phases(np.broadcast_to(kernel, (2, 3, 25, 25)), factor)
    assert phases.shape == (2, 3, factor**2, 25, 25) and phases.dtype == np.float32
    np.testing.assert_allclose(phases[1, 2], expected, atol=1e-3 * kernel.max())
    np.testing.assert_allclose(phases.sum(axis=(-2, -1)), kernel.sum(), rtol=1e-3)


def test_shift_of_a_gaussian() -> None:
    stamps = np.broadcast_to(pixel_gaussian(1.5, 0, 0), (len(OFFSETS), 25, 25))
    expected = [pixel_gaussian(1.5, y, x) for y, x in OFFSETS]
    np.testing.assert_allclose(shift(stamps, OFFSETS), expected, atol=1e-4 * stamps.max())


def test_phases_shift_by_whole_pixels() -> None:
    image = np.random.default_rng(1).normal(size=(21, 21))
    transfer = scipy.fft.rfft2(image) * phase_ramp(np.array([2.0]), np.array([-3.0]), 21)[0]
    np.testing.assert_allclose(scipy.fft.irfft2(transfer, s=(21, 21)), np.roll(image, (2, -3), (0, 1)))


def test_points_between_pixels() -> None:
    psf = moffat_kernel(3.0)[np.newaxis].astype(float)
    for offset in ((0.5, -0.5), (0.2, 0.4)):
        point = point_stamp(np.array(offset), 25)
        assert point.sum() == pytest.approx(1.0)
        blurred = fftconvolve(point, psf[0], mode="same")[np.newaxis]
        # A Moffat profile of 3 pixels is not quite band-limited.
        np.testing.assert_allclose(shift(blurred, -np.array([offset])), psf, atol=6e-3 * psf.max())


def test_point_image_keeps_flux() -> None:
    image = point_image(np.array([20.3]), np.array([18.5]), np.array([7.0]), (40, 40))
    assert image.sum() == pytest.approx(7.0, rel=1e-4)
    rows, columns = np.indices(image.shape)
    assert (rows * image).sum() / 7.0 == pytest.approx(20.3, abs=0.02)
    assert (columns * image).sum() / 7.0 == pytest.approx(18.5, abs=0.02)


def test_points_at_the_edge_are_cut_off() -> None:
    image = point_image(np.array([0.3]), np.array([38.6]), np.array([7.0]), (40, 40))
    whole = point_image(np.array([20.3]), np.array([28.6]), np.array([7.0]), (60, 60))
    np.testing.assert_allclose(image[:, 10:], whole[20:, :30], atol=1e-6)
    assert not image[:, :10].any()


def test_a_matrix_shifts_as_a_point_does() -> None:
    for offset in (0.3, -0.45, 1.2):
        moved = shift_matrix(np.array(offset), 25)[:, 12]
        drawn = point_image(np.array([12 + offset]), np.array([12.0]), np.ones(1), (25, 25))[:, 12]
        np.testing.assert_allclose(moved, drawn, atol=1e-7)
    profile = np.exp(-0.5 * ((np.arange(25) - 12) / 2.0) ** 2)
    expected = np.exp(-0.5 * ((np.arange(25) - 12.3) / 2.0) ** 2)
    np.testing.assert_allclose(shift_matrix(np.array(0.3), 25) @ profile, expected, atol=2e-3)
