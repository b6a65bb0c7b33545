# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import dataclasses

import matplotlib.colors
import numpy as np
import pytest
from figures import color_at, panels, render
from results import make_restored
from skies import make_geometry
from stacks import make_restoration, star_field

from lsst.drp.restore.outputs import plot_tools
from lsst.drp.restore.outputs.plot_restoration import plot_comparison, plot_restoration

NO_DATA = np.array(matplotlib.colors.to_rgb(plot_tools.NO_DATA_COLOR)) * 255


def make_images(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    restored = np.zeros(shape, np.float32)
    restored[shape[0] // 3, shape[1] // 4] = 500.0
    coadd = (restored / 9 + 0.3 * rng.normal(size=shape)).astype(np.float32)
    exposure = (restored / 9 + rng.normal(size=shape)).astype(np.float32)
    return exposure, coadd, restored


def test_panels_of_a_small_patch() -> None:
    exposure, coadd, restored = make_images((90, 120))
    figure = plot_comparison(exposure, coadd, restored, title="Title", exposure_label="Visit 1")
    axes = panels(figure)
    assert [ax.get_title() for ax in axes] == [
        "Visit 1",
        "Reference coadd",
        "Restored",
        "Restored \N{MINUS SIGN} reference coadd",
    ]
    for ax, image in zip(axes, (exposure, coadd, restored, restored - coadd), strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), image)
    assert figure.get_suptitle() == "Title"
    assert render(figure).std() > 10


def test_stretch_is_shared_and_residual_is_symmetric() -> None:
    figure = plot_comparison(*make_images((90, 120)))
    first, second, third, residual = (ax.images[0] for ax in panels(figure))
    assert isinstance(first.norm, matplotlib.colors.AsinhNorm)
    assert first.norm is second.norm is third.norm
    assert first.get_cmap() == second.get_cmap() == third.get_cmap()
    assert first.norm.vmin < 0 < first.norm.vmax
    assert residual.norm.vmin == -residual.norm.vmax
    assert residual.norm(0.0) == pytest.approx(0.5)
    assert residual.get_cmap().name == "RdBu_r"
    bars = [ax for ax in figure.axes if not ax.images]
    assert len(bars) == 2
    for bar in bars:
        assert "nJy per pixel" in bar.get_xlabel()


def test_residual_can_be_given() -> None:
    exposure, coadd, restored = make_images((90, 120))
    residual = np.full_like(coadd, 2.0)
    figure = plot_comparison(exposure, coadd, restored, residual)
    np.testing.assert_array_equal(panels(figure)[3].images[0].get_array(), residual)


def test_large_patch_has_an_enlarged_region_with_most_sources() -> None:
    exposure, coadd, restored = make_images((400, 500))
    # Sixteen of them; a large and bright one and a saturated one elsewhere.
    yy, xx = np.mgrid[:400, :500]
    coadd += 300 * np.exp(-0.5 * ((yy - 80) ** 2 + (xx - 340) ** 2) / 20**2)
    distance2 = (yy - 250) ** 2 + (xx - 400) ** 2
    coadd += 1e4 * np.exp(-0.5 * distance2 / 2**2)
    coadd[distance2 < 16] = np.nan
    for y in range(280, 341, 20):
        for x in range(60, 121, 20):
            coadd[y - 1 : y + 2, x - 1 : x + 2] += 20
    geometry = make_geometry(cells=(4, 5), cell_size=100, start=(3000, 5000))
    figure = plot_comparison(exposure, coadd, restored, geometry=geometry)
    axes = panels(figure)
    assert len(axes) == 8
    left, right = axes[4].get_xlim()
    bottom, top = axes[4].get_ylim()
    assert (right - left, top - bottom) == (120, 120)
    assert left <= 5060 and right >= 5120
    assert bottom <= 3280 and top >= 3340
    y, x = round(bottom + 0.5) - 3000, round(left + 0.5) - 5000
    np.testing.assert_array_equal(axes[6].images[0].get_array(), restored[y : y + 120, x : x + 120])
    frame = axes[0].patches[0]
    assert (*frame.get_xy(), frame.get_width(), frame.get_height()) == (left, bottom, 120, 120)
    assert axes[0].get_xlim() == (4999.5, 5499.5)
    assert axes[0].get_ylim() == (2999.5, 3399.5)


def test_many_pixels_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot_tools, "PANEL_PIXELS", 30)
    exposure, coadd, restored = make_images((90, 104))
    coadd[:9, :3] = np.nan
    coadd[40, 50] = np.nan
    figure = plot_comparison(exposure, coadd, restored)
    ax = panels(figure)[1]
    shown = np.ma.filled(ax.images[0].get_array(), np.nan)
    expected = np.full((22, 26), np.nan)
    for i in range(22):
        for j in range(26):
            block = coadd[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            if np.isfinite(block).any():
                expected[i, j] = np.nanmean(block)
    np.testing.assert_allclose(shown, expected, rtol=1e-4, atol=1e-5)
    assert ax.images[0].get_extent() == [-0.5, 103.5, -0.5, 87.5]
    assert ax.get_ylim() == (-0.5, 89.5)


def test_missing_pixels_have_their_own_color() -> None:
    exposure, coadd, restored = make_images((90, 120))
    exposure[10:30, 60:90] = np.nan
    figure = plot_comparison(exposure, coadd, restored)
    ax = panels(figure)[0]
    for position, missing in (((75, 20), True), ((75, 50), False)):
        assert np.allclose(color_at(figure, ax, *position), NO_DATA, atol=2) == missing


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_empty_images_can_be_plotted(value: float) -> None:
    image = np.full((40, 60), value, np.float32)
    figure = plot_comparison(image, image, image)
    for ax in panels(figure):
        np.testing.assert_array_equal(np.ma.filled(ax.images[0].get_array(), np.nan), image)
    color = color_at(figure, panels(figure)[1], 30, 20)
    assert np.allclose(color, NO_DATA, atol=2) == np.isnan(value)


def test_typical_exposure_reference_and_restored_image() -> None:
    stack, latent, _ = star_field(n=5)
    # The first exposure covers half of the patch only.
    half = np.zeros(stack.image.shape, bool)
    half[0, :, 60:] = True
    stack = stack.without(half)
    hole = np.zeros(stack.image.shape, bool)
    hole[:, 5:9, 5:9] = True
    stack = stack.without(hole)
    restored = make_restored(stack, make_restoration(stack, latent))
    reference = restored.reference
    figure = plot_restoration(restored, title="a patch")
    axes = panels(figure)
    peaks = stack.kernels.max(axis=(1, 2, 3, 4))
    # Of the four exposures that cover the patch, the second sharpest.
    typical = 1 + int(np.argsort(peaks[1:])[2])
    assert axes[0].get_title() == f"One exposure: {stack.names[typical]}"
    exposure = axes[0].images[0].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(exposure), ~stack.good[typical])
    np.testing.assert_array_equal(exposure[stack.good[typical]], stack.image[typical][stack.good[typical]])
    shown = np.ma.filled(axes[2].images[0].get_array(), np.nan)
    assert np.isnan(reference.image[5:9, 5:9]).all()
    np.testing.assert_array_equal(shown, restored.restoration.image)


def test_restored_image_of_smaller_pixels() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), cell_shape=(32, 32), n_stars=3)
    stack = dataclasses.replace(stack, oversampling=2)
    latent = np.random.default_rng(1).exponential(size=stack.latent_shape).astype(np.float32)
    restored = make_restored(stack, make_restoration(stack, latent))
    geometry = make_geometry(cells=(2, 2), cell_size=32, start=(40, 70))
    figure = plot_restoration(restored, geometry=geometry)
    _, coadd, image, residual = panels(figure)
    assert image.get_xlim() == (139.5, 267.5) and image.get_ylim() == (79.5, 207.5)
    # Fluxes per pixel of the restored image.
    split = np.repeat(np.repeat(restored.reference.image / 4, 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(coadd.images[0].get_array(), split)
    np.testing.assert_array_equal(residual.images[0].get_array(), restored.restoration.image - split)
