# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSFs measured from the stars of simulated images."""

from __future__ import annotations

import galsim
import numpy as np
import pytest

from lsst.drp.restore.repository.frame_psf import StarPsf, TooFewStarsError, measure_star_psf
from lsst.drp.restore.stack.kernel_shape import fwhm
from lsst.images import Box

SIZE = 320
BBOX = Box.from_shape((SIZE, SIZE))


def simulate(n_stars: int, n_galaxies: int = 0, *, gradient: float = 0.0) -> np.ndarray:
    """Return stars with a Moffat profile, whose width has a gradient along x,
    and larger galaxies, with noise of 1.
    """
    rng = np.random.default_rng(11)
    image = galsim.ImageD(SIZE, SIZE, scale=1.0, xmin=0, ymin=0)
    for k in range(n_stars + n_galaxies):
        x, y = rng.uniform(20, SIZE - 20, 2)
        profile = moffat(x, gradient)
        flux = rng.uniform(1500, 20000)
        if k >= n_stars:
            profile = galsim.Convolve(profile, galsim.Exponential(half_light_radius=rng.uniform(1.5, 4.0)))
            flux /= 2
        profile.withFlux(flux).drawImage(image, center=galsim.PositionD(x, y), add_to_image=True)
    return image.array + rng.normal(0.0, 1.0, image.array.shape)


def moffat(x: float, gradient: float = 0.0) -> galsim.GSObject:
    return galsim.Moffat(beta=3.0, fwhm=3.4 * (1.0 + gradient * (x / SIZE - 0.5)))


def width(x: float, gradient: float = 0.0) -> float:
    """Return the FWHM of the true PSF, pixel included."""
    return fwhm(moffat(x, gradient).drawImage(galsim.ImageD(25, 25, scale=1.0)).array)


def measure(image: np.ndarray, bad: np.ndarray | None = None) -> StarPsf:
    bad = np.zeros(image.shape, dtype=bool) if bad is None else bad
    return measure_star_psf(image, np.ones(image.shape), bad, BBOX)


def test_constant_psf() -> None:
    image = simulate(12, 12)
    found = measure(image)
    assert found.order == 0 and 5 <= found.n_stars <= 14
    assert found.fwhm == pytest.approx(width(160.0), rel=0.02)
    kernel = found.psf.compute_kernel_image(x=50.0, y=60.0).array
    assert min(kernel.shape) >= 25 and kernel.sum() == pytest.approx(1.0, abs=1e-6)
    true = moffat(0.0).drawImage(galsim.ImageD(*kernel.shape, scale=1.0)).array
    assert np.abs(kernel - true / true.sum()).max() < 0.02 * true.max()


def test_background_and_bad_pixels_do_not_matter() -> None:
    image = simulate(12)
    bad = np.zeros(image.shape, dtype=bool)
    bad[:, 100:103] = True
    expected = measure(image, bad).fwhm
    image[bad] = np.nan
    assert measure(image + 500.0, bad).fwhm == pytest.approx(expected, rel=0.005)


@pytest.mark.slow
def test_varying_psf() -> None:
    found = measure(simulate(30, gradient=0.12))
    assert found.order == 1
    for x in (40.0, 280.0):
        kernel = found.psf.compute_kernel_image(x=x, y=160.0).array
        assert fwhm(kernel) == pytest.approx(width(x, 0.12), rel=0.02)


def test_too_few_stars() -> None:
    with pytest.raises(TooFewStarsError, match="stars found, of at least 3"):
        measure(simulate(1))
    with pytest.raises(TooFewStarsError, match="no valid pixel"):
        measure(simulate(1), np.ones((SIZE, SIZE), dtype=bool))
