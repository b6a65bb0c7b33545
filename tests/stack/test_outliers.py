# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.ndimage
from scipy.signal import fftconvolve
from stacks import moffat_kernel

from lsst.drp.restore.stack import outliers
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.reference_coadd import reference_coadd

PIXEL_SCALE = 0.2
SATURATION = 3000.0
# Gain: variance in nJy**2 per nJy of signal.
PHOTON_NOISE = 0.003


@dataclasses.dataclass
class Scene:
    """Simulated exposures and what is true about them."""

    stack: ExposureStack
    clean: np.ndarray
    """Noiseless exposures without outliers, ``(n, height, width)``."""
    sigma: np.ndarray
    """Noise of each pixel, same shape."""
    hits: np.ndarray
    """Added by cosmic rays, same shape."""
    trail: np.ndarray
    """Added by a satellite, same shape."""


def stamp(height: int, width: int, y: float, x: float, fwhm: float, beta: float) -> np.ndarray:
    """A Moffat profile of flux 1 at any position."""
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    yy, xx = np.mgrid[:height, :width]
    return (beta - 1) / (np.pi * alpha**2) * (1 + ((yy - y) ** 2 + (xx - x) ** 2) / alpha**2) ** -beta


def make_scene(
    n: int, *, size: int = 200, seed: int = 5, saturated: bool = False, psf_error: float = 0.02
) -> Scene:
    """Stars and galaxies in seeing from 0.5" (first exposure) to 0.95" (last)
    at 0.2"/pixel.  The PSFs that are handed on are wrong by a few per cent
    in width, and the zero points by 1 %, as real ones are.
    """
    rng = np.random.default_rng(seed)
    seeing = np.linspace(0.5, 0.95, n) / PIXEL_SCALE
    model = np.array([moffat_kernel(fwhm) for fwhm in seeing])
    true_seeing = seeing * (1 + psf_error * rng.normal(size=n))
    galaxies = np.zeros((size, size))
    yy, xx = np.mgrid[:size, :size]
    for _ in range(12):
        y, x = rng.uniform(10, size - 10, 2)
        axis_ratio, angle, scale = rng.uniform(0.3, 1), rng.uniform(0, np.pi), rng.uniform(0.8, 4)
        u = (xx - x) * np.cos(angle) + (yy - y) * np.sin(angle)
        v = ((yy - y) * np.cos(angle) - (xx - x) * np.sin(angle)) / axis_ratio
        profile = np.exp(-np.hypot(u, v) / scale)
        galaxies += 10 ** rng.uniform(2, 4.5) * profile / profile.sum()
    stars = [(*rng.uniform(10, size - 10, 2), 10 ** rng.uniform(2, 5)) for _ in range(15)]
    clean = np.empty((n, size, size))
    for t in range(n):
        clean[t] = fftconvolve(galaxies, moffat_kernel(true_seeing[t], size=41), mode="same")
        for y, x, flux in stars:
            dy, dx = 0.03 * rng.normal(size=2)
            clean[t] += flux * stamp(size, size, y + dy, x + dx, true_seeing[t], 3.5)
    clean *= 1 + 0.01 * rng.normal(size=(n, 1, 1))
    sky = rng.uniform(0.8, 1.3, (n, 1, 1))

    hits = np.zeros_like(clean)
    for t in range(n):
        for _ in range(15):
            y, x = rng.uniform(2, size - 3, 2)
            angle, length = rng.uniform(0, np.pi), rng.integers(1, 7)
            for step in range(length):
                row, column = int(y + step * np.sin(angle)), int(x + step * np.cos(angle))
                if 0 <= row < size and 0 <= column < size:
                    hits[t, row, column] = 10 ** rng.uniform(1.1, 3.5) * sky[t, 0, 0]
    trail = np.zeros_like(clean)
    trail[n // 2] = 15 * sky[n // 2, 0, 0] * np.exp(-0.5 * ((yy - 0.4 * xx - 50) / 1.5) ** 2)

    variance = sky**2 + PHOTON_NOISE * (clean + hits + trail)
    image = clean + hits + trail + rng.normal(size=clean.shape) * np.sqrt(variance)
    good = rng.uniform(size=clean.shape) > 0.002
    # A gap between two detectors.
    good[0, :, 70:78] = False
    if saturated:
        full = scipy.ndimage.binary_dilation(clean > SATURATION, np.ones((1, 3, 3)))
        assert full.any()
        good &= ~full
    cells = 2
    kernels = np.broadcast_to(model[:, None, None], (n, cells, cells, *model.shape[1:]))
    stack = ExposureStack(
        image=np.where(good, image, 0).astype(np.float32),
        variance=np.where(good, variance, np.inf).astype(np.float32),
        good=good,
        kernels=kernels.copy(),
        correlation=np.ones(kernels.shape[:3], np.float32),
        cell_shape=(size // cells, size // cells),
        names=tuple(f"visit {t}" for t in range(n)),
    )
    return Scene(stack, clean, np.sqrt(variance), hits, trail)


def far_from_artifacts(scene: Scene) -> np.ndarray:
    touched = (scene.hits > 0) | (scene.trail > 0.3)
    return ~scipy.ndimage.binary_dilation(touched, np.ones((1, 5, 5)))


@pytest.mark.parametrize("n", [3, 4, 8, 33])
def test_cosmic_rays_on_the_sky_are_found(n: int) -> None:
    scene = make_scene(n, size=200 if n < 33 else 120)
    clipped = reference_coadd(scene.stack).clipped
    sky = scene.stack.good & (scene.clean < scene.sigma)
    bright = sky & (scene.hits > 12 * scene.sigma)
    assert np.count_nonzero(bright) > 20 * n
    assert np.mean(clipped[bright]) > 0.98


def test_cosmic_rays_on_the_sky_are_found_in_two_exposures() -> None:
    scene = make_scene(2)
    clipped = reference_coadd(scene.stack).clipped
    both = scene.stack.good.all(axis=0)
    bright = both & (scene.clean < scene.sigma) & (scene.hits > 15 * scene.sigma)
    assert np.count_nonzero(bright) > 30
    assert np.mean(clipped[bright]) > 0.99


@pytest.mark.parametrize("n", [4, 8, 33])
def test_cosmic_rays_on_sources_are_found(n: int) -> None:
    scene = make_scene(n, size=200 if n < 33 else 120)
    clipped = reference_coadd(scene.stack).clipped
    source = scene.stack.good & (scene.clean > 2 * scene.sigma)
    bright = source & (scene.hits > 12 * scene.sigma) & (scene.hits > 3 * scene.clean)
    assert np.count_nonzero(bright) > 2 * n
    assert np.mean(clipped[bright]) > (0.9 if n > 6 else 0.8)


@pytest.mark.parametrize("n", [2, 3, 4, 8, 33])
def test_trail_is_found(n: int) -> None:
    scene = make_scene(n, size=200 if n < 33 else 120)
    clipped = reference_coadd(scene.stack).clipped
    t = n // 2
    compared = np.count_nonzero(scene.stack.good, axis=0) >= min(n, 3)
    core = scene.stack.good[t] & compared & (scene.trail[t] > 12 * scene.sigma[t])
    core &= scene.clean[t] < scene.sigma[t]
    assert np.count_nonzero(core) > 50
    assert np.mean(clipped[t][core]) > 0.9


@pytest.mark.parametrize("saturated", [False, True])
@pytest.mark.parametrize("n", [2, 3, 4, 8, 33])
def test_stars_and_galaxies_are_kept(n: int, saturated: bool) -> None:
    scene = make_scene(n, size=200 if n < 33 else 120, saturated=saturated)
    clipped = reference_coadd(scene.stack).clipped
    clean = scene.stack.good & far_from_artifacts(scene)
    assert np.mean(clipped[clean]) < 1e-4
    brightness = scene.clean / scene.sigma
    for low, high in ((3, 30), (30, 300), (300, np.inf)):
        source = clean & (brightness > low) & (brightness < high)
        assert np.count_nonzero(source) > 30 * n
        assert np.mean(clipped[source]) < 3e-4, (low, high)


@pytest.mark.parametrize("n", [2, 3, 4, 8])
def test_exact_psfs_clip_nothing(n: int) -> None:
    """With the right kernels, stars of any brightness differ by noise only."""
    rng = np.random.default_rng(n)
    size = 100
    kernels = np.array([moffat_kernel(width) for width in np.linspace(2.5, 4.75, n)])
    latent = np.zeros((size + 24, size + 24))
    for flux in 10 ** rng.uniform(1, 6, 30):
        latent[tuple(rng.integers(12, size + 12, 2))] += flux
    clean = np.array([fftconvolve(latent, kernel, mode="valid") for kernel in kernels])
    variance = 1 + PHOTON_NOISE * np.maximum(clean, 0)
    stack = ExposureStack(
        image=(clean + rng.normal(size=clean.shape) * np.sqrt(variance)).astype(np.float32),
        variance=variance.astype(np.float32),
        good=np.ones(clean.shape, bool),
        kernels=kernels[:, None, None],
        correlation=np.ones((n, 1, 1), np.float32),
        cell_shape=(size, size),
        names=tuple(map(str, range(n))),
    )
    assert np.count_nonzero(reference_coadd(stack).clipped) <= 1


def test_clipped_pixels_are_good_and_never_all() -> None:
    scene = make_scene(4, saturated=True)
    coadd = reference_coadd(scene.stack)
    assert not (coadd.clipped & ~scene.stack.good).any()
    np.testing.assert_array_equal(coadd.n_exposures > 0, scene.stack.good.any(axis=0))
    np.testing.assert_array_equal(
        coadd.n_exposures, np.count_nonzero(scene.stack.good & ~coadd.clipped, axis=0)
    )


def test_coadd_is_free_of_cosmic_rays() -> None:
    scene = make_scene(8)
    coadd = reference_coadd(scene.stack)
    hit = (scene.hits > 12 * scene.sigma).any(axis=0) & (scene.clean < scene.sigma).all(axis=0)
    pull = coadd.image[hit] / np.sqrt(coadd.variance[hit])
    assert np.count_nonzero(hit) > 100
    assert np.abs(np.median(pull)) < 1
    assert np.mean(np.abs(pull) > 5) < 0.01


def test_dark_pixel_is_found() -> None:
    scene = make_scene(8)
    row, column = np.argwhere((np.abs(scene.clean[3]) < 0.3) & scene.stack.good.all(axis=0))[500]
    scene.stack.image[3, row, column] = -30
    clipped = reference_coadd(scene.stack).clipped
    assert clipped[3, row, column]
    assert not clipped[[0, 1, 2, 4, 5, 6, 7], row, column].any()


def test_neighbors_of_an_outlier_go_at_half_the_threshold() -> None:
    n, size = 8, 50
    kernels = np.array([moffat_kernel(3.5)] * n)
    image = np.zeros((n, size, size), np.float32)
    # A cosmic ray, the ringing of its resampling, and the same values elsewhere.
    image[2, 20, 18:23] = [2, -4, 50, -4, 2]
    image[2, 40, 20] = 4
    stack = ExposureStack(
        image=image,
        variance=np.ones_like(image),
        good=np.ones(image.shape, bool),
        kernels=kernels[:, None, None],
        correlation=np.ones((n, 1, 1), np.float32),
        cell_shape=(size, size),
        names=tuple(map(str, range(n))),
    )
    clipped = reference_coadd(stack, clip_sigma=5).clipped
    assert {tuple(where) for where in np.argwhere(clipped)} == {(2, 20, 19), (2, 20, 20), (2, 20, 21)}


def test_result_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene(4)
    whole = reference_coadd(scene.stack)
    monkeypatch.setattr(outliers, "_CHUNK_PIXELS", 7 * 4 * 200)
    chunked = reference_coadd(scene.stack)
    np.testing.assert_array_equal(whole.clipped, chunked.clipped)
    np.testing.assert_array_equal(whole.image, chunked.image)


def test_threshold_is_the_callers() -> None:
    scene = make_scene(8)
    strict = reference_coadd(scene.stack, clip_sigma=4.0).clipped
    loose = reference_coadd(scene.stack, clip_sigma=50.0).clipped
    faint = scene.stack.good & (scene.clean < scene.sigma)
    faint &= (scene.hits > 13 * scene.sigma) & (scene.hits < 18 * scene.sigma)
    assert np.mean(strict[faint]) > 0.9
    assert np.mean(loose[faint]) < 0.1
