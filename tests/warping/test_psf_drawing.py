# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of PSF kernels against GalSim's drawing of the same PSF."""

from __future__ import annotations

import galsim
import numpy as np
import pytest

from lsst.drp.restore.repository.make_visit_image import kernel_psf
from lsst.drp.restore.stack.kernel_shape import fwhm
from lsst.drp.restore.warping.psf_drawing import psf_kernel, resampled_psf_kernel
from lsst.images import Box, Image
from lsst.images.psfs import GaussianPointSpreadFunction, PointSpreadFunction

BOUNDS = Box.from_shape((100, 100))


def matrix(
    scale: float = 1.0, angle: float = 0.0, g1: float = 0.0, g2: float = 0.0, flip: bool = False
) -> np.ndarray:
    """Return a jacobian d(detector)/d(patch) from patch pixels of ``scale``
    detector pixels, rotated by ``angle`` degrees and sheared.
    """
    a = np.radians(angle)
    rotation = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    shear = np.array([[1.0 + g1, g2], [g2, 1.0 - g1]]) / np.sqrt(1.0 - g1**2 - g2**2)
    return scale * rotation @ shear @ np.diag([-1.0 if flip else 1.0, 1.0])


JACOBIANS = [
    matrix(),
    matrix(angle=180.0),
    matrix(angle=90.0, flip=True),
    matrix(angle=33.0),
    matrix(scale=0.75, angle=110.0, g1=0.05, g2=-0.03),
    matrix(scale=1.2, angle=-71.0, g2=0.1, flip=True),
]


class DrawnPsf(PointSpreadFunction):
    """A GalSim profile, detector pixel included, as an lsst.images PSF."""

    def __init__(self, profile: galsim.GSObject, size: int) -> None:
        self.image = profile.drawImage(nx=size, ny=size, scale=1.0, method="no_pixel", dtype=float).array
        self._r = size // 2

    @property
    def bounds(self):
        return BOUNDS

    @property
    def kernel_bbox(self):
        return Box.factory[-self._r : self._r + 1, -self._r : self._r + 1]

    def compute_kernel_image(self, *, x, y):
        return Image(self.image.copy(), bbox=self.kernel_bbox)

    def compute_stellar_image(self, *, x, y):
        raise NotImplementedError()

    def compute_stellar_bbox(self, *, x, y):
        raise NotImplementedError()


def draw_on_patch(profile: galsim.GSObject, jacobian: np.ndarray, size: int = 25) -> np.ndarray:
    """Draw a profile of the detector's frame on the patch, brute force."""
    wcs = galsim.JacobianWCS(*jacobian.ravel())
    image = galsim.ImageD(size, size, wcs=wcs)
    # No pixel response: that of the detector is in the profile already.
    return profile.drawImage(image, method="no_pixel").array


@pytest.mark.parametrize("jacobian", JACOBIANS)
@pytest.mark.parametrize("width", [2.5, 3.5, 5.0])
def test_kernel_is_the_psf_drawn_on_the_patch(width, jacobian):
    """To 1 % of its peak, for elliptical Moffat PSFs with the detector's
    pixel, sampled by 2.5 (0.5 arcsec, 0.2 arcsec pixels) to 5 pixels.
    """
    profile = galsim.Convolve(galsim.Moffat(beta=3.0, fwhm=width).shear(g1=0.04, g2=0.06), galsim.Pixel(1.0))
    psf = DrawnPsf(profile, 61)
    kernel = resampled_psf_kernel(psf, 50.0, 50.0, jacobian)
    expected = draw_on_patch(profile, jacobian)
    total = profile.drawImage(nx=61, ny=61, scale=1.0, method="no_pixel", dtype=float).array.sum()
    assert kernel.shape == (25, 25) and kernel.dtype == np.float32
    assert np.abs(kernel - expected / total).max() < 0.01 * kernel.max()
    assert np.unravel_index(kernel.argmax(), kernel.shape) == (12, 12)
    # Normalized to the model's flux, not to what is inside of the kernel.
    assert kernel.sum() == pytest.approx(expected.sum() / total, abs=0.003)
    assert kernel.sum() < 0.9998


def test_identity_returns_the_model():
    psf = GaussianPointSpreadFunction(1.7, bounds=BOUNDS, stamp_size=41)
    kernel = resampled_psf_kernel(psf, 3.0, 4.0, np.eye(2), size=15)
    expected = psf.compute_kernel_image(x=3.0, y=4.0).array[13:28, 13:28]
    # The library's table of weights has no point at whole pixels.
    assert np.allclose(kernel, expected, atol=1e-3 * expected.max())
    assert kernel.sum() == pytest.approx(expected.sum(), abs=1e-4)


def test_truncated_wings_are_reported():
    """A broad Moffat loses a few percent outside of 25 pixels."""
    profile = galsim.Moffat(beta=2.5, fwhm=5.4)
    psf = DrawnPsf(profile, 201)
    fraction = resampled_psf_kernel(psf, 0.0, 0.0, np.eye(2)).sum()
    inside = profile.drawImage(nx=25, ny=25, scale=1.0, method="no_pixel", dtype=float).array.sum()
    total = profile.drawImage(nx=201, ny=201, scale=1.0, method="no_pixel", dtype=float).array.sum()
    assert fraction == pytest.approx(inside / total, abs=1e-4)
    assert 0.95 < fraction < 0.985


def test_model_stamp_smaller_than_the_kernel():
    """Nothing is known outside of a small model's stamp: it is empty."""
    psf = GaussianPointSpreadFunction(1.2, bounds=BOUNDS, stamp_size=13)
    kernel = resampled_psf_kernel(psf, 0.0, 0.0, np.eye(2))
    assert kernel.sum() == pytest.approx(1.0, abs=1e-4)
    assert not kernel[:3].any() and not kernel[:, -3:].any()
    assert np.abs(kernel[:6]).max() < 1e-5


def test_piff_model_is_evaluated_where_asked():
    """A PSF that is wider at larger x."""
    y, x = np.indices((31, 31)) - 15
    kernels = np.array([np.exp(-0.5 * (x**2 + y**2) / s**2) / (2.0 * np.pi * s**2) for s in (1.5, 2.5)])
    psf = kernel_psf(
        np.array([kernels[0], kernels[1] - kernels[0], np.zeros((31, 31))]), BOUNDS, scale=(100.0, 100.0)
    )
    left = resampled_psf_kernel(psf, 0.0, 50.0, matrix(angle=20.0))
    right = resampled_psf_kernel(psf, 100.0, 50.0, matrix(angle=20.0))
    assert fwhm(left) == pytest.approx(2.3548 * 1.5, rel=0.01)
    assert fwhm(right) == pytest.approx(2.3548 * 2.5, rel=0.01)


@pytest.mark.parametrize("size", [15, 41, 51])
def test_psf_on_the_patch_is_cut_or_padded(size):
    psf = GaussianPointSpreadFunction(3.0, bounds=BOUNDS, stamp_size=41)
    expected = psf.compute_kernel_image(x=3.0, y=4.0).array
    kernel = psf_kernel(psf, 3.0, 4.0, size)
    assert kernel.shape == (size, size) and kernel.dtype == np.float32
    common = min(size, 41)
    inner, outer = (size - common) // 2, (41 - common) // 2
    assert np.array_equal(
        kernel[inner : inner + common, inner : inner + common],
        expected[outer : outer + common, outer : outer + common].astype(np.float32),
    )
    assert kernel.sum() == pytest.approx(kernel[inner : inner + common, inner : inner + common].sum())


@pytest.mark.parametrize(("total", "expected"), [(0.97, 0.97), (1.005, 1.005), (7.0, 1.0)])
def test_psf_on_the_patch_that_is_not_normalized(total, expected):
    """A sum near 1 is the fraction of the flux; any other has no meaning."""
    psf = DrawnPsf(galsim.Gaussian(sigma=2.0), 41)
    psf.image *= total / psf.image.sum()
    assert psf_kernel(psf, 3.0, 4.0, 41).sum() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_model_without_flux_is_refused(value):
    psf = DrawnPsf(galsim.Gaussian(sigma=2.0), 25)
    psf.image[:] = value
    with pytest.raises(ValueError, match="x=12.0, y=34.0"):
        resampled_psf_kernel(psf, 12.0, 34.0, np.eye(2))
    with pytest.raises(ValueError, match="x=12.0, y=34.0"):
        psf_kernel(psf, 12.0, 34.0)
