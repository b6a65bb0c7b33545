# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stacks import pixel_gaussian

from lsst.drp.restore.restoration.target_psf import target_kernel
from lsst.drp.restore.restore_coadd import RestoreStackConfig, RestoreStackTask
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.oversampling import bin_pixels, split_pixels


def make_stack(
    stars: np.ndarray, *, sigmas: tuple[float, ...] = (1.3, 1.5, 1.7, 1.4, 1.6, 1.45), size: int = 96
) -> ExposureStack:
    """Make exposures of stars (rows y, x, flux) anywhere in their pixels,
    dithered by nothing but their PSFs; noise of 1 nJy.
    """
    rng = np.random.default_rng(4)
    n = len(sigmas)
    image = rng.standard_normal((n, size, size)).astype(np.float32)
    for t, sigma in enumerate(sigmas):
        for y, x, flux in stars:
            offset = (size - 1) / 2
            image[t] += flux * pixel_gaussian(sigma, y - offset, x - offset, size)
    kernels = np.stack([pixel_gaussian(sigma, 0, 0) for sigma in sigmas]).astype(np.float32)
    cells = size // 32
    return ExposureStack(
        image=image,
        variance=np.ones_like(image),
        good=np.ones(image.shape, dtype=bool),
        kernels=np.broadcast_to(kernels[:, None, None], (n, cells, cells, 25, 25)).copy(),
        correlation=np.ones((n, cells, cells), np.float32),
        cell_shape=(32, 32),
        names=tuple(f"visit {t}" for t in range(n)),
    )


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
def test_pixels_are_divided_and_added_up(factor: int, height: int, width: int) -> None:
    image = np.arange(height * width, dtype=float).reshape(height, width)
    split = split_pixels(image, factor)
    assert split.shape == (height * factor, width * factor)
    np.testing.assert_allclose(bin_pixels(split, factor), factor**2 * image)
    assert split[-1, -1] == image[-1, -1] and split[0, 0] == image[0, 0]


def test_exposures_are_averages_over_pixels() -> None:
    """The model is the fine image, blurred on the fine grid and averaged over
    pixels.
    """
    from scipy.signal import fftconvolve

    from lsst.drp.restore.restoration.forward_model import ForwardModel

    stack = dataclasses.replace(make_stack(np.empty((0, 3))), oversampling=2)
    latent = np.random.default_rng(1).uniform(size=stack.latent_shape).astype(np.float32) ** 8
    predicted = ForwardModel(stack).forward(latent)
    # The optical PSF on a grid five times as fine as the latent pixels, and
    # the light in the middle of them.
    step = 10
    offset = (np.arange(25 * step + 1) - 25 * step // 2) / step
    for t, sigma in enumerate((1.3, 1.5)):
        optics = np.exp(-(offset**2) / 2 / sigma**2)
        optics = np.outer(optics, optics) / optics.sum() ** 2
        light = np.zeros((latent.shape[0] * 5, latent.shape[1] * 5))
        light[2::5, 2::5] = latent
        blurred = bin_pixels(fftconvolve(light, optics, mode="same"), step)
        np.testing.assert_allclose(predicted[t], blurred[12:-12, 12:-12], rtol=2e-3)


@pytest.mark.parametrize("factor", [2, 3])
def test_adjoint(factor: int) -> None:
    from lsst.drp.restore.restoration.forward_model import ForwardModel

    stack = dataclasses.replace(make_stack(np.empty((0, 3))), oversampling=factor)
    rng = np.random.default_rng(2)
    latent = rng.standard_normal(stack.latent_shape).astype(np.float32)
    exposures = rng.standard_normal(stack.image.shape).astype(np.float32)
    decoder = ForwardModel(stack)
    ahead = np.vdot(decoder.forward(latent).astype(np.float64), exposures)
    back = np.vdot(decoder.adjoint(exposures).astype(np.float64), latent)
    assert ahead == pytest.approx(back, rel=1e-4)
    rows, columns = slice(32, 64), slice(64, 96)
    np.testing.assert_allclose(
        decoder.predict(latent, rows, columns), decoder.forward(latent)[:, rows, columns], atol=1e-4
    )


def count_split(image: np.ndarray, factor: int, pairs: np.ndarray) -> int:
    """Count the pairs of which both stars are local maxima."""
    from scipy.ndimage import maximum_filter

    found = np.argwhere((image == maximum_filter(image, 3)) & (image > 20))
    places = (found + 0.5) / factor - 0.5
    split = 0
    for first, second in pairs:
        limit = 0.5 * np.linalg.norm(first - second)
        near = [(np.linalg.norm(places - star, axis=1) < limit).any() for star in (first, second)]
        split += all(near)
    return split


def test_closer_pairs_come_apart() -> None:
    """Of stars 0.6 FWHM of the seeing apart more are two, with their flux."""
    from lsst.drp.restore.restoration.first_estimate import first_estimate

    rng = np.random.default_rng(11)
    seeing = 1.49 * np.sqrt(8 * np.log(2))
    centers = np.stack(np.meshgrid([16.0, 37.0, 58.0, 79.0], [16.0, 37.0, 58.0, 79.0]), -1).reshape(-1, 2)
    centers += rng.uniform(-0.5, 0.5, centers.shape)
    angle = rng.uniform(0, np.pi, len(centers))
    half = 0.3 * seeing * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    pairs = np.stack([centers - half, centers + half], axis=1)
    flux = rng.uniform(600.0, 900.0, (len(pairs), 2, 1))
    stack = make_stack(np.concatenate([pairs, flux], axis=2).reshape(-1, 3))
    counts = []
    for factor in (1, 2):
        fine = dataclasses.replace(stack, oversampling=factor)
        image = first_estimate(fine, steps=120)[fine.latent_patch]
        assert image.shape == (96 * factor, 96 * factor)
        assert (image >= 0).all()
        counts.append(count_split(image, factor, pairs))
        for (y, x), light in zip(centers, flux.sum(axis=(1, 2)), strict=True):
            box = [slice(factor * round(c - 7), factor * round(c + 8)) for c in (y, x)]
            assert image[tuple(box)].sum() == pytest.approx(light, rel=0.05)
    assert counts[1] >= counts[0] + 4, counts


def test_network_makes_small_pixels() -> None:
    rng = np.random.default_rng(3)
    stars = np.array([(y, x, 2000.0) for y in (16.2, 48.4) for x in (15.7, 48.1)])
    stars[:, :2] += rng.uniform(-0.5, 0.5, (4, 2))
    stack = dataclasses.replace(make_stack(stars, size=64), oversampling=2)
    config = RestoreStackConfig()
    config.characterize.numRealizations = 2
    result = RestoreStackTask(config=config).restore(stack, n_threads=1)
    assert result.restoration.image.shape == (128, 128)
    assert result.characterization.variance.shape == (128, 128)
    assert result.characterization.inconsistent.shape == (64, 64)
    assert result.measurable.image.shape == (64, 64)
    for y, x, flux in stars:
        box = [slice(round(c - 7), round(c + 8)) for c in (y, x)]
        fine = [slice(2 * part.start, 2 * part.stop) for part in box]
        assert result.restoration.image[tuple(fine)].sum() == pytest.approx(flux, rel=0.05)
        assert result.measurable.image[tuple(box)].sum() == pytest.approx(flux, rel=0.05)
        peak = np.unravel_index(np.argmax(result.restoration.image[tuple(fine)]), (30, 30))
        place = [(part.start + at + 0.5) / 2 - 0.5 for part, at in zip(fine, peak, strict=True)]
        assert np.hypot(place[0] - y, place[1] - x) < 0.75
    # The PSF, too, is one of small pixels.
    np.testing.assert_allclose(result.characterization.kernels[1, 1], target_kernel(), rtol=1e-6)
