# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The default restorer, through the task that restores a stack."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.signal import fftconvolve
from stacks import star_field

import lsst.pex.config as pexConfig
from lsst.drp.restore import RestoredStack, RestoreStackConfig, RestoreStackTask
from lsst.drp.restore.outputs.image_quality import star_fwhm
from lsst.drp.restore.restoration.target_psf import TARGET_FWHM, target_kernel
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.kernel_shape import fwhm


def restore(stack: ExposureStack, **fields: Any) -> RestoredStack:
    config = RestoreStackConfig()
    config.characterize.numRealizations = 2
    config.restorer.computeDevice = "cpu"
    for name, value in fields.items():
        if name in config:
            setattr(config, name, value)
        else:
            setattr(config.restorer, name, value)
    config.validate()
    return RestoreStackTask(config=config).restore(stack)


def observe(stack: ExposureStack, latent: np.ndarray, seed: int = 1) -> ExposureStack:
    """Make noisy exposures of a latent image with the PSF of each exposure's
    first cell.
    """
    image = np.stack([fftconvolve(latent, k, mode="valid") for k in stack.kernels[:, 0, 0]])
    kernels = np.broadcast_to(stack.kernels[:, :1, :1], stack.kernels.shape).copy()
    image += np.random.default_rng(seed).normal(size=image.shape)
    good = stack.good
    return dataclasses.replace(
        stack,
        image=np.where(good, image, 0.0).astype(np.float32),
        variance=np.where(good, np.float32(1.0), np.float32(np.inf)),
        kernels=kernels,
    )


@pytest.fixture(scope="module")
def field() -> tuple[ExposureStack, np.ndarray]:
    """Exposures of bright stars, and the stars."""
    stack, _, stars = star_field(n=6, shape=(128, 128), n_stars=9, flux=(1000.0, 5000.0))
    return stack, stars


@pytest.fixture(scope="module")
def result(field: tuple[ExposureStack, np.ndarray]) -> RestoredStack:
    return restore(field[0])


def test_stars_have_the_stated_width_and_their_flux(
    field: tuple[ExposureStack, np.ndarray], result: RestoredStack
) -> None:
    _, stars = field
    restoration = result.restoration
    # Of a star in the middle of its pixel.
    stamp = np.zeros((61, 61))
    stamp[18:43, 18:43] = target_kernel()
    stated = star_fwhm(stamp, 30, 30)
    assert stated == pytest.approx(TARGET_FWHM, rel=0.05)
    widths = [star_fwhm(restoration.image, x, y) for y, x, _ in stars]
    assert np.median(widths) == pytest.approx(stated, rel=0.1)
    np.testing.assert_allclose(widths, stated, rtol=0.25)
    fluxes = [restoration.image[int(y) - 6 : int(y) + 7, int(x) - 6 : int(x) + 7].sum() for y, x, _ in stars]
    np.testing.assert_allclose(fluxes, stars[:, 2], rtol=0.05)
    assert restoration.target_fwhm == TARGET_FWHM
    np.testing.assert_allclose(
        result.characterization.kernels, np.broadcast_to(target_kernel(), (4, 4, 25, 25)), rtol=1e-6
    )


def test_what_is_returned(field: tuple[ExposureStack, np.ndarray], result: RestoredStack) -> None:
    stack, _ = field
    restoration = result.restoration
    assert restoration.latent.shape == restoration.error.shape == stack.latent_shape
    assert restoration.latent.dtype == restoration.error.dtype == np.float32
    assert (restoration.latent >= 0).all() and (restoration.error > 0).all()
    # From the first estimate, which is one of points, to the exposures.
    steps, loss = restoration.history["step"], restoration.history["loss"]
    assert list(steps) == [0, 2, 5]
    assert loss[2] < loss[1]
    assert restoration.loss == loss[2] < 0.55
    assert restoration.converged and restoration.device == "CPU"
    assert restoration.steps == 5 and restoration.weights == {}
    # It is the coadd that shows what a restoration does to other pixels.
    model = restoration.model
    assert model.n_exposures == 1
    again = restoration.fitted.restore(model)
    assert again.shape == restoration.latent.shape
    bright = restoration.latent > 50.0
    np.testing.assert_allclose(again[bright], restoration.latent[bright], rtol=0.15)


def test_error_is_that_of_the_image(field: tuple[ExposureStack, np.ndarray]) -> None:
    """By the order of magnitude, in the sky and on stars."""
    stack, stars = field
    truth = np.zeros(stack.latent_shape, np.float32)
    for y, x, flux in stars:
        truth[int(y) + 12, int(x) + 12] = flux / 10
    sky = fftconvolve(truth, target_kernel(), mode="same")[12:-12, 12:-12]
    restoration = restore(observe(stack, truth)).restoration
    difference = restoration.image - sky
    error = restoration.error[12:-12, 12:-12]
    for pixels in (sky < 0.01, sky > 5.0):
        pull = np.sqrt(np.mean(difference[pixels] ** 2) / np.mean(error[pixels] ** 2))
        assert 0.1 < pull < 3.0


def test_smooth_galaxies_are_smooth() -> None:
    stack, _, _ = star_field(n=6, shape=(128, 128), n_stars=1, bad_fraction=0.02)
    light = np.zeros(stack.latent_shape)
    places = [(44, 40), (44, 108), (108, 44), (108, 108)]
    for y, x in places:
        light[y, x] = 10000.0
    light = gaussian_filter(light, 3.0)
    image = restore(observe(stack, light)).restoration.latent
    peaks = np.argwhere((image == maximum_filter(image, 5)) & (image > 0.3 * light.max()))
    assert len(peaks) == len(places)
    for y, x in places:
        assert np.abs(peaks - (y, x)).max(axis=1).min() <= 1
        stamp = slice(y - 12, y + 13), slice(x - 12, x + 13)
        assert image[stamp].sum() == pytest.approx(light[stamp].sum(), rel=0.05)
        inverse_width = np.sqrt(np.log(image[y, x] / image[y, x - 4 : x + 5 : 8].mean()) / 8.0)
        expected = 1.0 / np.hypot(3.0, 0.8)
        assert inverse_width == pytest.approx(expected, rel=0.1)


def test_same_result_to_the_bit(field: tuple[ExposureStack, np.ndarray], result: RestoredStack) -> None:
    again = restore(field[0])
    for part, name in (
        ("restoration", "latent"),
        ("restoration", "error"),
        ("characterization", "variance"),
        ("characterization", "inconsistent"),
        ("measurable", "image"),
    ):
        first, second = (getattr(getattr(one, part), name) for one in (result, again))
        np.testing.assert_array_equal(first, second)


def test_tiles_do_not_show(field: tuple[ExposureStack, np.ndarray], result: RestoredStack) -> None:
    latent = restore(field[0], tileSize=64).restoration.latent
    np.testing.assert_allclose(latent, result.restoration.latent, rtol=1e-3, atol=1e-3)


def test_coarser_resolution(field: tuple[ExposureStack, np.ndarray], result: RestoredStack) -> None:
    stack, stars = field
    target = 3.5
    coarse = restore(stack, targetFwhm=target)
    restoration = coarse.restoration
    assert restoration.target_fwhm == target
    sigma = np.sqrt(target**2 - TARGET_FWHM**2) / np.sqrt(8 * np.log(2))
    np.testing.assert_allclose(
        restoration.image,
        gaussian_filter(result.restoration.latent, sigma, mode="constant")[12:-12, 12:-12],
        atol=1e-3 * restoration.image.max(),
    )
    for psf in coarse.characterization.kernels.reshape(-1, 25, 25):
        assert fwhm(psf) == pytest.approx(target, rel=0.02)
    widths = [star_fwhm(restoration.image, x, y) for y, x, _ in stars]
    assert np.median(widths) == pytest.approx(target, rel=0.08)
    # The kernels of the residuals are those from the coarser image.
    assert restoration.loss < 1.3 * result.restoration.loss
    config = RestoreStackConfig()
    with pytest.raises(pexConfig.FieldValidationError, match="targetFwhm"):
        config.targetFwhm = 1.5


def test_one_exposure() -> None:
    stack, _, stars = star_field(n=1, shape=(96, 96), n_stars=4, flux=(2000.0, 5000.0), bad_fraction=0.02)
    restoration = restore(stack).restoration
    for y, x, flux in stars:
        stamp = restoration.image[int(y) - 6 : int(y) + 7, int(x) - 6 : int(x) + 7]
        assert stamp.sum() == pytest.approx(flux, rel=0.06)
        assert star_fwhm(restoration.image, x, y) == pytest.approx(TARGET_FWHM, rel=0.2)


def test_holes_and_missing_cells(field: tuple[ExposureStack, np.ndarray], result: RestoredStack) -> None:
    stack, stars = field
    missing = np.zeros(stack.good.shape, bool)
    missing[:, :, 96:] = True
    missing[:, 40:46, 40:50] = True
    missing[:2, :32, :32] = True
    kernels = stack.kernels.copy()
    kernels[:, :, 3] = 0.0
    kernels[:2, 0, 0] = 0.0
    stack = dataclasses.replace(stack, kernels=kernels).without(missing)
    holed = restore(stack)
    restoration = holed.restoration
    assert np.isfinite(restoration.latent).all() and np.isfinite(restoration.error).all()
    assert (restoration.latent >= 0).all()
    assert (holed.characterization.kernels[:, 3] == 0).all()
    assert (holed.characterization.kernels[:, :3].sum(axis=(2, 3)) > 0.99).all()
    # Nothing is made up where nothing is known.
    assert restoration.image[:, 115:].max() < 0.05 * restoration.image.max()
    # Less is known in the hole.
    error = restoration.error[12:-12, 12:-12]
    assert np.median(error[41:45, 42:48]) > np.median(error[60:64, 20:80])
    far = stars[:, 1] < 80
    for y, x, flux in stars[far]:
        stamp = slice(int(y) - 6, int(y) + 7), slice(int(x) - 6, int(x) + 7)
        if missing[:, stamp[0], stamp[1]].any(axis=0).mean() == 0.0:
            assert restoration.image[stamp].sum() == pytest.approx(flux, rel=0.05)


@pytest.mark.slow
def test_smaller_pixels() -> None:
    stack, _, stars = star_field(n=4, shape=(64, 64), n_stars=4, flux=(2000.0, 5000.0), bad_fraction=0.0)
    result = restore(dataclasses.replace(stack, oversampling=2))
    restoration = result.restoration
    assert restoration.image.shape == result.characterization.variance.shape == (128, 128)
    assert restoration.latent.shape == restoration.error.shape == (2 * 88, 2 * 88)
    assert result.measurable.image.shape == result.characterization.inconsistent.shape == (64, 64)
    assert result.characterization.kernels.shape == (2, 2, 25, 25)
    for psf in result.characterization.kernels.reshape(-1, 25, 25):
        assert fwhm(psf) == pytest.approx(TARGET_FWHM, rel=0.02)
    for y, x, flux in stars.astype(int):
        stamp = slice(2 * y - 12, 2 * y + 14), slice(2 * x - 12, 2 * x + 14)
        assert restoration.image[stamp].sum() == pytest.approx(flux, rel=0.05)
        # The middle of the pixel is where four small ones meet.
        peak = np.argwhere(restoration.image[stamp] == restoration.image[stamp].max())[0]
        assert set(peak) <= {12, 13}
        # Sharper than on whole pixels.
        assert star_fwhm(restoration.image, 2 * x + 0.5, 2 * y + 0.5) < 2 * TARGET_FWHM
    assert restoration.loss < 0.6


def test_loss_falls_with_the_consistency() -> None:
    """A source that the network does not expect comes back by the exposures."""
    stack, _, _ = star_field(n=6, shape=(64, 64), n_stars=1, bad_fraction=0.0)
    light = np.zeros(stack.latent_shape)
    light[44, 20:70] = 60.0
    light = gaussian_filter(light, 0.8)
    stack = observe(stack, light)
    losses = {}
    for gradients in (0, 3):
        config = RestoreStackConfig()
        config.characterize.numRealizations = 2
        config.restorer.consistency.gradients = gradients
        losses[gradients] = RestoreStackTask(config=config).restore(stack).restoration.loss
    assert losses[3] < losses[0]


SCRIPT = """
import sys
import numpy as np
sys.path[:0] = sys.argv[1].split(":")
from test_astro_clear_net import restore
from stacks import star_field
stack, _, _ = star_field(n=3, shape=(64, 64), n_stars=4)
np.save(sys.argv[2], restore(stack).restoration.latent)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends(backend: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed.")
    images = []
    for name in ("tensorflow", backend):
        path = tmp_path / f"{name}.npy"
        here = Path(__file__).parent
        process = subprocess.run(
            [
                sys.executable,
                "-c",
                SCRIPT,
                f"{here}:{here.parent / 'support'}",
                str(path),
            ],
            env=os.environ | {"KERAS_BACKEND": name},
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        images.append(np.load(path))
    # The noise of a pixel of an exposure is 1; on the slopes of bright stars,
    # rounding errors of their light are more than elsewhere: 0.008 with JAX,
    # 0.11 with PyTorch 2.14.
    difference = np.abs(images[1] - images[0])
    assert np.quantile(difference, 0.99) < 1e-3
    assert (difference < 2e-4 * images[0].max()).all()
