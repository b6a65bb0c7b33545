# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the measurements of the benchmark against known values."""

from __future__ import annotations

import math
from pathlib import Path

import galsim
import numpy as np
import pytest
from stacks import star_field

from benchmarks.convolution import DirectBlur
from benchmarks.detection import detect, match_sources, pairs_split
from benchmarks.fields import FieldOptions, make_field
from benchmarks.hallucinations import find_false
from benchmarks.hsc_hst import compare_with_hst, read_field
from benchmarks.jobs import Draw, prepare_scene
from benchmarks.measure import measure_image, measure_points, measure_wide
from benchmarks.methods import coadd_as_exposure, from_coadd, reference
from benchmarks.morphologies import DEPTHS, cosmos_scene, jwst_scene, real_images_folder
from benchmarks.peers import (
    divide_kernels,
    integrated_gaussian,
    proper_coadd,
    rubin_steps,
    scaled_gradient_projection,
)
from benchmarks.photometry import aperture_flux, psf_flux, psf_stamp, shift_kernel
from benchmarks.quality import COMMAND
from benchmarks.report import combine, format_report, summarize_draws
from benchmarks.robust import median, robust_scatter
from benchmarks.scenes import Scene, crowded_scene, empty_scene, make_scene, measure_scene, moffat
from benchmarks.shapes import count_peaks, error_norm
from benchmarks.sky_image import Cutout, SkyImage, gaussian_cells
from benchmarks.tables import FROM_COADD, IMAGES, OURS
from benchmarks.targets import Target, compare_with_targets
from benchmarks.true_images import blur, bring_to, convolve_truth, truth_at
from benchmarks.truth import Truth, empty_positions
from lsst.drp.restore.outputs.image_quality import star_fwhm
from lsst.drp.restore.restoration.target_psf import TARGET_FWHM
from lsst.drp.restore.stack.kernel_shape import fwhm, gaussian_kernel
from lsst.drp.restore.stack.reference_coadd import reference_coadd

SIGMA = 1.5  # of the Gaussian PSF, pixels


def gaussian(x: float, y: float, shape: tuple[int, int], sigma: float = SIGMA) -> np.ndarray:
    """Return a Gaussian of unit flux sampled at pixel centers."""
    rows, columns = np.indices(shape)
    r2 = (columns - x) ** 2 + (rows - y) ** 2
    return np.exp(-r2 / (2 * sigma**2)) / (2 * np.pi * sigma**2)


def kernels(cells: int = 1) -> np.ndarray:
    kernel = gaussian(12, 12, (25, 25))
    return np.broadcast_to(kernel, (cells, cells, 25, 25))


def test_psf_stamp() -> None:
    for x, y in ((20.0, 30.0), (20.3, 29.6), (19.5, 30.49)):
        stamp = psf_stamp(kernels(), (64, 64), x, y, 10)
        expected = gaussian(10 + x - round(x), 10 + y - round(y), (21, 21))
        np.testing.assert_allclose(stamp, expected, atol=2e-5)
    # Larger than the kernel: nothing outside of it.
    assert psf_stamp(kernels(), (64, 64), 20.0, 30.0, 20).shape == (41, 41)
    # Each cell has its own kernel.
    several = np.stack([np.stack([kernels()[0, 0] * n for n in (1, 2)])])
    assert psf_stamp(several, (64, 64), 80.0, 5.0, 10).sum() == pytest.approx(2.0, abs=1e-3)


def test_shift_kernel() -> None:
    kernel = gaussian(12, 12, (25, 25))
    there = shift_kernel(kernel, 0.4, -0.3)
    assert there.sum() == pytest.approx(kernel.sum(), rel=1e-12)
    np.testing.assert_allclose(shift_kernel(there, -0.4, 0.3), kernel, atol=1e-12)


def test_psf_flux() -> None:
    """Unbiased whatever the background, with pulls of width 1."""
    rng = np.random.default_rng(5)
    variance = np.full((41, 41), 4.0)
    variance[:, :20] = 9.0
    pulls = []
    for _ in range(400):
        x, y = 20 + rng.uniform(-0.5, 0.5, 2)
        clean = 300.0 * gaussian(x, y, variance.shape) + 7.0
        image = clean + rng.normal(size=variance.shape) * np.sqrt(variance)
        stamp = psf_stamp(kernels(), (41, 41), x, y, 10)
        flux, sigma = psf_flux(image, variance, x, y, stamp)
        pulls.append((flux - 300.0) / sigma)
        assert psf_flux(clean, variance, x, y, stamp)[0] == pytest.approx(300.0, rel=2e-3)
    assert np.mean(pulls) == pytest.approx(0.0, abs=0.15)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.1)
    # Without a background the error would be sigma sqrt(4 pi) * 1.5 * noise.
    sigma = psf_flux(clean, np.full(variance.shape, 4.0), 20.0, 20.0, stamp)[1]
    assert 2 * SIGMA * math.sqrt(4 * math.pi) < sigma < 1.1 * 2 * SIGMA * math.sqrt(4 * math.pi)


def test_psf_flux_missing() -> None:
    image = 300.0 * gaussian(20, 20, (41, 41))
    variance = np.ones(image.shape)
    stamp = psf_stamp(kernels(), (41, 41), 20.0, 20.0, 10)
    image[20, 23] = np.nan
    assert psf_flux(image, variance, 20.0, 20.0, stamp)[0] == pytest.approx(300.0, rel=1e-3)
    image[19:22, 19:22] = np.nan
    assert math.isnan(psf_flux(image, variance, 20.0, 20.0, stamp)[0])
    assert math.isnan(psf_flux(image, variance, 3.0, 20.0, stamp)[0])


def test_aperture_flux() -> None:
    """A level cancels; the fraction inside is that of a Gaussian, less what
    its wings leave in the ring.
    """
    image = 100.0 * gaussian(30.3, 29.8, (61, 61)) + 11.0
    # Sampled at pixel centers, a pixel's light counts where the pixel is.
    inside = 1 - np.exp(-(4.0**2) / (2 * (SIGMA**2 + 1 / 12)))
    assert aperture_flux(image, 30.3, 29.8, 4.0)[0] == pytest.approx(100 * inside, rel=2e-3)
    image[30, 32] = np.nan
    assert math.isnan(aperture_flux(image, 30.3, 29.8, 4.0)[0])
    image[30, 32], image[30, 40] = 11.0, np.nan
    assert np.isfinite(aperture_flux(image, 30.3, 29.8, 4.0)[0])
    assert math.isnan(aperture_flux(image, 5.0, 29.8, 4.0)[0])


def test_robust() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 20000)
    values[:200] = 1e6
    values[200] = np.nan
    assert robust_scatter(values) == pytest.approx(2.0, rel=0.03)
    assert median(values) == pytest.approx(3.0, abs=0.1)
    assert math.isnan(median(np.array([np.nan]))) and math.isnan(robust_scatter(np.array([1.0, 2.0])))


def test_detect() -> None:
    """All that is bright is found, and no more false ones than allowed."""
    rng = np.random.default_rng(3)
    shape = (200, 200)
    places = np.array([(x, y) for x in range(25, 200, 50) for y in range(25, 200, 50)], dtype=float)
    clean = sum(400.0 * gaussian(x, y, shape) for x, y in places)
    image = clean + rng.normal(size=shape)
    allowed = np.ones(shape, dtype=bool)
    kernel = gaussian(6, 6, (13, 13))
    thresholds = []
    for max_false in (0, 20):
        found = detect(image, np.ones(shape), kernel, places, allowed, max_false)
        assert match_sources(places, found.positions).all()
        assert found.n_false <= max_false
        assert len(found.positions) >= len(places)
        thresholds.append(found.threshold)
    assert thresholds[1] < thresholds[0]
    # Where detections do not count, nothing is found and nothing is false.
    nothing = detect(image, np.ones(shape), kernel, places, ~allowed, 0)
    assert not len(nothing.positions) and not match_sources(places, nothing.positions).any()


def test_pairs_split() -> None:
    pairs = np.array(
        [[(10.0, 10.0), (13.0, 10.0)], [(30.0, 30.0), (30.0, 34.0)], [(50.0, 50.0), (53.0, 50.0)]]
    )
    detections = np.array([(10.2, 10.1), (12.7, 10.0), (30.0, 32.1), (50.1, 50.0)])
    assert pairs_split(pairs, detections).tolist() == [True, False, False]
    assert not pairs_split(pairs, np.empty((0, 2))).any()


def test_empty_positions() -> None:
    allowed = np.zeros((100, 120), dtype=bool)
    allowed[10:-10, 10:-10] = True
    sources = np.array([(60.0, 50.0, 0.0), (20.0, 20.0, 10.0)])
    places = empty_positions(sources, allowed, seed=1)
    assert len(places) > 10
    np.testing.assert_array_equal(places, empty_positions(sources, allowed, seed=1))
    assert allowed[places[:, 1].astype(int), places[:, 0].astype(int)].all()
    for x, y, extent in sources:
        assert np.hypot(*(places - (x, y)).T).min() >= 12.0 + extent
    apart = np.hypot(*(places[:, None] - places).transpose(2, 0, 1)) + 1e3 * np.eye(len(places))
    assert apart.min() >= 10.0


def test_rubin_deconvolution() -> None:
    """Sharper than the coadd, at the stated PSF, and nowhere negative."""
    stack, _, stars = star_field(seed=4, n_stars=6)
    coadd = reference_coadd(stack)
    *_, image = rubin_steps(coadd)
    assert image.shape == coadd.image.shape and image.min() >= 0.0
    y, x, flux = stars.T
    measured = aperture_flux(image, x, y, 5.0)
    seen = np.isfinite(measured)
    assert seen.sum() >= 3
    np.testing.assert_allclose(measured[seen] / flux[seen], 1.0, atol=0.15)
    for k in np.flatnonzero(seen):
        assert image[int(y[k]), int(x[k])] > 1.3 * coadd.image[int(y[k]), int(x[k])]


def test_scaled_gradient_projection() -> None:
    """The loss falls with every step, to below that of the truth."""
    stack, truth, _ = star_field(seed=4, n_stars=6)
    stack = stack.without(reference_coadd(stack).clipped)
    losses = []
    for latent, loss in scaled_gradient_projection(stack, 30):
        losses.append(loss)
        assert latent.shape == truth.shape and latent.min() >= 0.0
    assert (np.diff(losses) < 0).all()
    assert losses[-1] < losses[0] < 0


def test_divide_kernels() -> None:
    wide, narrow = gaussian_kernel(4.0), gaussian_kernel(2.0)
    np.testing.assert_allclose(divide_kernels(wide, narrow), gaussian_kernel(math.sqrt(12.0)), atol=1e-4)
    # A pixel adds 1/12 to the variance.
    kernel, offset = integrated_gaussian(0.8, 25), np.arange(25) - 12
    assert np.sum(kernel.sum(axis=0) * offset**2) == pytest.approx(0.64 + 1 / 12, rel=1e-4)


def test_proper_coadd() -> None:
    """White noise of the stated variance, and PSF fluxes as stated."""
    scene = empty_scene(3, 128)
    proper = proper_coadd(scene.stack, reference_coadd(scene.stack))
    pixels = proper.image[16:-16, 16:-16]
    assert pixels.std() == pytest.approx(math.sqrt(np.median(proper.variance)), rel=0.05)
    assert abs(np.mean(pixels[1:] * pixels[:-1])) < 0.05 * pixels.var()


def test_direct_blur() -> None:
    from lsst.drp.restore.restoration.convolution import Blur

    rng = np.random.default_rng(1)
    latent = rng.uniform(size=(2, 20, 24)).astype(np.float32)
    psfs = rng.uniform(size=(2, 3, 5, 5)).astype(np.float32)
    blurred = np.asarray(DirectBlur(psfs, 16, 20).forward(latent))
    assert blurred.shape == (2, 3, 16, 20)
    np.testing.assert_allclose(blurred, Blur(psfs, 16, 20).forward(latent), rtol=1e-4)


def test_summarize_draws() -> None:
    rng = np.random.default_rng(2)
    shape = (60, 60)
    empty = np.ones(shape, dtype=bool)
    empty[20:40, 20:40] = False
    sigma = np.where(empty, 1.0, 3.0)
    draws = []
    for _ in range(25):
        draws.append(
            Draw(
                images={"a": rng.normal(size=shape) * sigma, "b": np.zeros(shape)},
                variances={"a": np.where(empty, 1.0, 4.0 * 9.0), "b": None},
                fluxes={"a": np.stack([rng.normal(50, 2.0, 30), np.full(30, 1.0)], axis=1), "b": None},
                regions={"empty": empty, "points": ~empty},
                snr=np.full(30, 25.0),
            )
        )
    summary = summarize_draws(draws)
    assert summary["a"]["empty"] == pytest.approx(1.0, abs=0.02)
    assert summary["a"]["points"] == pytest.approx(2.0, abs=0.06)
    assert summary["a"]["flux"] == pytest.approx(0.5, abs=0.05)
    assert math.isnan(summary["b"]["empty"]) and summary["b"]["draws"] == 25


def test_combine() -> None:
    seeds = {
        str(n): {"x": float(n), "y": np.nan, "z": "ab"[n % 2], "d": {"e": n}, "points": {"snr": [1.0]}}
        for n in range(3)
    }
    assert combine(seeds) == {"x": 1.0, "y": pytest.approx(np.nan, nan_ok=True), "z": "a", "d": {"e": 1.0}}


@pytest.fixture(scope="module")
def truth() -> Truth:
    """A small field with a few visits."""
    return Truth.of(make_field(FieldOptions(seed=51, size=192, visits=4)))


def test_field(truth: Truth) -> None:
    """The sources are as bright as they should be, and where they should."""
    catalog = truth.field.catalog
    points = (catalog["role"] == "point") & truth.usable
    assert set(catalog["role"]) == {"point", "galaxy", "pair", "natural"}
    for low, high in ((5, 10), (10, 20), (20, 50), (50, np.inf)):
        for role in ("point", "galaxy"):
            assert np.any((catalog["role"] == role) & (truth.snr > low) & (truth.snr < high))
    assert truth.snr[(catalog["role"] == "natural") & truth.usable].max() < 3.0
    for group in np.unique(catalog["group"])[1:]:
        pair = catalog[catalog["group"] == group]
        assert len(pair) == 2
        apart = np.hypot(np.diff(pair["x"]), np.diff(pair["y"]))[0] / truth.field.seeing
        assert 0.5 < apart < 1.15
    # The truth image has them at their places.
    for source in catalog[points]:
        row, column = int(source["y"]), int(source["x"])
        around = truth.field.truth[row - 1 : row + 3, column - 1 : column + 3]
        assert around.sum() == pytest.approx(source["flux_nJy"], rel=0.2)
    for n, stamp in truth.field.stamps.items():
        assert stamp.sum() == pytest.approx(catalog["flux_nJy"][n], rel=0.02)
    assert len(truth.empty) > 10
    regions = truth.regions()
    assert regions["empty"].any() and regions["points"].any() and regions["galaxies"].any()
    assert not (regions["empty"] & (regions["points"] | regions["galaxies"])).any()


def test_a_coadd_as_an_exposure(truth: Truth) -> None:
    """Its coadd is itself, and its restored image is nearly that of the
    exposures.
    """
    stack = truth.field.stack
    coadd = reference_coadd(stack)
    one = coadd_as_exposure(coadd, stack.cell_shape)
    again = reference_coadd(one)
    seen = coadd.n_exposures > 0
    np.testing.assert_array_equal(one.good[0], seen)
    np.testing.assert_allclose(again.image[seen], coadd.image[seen], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(again.variance[seen], coadd.variance[seen], rtol=1e-5)
    np.testing.assert_allclose(again.kernels, coadd.kernels, atol=1e-6)
    np.testing.assert_allclose(again.correlation, coadd.correlation, rtol=1e-5)


@pytest.mark.slow
def test_a_restored_coadd(truth: Truth) -> None:
    (sky,) = from_coadd(truth.field.stack, None).values()
    assert fwhm(sky.kernels[0, 0]) == pytest.approx(TARGET_FWHM, rel=0.1)
    true = truth_at(truth.field, TARGET_FWHM)
    bright = (true > np.quantile(true, 0.99)) & np.isfinite(sky.image)
    assert np.corrcoef(sky.image[bright], true[bright])[0, 1] > 0.9


def test_truth_at(truth: Truth) -> None:
    """Stars have the stated width and flux, galaxies those of GalSim."""
    field = truth.field
    image = truth_at(field, TARGET_FWHM)
    assert image.sum() == pytest.approx(field.truth.sum(), rel=0.01)
    widths = [
        star_fwhm(image, float(field.catalog["x"][n]), float(field.catalog["y"][n]))
        for n in truth.isolated("point", 50)
    ]
    assert np.median(widths) == pytest.approx(TARGET_FWHM, rel=0.02)
    wide = gaussian_kernel(4.0)
    inside = np.s_[16:-16, 16:-16]
    expected = truth_at(field, 4.0)[inside]
    assert error_norm(convolve_truth(field.truth, wide)[inside][:81, :81], expected[:81, :81]) < 0.03


def test_bring_to() -> None:
    image = gaussian(30, 30, (61, 61), 0.8)
    assert fwhm(bring_to(image, TARGET_FWHM, 3.0)) == pytest.approx(3.0, rel=0.01)
    assert bring_to(image, 3.0, 2.5) is image
    image[5, 5] = np.nan
    assert np.isnan(blur(image, 2.0)).sum() == 1


def test_errors_and_peaks() -> None:
    one, other = gaussian(10, 10, (21, 21)), gaussian(10, 10, (21, 21)) + gaussian(14, 10, (21, 21))
    assert error_norm(one, one) == 0.0
    assert error_norm(1.1 * one, one) == pytest.approx(0.1)
    assert count_peaks(one, 0.0) == 1 and count_peaks(other, 0.0) == 2
    # Fainter than 5 % of the brightest, or than the limit.
    assert count_peaks(one + 0.03 * gaussian(15, 10, (21, 21)), 0.0) == 1
    assert count_peaks(other, 1.0) == 0


def test_measure_reference(truth: Truth) -> None:
    """Scatter is relative to PSF photometry on the reference coadd."""
    cutout = Cutout(row=64, column=64, size=64)
    (sky,) = reference(truth.field.stack, cutout).values()
    points = measure_points(truth, sky)
    np.testing.assert_allclose(points.flux, points.optimal)
    bright = points.snr > 20
    assert abs(np.median(points.flux[bright] / points.true[bright] - 1)) < 0.03
    results = measure_image(truth.slim(), sky, cutout, sky)
    assert results["fwhm / stated"] == pytest.approx(1.0, abs=0.05)
    assert results["fwhm / reference"] == pytest.approx(1.0)
    assert results["completeness 10-20"] == 1.0
    assert np.isfinite([results["psnr"], results["cutout psnr"], results["S_F"]]).all()
    # Against the truth at its own PSF.
    sizes = [results[f"shape {low}"]["size"] for low in (20, 50)]
    assert np.isfinite(sizes).any() and np.nanmax(np.abs(sizes)) < 0.2
    assert results["stars split"] == 0.0 and results["entries"] > 20


def test_measure_truth(truth: Truth) -> None:
    """The truth itself has the best numbers there are."""
    cutout = Cutout(row=64, column=64, size=64)
    (coadd,) = reference(truth.field.stack, cutout).values()
    results = measure_image(truth.slim(), SkyImage(image=truth.field.truth), cutout, coadd)
    assert abs(results["point 20"]["bias"]) < 0.02 and abs(results["galaxy 20"]["bias"]) < 0.02
    assert results["psnr"] == results["cutout psnr"] == np.inf
    assert results["ssim"] == pytest.approx(1.0)
    assert results["pairs"] > 0.5
    assert math.isnan(results["pull width"]) and math.isnan(results["stated fwhm"])


def test_measure_truth_at_target(truth: Truth) -> None:
    """The same at the target PSF, with noise that is stated."""
    cutout = Cutout(row=64, column=64, size=64)
    (coadd,) = reference(truth.field.stack, cutout).values()
    rng = np.random.default_rng(4)
    sigma = 0.01 * truth.softening
    image = truth_at(truth.field, TARGET_FWHM)
    sky = SkyImage(
        image=image + sigma * rng.normal(size=image.shape),
        variance=np.full(image.shape, sigma**2),
        kernels=gaussian_cells(TARGET_FWHM, truth.field.stack.kernels.shape[1:3], 25),
    )
    assert sky.at_target
    results = measure_image(truth.slim(), sky, cutout, coadd)
    assert results["sigma / error, empty"] == pytest.approx(1.0, abs=0.05)
    assert results["sigma / error, points"] == pytest.approx(1.0, abs=0.2)
    assert results["target psnr"] > 45 and results["exact psnr"] > 45
    assert results["galaxy error"] < 0.01 and results["peaks"] == results["true peaks"]
    assert results["fwhm / stated"] == pytest.approx(1.0, abs=0.01)
    assert results["shape 50"]["ellipticity"] < 0.01 and abs(results["shape 50"]["size"]) < 0.01
    assert results["galaxies split"] == results["stars split"] == 0.0
    some = measure_wide(truth.slim(), sky, cutout, coadd)
    assert some["target psnr"] == pytest.approx(results["target psnr"], abs=0.1)


def test_moffat() -> None:
    for width, e1, e2 in ((3.0, 0.0, 0.0), (4.0, 0.03, -0.02)):
        kernel = moffat(width, e1, e2)
        assert 0.96 < kernel.sum() < 1.0
        # The pixel makes it a bit wider.
        assert width < fwhm(kernel) < 1.1 * width
    profile = galsim.Moffat(3.5, fwhm=3.0).drawImage(nx=25, ny=25, scale=1.0).array
    np.testing.assert_allclose(moffat(3.0, 0.0, 0.0), profile, atol=2e-3)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Three stars and their exposures."""
    truth = sum(
        f * gaussian(x, y, (128, 128), 0.8) for x, y, f in ((40, 40, 300), (80.3, 40.6, 60), (60, 90, 9))
    )
    return make_scene(truth, seed=1)


def test_scene(scene: Scene) -> None:
    """Exposures have the flux at their PSF, and noise as they state."""
    kernel = scene.stack.kernels[3, 0, 0]
    flux, sigma = psf_flux(scene.stack.image[3], scene.stack.variance[3], 40.0, 40.0, kernel[2:-2, 2:-2])
    assert flux == pytest.approx(300, abs=5 * sigma)
    empty = scene.stack.image[:, 100:, 100:]
    assert empty.std() == pytest.approx(1.0, abs=0.02)


def test_false_sources(scene: Scene) -> None:
    """The truth has none, a source that is not there is one, and the
    exposures contradict it.
    """
    proper = proper_coadd(scene.stack, reference_coadd(scene.stack))
    none = find_false(scene.truth, TARGET_FWHM, scene.truth, proper)
    assert none["false 3"] == none["false 5"] == none["false 10"] == 0.0
    assert none["denied"] < 1.0 and none["deepest"] > -5.0
    invented = scene.truth + 30 * gaussian(100, 100, scene.truth.shape, 0.8)
    one = find_false(invented, TARGET_FWHM, scene.truth, proper)
    assert one["false 10"] > 0 and one["deepest"] < -8.0
    coadd = find_false(proper.image, fwhm(proper.kernels[0, 0]), scene.truth, proper)
    assert math.isnan(coadd["denied"]) and coadd["false 10"] == 0.0


def test_crowded_scene() -> None:
    scene = crowded_scene(1, 128)
    assert len(scene.x) > 300
    proper = proper_coadd(scene.stack, reference_coadd(scene.stack))
    sky = SkyImage(image=scene.truth, kernels=gaussian_cells(TARGET_FWHM, (2, 2), 25))
    results = measure_scene(scene, sky, proper)
    assert results["false share"] < 0.05 and results["found 100"] > 0.8
    assert abs(results["bias"]) < 0.05 and results["target psnr"] == np.inf


def test_missing_images_are_no_failure(tmp_path: Path) -> None:
    for make in (jwst_scene, cosmos_scene):
        assert "there is no" in prepare_scene(make, (tmp_path, 100.0), tmp_path / "scene.pickle")
    with pytest.raises(FileNotFoundError, match="Cut_HSC"):
        read_field(tmp_path, "")


def test_real_images() -> None:
    """Scenes have the right brightness, and HST's image correlates with HSC's."""
    folder = real_images_folder()
    if not (folder / "Cut_HST.fits").is_file():
        pytest.skip(f"There are no images in {folder}.")
    scene = cosmos_scene(folder, DEPTHS[""])
    assert scene.truth.max() == pytest.approx(DEPTHS[""]) and scene.truth.min() >= -1e-9
    field = read_field(folder, "")
    assert (
        0.8
        < compare_with_hst(field, SkyImage(image=field.stack.image[0], kernels=field.stack.kernels[0]))
        < 0.95
    )
    assert max(map(abs, field.offset)) < 1.0


def test_targets() -> None:
    assert Target(label="a", value=1.0, high=2.0).met is True
    assert Target(label="a", value=3.0, low=1.0, high=2.0).met is False
    assert Target(label="a", value=math.nan, high=2.0).met is None
    assert [Target(label="a", value=1.0, **limits).range for limits in ({"high": 2.0}, {"low": 1.0})] == [
        "<= 2",
        ">= 1",
    ]


def test_report(truth: Truth) -> None:
    """Everything that is measured has a place in the report."""
    cutout = Cutout(row=64, column=64, size=64)
    (sky,) = reference(truth.field.stack, cutout).values()
    one = measure_image(truth.slim(), sky, cutout, sky)
    draws = {name: {"empty": 1.0, "points": 2.0, "galaxies": 1.0, "flux": 1.0, "draws": 3} for name in OURS}
    star = {"target psnr": 30.0, "common psnr": 31.0, "bias": 0.1}
    jwst = {name: star for name in IMAGES} | {FROM_COADD: {**star, "target psnr": 28.5}}
    results = {
        "options": vars(COMMAND.parse(["--seeds", "51", "52"])),
        "medians": {name: combine({"1": one}) for name in IMAGES},
        "costs": {name: [1.0, 1.0, 0.5] for name in IMAGES},
        "notes": {"STARRED": "not run"},
        "truth": {"truth in pixels": one},
        "wide": {name: one for name in (*IMAGES, "truth at the target PSF")},
        "deep": {},
        "counts": {"star<22": 4.0},
        "scenes": {"JWST": jwst, "crowded": {name: star for name in IMAGES}},
        "hst": {"": {name: 0.9 for name in IMAGES}},
        "decam": {"even predict odd": {name: {"source": 1.5, "median": 0.86} for name in OURS}},
        "draws": draws,
        "skipped": ["COSMOS: no images"],
    }
    results["targets"] = compare_with_targets(results)
    met = {target.label: target.met for target in results["targets"]}
    assert met["PSNR that the exposures add to the coadd's, dB, JWST"] is False
    assert met["sigma stated / scatter of draws, empty"] is True
    assert met["sigma stated / scatter of draws, points"] is False
    assert met["stars: FWHM / reference coadd's"] is False
    assert met["DECam, even predict odd: mean of min(chi2, 25) on sources"] is True
    assert met["DECam, odd predict even: median chi2"] is None
    text = format_report(results)
    assert "Seeds 51, 52" in text and "Skipped: COSMOS: no images" in text
    assert text.splitlines()[-1].startswith("measurable: completeness")
    assert all(text.count(name) >= 6 for name in IMAGES)
