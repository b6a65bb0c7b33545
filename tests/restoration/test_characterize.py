# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter
from scipy.signal import fftconvolve
from stacks import Function, run_restorer, star_field

import lsst.pex.config as pexConfig
from lsst.drp.restore.outputs.image_quality import star_fwhm
from lsst.drp.restore.restoration.astro_clear_net import AstroClearNetConfig, AstroClearNetTask
from lsst.drp.restore.restoration.backend import prepare_backend
from lsst.drp.restore.restoration.characterize import CharacterizeConfig, CharacterizeTask
from lsst.drp.restore.restoration.image_mm import ImageMMConfig, ImageMMTask
from lsst.drp.restore.restoration.measurable import MeasurableConfig, MeasurableTask, matched_stack
from lsst.drp.restore.restoration.restoration import Restoration, StartingPoint
from lsst.drp.restore.restoration.seeds import Seeds
from lsst.drp.restore.restoration.target_psf import TARGET_FWHM, target_kernel
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.kernel_shape import fwhm
from lsst.drp.restore.stack.reference_coadd import reference_coadd

SHAPE = (160, 160)


def make_task(**fields: object) -> CharacterizeTask:
    config = CharacterizeConfig()
    config.update(**fields)
    config.validate()
    return CharacterizeTask(config=config)


def draw(stack: ExposureStack, latent: np.ndarray, seed: int) -> ExposureStack:
    """Make exposures of a known sky with noise of their own."""
    image = np.zeros_like(stack.image)
    for i, j, rows, columns in stack.cells():
        padded = (slice(rows.start, rows.stop + 24), slice(columns.start, columns.stop + 24))
        for t in range(stack.n_exposures):
            image[t, rows, columns] = fftconvolve(latent[padded], stack.kernels[t, i, j], mode="valid")
    rng = np.random.default_rng(seed)
    image += rng.normal(size=image.shape) * np.sqrt(np.where(stack.good, stack.variance, 0.0))
    image[~stack.good] = 0.0
    return dataclasses.replace(stack, image=image)


@dataclasses.dataclass
class Case:
    """A restored field of which the truth is known; ``truth`` is at the
    resolution of the restored image.
    """

    stack: ExposureStack
    truth: np.ndarray
    restoration: Restoration
    matched: ExposureStack

    def draw(self, latent: np.ndarray, seed: int) -> ExposureStack:
        """Make other pixels for `Restoration.fitted`."""
        return draw(self.restoration.model, latent, seed)


def coadd(stack: ExposureStack, latent: np.ndarray) -> ExposureStack:
    task = MeasurableTask(config=MeasurableConfig())
    return matched_stack(stack, task.run(stack, reference_coadd(stack), latent, seeds=Seeds(42)))


def make_field(seed: int) -> tuple[ExposureStack, np.ndarray]:
    """Make exposures of small round sources, and the sky they show."""
    stack, points, _ = star_field(n=6, shape=SHAPE, n_stars=9, flux=(100.0, 3000.0), seed=seed)
    truth = gaussian_filter(points, 0.8)
    return draw(stack, truth, seed), truth


@pytest.fixture(scope="module")
def network() -> Case:
    """The trained network, at its resolution."""
    from lsst.drp.restore.restoration.first_estimate import first_estimate

    stack, sky = make_field(5)
    latent = first_estimate(stack)
    start = StartingPoint(
        latent=latent,
        matched=coadd(stack, latent),
        weights=reference_coadd(stack).weights,
        target_fwhm=TARGET_FWHM,
    )
    config = AstroClearNetConfig()
    config.computeDevice = "cpu"
    backend = prepare_backend("cpu", 1)
    restoration = AstroClearNetTask(config=config).run(stack, start, backend=backend, seeds=Seeds(42))
    truth = np.maximum(fftconvolve(sky, target_kernel(), mode="same"), 0.0).astype(np.float32)
    return Case(stack, truth, restoration, start.matched)


@pytest.fixture(scope="module")
def steps() -> Case:
    """Majorize-minimize steps, to an image of points."""
    stack, truth = make_field(6)
    config = ImageMMConfig()
    config.update(maxSteps=25, computeDevice="cpu")
    restoration = run_restorer(ImageMMTask(config=config), stack)
    return Case(stack, truth, restoration, coadd(stack, restoration.latent))


@pytest.fixture(params=["network", "steps"])
def case(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(request.param)


@pytest.mark.slow
def test_variance_is_the_scatter_over_other_noise(case: Case) -> None:
    draws = np.array(
        [case.restoration.fitted.restore(case.draw(case.truth, seed))[12:-12, 12:-12] for seed in range(14)]
    )
    scatter = draws.var(axis=0, ddof=1)
    expected, lowest, highest = scatter, 0.75, 1.3
    if case.restoration.error is not None:
        # What the network gets wrong is part of its error, as far as draws of the
        # restored image can tell; that depends on its weights.
        lowest, highest = 0.3, 2.5
        expected = ((draws - case.truth[12:-12, 12:-12]) ** 2).mean(axis=0)
    task = make_task(numNoiseRealizations=2)
    characterization = task.run(case.stack, case.restoration, case.matched, seeds=Seeds(42))
    assert characterization.variance.shape == SHAPE
    assert (characterization.variance > 0).all()
    stars = case.truth[12:-12, 12:-12] > 5.0
    empty = ~binary_dilation(stars, iterations=6)
    assert stars.sum() > 60
    for pixels in (stars, empty):
        ratio = np.sqrt(characterization.variance[pixels].mean() / expected[pixels].mean())
        assert lowest < ratio < highest
        for noise in characterization.noise_realizations:
            ratio = noise[pixels].std() / np.sqrt(scatter[pixels].mean())
            assert 0.5 < ratio < 1.7
    # Pixel by pixel on the stars.
    ratio = np.median(np.sqrt(characterization.variance[stars] / expected[stars]))
    assert lowest < ratio < highest
    assert len(characterization.noise_realizations) == 2
    assert (characterization.noise_realizations[0] != characterization.noise_realizations[1]).any()
    # What non-negativity adds to an empty sky.
    added = (draws - case.truth[12:-12, 12:-12])[:, empty].mean()
    least = 0.0 if case.restoration.error is None else 0.01
    assert characterization.pedestal == pytest.approx(added, rel=0.25, abs=least)


def test_psf_is_that_of_the_stars(case: Case) -> None:
    characterization = make_task().run(case.stack, case.restoration, case.matched, seeds=Seeds(42))
    assert characterization.kernels.shape == (5, 5, 25, 25)
    places = [(y, x) for y in (22, 64, 106) for x in (22, 64, 106)]
    fluxes = np.geomspace(100.0, 1000.0, 9)
    sky = np.zeros_like(case.truth)
    for (y, x), flux in zip(places, fluxes, strict=True):
        sky[y + 12, x + 12] = flux
    if case.restoration.target_fwhm:
        sky = fftconvolve(sky, target_kernel(), mode="same")
    latent = case.restoration.fitted.restore(case.draw(sky, 77))[12:-12, 12:-12]
    widths, recovered = [], []
    for (y, x), flux in zip(places, fluxes, strict=True):
        psf = characterization.kernels[y // 32, x // 32]
        widths.append(star_fwhm(latent, x, y) / fwhm(psf))
        stamp = latent[y - 5 : y + 6, x - 5 : x + 6] - characterization.pedestal
        recovered.append(stamp.sum() / flux / psf[7:18, 7:18].sum())
    # These stars are in the middle of a pixel, where they look narrower than
    # on the average.
    assert np.median(widths) == pytest.approx(1.0, abs=0.1)
    assert np.median(recovered) == pytest.approx(1.0, abs=0.05)
    # Sharper than the sharpest exposure.
    assert np.median([fwhm(psf) for psf in characterization.kernels.reshape(-1, 25, 25)]) < 0.8 * 2.8


def test_exposures_that_disagree_are_found(steps: Case) -> None:
    # By the exposures, not by the coadd (test_residuals.py).
    task = make_task(residualLimit=1e3)
    # The stated rate is one pixel in a million; there are 16384.
    clean = draw(steps.stack, steps.truth, 3)
    quiet = dataclasses.replace(steps.restoration, latent=steps.truth, fitted=Function(lambda _: steps.truth))
    white = coadd(clean, steps.truth)
    assert not task.run(clean, quiet, white, seeds=Seeds(42)).inconsistent.any()
    # Something that is there half of the time.
    y, x = 43, 85
    varying = dataclasses.replace(clean, image=clean.image.copy())
    varying.image[::2, y - 12 : y + 13, x - 12 : x + 13] += 60 * clean.kernels[::2, 1, 2]
    varying.image[~varying.good] = 0.0
    inconsistent = task.run(varying, quiet, white, seeds=Seeds(42)).inconsistent
    assert inconsistent[y, x]
    inconsistent[y - 12 : y + 13, x - 12 : x + 13] = False
    assert not inconsistent.any()
    # The same light in every exposure is no contradiction once it is restored.
    latent = steps.truth.copy()
    latent[y + 12, x + 12] += 30
    mean = dataclasses.replace(quiet, latent=latent)
    assert task.run(varying, mean, white, seeds=Seeds(42)).inconsistent[y, x]
    assert not task.run(draw(clean, latent, 4), mean, white, seeds=Seeds(42)).inconsistent.any()


def test_same_seed_same_result(steps: Case) -> None:
    first, second, other = (
        make_task(numRealizations=2).run(steps.stack, steps.restoration, steps.matched, seeds=Seeds(seed))
        for seed in (1, 1, 2)
    )
    for name in ("variance", "kernels", "inconsistent"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(first.noise_realizations, second.noise_realizations)
    assert (first.variance != other.variance).any()
    assert (first.kernels != other.kernels).any()


def test_stack_is_not_changed_and_empty_cells_have_no_psf(steps: Case) -> None:
    stack = dataclasses.replace(
        steps.stack,
        image=steps.stack.image.copy(),
        variance=steps.stack.variance.copy(),
        good=steps.stack.good.copy(),
        kernels=steps.stack.kernels.copy(),
    )
    hole = np.zeros(stack.image.shape, bool)
    hole[:, :, 96:] = True
    stack = stack.without(hole)
    stack.kernels[:, :, 3] = 0.0
    before = stack.image.copy()
    config = ImageMMConfig()
    config.update(maxSteps=10, computeDevice="cpu")
    restoration = run_restorer(ImageMMTask(config=config), stack)
    white = coadd(stack, restoration.latent)
    characterization = make_task(numNoiseRealizations=0).run(stack, restoration, white, seeds=Seeds(42))
    np.testing.assert_array_equal(stack.image, before)
    assert (characterization.kernels[:, 3] == 0).all()
    assert (characterization.kernels[:, :3].sum(axis=(2, 3)) > 0.5).all()
    assert np.isfinite(characterization.variance).all()
    assert not characterization.inconsistent[:, 110:].any()
    assert characterization.noise_realizations == []


def test_contradiction_in_the_configuration() -> None:
    with pytest.raises(pexConfig.FieldValidationError, match="numRealizations"):
        make_task(numRealizations=2, numNoiseRealizations=3)
