# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the ingest of exposures from FITS files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import astropy.units as u
import decam
import galsim
import galsim.des
import numpy as np
import piff
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from astropy.wcs import WCS, FITSFixedWarning
from click.testing import CliRunner

from lsst.daf.butler import Butler, CollectionType
from lsst.daf.butler.cli.butler import cli
from lsst.drp.restore.repository.ingest import ingest_exposures
from lsst.drp.restore.repository.make_visit_image import kernel_psf
from lsst.drp.restore.repository.manifest import ManifestError, read_manifest
from lsst.drp.restore.repository.register_tract import register_tract
from lsst.images import Box, VisitImage
from lsst.images.psfs import GaussianPointSpreadFunction

SHAPE = (50, 64)
NANOJANSKY = 10 ** (-0.4 * (28.0 - 31.4))  # of one count, with the zero point below


def make_header(x: float = 0.0) -> fits.Header:
    """Return the header of a detector that is x pixels beside the first."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ("RA---TAN", "DEC--TAN")
    wcs.wcs.crval = (150.0, 2.0)
    wcs.wcs.crpix = (32.5 - x, 25.5)
    wcs.wcs.cd = [[-7e-5, 1e-6], [2e-6, 7e-5]]
    return wcs.to_header()


def make_kernel(size: int = 25, dx: float = 0.0, sigma: float = 1.6) -> np.ndarray:
    """Return a round Gaussian kernel that is shifted along x."""
    offset = np.arange(size) - size // 2
    kernel = np.exp(-0.5 * ((offset - dx) ** 2 + offset[:, np.newaxis] ** 2) / sigma**2)
    return kernel / kernel.sum()


class Exposures:
    """FITS files in a folder and the rows of a manifest that names them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self.meta: dict[str, Any] = {}
        self._rng = np.random.default_rng(3)

    def add(self, visit: int, detector: int = 0, **cells: Any) -> dict[str, Any]:
        """Write the files of an exposure and return its row."""
        stem = f"v{visit}d{detector}"
        row = {
            "visit": visit,
            "detector": detector,
            "image": f"{stem}.fits",
            "variance": f"{stem}.var.fits",
            "weight": "",
            "mask": "",
            "psf_kind": "kernel",
            "psf": f"{stem}.psf.fits",
            "band": "r",
            "time": f"2024-03-02T0{visit}:00:00",
            "exposure_time": 30.0,
            "zero_point": 28.0,
        } | cells
        self.write(f"{stem}.fits", self._rng.normal(size=SHAPE), make_header(70.0 * detector))
        self.write(f"{stem}.var.fits", self._rng.uniform(1.0, 2.0, size=SHAPE))
        self.write(f"{stem}.psf.fits", make_kernel())
        self.rows.append(row)
        return row

    def write(self, name: str, array: np.ndarray, header: fits.Header | None = None) -> str:
        """Write a FITS image and return its name."""
        fits.writeto(self.folder / name, np.asarray(array), header, overwrite=True)
        return name

    def manifest(self) -> Path:
        """Write the manifest and return its path."""
        path = self.folder / "manifest.ecsv"
        Table(rows=self.rows, meta=self.meta).write(path, format="ascii.ecsv", overwrite=True)
        return path


@pytest.fixture
def exposures(tmp_path):
    """Return an empty set of files and rows."""
    (tmp_path / "files").mkdir()
    return Exposures(tmp_path / "files")


@pytest.fixture
def butler(tmp_path):
    """Return a client of an empty repository."""
    root = str(tmp_path / "repo")
    Butler.makeRepo(root)
    with Butler.from_config(root, writeable=True) as butler:
        yield butler


def get(
    butler: Butler, visit: int, detector: int = 0, *, component: str = "", instrument: str = "External"
) -> Any:
    """Read an image, or a part of it, from the default collection."""
    name = "visit_image" + ("." if component else "") + component
    return butler.get(name, instrument=instrument, visit=visit, detector=detector, collections="ingested")


def problems_of(butler: Butler, manifest: Path, **kwargs: Any) -> list[str]:
    """Return what is wrong with a manifest, and check that nothing of it was
    written.
    """
    before = describe(butler)
    with pytest.raises(ManifestError) as caught:
        ingest_exposures(butler, manifest, **kwargs)
    assert describe(butler) == before
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return list(caught.value.problems)


def describe(butler: Butler) -> tuple[Any, ...]:
    """Return everything that an ingest could write."""
    names = ("instrument", "physical_filter", "detector", "visit", "visit_detector_region", "day_obs")
    return (
        sorted(butler.collections.query("*")),
        sorted(dataset_type.name for dataset_type in butler.registry.queryDatasetTypes()),
        [len(list(butler.registry.queryDimensionRecords(name))) for name in names],
    )


def test_images_are_calibrated(butler, exposures):
    row = exposures.add(1)
    summary = ingest_exposures(butler, exposures.manifest())
    assert (summary.n_images, summary.n_visits, summary.collection) == (1, 1, "ingested")
    image = get(butler, 1)
    assert isinstance(image, VisitImage)
    counts = fits.getdata(exposures.folder / row["image"])
    variance = fits.getdata(exposures.folder / row["variance"])
    np.testing.assert_allclose(image.image.array, counts * NANOJANSKY, rtol=1e-6)
    np.testing.assert_allclose(image.variance.array, variance * NANOJANSKY**2, rtol=1e-6)
    assert (image.unit, image.band, image.physical_filter) == (u.nJy, "r", "r")
    assert not any(image.mask.get(name).any() for name in image.mask.schema.names)
    x, y = np.array([0.0, 63.0, 10.0]), np.array([0.0, 49.0, 44.0])
    sky = WCS(make_header()).pixel_to_world(x, y)
    assert image.sky_projection.pixel_to_sky(x=x, y=y).separation(sky).arcsec.max() < 1e-6


def test_weight_mask_and_missing_pixels(butler, exposures):
    row = exposures.add(1, variance="", weight="w.fits", mask="m.fits")
    weight = np.full(SHAPE, 0.25)
    weight[3, 4], weight[5, 6], weight[7, 8] = 0.0, -1.0, np.nan
    exposures.write("w.fits", weight)
    mask = np.zeros(SHAPE, np.int16)
    mask[9, 10], mask[9, 11] = 1, -4
    exposures.write("m.fits", mask)
    counts = fits.getdata(exposures.folder / row["image"]).copy()
    counts[20, 21] = np.nan
    exposures.write(row["image"], counts, make_header())
    ingest_exposures(butler, exposures.manifest())
    image = get(butler, 1)
    np.testing.assert_array_equal(np.argwhere(image.mask.get("BAD")), [[9, 10], [9, 11]])
    missing = [[3, 4], [5, 6], [7, 8], [20, 21]]
    np.testing.assert_array_equal(np.argwhere(image.mask.get("NO_DATA")), missing)
    np.testing.assert_array_equal(np.argwhere(~np.isfinite(image.variance.array)), missing[:3])
    finite = np.isfinite(image.variance.array)
    np.testing.assert_allclose(image.variance.array[finite], 4.0 * NANOJANSKY**2, rtol=1e-6)


def test_bit_masks(butler, exposures):
    exposures.add(1, mask="m.fits[DQ]")
    exposures.meta["mask_planes"] = {"BAD": [0, 3], "SATURATED": [1], "COSMIC_RAY": 4}
    mask = np.zeros(SHAPE, np.uint16)
    mask[1, 1], mask[2, 2], mask[3, 3], mask[4, 4], mask[5, 5] = 1, 8, 2, 16 + 2, 64
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones(SHAPE)), fits.ImageHDU(mask, name="DQ")]).writeto(
        exposures.folder / "m.fits"
    )
    ingest_exposures(butler, exposures.manifest())
    planes = get(butler, 1, component="mask")
    np.testing.assert_array_equal(np.argwhere(planes.get("BAD")), [[1, 1], [2, 2]])
    np.testing.assert_array_equal(np.argwhere(planes.get("SATURATED")), [[3, 3], [4, 4]])
    np.testing.assert_array_equal(np.argwhere(planes.get("COSMIC_RAY")), [[4, 4]])
    assert not planes.get("NO_DATA").any()


def test_extensions_and_compression(butler, exposures):
    rng = np.random.default_rng(4)
    first, second, variance = rng.normal(size=SHAPE), rng.normal(size=SHAPE), np.ones(SHAPE)
    # A quantization level of 0 is lossless.
    compressed = fits.CompImageHDU(
        second, make_header(70.0), name="SCI", quantize_level=0, compression_type="GZIP_2"
    )
    compressed.ver = 2
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(first, make_header(), name="SCI", ver=1),
            fits.ImageHDU(variance, name="VAR"),
            compressed,
        ]
    ).writeto(exposures.folder / "all.fits")
    exposures.add(1, 0, image="all.fits", variance="all.fits[2]")
    exposures.add(1, 1, image="all.fits[SCI,2]", variance="all.fits[VAR]")
    ingest_exposures(butler, exposures.manifest())
    np.testing.assert_allclose(get(butler, 1, 0).image.array, first * NANOJANSKY, rtol=1e-6)
    second_image = get(butler, 1, 1)
    np.testing.assert_allclose(second_image.image.array, second * NANOJANSKY, rtol=1e-6)
    sky = WCS(make_header(70.0)).pixel_to_world(3.0, 4.0)
    assert second_image.sky_projection.pixel_to_sky(x=3.0, y=4.0).separation(sky).arcsec < 1e-6


def test_dimension_records(butler, exposures):
    for visit, detector in [(1, 0), (1, 1), (2, 1)]:
        exposures.add(visit, detector, physical_filter="r_DECam", time=f"2024-03-02T0{visit}:00:00")
    exposures.meta["instrument"] = "Cam"
    ingest_exposures(butler, exposures.manifest())
    records = butler.query_dimension_records("visit", instrument="Cam")
    assert {(r.id, r.physical_filter, r.day_obs) for r in records} == {
        (1, "r_DECam", 20240301),
        (2, "r_DECam", 20240301),
    }
    assert len(butler.query_dimension_records("visit_detector_region", instrument="Cam")) == 3
    first = next(r for r in records if r.id == 1)
    assert abs((first.timespan.begin - Time("2024-03-02T01:00:00")).to_value(u.s)) < 1e-6
    assert butler.query_datasets("visit_image", collections="ingested", where="band='r'", instrument="Cam")


@pytest.mark.parametrize(
    "cell,scale",
    [
        ("2024-03-02T03:04:05", "utc"),
        ("2024-03-02 03:04:05", "utc"),
        (60371.127835648148, "utc"),
        ("60371.127835648148", "utc"),
        (Time("2024-03-02T03:04:05", scale="utc"), "utc"),
        ("2024-03-02T03:04:42", "tai"),
    ],
)
def test_times(exposures, cell, scale):
    exposures.add(3, time=cell)
    exposures.meta["time_scale"] = scale
    manifest = read_manifest(exposures.manifest())
    assert not manifest.problems
    expected = Time("2024-03-02T03:04:05", scale="utc")
    assert abs((manifest.rows[0].begin - expected).to_value(u.s)) < 1e-3


def test_off_center_kernel_keeps_its_centroid(butler, exposures):
    kernel = make_kernel(31, dx=0.4)
    exposures.add(1, psf=exposures.write("k.fits", 7.0 * kernel))
    ingest_exposures(butler, exposures.manifest())
    drawn = get(butler, 1, component="psf").compute_kernel_image(x=20.0, y=30.0).array
    np.testing.assert_allclose(drawn, kernel, atol=1e-9)
    assert (drawn * (np.arange(31) - 15)).sum() == pytest.approx(0.4, abs=1e-3)


def test_gaussians_of_a_fwhm(butler, exposures):
    exposures.add(1, psf_kind="fwhm_pixel", psf="3.0")
    exposures.add(2, psf_kind="fwhm_arcsec", psf="1.0")
    ingest_exposures(butler, exposures.manifest())
    first, second = get(butler, 1, component="psf"), get(butler, 2, component="psf")
    assert isinstance(first, GaussianPointSpreadFunction)
    profile = first.compute_kernel_image(x=0.0, y=0.0).array[12]
    assert profile[12] / np.sqrt(profile[11] * profile[10]) == pytest.approx(2.0 ** ((1 + 4) / 2 / 1.5**2))
    # The WCS has pixels of 7e-5 degrees along x.
    assert second.sigma * 2.354820045 == pytest.approx(1.0 / (np.hypot(7e-5, 2e-6) * 3600), rel=1e-5)


def write_psfex(path: Path, kernels: np.ndarray, step: float, order: int) -> None:
    """Write a PSFEx file; the kernels are in PSFEx's order."""
    format_, dim = f"{kernels.size}E", str(kernels.shape[::-1])
    column = fits.Column("PSF_MASK", format=format_, dim=dim, array=kernels[np.newaxis])
    hdu = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    hdu.header["POLNAXIS"] = 2 if order else 0
    for axis, name in enumerate(("X_IMAGE", "Y_IMAGE") if order else (), start=1):
        hdu.header[f"POLGRP{axis}"] = 1
        hdu.header[f"POLNAME{axis}"] = name
        hdu.header[f"POLZERO{axis}"] = 30.0 + axis
        hdu.header[f"POLSCAL{axis}"] = 60.0 - axis
    hdu.header["POLNGRP"] = 1 if order else 0
    if order:
        hdu.header["POLDEG1"] = order
    hdu.header["PSF_SAMP"] = step
    hdu.header["PSFNAXIS"] = 3
    for axis, size in enumerate(kernels.shape[::-1], start=1):
        hdu.header[f"PSFAXIS{axis}"] = size
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)


@pytest.mark.parametrize("order,step", [(0, 1.0), (1, 1.0), (2, 0.6), (3, 1.3)])
def test_psfex_is_drawn_as_galsim_draws_it(butler, exposures, order, step):
    size = 45
    rng = np.random.default_rng(order)
    n_terms = (order + 1) * (order + 2) // 2
    kernels = np.zeros((n_terms, size, size), np.float32)
    kernels[0] = make_kernel(size, dx=0.2, sigma=2.0 / step)
    for kernel in kernels[1:]:  # anything smooth that shifts and widens the PSF
        kernel += rng.uniform(0.1, 0.2) * (make_kernel(size, dx=1.0, sigma=2.5 / step) - kernels[0])
    write_psfex(exposures.folder / "x.psf", kernels, step, order)
    exposures.add(1, psf_kind="psfex", psf="x.psf")
    ingest_exposures(butler, exposures.manifest())
    psf = get(butler, 1, component="psf")
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


def test_piff_with_a_celestial_wcs(butler, exposures):
    center = galsim.CelestialCoord(150.0 * galsim.degrees, 2.0 * galsim.degrees)
    affine = galsim.AffineTransform(-0.9, 0.02, 0.01, 0.95, galsim.PositionD(32, 25))
    wcs = {chip: galsim.TanWCS(affine, center) for chip in (3, 5)}
    model = make_piff(wcs, center)
    model.write(str(exposures.folder / "two.piff"))
    exposures.add(1, 5, psf_kind="piff", psf="two.piff")
    exposures.add(1, 4, psf_kind="piff", psf="two.piff")
    (problem,) = problems_of(butler, exposures.manifest())
    assert "two.piff: a model of the chips [3, 5], none of which is detector 4" in problem
    exposures.rows.pop()
    ingest_exposures(butler, exposures.manifest())
    psf = get(butler, 1, 5, component="psf")
    for x, y in [(1.0, 2.0), (60.0, 11.0), (33.0, 25.0)]:
        drawn = psf.compute_kernel_image(x=x, y=y).array
        # Piff counts pixels from 1.
        expected = model.draw(x + 1.0, y + 1.0, chipnum=5, stamp_size=51, center=True).array
        np.testing.assert_allclose(drawn, expected / expected.sum(), atol=2e-5 * expected.max())


def test_piff_in_pixels(butler, exposures):
    model = make_piff({0: galsim.PixelScale(1.0)}, None)
    model.write(str(exposures.folder / "one.piff"))
    exposures.add(1, psf_kind="piff", psf="one.piff")
    ingest_exposures(butler, exposures.manifest())
    drawn = get(butler, 1, component="psf").compute_kernel_image(x=40.0, y=20.0).array
    expected = model.draw(41.0, 21.0, stamp_size=51, center=True).array
    np.testing.assert_allclose(drawn, expected / expected.sum(), atol=1e-6)


def test_piff_that_varies_too_fast(butler, exposures):
    kernels = np.zeros((28, 31, 31))  # a polynomial of order 6
    kernels[0], kernels[-7] = make_kernel(31), make_kernel(31, sigma=2.2) - make_kernel(31)
    model = kernel_psf(kernels, Box.from_shape(SHAPE), origin=(32.0, 25.0), scale=(25.0, 25.0)).piff_psf
    del model.stars
    model.write(str(exposures.folder / "fast.piff"))
    exposures.add(1, psf_kind="piff", psf="fast.piff")
    (problem,) = problems_of(butler, exposures.manifest())
    assert "fast.piff: varies more over the image than a polynomial of order 4" in problem


def test_everything_wrong_is_reported_at_once(butler, exposures):
    exposures.add(1, 0, image="missing.fits")
    exposures.add(1, 1, variance=exposures.write("wide.fits", np.ones((50, 65))))
    exposures.add(1, 2, image=exposures.write("nowcs.fits", np.ones(SHAPE)))
    exposures.add(1, 3, zero_point=np.nan)
    exposures.add(1, 4, psf_kind="moffat")
    exposures.add(1, 5, variance="", weight=exposures.write("negative.fits", np.full(SHAPE, -1.0)))
    exposures.add(1, 6, psf=exposures.write("zero.fits", np.zeros((25, 25))))
    exposures.add(1, 7, psf=exposures.write("even.fits", np.ones((26, 26))))
    exposures.add(1, 8, psf=exposures.write("small.fits", np.ones((21, 21))))
    exposures.add(1, 9, psf=exposures.write("nan.fits", np.full((25, 25), np.nan)))
    exposures.add(1, 9)
    exposures.add(1, 10, band="i")
    exposures.add(1, 11, time="2024-03-02T05:00:00")
    exposures.add(1, 12, weight="v1d12.var.fits")
    exposures.add(1, 13, variance="")
    exposures.add(1, 14, time="yesterday")
    exposures.add(1, 15, psf_kind="psfex", psf="v1d15.psf.fits")
    exposures.add(1, 16, psf_kind="piff", psf="v1d16.psf.fits")
    exposures.add(1, 17, psf_kind="fwhm_pixel", psf="-2")
    exposures.add(1, 18, image=exposures.write("cube.fits", np.ones((2, 50, 64))))
    exposures.add(1, 19, image="v1d0.fits[7]")
    exposures.add(1, 20, image=exposures.write("blank.fits", np.full(SHAPE, np.nan), make_header()))
    exposures.add(1, 21, mask=exposures.write("tall.fits", np.ones((51, 64))), exposure_time=-1.0)
    exposures.add(1, 22, mask="v1d22.var.fits")
    exposures.add(-1, 23, time="2024-03-02T01:00:00")
    exposures.add(1, 24, psf="", image="")
    (exposures.folder / "text.fits").write_text("not FITS")
    exposures.add(1, 25, image="text.fits", psf="missing.psf")
    exposures.add(2, 0, physical_filter=33 * "r")
    exposures.add(3, 0, time="1969-12-31T00:00:00")
    exposures.meta["mask_planes"] = {"BAD": [0], "CR": [1]}
    exposures.meta["instrument"] = 33 * "x"
    problems = problems_of(butler, exposures.manifest())
    expected = [
        "row 1 (visit 1, detector 0): missing.fits: no such file",
        "row 2 (visit 1, detector 1): wide.fits: 65x50 pixels, but v1d1.fits has 64x50",
        "row 3 (visit 1, detector 2): nowcs.fits: no celestial WCS",
        "row 4 (visit 1, detector 3): zero_point is nan, not a finite number",
        "row 5 (visit 1, detector 4): psf_kind 'moffat' is unknown",
        "row 6 (visit 1, detector 5): negative.fits: not one positive pixel",
        "row 7 (visit 1, detector 6): zero.fits: the sum of the kernel is 0, not positive",
        "row 8 (visit 1, detector 7): even.fits: a kernel of 26x26 pixels",
        "row 9 (visit 1, detector 8): small.fits: a kernel of 21x21 pixels",
        "row 10 (visit 1, detector 9): nan.fits: the kernel has pixels that are not finite",
        "row 11 (visit 1, detector 9): v1d9.fits: the same visit and detector as row 10",
        "row 12 (visit 1, detector 10): v1d10.fits: band is i, but r in row 1",
        "row 13 (visit 1, detector 11): v1d11.fits: begin is 2024-03-02T05:00:00.000, but",
        "row 14 (visit 1, detector 12): give either a variance or a weight",
        "row 15 (visit 1, detector 13): give either a variance or a weight",
        "row 16 (visit 1, detector 14): time is yesterday, neither ISO format nor MJD",
        "row 17 (visit 1, detector 15): v1d15.psf.fits: not a PSFEx model",
        "row 18 (visit 1, detector 16): v1d16.psf.fits: not a Piff model",
        "row 19 (visit 1, detector 17): psf is a FWHM of -2.0, which must be positive",
        "row 20 (visit 1, detector 18): cube.fits: no extension with a two-dimensional image",
        "row 21 (visit 1, detector 19): v1d0.fits[7]: no extension 7",
        "row 22 (visit 1, detector 20): blank.fits: not one finite pixel",
        "row 23 (visit 1, detector 21): tall.fits: 64x51 pixels, but v1d21.fits has 64x50",
        "row 23 (visit 1, detector 21): exposure_time is -1.0, not a finite number of at least 0",
        "row 24 (visit 1, detector 22): v1d22.var.fits: a bit mask must hold integers, not float64",
        "row 25 (visit -1, detector 23): visit is -1, not an integer",
        "row 26 (visit 1, detector 24): image is empty",
        "row 26 (visit 1, detector 24): psf is empty",
        "row 27 (visit 1, detector 25): text.fits: cannot be read",
        "row 27 (visit 1, detector 25): missing.psf: no such file",
        f"row 28 (visit 2, detector 0): physical_filter '{33 * 'r'}' has more than 32 characters",
        "row 29 (visit 3, detector 0): time is 1969-12-31T00:00:00, which is before 1970",
        f"instrument '{33 * 'x'}' has more than 32 characters",
        "manifest.ecsv: mask_planes: no mask plane 'CR'",
    ]
    for text in expected:
        assert sum(text in problem for problem in problems) == 1, (text, problems)
    # The two filters of visit 1 are both named for their band.
    assert len(problems) == len(expected) + 1
    assert any("physical_filter is i, but r" in problem for problem in problems)


def test_contradiction_with_the_repository(butler, exposures):
    exposures.add(1)
    ingest_exposures(butler, exposures.manifest())
    (problem,) = problems_of(butler, exposures.manifest())
    assert "v1d0.fits: collection 'ingested/run' has it already" in problem
    assert ingest_exposures(butler, exposures.manifest(), skip_existing=True).n_images == 0

    exposures.rows[0] |= {"exposure_time": 31.0}
    (problem,) = problems_of(butler, exposures.manifest(), collection="other")
    assert "v1d0.fits: visit 1 of 'External' is registered with 'r' at" in problem
    exposures.rows[0] |= {"exposure_time": 30.0, "band": "i", "physical_filter": "r"}
    (problem,) = problems_of(butler, exposures.manifest(), collection="other")
    assert "filter 'r' of 'External' is registered with band 'r', not 'i'" in problem
    exposures.rows[0] |= {"band": "r"}
    assert ingest_exposures(butler, exposures.manifest(), collection="other").n_images == 1


def test_interrupted_ingest_is_completed(butler, exposures):
    exposures.add(1, 0)
    ingest_exposures(butler, exposures.manifest())
    exposures.add(1, 1)
    exposures.add(2, 0)
    assert ingest_exposures(butler, exposures.manifest(), skip_existing=True).n_images == 2
    assert len(butler.query_datasets("visit_image", collections="ingested")) == 3


def test_tables_that_are_no_manifests(exposures):
    exposures.add(1, wieght="w.fits")
    del exposures.rows[0]["band"]
    path = exposures.manifest()
    with pytest.raises(ManifestError, match="(?s)no column 'band'.*unknown column 'wieght'"):
        read_manifest(path)
    path.write_text("visit image\n1 a.fits\n")
    with pytest.raises(ManifestError, match="not an ECSV table"):
        read_manifest(path)


def test_command(butler, exposures, tmp_path):
    grid = {"patch_size": 60, "patch_border": 20, "cell_size": 50, "n_patches": (1, 1)}
    register_tract(butler, "s", ra=150.0, dec=2.0, pixel_scale=0.25, **grid)
    exposures.add(1)
    repo, manifest = str(tmp_path / "repo"), str(exposures.manifest())
    runner = CliRunner()
    command = ["ingest-exposures", repo, manifest, "--instrument", "Cam", "--collection", "in"]
    result = runner.invoke(cli, command)
    assert result.exit_code == 0, result.output
    assert "Ingested 1 images of 1 visits with 'Cam'; input collection: in" in result.output
    info = butler.collections.get_info("in")
    assert (info.type, list(info.children)) == (CollectionType.CHAINED, ["in/run", "skymaps"])
    (data_id,) = butler.registry.queryDataIds(
        ("visit", "detector", "patch", "band"), datasets="visit_image", collections="in"
    )
    assert (data_id["visit"], data_id["patch"], data_id["band"]) == (1, 0, "r")
    result = runner.invoke(cli, command)
    assert result.exit_code == 1
    assert "Error: Nothing was ingested, 1 problem(s)" in result.output
    result = runner.invoke(
        cli, ["ingest-exposures", repo, manifest, "--collection", "in2", "--tract-collection", "nowhere"]
    )
    assert result.exit_code == 1
    assert "There is no collection 'nowhere'" in result.output
    assert not butler.collections.query("in2*")
    result = runner.invoke(cli, ["ingest-exposures", repo, manifest, "--collection", "skymaps"])
    assert result.exit_code == 1
    assert "'skymaps' is a RUN collection" in result.output


def test_real_exposures(butler, tmp_path):
    decam.require()
    folder = tmp_path / "decam"
    folder.mkdir()
    manifest = decam.write_exposures(folder)
    register_tract(butler, "s", **decam.TRACT)
    summary = ingest_exposures(butler, manifest)
    assert (summary.n_images, summary.n_visits, summary.instrument) == (10, 10, "DECam")
    joined = butler.query_data_ids(("visit", "detector", "patch", "band"), where="skymap='s' AND band='i'")
    assert len(joined) == 10
    data = decam.arrays()
    nanojansky = 10 ** (-0.4 * (decam.ZERO_POINT - 31.4))
    stars = np.array(decam.STARS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        wcs = WCS(fits.getheader(folder / "image0.fits"))
    sky = wcs.pixel_to_world(*stars.T)
    rows = read_manifest(manifest).rows
    assert {row.begin.strftime("%Y") for row in rows} == {"2016", "2018"}
    for n, row in enumerate(rows):
        image = get(butler, row.visit, row.detector, instrument="DECam")
        # All ten on one flux scale, whatever their zero points are.
        np.testing.assert_allclose(image.image.array, data["image"][n] * nanojansky, rtol=2e-6, atol=1e-4)
        np.testing.assert_allclose(image.variance.array, data["variance"][n] * nanojansky**2, rtol=2e-6)
        np.testing.assert_array_equal(image.mask.get("BAD"), data["mask"][n])
        assert not image.mask.get("NO_DATA").any()
        pixel = image.sky_projection.sky_to_pixel(sky)
        np.testing.assert_allclose(np.stack([pixel.x, pixel.y], axis=1), stars, atol=1e-4)
        kernel = data["psf"][n].astype(np.float64)
        drawn = image.psf.compute_kernel_image(x=100.0, y=73.0).array
        np.testing.assert_allclose(drawn, kernel / kernel.sum(), atol=1e-6)
