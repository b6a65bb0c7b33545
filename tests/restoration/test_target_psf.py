# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.signal import convolve2d
from scipy.special import erf
from stacks import moffat_kernel, star_field

from lsst.drp.restore.restoration.target_psf import (
    TARGET_FWHM,
    convolution_kernels,
    deconvolution_kernels,
    target_kernel,
)
from lsst.drp.restore.stack.kernel_shape import fwhm

SIGMA = TARGET_FWHM / np.sqrt(8.0 * np.log(2.0))
BETA = 3.5


def gaussian(sigma: float, y: float, x: float, size: int) -> np.ndarray:
    """Return a Gaussian of flux 1, sampled, off the middle by y and x."""
    offset = np.arange(size) - size // 2
    down, right = (np.exp(-0.5 * ((offset - place) / sigma) ** 2) for place in (y, x))
    return np.outer(down, right) / (2 * np.pi * sigma**2)


def moffat(width: float, y: float, x: float, size: int) -> np.ndarray:
    """Return the profile of `moffat_kernel`, off the middle by y and x."""
    offset = np.arange(size) - size // 2
    alpha = width / 2 / np.sqrt(2 ** (1 / BETA) - 1)
    profile = (1 + ((offset[:, None] - y) ** 2 + (offset - x) ** 2) / alpha**2) ** -BETA
    centered = (1 + (offset[:, None] ** 2 + offset**2) / alpha**2) ** -BETA
    return profile / centered[size // 2 - 12 : size // 2 + 13, size // 2 - 12 : size // 2 + 13].sum()


def test_target() -> None:
    kernel = target_kernel()
    assert kernel.shape == (25, 25) and kernel.dtype == np.float32
    np.testing.assert_allclose(kernel, gaussian(0.8, 0, 0, 25), atol=1e-3)
    assert kernel.sum() == pytest.approx(1.0)
    assert fwhm(target_kernel(4.0, 31)) == pytest.approx(4.0, rel=0.01)


@pytest.mark.parametrize("width", [2.2, 3.0, 4.5])
def test_convolution_of_the_target_is_the_psf(width: float) -> None:
    psf = np.stack([moffat_kernel(width, ellipticity=e) for e in (0.0, 0.1)]).reshape(2, 1, 1, 25, 25)
    kernels = convolution_kernels(psf * 0.97)
    assert kernels.shape == psf.shape and kernels.dtype == np.float32
    np.testing.assert_allclose(kernels.sum(axis=(-2, -1)), 0.97, rtol=1e-4)
    for kernel, expected in zip(kernels.reshape(2, 25, 25), 0.97 * psf.reshape(2, 25, 25), strict=True):
        result = convolve2d(kernel.astype(float), target_kernel().astype(float), mode="same")
        np.testing.assert_allclose(result, expected, atol=5e-3 * expected.max())


@pytest.mark.parametrize("width", [2.2, 3.0, 4.5])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.5, 0.5), (-0.3, 0.4)])
def test_a_star_anywhere_in_its_pixel_becomes_its_psf(width: float, place: tuple[float, float]) -> None:
    kernel = convolution_kernels(moffat_kernel(width))
    seen = convolve2d(gaussian(SIGMA, *place, 41), kernel.astype(float), mode="same")[8:-8, 8:-8]
    expected = moffat(width, *place, 41)[8:-8, 8:-8]
    np.testing.assert_allclose(seen, expected, atol=5e-3 * expected.max())


def test_no_psf_gives_no_kernel() -> None:
    psf = np.zeros((2, 25, 25), np.float32)
    psf[1] = moffat_kernel(3.0)
    for function in (convolution_kernels, deconvolution_kernels):
        kernels = function(psf)
        assert not kernels[0].any()
        np.testing.assert_array_equal(kernels[1], function(psf[1]))


def test_deconvolution_of_the_psf_is_the_target() -> None:
    target = target_kernel()
    peaks = []
    for width in (2.2, 3.0, 4.5):
        psf = moffat_kernel(width)
        result = convolve2d(deconvolution_kernels(psf).astype(float), psf.astype(float), mode="same")
        peaks.append(result.max() / target.max())
        assert np.unravel_index(result.argmax(), result.shape) == (12, 12)
        assert result.sum() == pytest.approx(1.0, abs=0.02)
        # Wiener's filter, up to what is cut off by the stamp.
        f, g = (np.abs(np.fft.fft2(stamp, (128, 128))) for stamp in (psf, target))
        transfer = np.abs(np.fft.fft2(deconvolution_kernels(psf), (128, 128)))
        np.testing.assert_allclose(transfer, g * f / (f**2 + 0.01), atol=0.1)
    # The wider a PSF, the less is left at high frequencies.
    assert peaks[0] > peaks[1] > peaks[2]
    assert peaks[0] > 0.7
    sharp = target_kernel(1.1 * TARGET_FWHM)
    result = convolve2d(deconvolution_kernels(sharp).astype(float), sharp.astype(float), mode="same")
    np.testing.assert_allclose(result, target, atol=0.2 * target.max())


def test_noise_of_a_deconvolution_is_limited() -> None:
    """Wiener's filter amplifies no frequency by more than 1 / (2 sqrt(0.01))."""
    for width in (2.2, 4.5, 8.0):
        transfer = np.abs(np.fft.fft2(deconvolution_kernels(moffat_kernel(width)), (128, 128)))
        assert transfer.max() < 5.5


@pytest.mark.parametrize("place", [(0.0, 0.0), (0.31, -0.18), (0.25, 0.25)])
def test_target_on_smaller_pixels(place: tuple[float, float]) -> None:
    """A star drawn on pixels half as large is what the exposures see; the
    target is too narrow to be sampled on theirs.
    """
    from lsst.drp.restore.restoration.forward_model import ForwardModel

    sigma = 1.4
    edges = np.arange(26) - 12.5
    psf = np.diff(erf(edges / sigma / np.sqrt(2))) / 2
    stack, _, _ = star_field(n=1, shape=(32, 32), n_stars=1)
    kernels = np.outer(psf, psf).astype(np.float32)[None, None, None]
    kernels = convolution_kernels(kernels, TARGET_FWHM / 2)
    np.testing.assert_allclose(kernels.sum(), 1.0, rtol=1e-3)
    stack = dataclasses.replace(stack, kernels=kernels, oversampling=2)
    # The middle of the exposures' pixel (16, 16), and so of four small ones.
    middle = 2 * (16 + 12) + 0.5
    offset = np.arange(stack.latent_shape[0]) - middle
    along = [np.exp(-0.5 * ((offset - 2 * at) / SIGMA) ** 2) / np.sqrt(2 * np.pi) / SIGMA for at in place]
    seen = ForwardModel(stack).forward(np.outer(*along).astype(np.float32))[0]
    edges = np.arange(33) - 16.5
    expected = np.outer(*[np.diff(erf((edges - at) / sigma / np.sqrt(2))) / 2 for at in place])
    np.testing.assert_allclose(seen, expected, atol=5e-3 * expected.max())
