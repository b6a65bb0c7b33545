# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

import dataclasses

import numpy as np
import pytest
from scipy.signal import fftconvolve
from stacks import star_field

import lsst.pex.config as pexConfig
from lsst.drp.restore.restoration.forward_model import ForwardModel
from lsst.drp.restore.restoration.measurable import (
    Measurable,
    MeasurableConfig,
    MeasurableTask,
    matched_stack,
)
from lsst.drp.restore.restoration.seeds import Seeds
from lsst.drp.restore.stack.coadd_filters import coadd_filters
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.reference_coadd import reference_coadd


def measure(stack: ExposureStack, latent: np.ndarray, seed: int = 42, **fields: float) -> Measurable:
    config = MeasurableConfig()
    config.update(**fields)
    config.validate()
    reference = reference_coadd(stack, clip_sigma=1e6)
    return MeasurableTask(config=config).run(stack, reference, latent.astype(np.float32), seeds=Seeds(seed))


def one_cell(stack: ExposureStack) -> ExposureStack:
    """Make a stack whose PSF is that of the first cell everywhere."""
    n, height, width = stack.image.shape
    return dataclasses.replace(
        stack,
        kernels=stack.kernels[:, :1, :1].copy(),
        correlation=stack.correlation[:, :1, :1].copy(),
        cell_shape=(height, width),
    )


@pytest.mark.parametrize("target", [0.0, 3.5])
def test_the_restored_image_does_not_matter_where_nothing_is_missing(target: float) -> None:
    stack, truth, _ = star_field(bad_fraction=0.0, shape=(96, 96))
    stack = one_cell(stack)
    rng = np.random.default_rng(5)
    wrong = rng.uniform(0.0, 30.0, truth.shape) * (truth == 0)
    dark, bright = (measure(stack, latent, targetFwhm=target).image for latent in (0 * truth, wrong))
    inner = (slice(26, -26), slice(26, -26))
    # The level of what is wrong is 15.  What differs is the light outside of
    # the filters' stamps and, with a Gaussian, at frequencies that the exposures
    # do not pass.
    assert np.abs(bright - dark)[inner].max() < (0.03 if target == 0.0 else 0.15)
    weights = reference_coadd(stack, clip_sigma=1e6).weights[:, 0, 0]
    filters, _ = coadd_filters(stack.kernels[:, 0, 0], weights, target_fwhm=target)
    brute = sum(fftconvolve(y, f, mode="same") for y, f in zip(stack.image, filters, strict=True))
    np.testing.assert_allclose(dark[inner], brute[inner], atol=2e-3)


def noiseless(stack: ExposureStack, truth: np.ndarray) -> ExposureStack:
    image = np.where(stack.good, ForwardModel(stack).forward(truth), np.float32(0))
    return dataclasses.replace(stack, image=image)


def psf_flux(image: np.ndarray, psf: np.ndarray, y: int, x: int) -> float:
    stamp = image[y - 8 : y + 9, x - 8 : x + 9].astype(float)
    kernel = psf[4:-4, 4:-4].astype(float)
    return float((stamp * kernel).sum() / (kernel**2).sum())


def fluxes(measurable: Measurable, stack: ExposureStack, stars: np.ndarray) -> np.ndarray:
    height, width = stack.cell_shape
    return np.array(
        [
            psf_flux(measurable.image, measurable.kernels[int(y) // height, int(x) // width], int(y), int(x))
            / flux
            for y, x, flux in stars
        ]
    )


def test_nothing_that_the_restoration_lost_is_lost() -> None:
    stack, truth, stars = star_field(n=6, bad_fraction=0.05, seed=3)
    stack = noiseless(stack, truth)
    # Nothing restored, half of it, all of it.
    for found, error in ((0.0, 0.03), (0.5, 0.015), (1.0, 0.003)):
        ratio = fluxes(measure(stack, found * truth), stack, stars)
        assert np.abs(ratio - 1.0).max() < error * 3
        assert abs(np.median(ratio) - 1.0) < error


def test_an_exposure_that_sees_half_of_the_patch() -> None:
    stack, truth, stars = star_field(n=3, bad_fraction=0.0)
    edge = 64 + 7
    stack = noiseless(stack, truth)
    missing = np.zeros(stack.good.shape, bool)
    missing[0, :, :edge] = True
    stack = stack.without(missing)
    measured = measure(stack, 0 * truth)
    away = np.abs(stars[:, 1] - edge) > 12
    ratio = fluxes(measured, stack, stars)
    assert np.abs(ratio[away] - 1.0).max() < 0.02
    assert np.abs(ratio - 1.0).max() < 0.1


def test_variance_is_that_of_the_image() -> None:
    stack, truth, stars = star_field(n=4, shape=(96, 96), cell_shape=(48, 48), n_stars=4, flux=(2e3, 5e3))
    stack = dataclasses.replace(stack, correlation=stack.correlation * np.float32(1.3))
    clean = noiseless(stack, truth)
    rng = np.random.default_rng(11)
    draws = []
    for _ in range(60):
        noise = rng.normal(size=stack.image.shape) * np.sqrt(1.3 * np.where(stack.good, stack.variance, 0))
        noisy = dataclasses.replace(clean, image=(clean.image + noise).astype(np.float32))
        draws.append(measure(noisy, truth, numNoiseRealizations=0).image)
    measured = measure(clean, truth, numNoiseRealizations=40)
    ratio = np.var(draws, axis=0, ddof=1) / measured.variance
    assert ratio.mean() == pytest.approx(1.0, abs=0.01)
    for y, x, _ in stars.astype(int):
        assert ratio[y - 4 : y + 5, x - 4 : x + 5].mean() == pytest.approx(1.0, abs=0.1)
    realized = np.array(measured.noise_realizations)
    assert (np.mean(realized**2, axis=0) / measured.variance).mean() == pytest.approx(1.0, abs=0.01)
    # White: a pixel knows nothing of its neighbors.
    sigma = realized / np.sqrt(measured.variance)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (0, 2), (3, 0)):
        products = sigma[:, dy:, dx:] * sigma[:, : 96 - dy, : 96 - dx]
        assert abs(products[:, 15:-15, 15:-15].mean()) < 0.03


def test_pulls_of_psf_fluxes() -> None:
    pulls = []
    for seed in range(8):
        stack, truth, stars = star_field(n=5, seed=seed, flux=(10.0, 300.0))
        measured = measure(stack, 0.5 * truth)
        height, width = stack.cell_shape
        for y, x, flux in stars:
            psf = measured.kernels[int(y) // height, int(x) // width].astype(float)[4:-4, 4:-4]
            variance = measured.variance[int(y) - 8 : int(y) + 9, int(x) - 8 : int(x) + 9]
            sigma = np.sqrt((psf**2 * variance).sum()) / (psf**2).sum()
            pulls.append((psf_flux(measured.image, np.pad(psf, 4), int(y), int(x)) - flux) / sigma)
    assert abs(np.mean(pulls)) < 0.25
    assert 0.85 < np.std(pulls) < 1.15


def test_nothing_where_there_is_nothing() -> None:
    stack, truth, _ = star_field(n=2, bad_fraction=0.0)
    missing = np.zeros(stack.good.shape, bool)
    missing[:, :, :40] = True
    stack = stack.without(missing)
    stack.kernels[:, :, 0] = 0.0
    measured = measure(stack, truth)
    assert np.isnan(measured.image[:, :27]).all()
    assert np.isnan(measured.variance[:, :27]).all()
    assert np.isfinite(measured.image[:, 40:]).all()
    assert (measured.variance[:, 40:] > 0).all()
    assert not measured.kernels[:, 0].any()
    assert measured.coverage[20:-20, 60:-20].min() > 0.97


def test_matched_stack_says_what_the_exposures_say() -> None:
    """Its chi squared falls as that of all exposures by a change of the sky."""
    stack, truth, _ = star_field(n=6, bad_fraction=0.0, shape=(96, 96))
    matched = matched_stack(stack, measure(stack, 0 * truth))
    assert matched.n_exposures == 1 and matched.good.all()
    rng = np.random.default_rng(8)
    change = np.zeros_like(truth)
    change[20:-20, 20:-20] = rng.exponential(size=(80, 80))
    falls = []
    for one in (stack, matched):
        decoder = ForwardModel(one)
        before, after = (
            np.sum((one.image - decoder.forward(latent)) ** 2 / one.variance, dtype=float)
            for latent in (truth, truth + change)
        )
        falls.append(after - before)
    assert falls[1] == pytest.approx(falls[0], rel=0.03)


def test_matched_stack_knows_of_holes() -> None:
    """In a hole the coadd is what it was given, with hardly any noise: that is
    no measurement.
    """
    stack, truth, _ = star_field(n=6, bad_fraction=0.0, shape=(96, 96))
    missing = np.zeros(stack.good.shape, bool)
    missing[:, 20, 30:60] = True  # a row
    missing[:, 40:46, 40:50] = True  # the core of a star
    missing[:3, 70:80, 70:80] = True  # a part of the exposures
    stack = stack.without(missing)
    matched = matched_stack(stack, measure(stack, truth))
    np.testing.assert_array_equal(matched.good[0], ~missing.all(axis=0))
    assert np.isposinf(matched.variance[0][missing.all(axis=0)]).all()
    good = matched.good[0]
    best = np.where(good, 1.0, np.inf)
    best[good] /= (1.0 / stack.masked_variance()).sum(axis=0)[good]
    assert (matched.variance[0][good] >= 0.999 * best[good]).all()
    # Where half of the exposures are missing, the others have the noise.
    assert np.median(matched.variance[0, 72:78, 72:78] / best[72:78, 72:78]) == pytest.approx(1.0, abs=0.05)


def test_the_same_seed_gives_the_same_noise() -> None:
    stack, truth, _ = star_field()
    first, again, other = (measure(stack, truth, seed=seed).noise_realizations[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_target_below_the_sampling_is_refused() -> None:
    config = MeasurableConfig()
    config.targetFwhm = 1.5
    with pytest.raises(pexConfig.FieldValidationError, match="well sampled"):
        config.validate()
