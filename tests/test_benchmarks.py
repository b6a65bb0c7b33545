# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the benchmark's measurements against what can be computed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from stacks import star_field

from benchmarks.convolution import DirectBlur
from benchmarks.detection import detect, match_sources, pairs_split
from benchmarks.fields import FieldOptions, make_field
from benchmarks.jobs import Draw
from benchmarks.measure import measure_image, measure_points
from benchmarks.methods import Cutout, SkyImage, deconvolve_coadd, reference
from benchmarks.photometry import aperture_flux, psf_flux, psf_stamp, shift_kernel
from benchmarks.quality import held_out, parse
from benchmarks.report import IMAGES, combine, format_report, summarize_draws, targets
from benchmarks.robust import median, robust_scatter
from benchmarks.truth import Truth, empty_positions
from lsst.drp.restore.reference_coadd import reference_coadd

SIGMA = 1.5  # of the Gaussian PSF, pixels


def gaussian(x: float, y: float, shape: tuple[int, int], sigma: float = SIGMA) -> np.ndarray:
    """Return a Gaussian of unit flux sampled at pixel centres."""
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
    # Sampled at pixel centres, a pixel's light counts where the pixel is.
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


def test_deconvolve_coadd() -> None:
    """The loss falls with every step, and what comes out is sharper, of the
    same flux, and nowhere negative.
    """
    stack, truth, stars = star_field(seed=4, n_stars=6)
    coadd = reference_coadd(stack)
    losses = []
    for latent, loss in deconvolve_coadd(coadd, stack.cell_shape, 60):
        losses.append(loss)
        assert latent.min() >= 0.0
    assert latent.shape == truth.shape
    assert (np.diff(losses) < 0).all()
    y, x, flux = stars.T
    restored = latent[12:-12, 12:-12]
    measured = aperture_flux(restored, x, y, 5.0)
    seen = np.isfinite(measured)
    assert seen.sum() >= 3
    np.testing.assert_allclose(measured[seen] / flux[seen], 1.0, atol=0.15)
    for k in np.flatnonzero(seen):
        assert restored[int(y[k]), int(x[k])] > 1.5 * coadd.image[int(y[k]), int(x[k])]


def test_direct_blur() -> None:
    from lsst.drp.restore.decoder import Blur

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
                empty=empty,
                source=~empty,
                snr=np.full(30, 25.0),
            )
        )
    summary = summarize_draws(draws)
    assert summary["a"]["empty"] == pytest.approx(1.0, abs=0.02)
    assert summary["a"]["source"] == pytest.approx(2.0, abs=0.06)
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


def test_measure_reference(truth: Truth) -> None:
    """PSF photometry on the reference coadd is what it is compared with."""
    cutout = Cutout(row=64, column=64, size=64)
    (sky,) = reference(truth.field.stack, cutout).values()
    points = measure_points(truth, sky)
    np.testing.assert_allclose(points.flux, points.optimal)
    bright = points.snr > 20
    assert abs(np.median(points.flux[bright] / points.true[bright] - 1)) < 0.03
    results = measure_image(truth.slim(), sky, cutout)
    assert results["fwhm / stated"] == pytest.approx(1.0, abs=0.05)
    assert results["fwhm / reference"] == pytest.approx(1.0)
    assert results["completeness 10-20"] == 1.0
    assert np.isfinite([results["psnr"], results["cutout psnr"], results["S_F"]]).all()


def test_measure_truth(truth: Truth) -> None:
    """The truth itself has the best numbers there are."""
    cutout = Cutout(row=64, column=64, size=64)
    results = measure_image(truth.slim(), SkyImage(image=truth.field.truth), cutout)
    assert abs(results["point 20"]["bias"]) < 0.02 and abs(results["galaxy 20"]["bias"]) < 0.02
    assert results["psnr"] == results["cutout psnr"] == np.inf
    assert results["ssim"] == pytest.approx(1.0)
    assert results["pairs"] > 0.5
    assert math.isnan(results["pull width"]) and math.isnan(results["stated fwhm"])


def test_report(truth: Truth) -> None:
    """Everything that is measured has a place in the table."""
    cutout = Cutout(row=64, column=64, size=64)
    (sky,) = reference(truth.field.stack, cutout).values()
    one = measure_image(truth.slim(), sky, cutout)
    medians = {name: combine({"1": one}) for name in IMAGES}
    draws = {name: {"empty": 1.0, "source": 2.0, "flux": 1.0, "draws": 3} for name in IMAGES[-2:]}
    wide = {name: {"S_F": 4.0, "sigma_sky": 8.0} for name in IMAGES}
    rows = targets(medians, wide, draws)
    met = {label: ok for label, _, _, ok in rows}
    assert met["sigma stated / draws, empty, restored_coadd"] is True
    assert met["sigma stated / draws, source, restored_coadd"] is False
    assert met["FWHM / reference coadd, restored_coadd"] is False
    text = format_report(
        {
            "options": vars(parse(["--seeds", "51", "52"])),
            "medians": medians,
            "costs": {name: [1.0, 1.0, 0.5] for name in IMAGES},
            "notes": {"STARRED": "not run"},
            "truth": one,
            "wide": wide | {"counts": {"star<22": 4.0}},
            "draws": draws,
            "targets": rows,
            "held_out": "held out",
        }
    )
    assert "Seeds 51, 52" in text and text.endswith("held out")
    assert all(text.count(name) >= 6 for name in IMAGES)


def test_held_out_hook(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr("benchmarks.quality._HELD_OUT", tmp_path / "missing.py")
    assert "no benchmark" in held_out()
    assert json.dumps(held_out())
