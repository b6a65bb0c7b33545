# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
import numpy as np
import pytest
from scipy.signal import fftconvolve
from stacks import star_field

from lsst.drp.restore.psf_fitting.point_sources import find_point_sources
from lsst.drp.restore.psf_fitting.star_kernels import find_points, fit_star_kernels, place_stars
from lsst.drp.restore.psf_fitting.star_stamps import StarStamps
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.kernel_shape import fwhm, gaussian_kernel
from lsst.drp.restore.stack.reference_coadd import reference_coadd


def one_kernel_field() -> tuple[ExposureStack, np.ndarray, np.ndarray]:
    """Make exposures with one kernel each, and return these and the stars."""
    stack, latent, stars = star_field(seed=3, n=3, shape=(128, 128), n_stars=9, flux=(2000.0, 9000.0))
    kernels = stack.kernels.mean(axis=(1, 2)).astype(float)
    rng = np.random.default_rng(1)
    for t, kernel in enumerate(kernels):
        stack.kernels[t] = kernel
        stack.image[t] = fftconvolve(latent, kernel, "valid") + rng.normal(size=stack.shape)
    stack.variance[:], stack.good[:] = 1.0, True
    return stack, kernels, stars


def cut(stack: ExposureStack) -> StarStamps:
    stars = find_point_sources(stack, reference_coadd(stack), min_snr=15, max_count=9)
    return StarStamps.cut(stack, stars, np.ones_like(stack.kernels))


def test_fluxes_and_positions_are_found() -> None:
    stack, kernels, stars = one_kernel_field()
    stamps = cut(stack)
    before = stamps.dy.copy()
    placed = place_stars(stamps, kernels, np.ones(3))
    np.testing.assert_array_equal(stamps.dy, before)
    # All stars are in the middle of a pixel.
    np.testing.assert_allclose([placed.dy, placed.dx], 0.0, atol=0.02)
    np.testing.assert_allclose(np.sort(placed.flux), np.sort(stars[:, 2]), rtol=0.01)
    # All exposures half as bright are stars twice as bright.
    halved = place_stars(stamps, kernels, np.full(3, 0.5))
    np.testing.assert_allclose(halved.flux, 2.0 * placed.flux, rtol=1e-3)


def test_extended_sources_are_no_points() -> None:
    stack, kernels, stars = one_kernel_field()
    y, x, _ = stars[4].astype(int)
    for t, kernel in enumerate(kernels):
        wide = fftconvolve(kernel, gaussian_kernel(2.0), "same")
        stack.image[t, y - 12 : y + 13, x - 12 : x + 13] += stars[4, 2] * (wide - kernel)
    found = find_point_sources(stack, reference_coadd(stack), min_snr=15, max_count=9)
    stamps = place_stars(StarStamps.cut(stack, found, np.ones_like(stack.kernels)), kernels, np.ones(3))
    is_point = find_points(stamps, kernels)
    near = np.hypot(found.y - y, found.x - x) < 2
    assert near.sum() == 1 and len(near) == 9
    np.testing.assert_array_equal(is_point, ~near)


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_kernels_are_found(factor: float) -> None:
    stack, kernels, _ = one_kernel_field()
    start = np.stack([gaussian_kernel(factor * fwhm(kernel)) for kernel in kernels])
    fit = fit_star_kernels(cut(stack), start)
    np.testing.assert_allclose([fwhm(k) for k in fit.kernels], [fwhm(k) for k in kernels], rtol=0.02)
    np.testing.assert_allclose(fit.kernels.sum(axis=(1, 2)), 1.0)
    assert (fit.kernels >= 0).all() and np.abs(fit.kernels - kernels).sum(axis=(1, 2)).max() < 0.05
    assert fit.is_point.all() and np.abs(fit.shift).max() < 0.02
    # The wings outside of 25 pixels.
    assert ((fit.fraction > 0.95) & (fit.fraction < 1.0)).all()
