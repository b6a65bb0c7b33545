# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the simulated exposures, on a real repository."""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from pathlib import Path

import astropy.table
import astropy.units as u
import click.testing
import galsim
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from lsst.daf.butler import Butler
from lsst.drp.restore.cli.simulate import simulate_exposures as simulate_command
from lsst.drp.restore.repository.register_tract import register_tract
from lsst.drp.restore.simulation.simulate import SimulationConfig, SimulationSummary, simulate_exposures
from lsst.drp.restore.simulation.sky import complete_catalog, random_sky, star_catalog
from lsst.drp.restore.simulation.truth import draw_truth
from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.images import VisitImage
from lsst.images.psfs import GaussianPointSpreadFunction, PiffWrapper

# Nothing on the detector but the sources.
CLEAN = {"cosmic_rays": 0.0, "hot_pixels": 0.0, "bad_columns": 0.0, "sky_residual": 0.0, "noise": False}
ONE_DETECTOR = {"detectors": (1, 1), "detector_size": 260}
NO_SOURCES = astropy.table.Table({"ra": [0.0], "dec": [0.0], "flux_nJy": [0.0]})[:0]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a repository with a tract of one patch of 200x200 pixels."""
    root = tmp_path_factory.mktemp("template") / "repo"
    Butler.makeRepo(str(root))
    butler = Butler.from_config(str(root), writeable=True)
    register_tract(
        butler,
        "field",
        ra=150.0,
        dec=2.0,
        pixel_scale=0.2,
        patch_size=150,
        patch_border=25,
        cell_size=50,
        n_patches=(1, 1),
    )
    return root


@pytest.fixture
def butler(template: Path, tmp_path: Path) -> Butler:
    """Copy the repository for a test."""
    root = tmp_path / "repo"
    shutil.copytree(template, root)
    return Butler.from_config(str(root), writeable=True)


@pytest.fixture
def geometry(butler: Butler) -> PatchGeometry:
    """Read the patch."""
    data = butler.get("tract_geometry", skymap="field", tract=0, collections="skymaps")
    return PatchGeometry.from_tract(data, 0)


def simulate(butler: Butler, collection: str = "sim", **options: object) -> SimulationSummary:
    """Simulate one visit, or what the options say."""
    options = {"skymap": "field", "n_visits": 1, "collection": collection, **options}
    return simulate_exposures(butler, SimulationConfig(**options))


def read(butler: Butler, visit: int, detector: int, collection: str = "sim") -> VisitImage:
    """Read a visit image."""
    return butler.get(
        "visit_image", instrument="SimCam", visit=visit, detector=detector, collections=collection
    )


def read_all(butler: Butler, collection: str = "sim") -> list[VisitImage]:
    """Read all visit images, by visit and detector."""
    refs = butler.query_datasets("visit_image", collections=collection)
    return [butler.get(ref) for ref in sorted(refs, key=lambda ref: ref.dataId.required_values)]


def same_pixels(a: VisitImage, b: VisitImage) -> bool:
    """Compare all planes of two images."""
    return (
        np.array_equal(a.image.array, b.image.array)
        and np.array_equal(a.variance.array, b.variance.array)
        and np.array_equal(a.mask.array, b.mask.array)
    )


def test_repository(butler: Butler, geometry: PatchGeometry) -> None:
    """Visits are found over the patch, images and truth are what they say."""
    summary = simulate(butler, n_visits=2)
    assert len(summary.visits) == 2
    with butler.query() as query:
        found = {
            (d["visit"], d["detector"])
            for d in query.join_dimensions(["visit", "detector", "patch"])
            .where("skymap='field' AND tract=0 AND patch=0 AND band='i' AND instrument='SimCam'")
            .data_ids(["visit", "detector", "patch"])
        }
    assert found == {(v, d) for v in (1, 2) for d in range(4)}
    image = read(butler, 2, 3)
    # 2 detectors and a gap of 20 pixels cover 125 % of 200 pixels.
    assert image.image.array.shape == (115, 115)
    assert image.image.unit == u.nJy and image.variance.unit == u.nJy**2
    assert image.band == "i" and image.obs_info.visit_id == 2
    assert image.obs_info.datetime_begin.tai.isot == "2025-11-21T02:00:00.000"
    record = butler.query_dimension_records("visit", instrument="SimCam", visit=2)[0]
    assert record.timespan.begin == image.obs_info.datetime_begin
    # The record's region is that of the pixels: the patch grid is found at
    # the same place by both.
    middle = image.sky_projection.pixel_to_sky(x=57.0, y=57.0)
    record = butler.query_dimension_records(
        "visit_detector_region", instrument="SimCam", visit=2, detector=3
    )[0]
    assert record.region.contains(np.array([middle.ra.rad]), np.array([middle.dec.rad])).all()
    # One collection has all that a pipeline reads.
    butler.get("tract_geometry", skymap="field", tract=0, collections="sim")
    where = {"skymap": "field", "tract": 0, "patch": 0, "band": "i", "collections": "sim"}
    truth = butler.get("truth_image", **where)
    assert truth.bbox == geometry.patch.outer_bbox and truth.unit == u.nJy
    catalog = butler.get("truth_catalog", **where)
    kinds, counts = np.unique(catalog["kind"], return_counts=True)
    assert dict(zip(kinds, counts, strict=True)) == summary.n_sources
    assert catalog["flux_nJy"].unit == u.nJy
    position = geometry.sky_projection.sky_to_pixel(SkyCoord(catalog["ra"], catalog["dec"]))
    np.testing.assert_allclose(catalog["x"], position.x, atol=1e-6)
    assert geometry.patch.outer_bbox.contains(x=np.array(catalog["x"]), y=np.array(catalog["y"])).all()


def test_chip_gaps(butler: Butler) -> None:
    """The detectors of a visit do not overlap, and each has its own WCS."""
    simulate(butler, catalog=NO_SOURCES, detector_gap=12, distortion=0.02, detector_size=100)
    images = read_all(butler)
    edge = np.arange(100.0)
    for other in (1, 2):
        side = {1: {"x": 99.5 + 0 * edge, "y": edge}, 2: {"x": edge, "y": 99.5 + 0 * edge}}[other]
        there = images[other].sky_projection.sky_to_pixel(images[0].sky_projection.pixel_to_sky(**side))
        gap = -0.5 - (there.x if other == 1 else there.y)
        assert np.all((gap > 6) & (gap < 18)), gap
    scales = [
        np.sqrt(abs(np.linalg.det(np.array(image.sky_projection.as_fits_wcs(image.bbox).pixel_scale_matrix))))
        for image in images
    ]
    assert all(abs(scale * 3600 - 0.2) < 0.002 for scale in scales)
    # Not linear: a detector's diagonals do not cross at its middle.
    corners = images[0].sky_projection.pixel_to_sky(
        x=np.array([0.0, 49.5, 99.0]), y=np.array([0.0, 49.5, 99.0])
    )
    halves = corners[:2].separation(corners[1:]).arcsec
    assert abs(halves[0] / halves[1] - 1) > 0.005


def test_deterministic(butler: Butler) -> None:
    """A seed gives the same pixels, whatever the number of visits."""
    two = {"detectors": (2, 1), "detector_size": 60, "galaxy_density": 0.2}
    simulate(butler, "a", n_visits=1, seed=7, **two)
    # Records of visit 1 must be the same, or this would raise.
    simulate(butler, "b", n_visits=2, seed=7, **two)
    for detector in range(2):
        first, second = (read(butler, 1, detector, name) for name in "ab")
        assert same_pixels(first, second)
        assert not np.array_equal(first.image.array, read(butler, 2, detector, "b").image.array)
    simulate(butler, "c", n_visits=1, seed=8, first_visit=101, **two)
    assert not np.array_equal(read(butler, 1, 0, "a").image.array, read(butler, 101, 0, "c").image.array)


def test_refusals(butler: Butler) -> None:
    """What would mix two simulations, or has no patch, is refused before
    anything is written.
    """
    one = {"detectors": (1, 1), "detector_size": 50, "catalog": NO_SOURCES}
    simulate(butler, "a", **one)
    with pytest.raises(ValueError, match="'a/run' already holds truth_catalog, truth_image, visit_image"):
        simulate(butler, "a", **one)
    with pytest.raises(ValueError, match="has another visit 1 of 'SimCam'; choose a first visit"):
        simulate(butler, "b", seed=1, **one)
    with pytest.raises(ValueError, match="no geometry of tract 0 of skymap 'other' in collection 'skymaps'"):
        simulate(butler, "b", skymap="other", **one)
    with pytest.raises(ValueError, match="in collection 'nowhere'; register the tract"):
        simulate(butler, "b", tract_collection="nowhere", **one)
    assert not butler.collections.query("b*")
    # With another ID or camera there is room for both.
    simulate(butler, "b", seed=1, first_visit=2, **one)
    simulate(butler, "c", seed=1, instrument="OtherCam", **one)


@pytest.mark.parametrize("psf", ["piff", "kernel", "gaussian"])
def test_stars(butler: Butler, geometry: PatchGeometry, psf: str) -> None:
    """Noiseless stars are where and how bright the catalog says, through the
    stored WCS and PSF, and through neither of them.
    """
    x, y = (a.ravel() for a in np.meshgrid(np.arange(4, 200, 48.0), np.arange(4, 200, 48.0)))
    rng = np.random.default_rng(1)
    x, y = x + rng.random(x.size), y + rng.random(y.size)
    # As bright as possible without saturation.
    catalog = star_catalog(geometry, x, y, 1e5)
    simulate(butler, catalog=catalog, psf=psf, seeing_range=(0.5, 0.6), distortion=0.03, **CLEAN)
    sky = SkyCoord(catalog["ra"], catalog["dec"])
    n = 0
    for image in read_all(butler):
        assert isinstance(image.psf, GaussianPointSpreadFunction if psf == "gaussian" else PiffWrapper)
        # Astropy's own evaluation of the FITS header.
        there = image.sky_projection.as_fits_wcs(image.bbox).all_world2pix(sky.ra.deg, sky.dec.deg, 0)
        for x0, y0 in zip(*there, strict=True):
            if not (15 < x0 < 84 and 15 < y0 < 84):
                continue
            n += 1
            star = image.psf.compute_stellar_image(x=x0, y=y0)
            stamp = image.image[star.bbox.intersection(image.bbox)].array
            model = star[star.bbox.intersection(image.bbox)].array
            # Least squares for flux and shift.
            design = np.stack([model, *(-g for g in np.gradient(model))]).reshape(3, -1).T
            flux, dy, dx = np.linalg.lstsq(design, stamp.ravel(), rcond=None)[0]
            assert flux == pytest.approx(1e5, rel=1e-3)
            assert abs(dx / flux) < 2e-3 and abs(dy / flux) < 2e-3
            assert np.abs(stamp - 1e5 * model).max() < 2e-3 * 1e5 * model.max()
            # Sum and centroid within 12 pixels.
            box = image.image.array[round(y0) - 12 : round(y0) + 13, round(x0) - 12 : round(x0) + 13]
            offset = np.arange(-12, 13)
            assert box.sum() == pytest.approx(1e5, rel=4e-3)
            assert (box.sum(axis=0) @ offset) / box.sum() + round(x0) == pytest.approx(x0, abs=0.02)
            assert (box.sum(axis=1) @ offset) / box.sum() + round(y0) == pytest.approx(y0, abs=0.02)
    assert n >= 6


def test_psf_varies(butler: Butler) -> None:
    """The PSF changes over each detector and from visit to visit."""
    simulate(butler, catalog=NO_SOURCES, n_visits=2, psf_variation=0.08, seed=5, detectors=(2, 1))
    kernels = [image.psf.compute_kernel_image(x=5.0, y=5.0).array for image in read_all(butler)]
    assert len({kernel.max() for kernel in kernels}) == 4
    for image in read_all(butler):
        first, second = (image.psf.compute_kernel_image(x=a, y=a).array for a in (2.0, 97.0))
        assert np.abs(first - second).max() > 2e-3 * first.max()


def test_seeing(butler: Butler) -> None:
    """Peaks of the PSFs are those of Moffat profiles of the stated seeing."""
    summary = simulate(butler, catalog=NO_SOURCES, n_visits=2, psf_variation=0.0, **ONE_DETECTOR)
    for row in summary.visits:
        assert 0.5 <= row["seeing"] <= 0.95
        kernel = read(butler, row["visit"], 0).psf.compute_kernel_image(x=50.0, y=50.0).array
        moffat = galsim.Moffat(beta=3.5, fwhm=row["seeing"] / 0.2)
        expected = moffat.drawImage(nx=101, ny=101, scale=1.0).array
        assert kernel.max() == pytest.approx(expected.max(), rel=2e-3)
    assert np.ptp(summary.visits["seeing"]) > 0.05


def test_noise(butler: Butler, geometry: PatchGeometry) -> None:
    """Noise has the variance that the image says, with photon noise."""
    catalog = star_catalog(geometry, [70.3, 130.6], [60.2, 140.7], [5e4, 8e4])
    options = {**CLEAN, **ONE_DETECTOR, "catalog": catalog, "n_visits": 2, "seeing_range": (0.7, 0.8)}
    summary = simulate(butler, "quiet", **options)
    simulate(butler, "noisy", **{**options, "noise": True})
    scaled, bright = [], []
    for quiet, noisy in zip(read_all(butler, "quiet"), read_all(butler, "noisy"), strict=True):
        np.testing.assert_array_equal(quiet.variance.array, noisy.variance.array)
        pull = (noisy.image.array - quiet.image.array) / np.sqrt(noisy.variance.array)
        scaled.append(pull.ravel())
        bright.append(pull[quiet.image.array > 200])
        row = summary.visits[summary.visits["visit"] == noisy.obs_info.visit_id][0]
        assert np.sqrt(noisy.variance.array.min()) == pytest.approx(row["sky_sigma"], rel=1e-4)
        # Poisson statistics: a nJy is so many electrons.
        photons = (noisy.variance.array - row["sky_sigma"] ** 2) * row["gain"]
        np.testing.assert_allclose(photons, quiet.image.array, atol=3e-5 * quiet.image.array.max())
    pulls = np.concatenate(scaled)
    assert pulls.std() == pytest.approx(1, abs=4 / np.sqrt(2 * pulls.size))
    assert pulls.mean() == pytest.approx(0, abs=4 / np.sqrt(pulls.size))
    sources = np.concatenate(bright)
    assert sources.size > 200
    assert sources.std() == pytest.approx(1, abs=4 / np.sqrt(2 * sources.size))
    assert len(set(summary.visits["sky_sigma"])) == len(set(summary.visits["gain"])) == 2


def test_noise_seed(butler: Butler) -> None:
    """Only the photon noise changes: not the cosmic rays, the defects or the
    sky that is left over.
    """
    options = {"psf": "gaussian", "detectors": (1, 1), "detector_size": 150, "cosmic_rays": 1000.0}
    images = {}
    for name, extra in {
        "first": {"noise_seed": 1},
        "again": {"noise_seed": 1},
        "second": {"noise_seed": 2},
        "plain": {},
        "quiet": {"noise": False, "noise_seed": 1},
        "plain quiet": {"noise": False},
    }.items():
        simulate(butler, name.replace(" ", "_"), **options, **extra)
        (images[name],) = read_all(butler, name.replace(" ", "_"))
    assert same_pixels(images["first"], images["again"])
    assert same_pixels(images["quiet"], images["plain quiet"])
    quiet = images["quiet"].image.array
    noise = {name: images[name].image.array - quiet for name in ("first", "second", "plain")}
    for name, pixels in noise.items():
        np.testing.assert_array_equal(images[name].mask.array, images["quiet"].mask.array)
        scaled = pixels / np.sqrt(images[name].variance.array)
        assert np.median(np.abs(scaled)) / 0.6745 == pytest.approx(1.0, abs=0.03)
    for a, b in (("first", "second"), ("first", "plain"), ("second", "plain")):
        unmasked = ~images["quiet"].mask.array.any(axis=-1)
        assert abs(np.corrcoef(noise[a][unmasked], noise[b][unmasked])[0, 1]) < 0.03


def test_depth(butler: Butler) -> None:
    """A star at the stated depth has a signal of 5 sigma in 0.7 arcsec."""
    options = {
        "sky_scatter": 0.0,
        "zero_point_scatter": 0.0,
        "seeing_range": (0.7, 0.7),
        "psf_variation": 0.0,
    }
    simulate(butler, catalog=NO_SOURCES, depth=25.0, psf="gaussian", **options, **ONE_DETECTOR)
    image = read(butler, 1, 0)
    kernel = image.psf.compute_kernel_image(x=0.0, y=0.0).array
    signal = 10 ** (0.4 * (31.4 - 25.0)) * np.sqrt(np.sum(kernel**2) / np.median(image.variance.array))
    assert signal == pytest.approx(5.0, rel=0.01)


def test_cosmic_rays(butler: Butler) -> None:
    """Cosmic rays are where images with and without them differ, and the mask
    has most, but not all of them.
    """
    options = {**CLEAN, **ONE_DETECTOR, "catalog": NO_SOURCES, "n_visits": 2}
    simulate(butler, "without", **options)
    summary = simulate(butler, "with", **{**options, "cosmic_rays": 1000.0, "unmasked_cosmic_rays": 0.3})
    expected = 1000 * 2 * 260**2 / 1e6
    masked, unmasked = summary.visits["masked"].sum(), summary.visits["unmasked"].sum()
    assert abs(masked + unmasked - expected) < 4 * np.sqrt(expected)
    assert abs(unmasked / (masked + unmasked) - 0.3) < 4 * np.sqrt(0.21 / expected)
    n_hit = n_missed = 0
    for without, image in zip(read_all(butler, "without"), read_all(butler, "with"), strict=True):
        hit = image.image.array - without.image.array > 0.5 * np.sqrt(image.variance.array)
        known = image.mask.get("COSMIC_RAY")
        np.testing.assert_array_equal(without.variance.array, image.variance.array)
        assert not np.any(known & ~(image.image.array > without.image.array))
        n_hit += hit.sum()
        n_missed += (hit & ~known).sum()
    assert 0.15 < n_missed / n_hit < 0.45
    # Tracks of several pixels.
    assert n_hit > 4 * (masked + unmasked)


def test_defects(butler: Butler) -> None:
    """Bad columns and hot pixels are masked, and the same in all visits."""
    options = {**CLEAN, "catalog": NO_SOURCES, "n_visits": 2, "bad_columns": 2.0, "hot_pixels": 1000.0}
    simulate(butler, detector_size=150, detectors=(2, 1), **options)
    n = 0
    for detector in range(2):
        first, second = (read(butler, visit, detector) for visit in (1, 2))
        bad = first.mask.get("BAD")
        np.testing.assert_array_equal(bad, second.mask.get("BAD"))
        # Without sources and noise only the defects are not zero.
        np.testing.assert_array_equal(bad, first.image.array != 0)
        n += bad.sum()
    assert n > 2 * 15


def test_saturation(butler: Butler, geometry: PatchGeometry) -> None:
    """A bright star is clipped and flagged, and its charge bleeds along the
    column without loss.
    """
    # 15.4 mag, on the optical axis of a camera of one detector.
    catalog = star_catalog(geometry, 99.8, 100.3, 10**6.4)
    options = {"detectors": (1, 1), "detector_size": 300, "dither_radius": 0.0, "rotations": (0.0, 0.0)}
    summary = simulate(butler, catalog=catalog, seeing_range=(0.6, 0.6), **options, **CLEAN)
    image = read(butler, 1, 0)
    saturated = image.mask.get("SATURATED")
    assert summary.visits["saturated"][0] == saturated.sum() > 20
    rows, columns = np.nonzero(saturated)
    assert np.ptp(rows) > 2 * np.ptp(columns)
    x, y = image.sky_projection.sky_to_pixel(SkyCoord(catalog["ra"], catalog["dec"]))
    assert abs(rows.mean() - y[0]) < 1.5 and abs(columns.mean() - x[0]) < 1.5
    assert image.image.array.max() == image.image.array[saturated].max()
    assert np.sum(image.image.array >= 0.999 * image.image.array.max()) > 10
    assert image.image.array[~saturated].max() < image.image.array.max()
    assert image.image.array.sum() == pytest.approx(10**6.4, rel=2e-3)
    # Nothing of it in the variance: source photons where they fell.
    assert image.variance.array.max() > 2 * image.variance.array[saturated].min()


def test_calibration_error(butler: Butler, geometry: PatchGeometry) -> None:
    """Visits can disagree about the flux of a star."""
    catalog = star_catalog(geometry, 60.0, 60.0, 5e4)
    options = {**CLEAN, **ONE_DETECTOR, "catalog": catalog, "n_visits": 4, "psf": "gaussian"}
    simulate(butler, calibration_error=0.02, **options)
    ratios = np.array([image.image.array.sum() for image in read_all(butler)]) / 5e4
    assert 0.004 < ratios.std() < 0.05


def test_truth_image(geometry: PatchGeometry) -> None:
    """The truth has the flux and the positions of the catalog."""
    stars = star_catalog(geometry, [50.25, 120.0], [60.5, 30.0], [1000.0, 200.0])
    image = draw_truth(stars, geometry)
    # Shared in proportion between the pixels around a star.
    assert image[60, 50] == pytest.approx(1000 * 0.75 * 0.5, rel=1e-3)
    assert image[61, 51] == pytest.approx(1000 * 0.25 * 0.5, rel=1e-3)
    assert image.sum() == pytest.approx(1200, rel=1e-5)


@pytest.mark.parametrize(("sersic_n", "size"), [(1.0, 0.6), (1.0, 1.6), (4.0, 0.5)])
def test_truth_galaxies(geometry: PatchGeometry, sersic_n: float, size: float) -> None:
    """Galaxies of the truth are those that GalSim draws."""
    sky = geometry.sky_projection.pixel_to_sky(x=100.25, y=100.5)
    table = astropy.table.Table(
        {
            "ra": [sky.ra.deg],
            "dec": [sky.dec.deg],
            "flux_nJy": [1e-3] * u.mJy,
            "kind": ["galaxy"],
            "half_light_radius": [size * 1000] * u.mas,
            "sersic_n": [sersic_n],
            "axis_ratio": [0.6],
            "position_angle": [30.0] * u.deg,
        }
    )
    image = draw_truth(complete_catalog(table), geometry)
    assert image.sum() == pytest.approx(1000.0, rel=2e-4)
    # North is up and east to the left in the tract: from north through east is
    # from y towards -x.
    end = 8 if sersic_n > 2 else 4
    profile = galsim.Sersic(sersic_n, half_light_radius=size / 0.2, trunc=end * size / 0.2, flux=1000.0)
    profile = profile.shear(q=0.6, beta=(90 + 30.0) * galsim.degrees)
    # Two pixels make the bilinear response.
    pixel = galsim.Pixel(1.0)
    params = galsim.GSParams(folding_threshold=1e-3, maxk_threshold=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", galsim.GalSimWarning)  # Ringing of hard edges, here below 1e-4.
        expected = galsim.Convolve(profile, pixel, pixel, gsparams=params).drawImage(
            nx=199, ny=199, scale=1.0, method="no_pixel", offset=(0.25, 0.5)
        )
    assert np.abs(image[1:, 1:] - expected.array).max() < 4e-3 * expected.array.max()


def test_truth_matches_exposures(butler: Butler, geometry: PatchGeometry) -> None:
    """Galaxies have the same flux and place in the truth and in exposures."""
    rng = np.random.default_rng(3)
    config = SimulationConfig(skymap="field", galaxy_magnitudes=(21.0, 25.0), bright_stars=0, star_density=0)
    catalog = random_sky(config, geometry, 15.0)
    catalog["position_angle"] = rng.uniform(0, 180, len(catalog)) * u.deg
    options = {"detectors": (1, 1), "detector_size": 500, "dither_radius": 0.0, "psf": "gaussian", **CLEAN}
    simulate(butler, catalog=catalog, distortion=0.0, psf_variation=0.0, **options)
    image = read(butler, 1, 0)
    truth = butler.get("truth_image", skymap="field", tract=0, patch=0, band="i", collections="sim").array
    total = catalog["flux_nJy"].sum()
    assert len(catalog) > 5
    assert image.image.array.sum() == pytest.approx(total, rel=2e-3)
    assert truth.sum() == pytest.approx(total, rel=2e-3)
    y, x = np.indices(truth.shape)
    sky = geometry.sky_projection.pixel_to_sky(
        x=np.array([(truth * x).sum() / truth.sum()]), y=np.array([(truth * y).sum() / truth.sum()])
    )
    pixels = image.image.array.astype(float)
    y, x = np.indices(pixels.shape)
    there = image.sky_projection.pixel_to_sky(
        x=np.array([(pixels * x).sum() / pixels.sum()]), y=np.array([(pixels * y).sum() / pixels.sum()])
    )
    assert sky.separation(there).arcsec[0] < 0.01


def test_galaxy_shape(butler: Butler, geometry: PatchGeometry) -> None:
    """A galaxy has its size and position angle on the sky in a rotated visit
    and in the truth.
    """
    catalog = star_catalog(geometry, 99.7, 100.4, 1e5)
    values = {"kind": "galaxy", "half_light_radius": 1.2, "sersic_n": 1.0, "axis_ratio": 0.4}
    for name, value in {**values, "position_angle": 25.0}.items():
        catalog[name] = [value]
    options = {**CLEAN, **ONE_DETECTOR, "dither_radius": 0.0, "seeing_range": (0.5, 0.5), "psf": "gaussian"}
    simulate(butler, catalog=catalog, rotations=(200.0, 200.0), **options)
    exposure = read(butler, 1, 0)
    truth = butler.get("truth_image", skymap="field", tract=0, patch=0, band="i", collections="sim")
    center = SkyCoord(catalog["ra"], catalog["dec"])
    # Root mean square along an axis of an exponential disc that ends at 4
    # half-light radii, by summing over radii.
    r = np.linspace(0, 4.8, 10001)
    scales = np.linspace(0.5, 1.0, 2001)
    halves = [np.sum((r * np.exp(-r / a))[r < 1.2]) / np.sum(r * np.exp(-r / a)) for a in scales]
    light = r * np.exp(-r / scales[np.argmin(np.abs(np.array(halves) - 0.5))])
    sigma = np.sqrt(np.sum(r**2 * light) / np.sum(light) / 2)
    # The width of the Gaussian PSF, which has the pixel in it, or of the
    # bilinear response.
    for image, pixels, width in (
        (exposure, exposure.image.array, 0.5 / 2.355),
        (truth, truth.array, 0.2 / np.sqrt(6)),
    ):
        y, x = np.indices(pixels.shape)
        sky = image.sky_projection.pixel_to_sky(
            x=x.ravel() + image.bbox.x.start, y=y.ravel() + image.bbox.y.start
        )
        east, north = (a.to_value(u.arcsec) for a in center[0].spherical_offsets_to(sky))
        weight = pixels.ravel().astype(float) / pixels.sum(dtype=float)
        assert abs(weight @ east) < 2e-3 and abs(weight @ north) < 2e-3
        offsets = np.stack([east, north])
        moments = (weight * offsets) @ offsets.T - width**2 * np.eye(2)
        (minor, major), vectors = np.linalg.eigh(moments)
        angle = np.rad2deg(np.arctan2(vectors[0, 1], vectors[1, 1])) % 180
        assert angle == pytest.approx(25.0, abs=0.3)
        assert np.sqrt(minor / major) == pytest.approx(0.4, abs=0.015)
        assert (minor * major) ** 0.25 == pytest.approx(sigma, rel=0.01)


def test_random_sky(geometry: PatchGeometry) -> None:
    """Counts and sizes follow the stated laws."""
    config = SimulationConfig(skymap="field", seed=11, bright_stars=4)
    catalog = random_sky(config, geometry, 240.0)
    area = np.pi * 4.0**2
    magnitudes = 31.4 - 2.5 * np.log10(catalog["flux_nJy"])
    stars, galaxies = (np.asarray(catalog["kind"] == kind) for kind in ("star", "galaxy"))
    assert stars.sum() + galaxies.sum() == len(catalog)
    for selected, limit, expected in (
        (galaxies, 25.0, 46.0 - 46 * 10 ** (0.31 * -7)),
        (galaxies, 23.0, 46 * 10**-0.62 - 46 * 10 ** (0.31 * -7)),
        (stars, 24.0, 0.45 * 10**0.9 - 0.45 * 10**-0.45),
    ):
        number = np.sum(selected & (magnitudes < limit))
        assert abs(number - expected * area) < 4 * np.sqrt(expected * area) + 4, (limit, number)
    # Half-light radius of a face-on disc of 23 mag.
    near = galaxies & (abs(magnitudes - 23) < 0.5) & (catalog["sersic_n"] == 1)
    major = catalog["half_light_radius"][near] / np.sqrt(catalog["axis_ratio"][near])
    assert np.median(major) == pytest.approx(1.678 * np.exp(-1.145), rel=0.1)
    # Everywhere in the circle: half of the sources in half of the area.
    box = geometry.patch.outer_bbox
    center = geometry.sky_projection.pixel_to_sky(x=box.x.center, y=box.y.center)
    distance = SkyCoord(catalog["ra"], catalog["dec"]).separation(center).arcsec
    assert distance.max() <= 240.01
    assert np.mean(distance < 240 / np.sqrt(2)) == pytest.approx(0.5, abs=0.03)
    denser = random_sky(dataclasses.replace(config, star_density=3.0), geometry, 240.0)
    assert np.sum(denser["kind"] == "star") > 2.5 * stars.sum()
    assert np.sum(denser["kind"] == "galaxy") == galaxies.sum()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dec": None}, "lacks the columns"),
        ({"kind": ["comet", "star"]}, "neither star nor galaxy, first in row 0"),
        ({"kind": ["star", "galaxy"]}, "without a size, first in row 1"),
        ({"flux_nJy": [1.0, np.nan]}, "fluxes that are not finite, first in row 1"),
        ({"kind": ["galaxy"] * 2, "half_light_radius": [1.0, 1.0], "sersic_n": [1.0, 9.0]}, "Sersic"),
        (
            {
                "kind": ["galaxy"] * 2,
                "half_light_radius": [1.0, 1.0],
                "sersic_n": [1.0] * 2,
                "axis_ratio": [0.0] * 2,
            },
            "axis ratios",
        ),
    ],
)
def test_bad_catalog(changes: dict[str, object], message: str) -> None:
    """A catalog that cannot be drawn is refused with the reason."""
    columns = {"ra": [150.0, 150.0], "dec": [2.0, 2.0], "flux_nJy": [1.0, 1.0], **changes}
    table = astropy.table.Table({name: value for name, value in columns.items() if value is not None})
    with pytest.raises(ValueError, match=message):
        complete_catalog(table)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"psf": "airy"}, "psf must be"),
        ({"n_visits": 0}, "n_visits must be positive"),
        ({"cosmic_rays": -1.0}, "cosmic_rays must not be negative"),
        ({"seeing_range": (0.9, 0.5)}, "seeing_range goes from 0.9 down to 0.5"),
        ({"detectors": (0, 2)}, "at least one detector"),
        ({"moffat_beta": 1.0}, "no finite flux"),
    ],
)
def test_bad_option(option: dict[str, object], message: str) -> None:
    """An impossible option is refused with the reason."""
    with pytest.raises(ValueError, match=message):
        SimulationConfig(skymap="field", **option)


def test_command(butler: Butler, geometry: PatchGeometry, tmp_path: Path) -> None:
    """The command does what the function does."""
    catalog = star_catalog(geometry, 80.0, 90.0, 1e4)
    catalog.write(tmp_path / "sources.ecsv")
    root = butler._datastore.root.ospath
    arguments = [root, "--skymap", "field", "--n-visits", "1", "--psf", "gaussian", "--collection", "by_hand"]
    arguments += ["--catalog", str(tmp_path / "sources.ecsv"), "--no-noise", "--detectors", "1", "2"]
    result = click.testing.CliRunner().invoke(simulate_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "1 stars and 0 galaxies on the patch; input collection: by_hand" in result.output
    butler.registry.refresh()
    assert len(read_all(butler, "by_hand")) == 2
    simulate(butler, "by_call", psf="gaussian", catalog=catalog, noise=False, detectors=(1, 2))
    for a, b in zip(read_all(butler, "by_hand"), read_all(butler, "by_call"), strict=True):
        assert same_pixels(a, b)
    # A second time into the same collection, and an option that is refused.
    result = click.testing.CliRunner().invoke(simulate_command, arguments)
    assert result.exit_code == 1 and "already holds" in result.output
    result = click.testing.CliRunner().invoke(
        simulate_command, [root, "--skymap", "field", "--seeing-range", "1", "0.5"]
    )
    assert result.exit_code == 1 and "seeing_range" in result.output


def test_command_defaults() -> None:
    """The command has every option of the configuration, with its default."""
    options = {option.name: option for option in simulate_command.params}
    for field in dataclasses.fields(SimulationConfig):
        if field.name != "skymap":
            assert options[field.name].default == field.default, field.name
    assert options.keys() - {field.name for field in dataclasses.fields(SimulationConfig)} == {"repo"}
