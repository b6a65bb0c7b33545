# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pictures of a restoration."""

from __future__ import annotations

__all__ = ("plot_comparison", "plot_history", "plot_restoration", "typical_exposure")

from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
import scipy.ndimage

from ..stack.oversampling import split_pixels
from ..stack.reference_coadd import constrained_pixels

if TYPE_CHECKING:
    import astropy.table
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..restoration.restoration import Restoration
    from ..stack.exposure_stack import ExposureStack
    from ..stack.reference_coadd import ReferenceCoadd
    from ..warping.patch_geometry import PatchGeometry

# More pixels than a panel can show are averaged to at most this many.
_PANEL_PIXELS = 1000

# Height and width of the region shown enlarged, pixels.
_ZOOM_PIXELS = 120

_NO_DATA_COLOR = "#2f6b5e"
_FRAME_COLOR = "#ffb000"


def plot_restoration(
    stack: ExposureStack,
    reference: ReferenceCoadd,
    restoration: Restoration,
    *,
    title: str = "",
    geometry: PatchGeometry | None = None,
) -> Figure:
    """Plot a typical exposure, the reference coadd, the restored image and
    their difference.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.
    reference : `ReferenceCoadd`
        Their weighted and clipped mean.
    restoration : `Restoration`
        The latent image.
    title : `str`, optional
        Title of the figure.
    geometry : `PatchGeometry`, optional
        The pixel grid of the latent image, see `plot_comparison`.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        The figure, see `plot_comparison`.
    """
    t = typical_exposure(stack)
    exposure, coadd = (
        # In latent pixels.
        split_pixels(image / np.float32(stack.oversampling**2), stack.oversampling)
        for image in (np.where(stack.good[t], stack.image[t], np.float32(np.nan)), reference.image)
    )
    constrained = split_pixels(constrained_pixels(stack, reference), stack.oversampling)
    return plot_comparison(
        exposure,
        coadd,
        np.where(constrained, restoration.image, np.float32(np.nan)),
        title=title,
        exposure_label=f"One exposure: {stack.names[t]}",
        geometry=geometry,
    )


def plot_comparison(
    exposure: np.ndarray,
    coadd: np.ndarray,
    restored: np.ndarray,
    residual: np.ndarray | None = None,
    *,
    title: str = "",
    exposure_label: str = "One exposure",
    geometry: PatchGeometry | None = None,
    unit: str = "nJy",
) -> Figure:
    """Plot an exposure, the reference coadd, the restored image and what it
    changed, as the papers do (figure 3 of the second paper).

    Parameters
    ----------
    exposure, coadd, restored : `numpy.ndarray`
        Images, flux per pixel, shape ``(height, width)``, shown on the same
        asinh stretch.  NaN pixels are shown as missing.
    residual : `numpy.ndarray`, optional
        ``restored - coadd``, same shape, shown on a diverging scale of its
        own; calculated if not given.
    title : `str`, optional
        Title of the figure.
    exposure_label : `str`, optional
        Title of the exposure's panel.
    geometry : `PatchGeometry`, optional
        The pixel grid, for the axes, the scale bar and the compass; without
        it, the axes are those of the array.
    unit : `str`, optional
        Unit of the flux, for the color bars.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        The figure.  The upper row shows the whole patch, the lower one the
        region with most sources in it (not if the patch is hardly larger than
        that).
    """
    from matplotlib.colors import AsinhNorm
    from matplotlib.patches import Rectangle

    from lsst.utils.plotting import make_figure

    if residual is None:
        residual = restored - coadd
    noise = _noise(coadd)
    top = max(_percentile(coadd, 99.95), 20 * noise)
    stretch = AsinhNorm(linear_width=3 * noise, vmin=-3 * max(noise, _noise(exposure)), vmax=top)
    limit = max(_percentile(np.abs(residual), 99.95), 10 * noise)
    diverging = AsinhNorm(linear_width=3 * noise, vmin=-limit, vmax=limit)
    panels: list[tuple[str, np.ndarray, dict[str, Any]]] = [
        (exposure_label, exposure, {"norm": stretch, "cmap": "gray"}),
        ("Reference coadd", coadd, {"norm": stretch, "cmap": "gray"}),
        ("Restored", restored, {"norm": stretch, "cmap": "gray"}),
        ("Restored \N{MINUS SIGN} reference coadd", residual, {"norm": diverging, "cmap": "RdBu_r"}),
    ]

    height, width = coadd.shape
    regions = [(slice(0, height), slice(0, width))]
    if min(height, width) >= 2 * _ZOOM_PIXELS:
        regions.append(_crowded_region(np.where(np.isnan(exposure), np.nan, coadd), noise))
    ratios = [min(max((r.stop - r.start) / (c.stop - c.start), 0.5), 2.0) for r, c in regions]
    figure = make_figure(figsize=(18.4, 4.6 * sum(ratios) + 1.7), dpi=120, layout="compressed")
    axes = figure.subplots(len(regions), 4, squeeze=False, height_ratios=ratios)
    x0, y0 = (0, 0) if geometry is None else (geometry.outer_bbox.x.start, geometry.outer_bbox.y.start)
    for row, (rows, columns) in zip(axes, regions, strict=True):
        box = (x0 + columns.start, x0 + columns.stop, y0 + rows.start, y0 + rows.stop)
        for ax, (_, image, style) in zip(row, panels, strict=True):
            _show(ax, image[rows, columns], box, style)
            ax.set_xlabel("x, pixels")
            ax.tick_params(labelleft=ax is row[0])
        row[0].set_ylabel("y, pixels")
    for ax, (label, _, _) in zip(axes[0], panels, strict=True):
        ax.set_title(label, fontsize=13)
    if len(regions) > 1:
        # box is that of the enlarged region.
        for whole, enlarged in axes.T:
            whole.add_patch(
                Rectangle(
                    (box[0] - 0.5, box[2] - 0.5),
                    _ZOOM_PIXELS,
                    _ZOOM_PIXELS,
                    edgecolor=_FRAME_COLOR,
                    facecolor="none",
                    linewidth=1.5,
                )
            )
            for spine in enlarged.spines.values():
                spine.set(color=_FRAME_COLOR, linewidth=1.5)
    if title:
        figure.suptitle(title, fontsize=15)
    for mappable, beside, shrink, aspect in (
        (axes[0, 0].images[0], axes[:, :3], 0.6, 48),
        (axes[0, 3].images[0], axes[:, 3], 0.9, 24),
    ):
        figure.colorbar(
            mappable,
            ax=beside,
            location="bottom",
            shrink=shrink,
            aspect=aspect,
            ticks=_ticks(mappable.norm.vmin, mappable.norm.vmax, 3 * noise),
            format="{x:g}",
            label=f"{unit} per pixel (green: no data)",
            extend="both",
        ).minorticks_off()
    if geometry is not None:
        _draw_compass(axes[0, 0], geometry)
        _draw_scale_bar(axes[-1, 0], geometry.pixel_scale)
    return figure


def plot_history(history: astropy.table.Table, title: str = "") -> Figure:
    """Plot the loss of a training by step.

    Parameters
    ----------
    history : `astropy.table.Table`
        ``Restoration.history``: columns ``step``, ``loss``,
        ``validation_loss`` and ``learning_rate``.
    title : `str`, optional
        Title of the figure.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        The figure.
    """
    from lsst.utils.plotting import make_figure

    figure = make_figure(figsize=(8, 5), dpi=120, layout="constrained")
    ax = figure.subplots()
    step = np.asarray(history["step"], dtype=float)
    ax.plot(step, history["loss"], color="C0", label="exposures")
    held_out = np.asarray(history["validation_loss"], dtype=float)
    known = np.isfinite(held_out)
    if known.any():
        ax.plot(step[known], held_out[known], color="C1", marker="o", ms=3, label="held-out crops")
    ax.set(xlabel="step", ylabel="mean Huber loss per good pixel")
    lowest, highest = ax.get_ylim()
    if lowest > 0 and highest > 3 * lowest:
        # A logarithmic axis has hardly a tick where values differ less.
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        if highest < 10 * lowest:
            ax.yaxis.set_minor_formatter("{x:g}")
    ax.grid(alpha=0.3, which="both")
    ax.legend(frameon=False)
    if title:
        ax.set_title(title)
    return figure


def typical_exposure(stack: ExposureStack) -> int:
    """Choose an exposure to show.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.

    Returns
    -------
    index : `int`
        That of median seeing among those that have at least 0.9 times as many
        good pixels as the best one.
    """
    n_good = np.array([np.count_nonzero(good) for good in stack.good])
    candidates = np.flatnonzero(n_good >= 0.9 * n_good.max())
    peaks = stack.kernels[candidates].max(axis=(-2, -1)).max(axis=(1, 2))
    return int(candidates[np.argsort(peaks)[len(peaks) // 2]])


def _noise(image: np.ndarray) -> float:
    """Return a robust standard deviation of the sky; 1 for an image without
    any noise.
    """
    pixels = image[np.isfinite(image)]
    if not pixels.size:
        return 1.0
    # Half of the distribution that sources do not reach.
    median = np.median(pixels)
    sigma = 1.4826 * np.median(median - pixels[pixels <= median])
    return float(sigma) if sigma > 0 else 1.0


def _percentile(image: np.ndarray, percent: float) -> float:
    """Return a percentile of the pixels that are finite, 0 if none is."""
    pixels = image[np.isfinite(image)]
    return float(np.percentile(pixels, percent)) if pixels.size else 0.0


def _crowded_region(image: np.ndarray, noise: float) -> tuple[slice, slice]:
    """Return the square of the enlarged region: where most well visible
    sources are (a bright one counts three times), away from its edge.
    """
    known = scipy.ndimage.minimum_filter(np.isfinite(image), 15)
    pixels = scipy.ndimage.gaussian_filter(np.nan_to_num(image, nan=0.0), 1.0)
    contrast = (pixels - scipy.ndimage.uniform_filter(pixels, 15)) / (2 * noise)
    peaks = (pixels == scipy.ndimage.maximum_filter(pixels, 9)) & (contrast > 1) & known
    light = np.where(peaks, np.clip(contrast, 1, 3), 0.0)
    half = _ZOOM_PIXELS // 2
    mean = scipy.ndimage.gaussian_filter(light, _ZOOM_PIXELS / 5)[half : 1 - half, half : 1 - half]
    row, column = (int(index) for index in np.unravel_index(np.argmax(mean), mean.shape))
    return slice(row, row + _ZOOM_PIXELS), slice(column, column + _ZOOM_PIXELS)


def _ticks(low: float, high: float, linear_width: float) -> list[float]:
    """Return zero and the powers of ten on both sides of it that an asinh
    scale, linear up to ``linear_width``, keeps apart.
    """
    first = int(np.ceil(np.log10(linear_width)))
    powers = 10.0 ** np.arange(first, first + 12)
    return [*(-powers[powers <= -low][::-1]), 0.0, *powers[powers <= high]]


def _block_mean(image: np.ndarray, most: int) -> tuple[np.ndarray, int]:
    """Average square blocks of pixels so that at most ``most`` are left on a
    side; return the averages and the size of a block.  Pixels that do not
    fill a block are left out.
    """
    size = -(-max(image.shape) // most)
    if size == 1:
        return image, 1
    height, width = (extent // size for extent in image.shape)
    blocks = image[: height * size, : width * size].reshape(height, size, width, size)
    known = np.isfinite(blocks)
    count = np.count_nonzero(known, axis=(1, 3))
    with np.errstate(invalid="ignore"):
        return np.where(known, blocks, 0).sum(axis=(1, 3)) / np.where(count > 0, count, np.nan), size


def _show(ax: Axes, image: np.ndarray, box: tuple[int, int, int, int], style: dict[str, Any]) -> None:
    """Show an image; ``box`` is x start, x stop, y start, y stop of its
    pixels.
    """
    left, right, bottom, top = box
    means, size = _block_mean(image, _PANEL_PIXELS)
    ax.set_facecolor(_NO_DATA_COLOR)
    ax.imshow(
        means,
        origin="lower",
        interpolation="nearest",
        extent=(
            left - 0.5,
            left - 0.5 + size * means.shape[1],
            bottom - 0.5,
            bottom - 0.5 + size * means.shape[0],
        ),
        **style,
    )
    ax.set(xlim=(left - 0.5, right - 0.5), ylim=(bottom - 0.5, top - 0.5))


def _draw_compass(ax: Axes, geometry: PatchGeometry) -> None:
    """Draw arrows to north and east in the lower left corner."""
    bbox = geometry.outer_bbox
    center = geometry.sky_projection.pixel_to_sky(x=bbox.x.center, y=bbox.y.center)
    step = 10 * geometry.pixel_scale
    size = min(bbox.x.size, bbox.y.size)
    corner = np.array([bbox.x.start + 0.17 * size, bbox.y.start + 0.17 * size])
    for name, position_angle in (("N", 0.0), ("E", 90.0)):
        target = center.directional_offset_by(position_angle * u.deg, step * u.arcsec)
        pixel = geometry.sky_projection.sky_to_pixel(target)
        direction = np.array([float(pixel.x) - bbox.x.center, float(pixel.y) - bbox.y.center])
        direction *= 0.09 * size / np.hypot(*direction)
        ax.annotate(
            "",
            xy=tuple(corner + direction),
            xytext=tuple(corner),
            arrowprops={"arrowstyle": "-|>", "color": _FRAME_COLOR, "lw": 1.5, "shrinkA": 0, "shrinkB": 0},
        )
        x, y = corner + 1.35 * direction
        ax.text(x, y, name, color=_FRAME_COLOR, ha="center", va="center", fontsize=11)


def _draw_scale_bar(ax: Axes, pixel_scale: float) -> None:
    """Draw a bar of 5 arcsec in the lower right corner."""
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    length, y = 5.0 / pixel_scale, bottom + 0.06 * (top - bottom)
    x = right - 0.06 * (right - left) - length
    ax.plot([x, x + length], [y, y], color=_FRAME_COLOR, lw=2, solid_capstyle="butt")
    ax.text(x + length / 2, y + 0.02 * (top - bottom), '5"', color=_FRAME_COLOR, ha="center", va="bottom")
