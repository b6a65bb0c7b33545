# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figure of the PSF kernels of the exposures."""

from __future__ import annotations

__all__ = ("plot_kernels",)

from typing import TYPE_CHECKING

import numpy as np

from ..stack.ellipses import ellipse_axes
from ..stack.kernel_shape import fwhm, kernel_moments
from .plot_tools import spaced_indices

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..stack.exposure_stack import ExposureStack
    from ..warping.patch_geometry import PatchGeometry

# Largest number of kernels that are shown, and of cells along an axis and of
# exposures whose kernels are measured, for the map and for the range of each
# exposure: a measurement is a fit of some milliseconds.
_MAX_KERNELS = 36
_MAX_CELLS = 9
_MAX_EXPOSURES = 9
_CELLS_OF_EXPOSURE = 3

# Faintest part of a kernel that is shown, in units of the highest peak.
_FAINTEST = 1e-4


def plot_kernels(stack: ExposureStack, *, geometry: PatchGeometry | None = None, title: str = "") -> Figure:
    """Plot the PSF kernels of the exposures and how they vary over the patch.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.
    geometry : `PatchGeometry`, optional
        The pixel grid: with it widths are in arcsec, position angles from
        north through east, and positions pixels of the tract.  Without it
        widths are in pixels, angles from y through -x, and positions those of
        the array.
    title : `str`, optional
        Title of the figure.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        The figure.  At the left the kernels at the center of the patch (or, of
        an exposure that does not reach it, in the nearest cell) on a common
        logarithmic scale, from the sharpest to the widest, with full width at
        half maximum, ellipticity ``1 - b/a`` and position angle; at most 36.
        At the right the median width of the exposures by cell with sticks along
        the mean ellipticity, and the range of widths of each exposure.
    """
    from matplotlib.colors import LogNorm

    from lsst.utils.plotting import make_figure

    scale, unit = (geometry.pixel_scale, "arcsec") if geometry is not None else (1.0, "pixels")
    central = [_central_cell(has_kernel) for has_kernel in stack.has_kernel]
    kernels = np.array([stack.kernels[t, i, j] for t, (i, j) in enumerate(central)])
    widths = np.array([fwhm(kernel) for kernel in kernels]) * scale
    order = np.argsort(np.where(np.isfinite(widths), widths, np.inf), kind="stable")
    number = min(len(order), _MAX_KERNELS)
    shown = order[spaced_indices(len(order), number)]

    # About as many rows as columns.
    columns = int(np.ceil(np.sqrt(number * 0.9))) if number > 2 else 1
    rows = -(-number // columns)
    size = 8.4 / max(columns, rows, 3)
    halves = max(columns * size, 4.0), 6.6
    figure = make_figure(
        figsize=(sum(halves), max(rows * size * 1.22, 7.2) + 0.9),
        dpi=120,
        layout="constrained",
    )
    ((left, right),) = figure.subfigures(1, 2, squeeze=False, width_ratios=halves, wspace=0.02)
    axes = left.subplots(rows, columns, squeeze=False)
    top = max(float(kernels.max()), 1e-6)
    norm = LogNorm(vmin=_FAINTEST * top, vmax=top)
    fontsize = float(np.clip(5.4 * size, 6.5, 10.5))
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, t in zip(axes.flat, shown, strict=False):
        half = stack.kernel_size // 2
        picture = ax.imshow(
            np.maximum(kernels[t], 0.5 * _FAINTEST * top),
            origin="lower",
            extent=(-half - 0.5, half + 0.5, -half - 0.5, half + 0.5),
            norm=norm,
            cmap="magma",
            interpolation="nearest",
        )
        _draw_half_maximum(ax, kernels[t])
        ax.set_title(
            f"{stack.names[t]}\n{_describe(widths[t], kernels[t], geometry)}", fontsize=fontsize, pad=3
        )
    left.colorbar(
        picture,
        ax=axes,
        location="bottom",
        shrink=0.7,
        aspect=45,
        pad=0.02,
        label="fraction of the flux per pixel (dashed: half of the maximum)",
        extend="min",
    )
    variation, ranges = right.subplots(2, 1, height_ratios=(1.5, 1.0))
    _plot_variation(variation, stack, scale, unit, geometry)
    _plot_ranges(ranges, stack, widths, order, scale, unit)
    if title:
        figure.suptitle(title, fontsize=14)
    return figure


def _central_cell(has_kernel: np.ndarray) -> tuple[int, int]:
    """Return the cell with a kernel that is nearest to the center."""
    cells = np.argwhere(has_kernel)
    if not len(cells):
        return 0, 0
    middle = (np.array(has_kernel.shape) - 1) / 2
    i, j = cells[np.argmin(((cells - middle) ** 2).sum(axis=1))]
    return int(i), int(j)


def _shape(kernel: np.ndarray) -> tuple[float, float, float]:
    """Return semi-axes a and b, pixels, and the angle of the major axis from x
    towards y, radian; NaN where they cannot be measured.
    """
    a, b, angle = ellipse_axes(*kernel_moments(kernel))
    return float(a), float(b), float(angle)


def _position_angle(angle: float, geometry: PatchGeometry | None) -> float:
    """Return the position angle of a direction on the patch, degrees from 0 to
    180.
    """
    if geometry is None:
        return float(np.degrees(angle) - 90) % 180
    box = geometry.outer_bbox
    center = geometry.sky_projection.pixel_to_sky(x=box.x.center, y=box.y.center)
    adjacent = geometry.sky_projection.pixel_to_sky(
        x=box.x.center + 10 * np.cos(angle), y=box.y.center + 10 * np.sin(angle)
    )
    return float(center.position_angle(adjacent).deg) % 180


def _describe(width: float, kernel: np.ndarray, geometry: PatchGeometry | None) -> str:
    """Return FWHM, ellipticity and position angle as a label."""
    if not np.isfinite(width):
        return "no kernel"
    a, b, angle = _shape(kernel)
    text = f'{width:.2f}"' if geometry is not None else f"{width:.2f} pixels"
    if np.isfinite(a) and a > 0:
        degrees = round(_position_angle(angle, geometry)) % 180
        name = "PA" if geometry is not None else "angle"
        text += f"  e = {1 - b / a:.2f}, {name} {degrees}\N{DEGREE SIGN}"
    return text


def _draw_half_maximum(ax: Axes, kernel: np.ndarray) -> None:
    """Draw the contour of a kernel at half of its maximum."""
    if kernel.max() > 0:
        half = len(kernel) // 2
        offset = np.arange(-half, half + 1)
        ax.contour(
            offset, offset, kernel, levels=[kernel.max() / 2], colors="white", linewidths=0.8, linestyles="--"
        )


def _plot_variation(
    ax: Axes, stack: ExposureStack, scale: float, unit: str, geometry: PatchGeometry | None
) -> None:
    """Plot the median width and the mean ellipticity of the exposures in the
    cells of the patch, or in blocks of them.
    """
    grid = stack.kernels.shape[1:3]
    edges = [np.unique(np.linspace(0, n, min(n, _MAX_CELLS) + 1).round().astype(int)) for n in grid]
    middles = [(e[:-1] + e[1:]) // 2 for e in edges]
    exposures = spaced_indices(stack.n_exposures, _MAX_EXPOSURES)
    width = np.full((len(middles[0]), len(middles[1])), np.nan)
    stick = np.full((*width.shape, 2), np.nan)
    for m, i in enumerate(middles[0]):
        for n, j in enumerate(middles[1]):
            kernels = [stack.kernels[t, i, j] for t in exposures if stack.has_kernel[t, i, j]]
            if not kernels:
                continue
            width[m, n] = np.nanmedian([fwhm(kernel) for kernel in kernels])
            # The vector of twice the angle can be averaged.
            shapes = np.array([_shape(kernel) for kernel in kernels])
            size = (shapes[:, 0] - shapes[:, 1]) / shapes[:, 0]
            e1, e2 = (float(np.nanmean(size * trig(2 * shapes[:, 2]))) for trig in (np.cos, np.sin))
            length, angle = np.hypot(e1, e2), 0.5 * np.arctan2(e2, e1)
            stick[m, n] = length * np.cos(angle), length * np.sin(angle)
    x0, y0 = (0, 0) if geometry is None else (geometry.outer_bbox.x.start, geometry.outer_bbox.y.start)
    y, x = (e * cell + start - 0.5 for e, cell, start in zip(edges, stack.cell_shape, (y0, x0), strict=True))
    known = width[np.isfinite(width)] * scale
    middle = float(np.median(known)) if known.size else 1.0
    # At least a per cent: errors of a thousandth are no variation.
    spread = max(float(np.abs(known - middle).max()) if known.size else 0.0, 0.01 * middle)
    mesh = ax.pcolormesh(
        x, y, width * scale, cmap="viridis", vmin=middle - spread, vmax=middle + spread, shading="flat"
    )
    cx, cy = np.meshgrid((x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2)
    cell = min(np.diff(x).min(), np.diff(y).min())
    longest = np.nanmax(np.hypot(*stick.T)) if known.size else 0.0
    key = 0.05 if longest < 0.1 else 0.2
    draw = ax.quiver(
        cx,
        cy,
        stick[..., 0],
        stick[..., 1],
        angles="xy",
        scale_units="xy",
        scale=max(longest, 0.02) / (0.8 * cell),
        pivot="mid",
        headwidth=1,
        headlength=0,
        headaxislength=0,
        color="white",
        width=0.006,
    )
    ax.quiverkey(
        draw, 0.82, -0.11, key, f"e = {key:g}", labelpos="E", color="0.3", fontproperties={"size": 9}
    )
    ax.set(aspect="equal", xlabel="x (pixels)", ylabel="y (pixels)")
    ax.set_title("Median FWHM and mean ellipticity of the exposures", fontsize=11, loc="left")
    ax.figure.colorbar(mesh, ax=ax, label=f"FWHM ({unit})", shrink=0.85)


def _plot_ranges(
    ax: Axes, stack: ExposureStack, widths: np.ndarray, order: np.ndarray, scale: float, unit: str
) -> None:
    """Plot the range of FWHM of each exposure over the patch."""
    from matplotlib.ticker import MaxNLocator

    grid = stack.kernels.shape[1:3]
    rows, columns = (spaced_indices(n, _CELLS_OF_EXPOSURE) for n in grid)
    place = np.arange(len(order))
    lowest, highest = widths[order].copy(), widths[order].copy()
    for k, t in enumerate(order):
        cells = [(i, j) for i in rows for j in columns if stack.has_kernel[t, i, j]]
        values = np.array([fwhm(stack.kernels[t, i, j]) for i, j in cells] or [np.nan]) * scale
        lowest[k] = np.fmin(lowest[k], np.fmin.reduce(values))
        highest[k] = np.fmax(highest[k], np.fmax.reduce(values))
    ax.vlines(place + 1, lowest, highest, color="0.6", lw=max(2.0, min(6.0, 90 / len(order))))
    ax.plot(place + 1, widths[order], "o", color="C0", ms=4)
    ax.set(xlabel="exposure, ordered by FWHM", ylabel=f"FWHM ({unit})", xlim=(0.3, len(order) + 0.7))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3, axis="y")
    ax.set_title("FWHM of each exposure: center (dot) and range over the patch", fontsize=11, loc="left")
