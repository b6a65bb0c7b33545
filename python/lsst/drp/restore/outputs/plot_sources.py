# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figure of a source list."""

from __future__ import annotations

__all__ = ("plot_sources",)

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from .plot_tools import (
    ZOOM_PIXELS,
    draw_scale_bar,
    make_region_panels,
    show_image,
    sky_sigma,
    upper_limit,
)

if TYPE_CHECKING:
    import astropy.table
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..warping.patch_geometry import PatchGeometry

# Color, marker and label of each kind of source.
_KINDS = (
    ("#35c2ff", "o", "isolated"),
    ("#ff5fa2", "s", "from a blend"),
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
    """Mark sources on the reference coadd and on the restored coadd.

    Parameters
    ----------
    coadd, restored : `numpy.ndarray`
        Reference coadd and restored coadd, flux per pixel, shape ``(height,
        width)``, shown on the same asinh stretch.
    table : `astropy.table.Table`
        The sources, the dataset ``restored_source``.
    geometry : `PatchGeometry`
        The pixel grid of the images.
    title : `str`, optional
        Title of the figure.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        The figure.  The upper row shows the whole patch with its inner region,
        the lower one enlarges the region with most sources, those from blends
        counted three times (unless the patch is hardly larger than it).
    """
    from matplotlib.colors import AsinhNorm
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    noise = sky_sigma(coadd)
    stretch = AsinhNorm(linear_width=3 * noise, vmin=-3 * noise, vmax=upper_limit(coadd, noise))
    panels = make_region_panels(
        coadd.shape,
        _busy_region(table, geometry) if min(coadd.shape) >= 2 * ZOOM_PIXELS else None,
        ["Reference coadd", "Restored"],
        panel_size=7.5,
        margin=1.4,
        dpi=110,
        geometry=geometry,
    )
    inner = geometry.patch.inner_bbox
    for number, (row, region, box) in enumerate(panels):
        for ax, image in zip(row, (coadd, restored), strict=True):
            show_image(ax, image[region], box, {"norm": stretch, "cmap": "gray"})
            _mark(ax, table, box, enlarged=number == len(panels.regions) - 1)
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
    draw_scale_bar(panels.axes[-1, 0], geometry.pixel_scale)
    counts = [int(np.count_nonzero(kind)) for kind in _kinds(table)]
    panels.figure.legend(
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
        panels.figure.suptitle(title, fontsize=15)
    return panels.figure


def _kinds(table: astropy.table.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of each of `_KINDS` (`bool`)."""
    source = np.asarray(table["deblend_nChild"]) == 0
    primary, blended = np.asarray(table["detect_isPrimary"]), np.asarray(table["parent"]) > 0
    return primary & ~blended, primary & blended, source & ~primary


def _busy_region(table: astropy.table.Table, geometry: PatchGeometry) -> tuple[slice, slice]:
    """Return the square around a source with most sources in it."""
    box = geometry.outer_bbox
    half = ZOOM_PIXELS // 2
    row, column = box.y.size // 2, box.x.size // 2
    isolated, blended, _ = _kinds(table)
    places = np.stack([np.asarray(table["x"]) - box.x.start, np.asarray(table["y"]) - box.y.start], axis=1)
    if (isolated | blended).any():
        limits = np.array([box.x.size, box.y.size]) - half
        centers = np.clip(places[isolated | blended], half, limits)
        counts = sum(
            weight * cKDTree(places[kind]).query_ball_point(centers, half - 4, p=np.inf, return_length=True)
            for kind, weight in ((isolated, 1), (blended, 3))
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
