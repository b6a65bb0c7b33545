# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Ingest of exposures from FITS files into a repository."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import astropy.units as u
import decam
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from astropy.wcs import WCS, FITSFixedWarning
from exposure_files import NANOJANSKY, SHAPE, Exposures, make_header, make_kernel, write_psfex
from frames import write_frame, write_frames
from simulations import make_repository, simulate

from lsst.daf.butler import Butler
from lsst.drp.restore.repository.ingest import ingest_exposures
from lsst.drp.restore.repository.manifest import ManifestError, read_manifest
from lsst.drp.restore.repository.register_tract import register_tract
from lsst.drp.restore.stack.kernel_shape import fwhm
from lsst.drp.restore.warping.visit_input import noise_correlation
from lsst.images import Box, VisitImage
from lsst.images.psfs import GaussianPointSpreadFunction, PiffWrapper


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


def test_images_are_calibrated(butler: Butler, exposures: Exposures) -> None:
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


def test_dimension_records(butler: Butler, exposures: Exposures) -> None:
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


def test_psfs_are_stored(butler: Butler, exposures: Exposures) -> None:
    exposures.add(1, psf=exposures.write("k.fits", 7.0 * make_kernel(31, dx=0.4)))
    exposures.add(2, psf_kind="fwhm_pixel", psf="3.0")
    kernels = make_kernel(25)[np.newaxis].astype(np.float32)
    write_psfex(exposures.folder / "x.psf", kernels, step=1.0, order=0)
    exposures.add(3, psf_kind="psfex", psf="x.psf")
    ingest_exposures(butler, exposures.manifest())
    psfs = [get(butler, visit, component="psf") for visit in (1, 2, 3)]
    assert [type(psf) for psf in psfs] == [PiffWrapper, GaussianPointSpreadFunction, PiffWrapper]
    drawn = psfs[0].compute_kernel_image(x=20.0, y=30.0).array
    np.testing.assert_allclose(drawn, make_kernel(31, dx=0.4), atol=1e-9)
    drawn = psfs[2].compute_kernel_image(x=20.0, y=30.0).array
    np.testing.assert_allclose(drawn, make_kernel(25), atol=1e-7)


def test_everything_wrong_is_reported_at_once(butler: Butler, exposures: Exposures) -> None:
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
    exposures.add(1, 13, variance="", saturation=-1.0)
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
        "row 14 (visit 1, detector 12): give a variance or a weight, not both",
        "row 15 (visit 1, detector 13): saturation is -1.0, not a finite number of at least 0",
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


def test_contradiction_with_the_repository(butler: Butler, exposures: Exposures) -> None:
    exposures.add(1)
    ingest_exposures(butler, exposures.manifest())
    (problem,) = problems_of(butler, exposures.manifest())
    assert "v1d0.fits: collection 'ingested/run' has it already (--skip-existing)" in problem
    assert ingest_exposures(butler, exposures.manifest(), skip_existing=True).n_images == 0

    exposures.rows[0] |= {"exposure_time": 31.0}
    (problem,) = problems_of(butler, exposures.manifest(), collection="other")
    assert "v1d0.fits: visit 1 of 'External' is registered with 'r' at" in problem
    exposures.rows[0] |= {"exposure_time": 30.0, "band": "i", "physical_filter": "r"}
    (problem,) = problems_of(butler, exposures.manifest(), collection="other")
    assert "filter 'r' of 'External' is registered with band 'r', not 'i'" in problem
    exposures.rows[0] |= {"band": "r"}
    assert ingest_exposures(butler, exposures.manifest(), collection="other").n_images == 1


def test_interrupted_ingest_is_completed(butler: Butler, exposures: Exposures) -> None:
    exposures.add(1, 0)
    ingest_exposures(butler, exposures.manifest())
    exposures.add(1, 1)
    exposures.add(2, 0)
    assert ingest_exposures(butler, exposures.manifest(), skip_existing=True).n_images == 2
    assert len(butler.query_datasets("visit_image", collections="ingested")) == 3


def test_correlation_is_stored(butler: Butler, exposures: Exposures) -> None:
    exposures.add(1, correlation=1.7)
    exposures.add(2)
    ingest_exposures(butler, exposures.manifest())
    assert noise_correlation(get(butler, 1)) == 1.7
    # The variance of these images, whose noise is 1, is 1.5 on average.
    assert noise_correlation(get(butler, 2)) == pytest.approx(0.7, abs=0.15)


@pytest.fixture(scope="module")
def frames_and_truth(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[VisitImage], Table]:
    """A folder of simulated frames, the visit images that they are made of, and
    the true sources.
    """
    folder = tmp_path_factory.mktemp("frames")
    root = make_repository(folder / "repo")
    with Butler.from_config(str(root), writeable=True) as simulation:
        simulate(simulation, n_visits=2, detectors=(1, 1), detector_size=440, star_density=12.0)
        truth = write_frames(simulation, folder / "files")
        names = {"skymap": "field", "tract": 0, "patch": 0, "band": "i"}
        catalog = simulation.get("truth_catalog", names, collections="sim")
    return folder / "files", truth, catalog


@pytest.mark.slow
def test_frames_without_variance_mask_and_psf(
    butler: Butler, frames_and_truth: tuple[Path, list[VisitImage], Table]
) -> None:
    folder, truth, catalog = frames_and_truth
    summary = ingest_exposures(butler, folder)
    assert (summary.n_images, summary.n_visits, summary.instrument) == (2, 2, "SimCam")
    # Frames that are added later get new numbers, the same ones keep theirs.
    later = folder.parent / "later"
    later.mkdir()
    write_frame(later / "before.fits", truth[0], **{"DATE-OBS": "2020-01-01T00:00:00"})
    assert ingest_exposures(butler, [folder, later], skip_existing=True).n_images == 1
    assert sorted(r.id for r in butler.query_dimension_records("visit", instrument="SimCam")) == [1, 2, 3]
    stars = catalog[catalog["kind"] == "star"]
    for visit, expected in enumerate(truth, start=1):
        image = get(butler, visit, instrument="SimCam")
        # Sigma, photons of bright sources included.
        good = ~np.logical_or.reduce([expected.mask.get(name) for name in ("BAD", "COSMIC_RAY", "SATURATED")])
        ratio = np.sqrt(image.variance.array / expected.variance.array)
        bright = good & (expected.image.array > 30.0 * np.sqrt(np.median(expected.variance.array)))
        assert np.all(np.abs(np.quantile(ratio[good], [0.01, 0.5, 0.99]) - 1.0) < 0.1)
        assert np.median(ratio[bright]) == pytest.approx(1.0, abs=0.03)
        assert np.sqrt(noise_correlation(image)) * np.median(ratio) == pytest.approx(1.0, abs=0.03)
        # Most saturated pixels are found, and few others.
        saturated = expected.mask.get("SATURATED")
        assert np.count_nonzero(image.mask.get("SATURATED") & saturated) > 0.7 * np.count_nonzero(saturated)
        assert np.count_nonzero(image.mask.get("SATURATED") & ~saturated) < 30
        # The PSF.
        places = [(x, y) for x in (60.0, 220.0, 380.0) for y in (60.0, 220.0, 380.0)]
        widths = [
            fwhm(image.psf.compute_kernel_image(x=x, y=y).array)
            / fwhm(expected.psf.compute_kernel_image(x=x, y=y).array)
            for x, y in places
        ]
        assert np.mean(widths) == pytest.approx(1.0, abs=0.02)
        # Fluxes of stars, by a fit of the PSF.
        fluxes = [
            measured / star["flux_nJy"]
            for star in stars
            if (measured := star_flux(image, good, star["ra"], star["dec"])) is not None
        ]
        assert len(fluxes) >= 5
        assert np.median(fluxes) == pytest.approx(1.0, abs=0.03)


def star_flux(image: VisitImage, good: np.ndarray, ra: float, dec: float) -> float | None:
    """Return the flux of a bright star inside of an image, or `None`."""
    where = image.sky_projection.sky_to_pixel(SkyCoord(ra, dec, unit="deg"))
    x, y = float(where.x), float(where.y)
    column, row = round(x), round(y)
    if not (40 <= column < image.bbox.x.stop - 40 and 40 <= row < image.bbox.y.stop - 40):
        return None
    box = Box.factory[row - 5 : row + 6, column - 5 : column + 6]
    part = image[box]
    kernel = image.psf.compute_stellar_image(x=x, y=y)[box].array
    weight = good[box.slice_within(image.bbox)] / part.variance.array
    information = (kernel**2 * weight).sum()
    flux = (part.image.array * kernel * weight).sum() / information
    return float(flux) if weight.all() and flux * np.sqrt(information) > 50.0 else None


@pytest.mark.slow
def test_real_exposures(butler: Butler, tmp_path: Path) -> None:
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
