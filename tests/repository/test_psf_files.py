# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSFs read from files of other software."""

from __future__ import annotations

import galsim
import galsim.des
import numpy as np
import piff
import pytest
from astropy.io import fits
from exposure_files import SHAPE, Exposures, make_kernel, write_psfex

from lsst.drp.restore.repository.exposure_files import ExposureFileError
from lsst.drp.restore.repository.make_visit_image import kernel_psf
from lsst.drp.restore.repository.manifest import read_manifest
from lsst.drp.restore.repository.psf_files import read_psf
from lsst.images import Box
from lsst.images.psfs import GaussianPointSpreadFunction, PointSpreadFunction


def read(exposures: Exposures, *, scale: float = 0.25) -> list[PointSpreadFunction]:
    """Read the PSFs of all exposures."""
    rows = read_manifest(exposures.manifest()).rows
    return [read_psf(row, exposures.folder, Box.from_shape(SHAPE), scale) for row in rows]


def test_off_center_kernel_keeps_its_centroid(exposures: Exposures) -> None:
    kernel = make_kernel(31, dx=0.4)
    exposures.add(1, psf=exposures.write("k.fits", 7.0 * kernel))
    (psf,) = read(exposures)
    drawn = psf.compute_kernel_image(x=20.0, y=30.0).array
    np.testing.assert_allclose(drawn, kernel, atol=1e-9)
    assert (drawn * (np.arange(31) - 15)).sum() == pytest.approx(0.4, abs=1e-3)


def test_gaussians_of_a_fwhm(exposures: Exposures) -> None:
    exposures.add(1, psf_kind="fwhm_pixel", psf="3.0")
    exposures.add(2, psf_kind="fwhm_arcsec", psf="1.0")
    first, second = read(exposures, scale=0.25)
    assert isinstance(first, GaussianPointSpreadFunction)
    assert isinstance(second, GaussianPointSpreadFunction)
    profile = first.compute_kernel_image(x=0.0, y=0.0).array[12]
    assert profile[12] / np.sqrt(profile[11] * profile[10]) == pytest.approx(2.0 ** ((1 + 4) / 2 / 1.5**2))
    assert second.sigma * 2.354820045 == pytest.approx(1.0 / 0.25, rel=1e-9)
    assert first.compute_kernel_image(x=0.0, y=0.0).array.shape == (25, 25)


@pytest.mark.parametrize(("order", "step"), [(0, 1.0), (1, 1.0), (2, 0.6), (3, 1.3)])
def test_psfex_is_drawn_as_galsim_draws_it(exposures: Exposures, order: int, step: float) -> None:
    size = 45
    rng = np.random.default_rng(order)
    n_terms = (order + 1) * (order + 2) // 2
    kernels = np.zeros((n_terms, size, size), np.float32)
    kernels[0] = make_kernel(size, dx=0.2, sigma=2.0 / step)
    for kernel in kernels[1:]:  # anything smooth that shifts and widens the PSF
        kernel += rng.uniform(0.1, 0.2) * (make_kernel(size, dx=1.0, sigma=2.5 / step) - kernels[0])
    write_psfex(exposures.folder / "x.psf", kernels, step, order)
    exposures.add(1, psf_kind="psfex", psf="x.psf")
    (psf,) = read(exposures)
    drawn = {}
    for x, y in [(0.0, 0.0), (60.0, 10.0), (20.0, 44.0)]:
        image = drawn[x, y] = psf.compute_kernel_image(x=x, y=y)
        if order:
            # The reference counts pixels from 1.
            reference = galsim.des.DES_PSFEx(str(exposures.folder / "x.psf")).getPSF(
                galsim.PositionD(x + 1.0, y + 1.0)
            )
        else:
            reference = galsim.InterpolatedImage(
                galsim.Image(kernels[0]), scale=step, flux=1.0, x_interpolant="lanczos3"
            )
        expected = reference.drawImage(
            nx=image.array.shape[1], ny=image.array.shape[0], scale=1.0, method="no_pixel", dtype=float
        ).array
        np.testing.assert_allclose(image.array, expected / expected.sum(), atol=2e-7)
    assert image.array.shape[0] % 2 == 1 and image.array.shape[0] >= size * step
    if order:
        assert np.abs(drawn[0.0, 0.0].array - drawn[60.0, 10.0].array).max() > 1e-4


def make_piff(wcs: dict[int, galsim.BaseWCS], pointing: galsim.CelestialCoord | None) -> piff.PSF:
    """Return a Piff model whose width grows with x on the chip."""
    slope = 5e-3 * (make_kernel(31, sigma=2.6) - make_kernel(31))
    kernels = np.stack([make_kernel(31, sigma=2.0), slope, np.zeros((31, 31))])
    psf = kernel_psf(kernels, Box.from_shape(SHAPE)).piff_psf
    del psf.stars  # as Piff does where there are none
    psf.wcs, psf.pointing = wcs, pointing
    return psf


def test_piff_with_a_celestial_wcs(exposures: Exposures) -> None:
    center = galsim.CelestialCoord(150.0 * galsim.degrees, 2.0 * galsim.degrees)
    affine = galsim.AffineTransform(-0.9, 0.02, 0.01, 0.95, galsim.PositionD(32, 25))
    wcs = {chip: galsim.TanWCS(affine, center) for chip in (3, 5)}
    model = make_piff(wcs, center)
    model.write(str(exposures.folder / "two.piff"))
    exposures.add(1, 5, psf_kind="piff", psf="two.piff")
    exposures.add(1, 4, psf_kind="piff", psf="two.piff")
    with pytest.raises(
        ExposureFileError, match=r"two.piff: a model of the chips \[3, 5\], none of which is detector 4"
    ):
        read(exposures)
    exposures.rows.pop()
    (psf,) = read(exposures)
    for x, y in [(1.0, 2.0), (60.0, 11.0), (33.0, 25.0)]:
        drawn = psf.compute_kernel_image(x=x, y=y).array
        # Piff counts pixels from 1.
        expected = model.draw(x + 1.0, y + 1.0, chipnum=5, stamp_size=51, center=True).array
        np.testing.assert_allclose(drawn, expected / expected.sum(), atol=2e-5 * expected.max())


def test_piff_in_pixels(exposures: Exposures) -> None:
    model = make_piff({0: galsim.PixelScale(1.0)}, None)
    model.write(str(exposures.folder / "one.piff"))
    exposures.add(1, psf_kind="piff", psf="one.piff")
    (psf,) = read(exposures)
    drawn = psf.compute_kernel_image(x=40.0, y=20.0).array
    expected = model.draw(41.0, 21.0, stamp_size=51, center=True).array
    np.testing.assert_allclose(drawn, expected / expected.sum(), atol=1e-6)


def test_piff_that_varies_too_fast(exposures: Exposures) -> None:
    kernels = np.zeros((28, 31, 31))  # a polynomial of order 6
    kernels[0], kernels[-7] = make_kernel(31), make_kernel(31, sigma=2.2) - make_kernel(31)
    model = kernel_psf(kernels, Box.from_shape(SHAPE), origin=(32.0, 25.0), scale=(25.0, 25.0)).piff_psf
    del model.stars
    model.write(str(exposures.folder / "fast.piff"))
    exposures.add(1, psf_kind="piff", psf="fast.piff")
    with pytest.raises(
        ExposureFileError, match="fast.piff: varies more over the image than a poly.* order 4"
    ):
        read(exposures)


@pytest.mark.parametrize("keyword", ["POLNAXIS", "PSF_SAMP", "POLNAME1"])
def test_psfex_file_without_a_keyword(exposures: Exposures, keyword: str) -> None:
    path = exposures.folder / "x.psf"
    write_psfex(path, np.ones((3, 25, 25), np.float32), step=1.0, order=1)
    fits.delval(path, keyword, 1)
    exposures.add(1, psf_kind="psfex", psf="x.psf")
    with pytest.raises(ExposureFileError, match="x.psf: not a PSFEx model"):
        read(exposures)


def test_psfex_model_of_other_variables(exposures: Exposures) -> None:
    path = exposures.folder / "x.psf"
    write_psfex(path, np.ones((3, 25, 25), np.float32), step=1.0, order=1)
    fits.setval(path, "POLNAME2", value="MAG_AUTO", ext=1)
    exposures.add(1, psf_kind="psfex", psf="x.psf")
    with pytest.raises(ExposureFileError, match="PSFVAR_KEYS X_IMAGE,Y_IMAGE"):
        read(exposures)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (np.zeros((25, 25)), "the sum of the kernel is 0, not positive"),
        (np.ones((26, 26)), "a kernel of 26x26 pixels; it must be square with an odd size of at least 25"),
        (np.ones((21, 21)), "a kernel of 21x21 pixels"),
        (np.full((25, 25), np.nan), "the kernel has pixels that are not finite"),
        (np.where(np.eye(25) > 0, -1.0, 0.1), r"the kernel at .* is not that of a PSF"),
    ],
)
def test_kernels_that_are_refused(exposures: Exposures, kernel: np.ndarray, message: str) -> None:
    exposures.add(1, psf=exposures.write("k.fits", kernel))
    with pytest.raises(ExposureFileError, match=message):
        read(exposures)


@pytest.mark.parametrize("kind", ["psfex", "piff"])
@pytest.mark.parametrize(("name", "message"), [("no.psf", "no such file"), ("text.psf", "not a P.* model")])
def test_files_that_are_refused(exposures: Exposures, kind: str, name: str, message: str) -> None:
    (exposures.folder / "text.psf").write_text("no model")
    exposures.add(1, psf_kind=kind, psf=name)
    with pytest.raises(ExposureFileError, match=message):
        read(exposures)
