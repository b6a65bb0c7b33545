# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import io

import astropy.table
import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest
from astropy.wcs import WCS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from stacks import make_restoration, star_field

from lsst.drp.restore.outputs import plot_restoration as plots
from lsst.drp.restore.outputs.plot_restoration import plot_comparison, plot_history, plot_restoration
from lsst.drp.restore.stack.reference_coadd import reference_coadd
from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.images import YX, Box, SkyProjection, TractFrame
from lsst.images.cells import CellGrid, PatchDefinition

NO_DATA = np.array(matplotlib.colors.to_rgb(plots._NO_DATA_COLOR)) * 255


def make_geometry(shape: tuple[int, int], rotation: float = 0.0) -> PatchGeometry:
    """Pixels of 0.2", north up and east left, or rotated."""
    bbox = Box.from_shape(shape, start=YX(y=3000, x=5000))
    cosine, sine = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [5001.0, 3001.0]
    wcs.wcs.cd = 0.2 / 3600 * np.array([[-cosine, sine], [sine, cosine]])
    return PatchGeometry(
        skymap="test",
        tract=0,
        patch=PatchDefinition(
            id=0,
            index=YX(y=0, x=0),
            inner_bbox=bbox,
            cells=CellGrid(bbox=bbox, cell_shape=YX(y=shape[0], x=shape[1])),
        ),
        sky_projection=SkyProjection.from_fits_wcs(
            wcs, TractFrame(skymap="test", tract=0, bbox=bbox), pixel_bounds=bbox
        ),
    )


def make_images(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    restored = np.zeros(shape, np.float32)
    restored[shape[0] // 3, shape[1] // 4] = 500.0
    coadd = (restored / 9 + 0.3 * rng.normal(size=shape)).astype(np.float32)
    exposure = (restored / 9 + rng.normal(size=shape)).astype(np.float32)
    return exposure, coadd, restored


def render(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    buffer.seek(0)
    return matplotlib.image.imread(buffer)[..., :3] * 255


def panels(figure: Figure) -> list[Axes]:
    """The panels with images, row by row."""
    return [ax for ax in figure.axes if ax.images]


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
    figure = plot_comparison(exposure, coadd, restored, geometry=make_geometry((400, 500)))
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
    monkeypatch.setattr(plots, "_PANEL_PIXELS", 30)
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
    picture = render(figure)
    ax = panels(figure)[0]
    for position, missing in (((75, 20), True), ((75, 50), False)):
        x, y = ax.transData.transform(position)
        color = picture[picture.shape[0] - 1 - round(y), round(x)]
        assert np.allclose(color, NO_DATA, atol=2) == missing


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_empty_images_can_be_plotted(value: float) -> None:
    image = np.full((40, 60), value, np.float32)
    assert render(plot_comparison(image, image, image)).shape[2] == 3


@pytest.mark.parametrize("rotation", [0.0, 60.0, 180.0])
def test_compass_points_to_north_and_east(rotation: float) -> None:
    geometry = make_geometry((90, 120), rotation)
    figure = plot_comparison(*make_images((90, 120)), geometry=geometry)
    ax = panels(figure)[0]
    arrows = [np.subtract(text.xy, text.xyann) for text in ax.texts if isinstance(text, Annotation)]
    center = geometry.sky_projection.pixel_to_sky(x=5060.0, y=3045.0)
    for arrow, attribute in zip(arrows, ("dec", "ra"), strict=True):
        step = 5 * arrow / np.hypot(*arrow)
        there = geometry.sky_projection.pixel_to_sky(x=5060.0 + step[0], y=3045.0 + step[1])
        moved = {
            "dec": (there.dec - center.dec).arcsec,
            "ra": (there.ra - center.ra).arcsec * np.cos(center.dec.rad),
        }
        assert moved.pop(attribute) == pytest.approx(1.0, rel=1e-3)
        assert next(iter(moved.values())) == pytest.approx(0.0, abs=1e-3)


def test_scale_bar_is_five_arcseconds() -> None:
    figure = plot_comparison(*make_images((90, 120)), geometry=make_geometry((90, 120)))
    (bar,) = panels(figure)[0].lines
    assert np.ptp(bar.get_xdata()) == pytest.approx(25.0, rel=1e-3)


def test_plot_restoration() -> None:
    stack, latent, _ = star_field(n=5)
    # The first exposure covers half of the patch only.
    half = np.zeros(stack.image.shape, bool)
    half[0, :, 60:] = True
    stack = stack.without(half)
    hole = np.zeros(stack.image.shape, bool)
    hole[:, 5:9, 5:9] = True
    stack = stack.without(hole)
    reference = reference_coadd(stack)
    restoration = make_restoration(stack, latent)
    figure = plot_restoration(stack, reference, restoration, title="a patch")
    axes = panels(figure)
    peaks = stack.kernels.max(axis=(1, 2, 3, 4))
    # Of the four exposures that cover the patch, the second sharpest.
    typical = 1 + int(np.argsort(peaks[1:])[2])
    assert axes[0].get_title() == f"One exposure: {stack.names[typical]}"
    exposure = axes[0].images[0].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(exposure), ~stack.good[typical])
    np.testing.assert_array_equal(exposure[stack.good[typical]], stack.image[typical][stack.good[typical]])
    restored = np.ma.filled(axes[2].images[0].get_array(), np.nan)
    assert np.isnan(reference.image[5:9, 5:9]).all()
    np.testing.assert_array_equal(restored, restoration.image)


def make_history(validation: bool) -> astropy.table.Table:
    step = np.arange(100, 2100, 100)
    loss = 0.8 + np.exp(-step / 300)
    held_out = np.where(step % 400 == 0, loss + 0.01, np.nan) if validation else np.full(len(step), np.nan)
    return astropy.table.Table(
        {
            "step": step,
            "loss": loss,
            "validation_loss": held_out,
            "learning_rate": np.full(len(step), 0.002),
            "seconds": step / 100,
        }
    )


def test_plot_history() -> None:
    history = make_history(True)
    figure = plot_history(history, "Training")
    (ax,) = figure.axes
    training, held_out = ax.lines
    np.testing.assert_array_equal(training.get_xdata(), history["step"])
    np.testing.assert_array_equal(training.get_ydata(), history["loss"])
    np.testing.assert_array_equal(held_out.get_xdata(), [400, 800, 1200, 1600, 2000])
    assert np.isfinite(held_out.get_ydata()).all()
    assert ax.get_title() == "Training"
    assert render(figure).std() > 10


def test_plot_history_without_held_out_crops() -> None:
    (ax,) = plot_history(make_history(False)).axes
    assert len(ax.lines) == 1
