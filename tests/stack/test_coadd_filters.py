# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
import numpy as np
import pytest
from scipy.signal import fftconvolve
from stacks import moffat_kernel

from lsst.drp.restore.stack.coadd_filters import coadd_filters
from lsst.drp.restore.stack.kernel_shape import fwhm

WIDTHS = (2.6, 3.0, 3.4, 4.6)
WEIGHTS = np.array([1.0, 0.5, 2.0, 1.5])


def test_filters_make_white_noise_and_lose_no_signal() -> None:
    kernels = np.stack([moffat_kernel(width, ellipticity=0.05) for width in WIDTHS])
    filters, psf = coadd_filters(kernels, WEIGHTS)
    power = sum(np.abs(np.fft.fft2(f, (128, 128))) ** 2 / w for f, w in zip(filters, WEIGHTS, strict=True))
    assert np.ptp(power) < 0.04 * power.mean()
    assert filters.sum() == pytest.approx(1.0, abs=1e-6)
    brute = sum(fftconvolve(f, k) for f, k in zip(filters, kernels, strict=True))
    np.testing.assert_allclose(psf, brute[12:-12, 12:-12], atol=1e-7)
    # Signal to noise, squared, of the PSF flux: that of all exposures together.
    best = sum(w * (k.astype(float) ** 2).sum() for w, k in zip(WEIGHTS, kernels, strict=True))
    assert (psf.astype(float) ** 2).sum() / power.mean() == pytest.approx(best, rel=3e-3)
    mean = np.tensordot(WEIGHTS / WEIGHTS.sum(), kernels, axes=1)
    assert (mean.astype(float) ** 2).sum() * WEIGHTS.sum() < 0.97 * best


def test_one_exposure_stays_what_it_is() -> None:
    kernel = moffat_kernel(3.3, ellipticity=0.1)
    filters, psf = coadd_filters(kernel[np.newaxis], np.array([4.0]))
    point = np.zeros((25, 25))
    point[12, 12] = 1.0
    np.testing.assert_allclose(filters[0], point, atol=1e-4)
    np.testing.assert_allclose(psf, kernel, atol=1e-5)


def test_an_unused_exposure_has_no_part() -> None:
    kernels = np.stack([moffat_kernel(3.0), np.zeros((25, 25), np.float32)])
    filters, psf = coadd_filters(kernels, np.array([1.0, 0.0]))
    assert not filters[1].any()
    np.testing.assert_allclose(psf, kernels[0], atol=1e-5)


def test_target_resolution() -> None:
    kernels = np.stack([moffat_kernel(width) for width in WIDTHS])
    filters, psf = coadd_filters(kernels, WEIGHTS, target_fwhm=3.5)
    assert fwhm(psf) == pytest.approx(3.5, rel=0.01)
    brute = sum(fftconvolve(f, k) for f, k in zip(filters, kernels, strict=True))[12:-12, 12:-12]
    assert np.abs(brute - psf).max() < 0.03 * psf.max()
    assert brute.sum() == pytest.approx(1.0, abs=2e-3)
