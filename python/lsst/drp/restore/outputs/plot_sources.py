# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pictures of source lists."""

from __future__ import annotations

__all__ = ("plot_sources",)

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from .plot_restoration import _FRAME_COLOR, _ZOOM_PIXELS, _draw_scale_bar, _noise, _percentile, _show

if TYPE_CHECKING:
    import astropy.table
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..warping.patch_geometry import PatchGeometry

# Color, marker size relative to the others and label of each kind of source.
_KINDS = (
    ("#35c2ff", "o", "alone"),
    ("#ff5fa2", "s", "split from a blend"),
    ("#9a9a9a", "o", "outside of the inner region"),
)


def plot_sources(
    coadd: np.ndarray,
    restored: np.ndarray,
    table: astropy.table.Table,
    *,
    geometry: PatchGeometry,
    title: str = "",
) -> Figure:
    """Mark sources on a coadd and on the restored coadd, side by side.

    Parameters
    ----------
    coadd, restored : `numpy.ndarray`
        Images in nJy per pixel, shape ``(height, width)``, shown on the same
        asinh stretch.
    table : `astropy.table.Table`
        The sources, as `make_source_table` makes them.
    geometry : `PatchGeometry`
        The pixel grid.
    title : `str`, optional
        Title of the figure.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        The figure.  The upper row shows the whole patch with its inner region,
        the lower one the region with most sources in it, those from blends
        counted three times (not if the patch is hardly larger than that).
    """
    from matplotlib.colors import AsinhNorm
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    from lsst.utils.plotting import make_figure

    noise = _noise(coadd)
    stretch = AsinhNorm(
        linear_width=3 * noise, vmin=-3 * noise, vmax=max(_percentile(coadd, 99.95), 20 * noise)
    )
    height, width = coadd.shape
    regions = [(slice(0, height), slice(0, width))]
    if min(height, width) >= 2 * _ZOOM_PIXELS:
        regions.append(_busy_region(table, geometry))
    ratios = [min(max((r.stop - r.start) / (c.stop - c.start), 0.5), 2.0) for r, c in regions]
    figure = make_figure(figsize=(15.0, 7.2 * sum(ratios) + 1.4), dpi=110, layout="compressed")
    axes = figure.subplots(len(regions), 2, squeeze=False, height_ratios=ratios)
    x0, y0 = geometry.outer_bbox.x.start, geometry.outer_bbox.y.start
    inner = geometry.patch.inner_bbox
    for number, (row, (rows, columns)) in enumerate(zip(axes, regions, strict=True)):
        box = (x0 + columns.start, x0 + columns.stop, y0 + rows.start, y0 + rows.stop)
        for ax, image in zip(row, (coadd, restored), strict=True):
            _show(ax, image[rows, columns], box, {"norm": stretch, "cmap": "gray"})
            _mark(ax, table, box, enlarged=number > 0 or len(regions) == 1)
            ax.add_patch(
                Rectangle(
                    (inner.x.start - 0.5, inner.y.start - 0.5),
                    inner.x.size,
                    inner.y.size,
                    edgecolor="white",
                    facecolor="none",
                    linewidth=0.8,
                    linestyle=(0, (6, 4)),
                )
            )
            ax.set_xlabel("x, pixels")
            ax.tick_params(labelleft=ax is row[0])
        row[0].set_ylabel("y, pixels")
    axes[0, 0].set_title("Reference coadd", fontsize=13)
    axes[0, 1].set_title("Restored", fontsize=13)
    if len(regions) > 1:
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
    _draw_scale_bar(axes[-1, 0], geometry.pixel_scale)
    counts = [int(np.count_nonzero(kind)) for kind in _kinds(table)]
    figure.legend(
        handles=[
            Line2D([], [], color=color, marker=marker, ls="", fillstyle="none", ms=9, mew=1.6)
            for color, marker, _ in _KINDS
        ],
        labels=[f"{label} ({count})" for (_, _, label), count in zip(_KINDS, counts, strict=True)],
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=12,
    )
    if title:
        figure.suptitle(title, fontsize=15)
    return figure


def _kinds(table: astropy.table.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tell which sources are of which kind of `_KINDS`."""
    source = np.asarray(table["deblend_nChild"]) == 0
    primary, blended = np.asarray(table["detect_isPrimary"]), np.asarray(table["parent"]) > 0
    return primary & ~blended, primary & blended, source & ~primary


def _busy_region(table: astropy.table.Table, geometry: PatchGeometry) -> tuple[slice, slice]:
    """Return the pixels of the patch that are enlarged: around a source."""
    box = geometry.outer_bbox
    half = _ZOOM_PIXELS // 2
    row, column = box.y.size // 2, box.x.size // 2
    alone, blended, _ = _kinds(table)
    places = np.stack([np.asarray(table["x"]) - box.x.start, np.asarray(table["y"]) - box.y.start], axis=1)
    if (alone | blended).any():
        limits = np.array([box.x.size, box.y.size]) - half
        centers = np.clip(places[alone | blended], half, limits)
        counts = sum(
            weight * cKDTree(places[kind]).query_ball_point(centers, half - 4, p=np.inf, return_length=True)
            for kind, weight in ((alone, 1), (blended, 3))
            if kind.any()
        )
        column, row = np.rint(centers[np.argmax(counts)]).astype(int)
    return slice(int(row) - half, int(row) + half), slice(int(column) - half, int(column) + half)


def _mark(ax: Axes, table: astropy.table.Table, box: tuple[int, int, int, int], *, enlarged: bool) -> None:
    """Mark sources on an image."""
    left, right, bottom, top = box
    x, y = np.asarray(table["x"]), np.asarray(table["y"])
    shown = (x > left - 1) & (x < right) & (y > bottom - 1) & (y < top)
    for (color, marker, _), kind in zip(_KINDS, _kinds(table), strict=True):
        chosen = shown & kind
        ax.scatter(
            x[chosen],
            y[chosen],
            s=170 if enlarged else max(4.0, 40.0 * (500 / max(right - left, top - bottom)) ** 2),
            marker=marker,
            facecolors="none",
            edgecolors=color,
            linewidths=1.5 if enlarged else 0.9,
        )
