# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Blind restoration: PSF kernels that are fitted to the exposures."""

from __future__ import annotations

import dataclasses

import decam
import numpy as np
import pytest
from scipy.signal import fftconvolve
from stacks import centroids, moffat_kernel, star_field

from lsst.drp.restore import RestorationError
from lsst.drp.restore.psf_fitting.fit_kernels import FitKernelsConfig, FitKernelsTask
from lsst.drp.restore.psf_fitting.kernel_fit import KernelFit
from lsst.drp.restore.restoration.seeds import Seeds
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.kernel_shape import fwhm, gaussian_kernel
from lsst.drp.restore.stack.reference_coadd import reference_coadd
from lsst.drp.restore.stack.subpixel import shift_matrix

AXIS = np.arange(25) - 12


def make_task(**fields: object) -> FitKernelsTask:
    config = FitKernelsConfig()
    config.update(**fields)
    config.validate()
    return FitKernelsTask(config=config)


def fit(stack: ExposureStack, **fields: object) -> KernelFit:
    result = make_task(**fields).run(stack, reference_coadd(stack), seeds=Seeds(42))
    assert result is not None
    return result


def copy_of(stack: ExposureStack, kernels: np.ndarray | None = None) -> ExposureStack:
    arrays = {name: getattr(stack, name).copy() for name in ("image", "variance", "good", "kernels")}
    if kernels is not None:
        arrays["kernels"] = kernels.astype(np.float32)
    return dataclasses.replace(stack, **arrays)


def widths(kernels: np.ndarray) -> np.ndarray:
    return np.array([fwhm(kernel) for kernel in kernels.reshape(-1, *kernels.shape[-2:])])


@pytest.fixture(scope="module")
def field() -> ExposureStack:
    stack, _, _ = star_field(seed=3, n=5, shape=(192, 192), n_stars=25, flux=(300.0, 20000.0))
    return stack


@pytest.mark.parametrize("factor", [0.8, 1.2])
@pytest.mark.parametrize("mode", ["gaussian", "refined"])
def test_kernels_from_wrong_gaussians(field: ExposureStack, factor: float, mode: str) -> None:
    """The task's promise: Gaussians 20 % wrong in width become kernels within
    5 % of the truth.
    """
    mean = field.kernels.mean(axis=(1, 2))
    true = widths(mean)
    start = np.stack([gaussian_kernel(factor * width) for width in true])
    stack = copy_of(field, np.broadcast_to(start[:, None, None], field.kernels.shape))
    result = fit(stack, mode=mode, initialFwhm=[float(factor * width) for width in true])
    np.testing.assert_allclose(result.start_fwhm, factor * true, rtol=0.02)
    np.testing.assert_allclose(result.fwhm, true, rtol=0.03)
    # The profile, too, not only its width: wings that Gaussians do not have.
    assert np.abs(result.kernels - mean).sum(axis=(1, 2)).max() < 0.06
    # No cell is wrong by more than the PSF varies.
    np.testing.assert_allclose(widths(result.cell_kernels), widths(field.kernels), rtol=0.06)
    assert (result.cell_kernels >= 0).all()
    np.testing.assert_allclose(centroids(result.cell_kernels.astype(float)), 0.0, atol=1e-4)
    assert len(result.stars) >= 15


def test_seeing_is_measured(field: ExposureStack) -> None:
    true = widths(field.kernels.mean(axis=(1, 2)))
    stack = copy_of(field, np.broadcast_to(gaussian_kernel(8.0), field.kernels.shape))
    result = fit(stack, mode="gaussian")
    np.testing.assert_allclose(result.start_fwhm, true, rtol=0.1)
    np.testing.assert_allclose(result.fwhm, true, rtol=0.03)


def test_refined_keeps_what_is_right(field: ExposureStack) -> None:
    """Right kernels stay, with their variation over the patch and their
    sums.
    """
    stack = copy_of(field, 0.97 * field.kernels)
    fitted = fit(stack, mode="refined").cell_kernels
    np.testing.assert_allclose(fitted.sum(axis=(-2, -1)), 0.97, rtol=1e-5)
    np.testing.assert_allclose(widths(fitted), widths(field.kernels), rtol=0.02)
    varies = widths(fitted).reshape(5, 36) / widths(field.kernels).reshape(5, 36)
    assert varies.std(axis=1).max() < 1e-3


def test_given_kernels_are_left_alone(field: ExposureStack) -> None:
    assert make_task().run(field, reference_coadd(field), seeds=Seeds(42)) is None


@pytest.mark.parametrize("fields", [{"mode": "refined"}, {"mode": "gaussian", "cellsPerGroup": 3}])
def test_stack_is_not_changed(field: ExposureStack, fields: dict[str, object]) -> None:
    stack = copy_of(field)
    result = fit(stack, **fields)
    for name in ("image", "variance", "good", "kernels"):
        np.testing.assert_array_equal(getattr(stack, name), getattr(field, name))
    assert result.cell_kernels.shape == stack.kernels.shape and result.cell_kernels.dtype == np.float32
    assert (result.cell_kernels != stack.kernels).any()
    mean = result.cell_kernels.mean(axis=(1, 2), dtype=float)
    np.testing.assert_allclose(
        result.kernels, mean / mean.sum(axis=(1, 2), keepdims=True), rtol=1e-3, atol=1e-7
    )


def test_groups_of_cells() -> None:
    """Where the PSF varies more than one correction can follow, groups do."""
    rng = np.random.default_rng(5)
    shape, pad = (160, 320), 12
    latent = np.zeros((shape[0] + 24, shape[1] + 24))
    rows, columns = np.meshgrid(np.arange(24, 140, 28), np.arange(24, 300, 28), indexing="ij")
    latent[rows + pad, columns + pad] = rng.uniform(2000, 9000, rows.shape)
    kernels = np.empty((3, 2, 4, 25, 25), np.float32)
    image = np.empty((3, *shape), np.float32)
    for t, width in enumerate((3.0, 3.5, 4.0)):
        for half, factor in enumerate((0.92, 1.08)):
            kernel = moffat_kernel(factor * width)
            kernels[t, :, 2 * half : 2 * half + 2] = kernel
            part = slice(160 * half, 160 * half + 184)
            image[t, :, 160 * half : 160 * (half + 1)] = fftconvolve(latent[:, part], kernel, mode="valid")
    image += rng.normal(size=image.shape)
    stack = ExposureStack(
        image=image.astype(np.float32),
        variance=np.ones(image.shape, np.float32),
        good=np.ones(image.shape, bool),
        kernels=np.broadcast_to(gaussian_kernel(3.5), kernels.shape).astype(np.float32),
        correlation=np.ones(kernels.shape[:3], np.float32),
        cell_shape=(80, 80),
        names=("a", "b", "c"),
    )
    result = fit(stack, mode="gaussian", cellsPerGroup=2)
    np.testing.assert_allclose(widths(result.cell_kernels), widths(kernels), rtol=0.02)


def test_galaxies_are_not_taken_for_stars() -> None:
    """Some galaxies as bright as the stars, and nearly as sharp, do not make
    the kernels wider.
    """
    stack, latent, stars = star_field(seed=8, n=4, shape=(192, 192), n_stars=25, flux=(2000.0, 9000.0))
    latent[:] = 0
    for index, (y, x, flux) in enumerate(stars):
        stamp = np.zeros((25, 25))
        stamp[12, 12] = 1.0
        if index % 3 == 0:
            stamp = gaussian_kernel(2.5 + 0.3 * (index % 4))
        latent[int(y) : int(y) + 25, int(x) : int(x) + 25] += flux * stamp
    rng = np.random.default_rng(1)
    for t in range(4):
        kernel = stack.kernels[t].mean(axis=(0, 1))
        stack.kernels[t] = kernel
        stack.image[t] = fftconvolve(latent, kernel, mode="valid") + rng.normal(size=stack.shape)
    stack.variance[:], stack.good[:] = 1.0, True
    true = widths(stack.kernels[:, 0, 0])
    result = fit(stack, mode="gaussian")
    np.testing.assert_allclose(result.fwhm, true, rtol=0.02)
    galaxies = stars[::3, :2]
    nearest = np.hypot(*(result.stars[:, np.newaxis, :2] - galaxies).transpose(2, 0, 1)).min(axis=1)
    assert (nearest > 5).all()


def shifted_field(shifts: np.ndarray) -> tuple[ExposureStack, np.ndarray]:
    stack, _, _ = star_field(seed=4, n=len(shifts), shape=(160, 160), n_stars=16, flux=(3000.0, 9000.0))
    kernels = []
    for t, shift in enumerate(shifts):
        stack.image[t] = fftconvolve(
            np.pad(stack.image[t], 12),
            np.outer(*(shift_matrix(np.array(s), 25)[:, 12] for s in shift)),
            "valid",
        )
        kernels.append(fwhm(stack.kernels[t].mean(axis=(0, 1))))
    return stack, np.array(kernels)


def test_astrometric_errors() -> None:
    """Exposures that are off by fractions of a pixel do not blur the kernels;
    their shifts are measured, and kept on request.
    """
    shifts = np.array([[0.3, 0.0], [-0.2, 0.25], [0.0, -0.3], [0.0, 0.0], [0.0, 0.0]])
    stack, true = shifted_field(shifts)
    result = fit(stack, mode="gaussian")
    np.testing.assert_allclose(result.fwhm, true, rtol=0.03)
    np.testing.assert_allclose(result.shift, shifts, atol=0.03)
    kept = fit(stack, mode="gaussian", keepShifts=True).cell_kernels
    np.testing.assert_allclose(centroids(kept.mean(axis=(1, 2))).T, shifts, atol=0.06)
    np.testing.assert_allclose(centroids(result.cell_kernels.astype(float)), 0.0, atol=1e-4)


def test_no_stars(field: ExposureStack, caplog: pytest.LogCaptureFixture) -> None:
    stack = copy_of(field)
    stack.image[stack.good] = np.random.default_rng(0).normal(size=np.count_nonzero(stack.good))
    with pytest.raises(RestorationError, match="initialFwhm"):
        fit(copy_of(stack), mode="gaussian")
    for method in ("stars", "network"):
        caplog.clear()
        result = fit(stack, mode="gaussian", method=method, initialFwhm=[3.7])
        assert "No isolated star" in caplog.text
        assert result.method == "none"
        np.testing.assert_allclose(result.fwhm, 3.7, rtol=0.01)
    with pytest.raises(RestorationError, match="2 values for 5 exposures"):
        fit(stack, mode="gaussian", initialFwhm=[3.7, 3.0])


def test_exposure_without_data(field: ExposureStack) -> None:
    """An exposure that shows no star keeps finite kernels, and a cell without
    a kernel stays without.
    """
    stack = copy_of(field)
    stack = stack.without(np.broadcast_to((np.arange(5) == 2)[:, None, None], stack.image.shape))
    stack.kernels[1, 0, 0] = 0.0
    stack.good[1, :32, :32] = False
    stack = stack.without(~stack.good)
    result = fit(stack, mode="gaussian")
    assert result.snr[2] == 0.0
    assert np.isfinite(result.fwhm).all()
    assert not result.cell_kernels[1, 0, 0].any()
    assert np.isfinite(result.cell_kernels).all()


def test_real_exposures() -> None:
    """The kernels of ten real exposures, which others have modeled."""
    decam.require()
    data = decam.arrays()
    good = ~data["mask"][:, :250, :250].astype(bool)
    models = data["psf"] / data["psf"].sum(axis=(1, 2), keepdims=True)
    true = widths(models)
    stack = ExposureStack(
        image=np.where(good, data["image"][:, :250, :250], 0).astype(np.float32),
        variance=np.where(good, data["variance"][:, :250, :250], np.inf).astype(np.float32),
        good=good,
        kernels=np.broadcast_to(gaussian_kernel(6.0), (10, 5, 5, 25, 25)).astype(np.float32),
        correlation=np.ones((10, 5, 5), np.float32),
        cell_shape=(50, 50),
        names=tuple(f"exposure {t}" for t in range(10)),
    )
    result = fit(stack, mode="gaussian", initialFwhm=[float(1.2 * width) for width in true])
    np.testing.assert_allclose(result.fwhm, true, rtol=0.05)
    assert np.median(np.abs(result.fwhm / true - 1)) < 0.02


def test_config() -> None:
    with pytest.raises(ValueError, match="needs the method 'stars'"):
        make_task(method="network", cellsPerGroup=2)
