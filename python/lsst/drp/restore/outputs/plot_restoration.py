# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figures of a restored image next to the coadd and an exposure."""

from __future__ import annotations

__all__ = ("plot_comparison", "plot_restoration", "typical_exposure")

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.ndimage

from ..stack.oversampling import split_pixels
from ..stack.reference_coadd import constrained_pixels
from .plot_tools import (
    ZOOM_PIXELS,
    draw_compass,
    draw_scale_bar,
    finite_percentile,
    make_region_panels,
    show_image,
    sky_sigma,
    upper_limit,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..stack.exposure_stack import ExposureStack
    from ..warping.patch_geometry import PatchGeometry
    from .restored_stack import RestoredStack

# Fraction of the best exposure's good pixels that the exposure in the figure
# has, at least.
_MIN_COVERED = 0.9


def plot_restoration(
    restored: RestoredStack, *, geometry: PatchGeometry | None = None, title: str = ""
) -> Figure:
    """Plot a typical exposure, the reference coadd, the restored image and
    their difference.

    Parameters
    ----------
    restored : `RestoredStack`
        The restored exposures.
    geometry : `PatchGeometry`, optional
        The pixel grid of the exposures, see `plot_comparison`.
    title : `str`, optional
        Title of the figure.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        The figure, see `plot_comparison`, in pixels of the restored image.
    """
    stack, reference = restored.stack, restored.reference
    oversampling = stack.oversampling
    t = typical_exposure(stack)
    exposure, coadd = (
        split_pixels(image / np.float32(oversampling**2), oversampling)
        for image in (np.where(stack.good[t], stack.image[t], np.float32(np.nan)), reference.image)
    )
    constrained = split_pixels(constrained_pixels(stack, reference), oversampling)
    return plot_comparison(
        exposure,
        coadd,
        np.where(constrained, restored.restoration.image, np.float32(np.nan)),
        exposure_label=f"One exposure: {stack.names[t]}",
        geometry=None if geometry is None else geometry.refined(oversampling),
        title=title,
    )


def plot_comparison(
    exposure: np.ndarray,
    coadd: np.ndarray,
    restored: np.ndarray,
    residual: np.ndarray | None = None,
    *,
    exposure_label: str = "One exposure",
    geometry: PatchGeometry | None = None,
    unit: str = "nJy",
    title: str = "",
) -> Figure:
    """Plot an exposure, the reference coadd, the restored image and its
    difference from the coadd, as figure 3 of the second paper.

    Parameters
    ----------
    exposure, coadd, restored : `numpy.ndarray`
        Images, flux per pixel, shape ``(height, width)``, shown on the same
        asinh stretch.  NaN pixels are shown as missing.
    residual : `numpy.ndarray`, optional
        ``restored - coadd``, same shape, shown on a diverging scale of its
        own; calculated if not given.
    exposure_label : `str`, optional
        Title of the exposure's panel.
    geometry : `PatchGeometry`, optional
        The pixel grid, for the axes, the scale bar and the compass; without
        it, the axes are those of the array.
    unit : `str`, optional
        Unit of the flux, for the color bars.
    title : `str`, optional
        Title of the figure.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        The figure.  The upper row shows the whole patch, the lower one
        enlarges the region with most sources (unless the patch is hardly
        larger than it).
    """
    from matplotlib.colors import AsinhNorm

    if residual is None:
        residual = restored - coadd
    noise = sky_sigma(coadd)
    stretch = AsinhNorm(
        linear_width=3 * noise, vmin=-3 * max(noise, sky_sigma(exposure)), vmax=upper_limit(coadd, noise)
    )
    limit = max(finite_percentile(np.abs(residual), 99.95), 10 * noise)
    diverging = AsinhNorm(linear_width=3 * noise, vmin=-limit, vmax=limit)
    images: list[tuple[str, np.ndarray, dict[str, Any]]] = [
        (exposure_label, exposure, {"norm": stretch, "cmap": "gray"}),
        ("Reference coadd", coadd, {"norm": stretch, "cmap": "gray"}),
        ("Restored", restored, {"norm": stretch, "cmap": "gray"}),
        ("Restored \N{MINUS SIGN} reference coadd", residual, {"norm": diverging, "cmap": "RdBu_r"}),
    ]
    enlarged = None
    if min(coadd.shape) >= 2 * ZOOM_PIXELS:
        enlarged = _crowded_region(np.where(np.isnan(exposure), np.nan, coadd), noise)
    panels = make_region_panels(
        coadd.shape,
        enlarged,
        [label for label, _, _ in images],
        panel_size=4.6,
        margin=1.7,
        dpi=120,
        geometry=geometry,
    )
    for row, region, box in panels:
        for ax, (_, image, style) in zip(row, images, strict=True):
            show_image(ax, image[region], box, style)
    if title:
        panels.figure.suptitle(title, fontsize=15)
    axes = panels.axes
    for mappable, adjacent, shrink, aspect in (
        (axes[0, 0].images[0], axes[:, :3], 0.6, 48),
        (axes[0, 3].images[0], axes[:, 3], 0.9, 24),
    ):
        panels.figure.colorbar(
            mappable,
            ax=adjacent,
            location="bottom",
            shrink=shrink,
            aspect=aspect,
            ticks=_ticks(mappable.norm.vmin, mappable.norm.vmax, 3 * noise),
            format="{x:g}",
            label=f"flux ({unit} per pixel; green: no data)",
            extend="both",
        ).minorticks_off()
    if geometry is not None:
        draw_compass(axes[0, 0], geometry)
        draw_scale_bar(axes[-1, 0], geometry.pixel_scale)
    return panels.figure


def typical_exposure(stack: ExposureStack) -> int:
    """Choose an exposure to show.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.

    Returns
    -------
    index : `int`
        Index of the exposure of median seeing among those that cover about as
        much of the patch as the best one.
    """
    n_good = np.array([np.count_nonzero(good) for good in stack.good])
    candidates = np.flatnonzero(n_good >= _MIN_COVERED * n_good.max())
    peaks = stack.kernels[candidates].max(axis=(-2, -1)).max(axis=(1, 2))
    return int(candidates[np.argsort(peaks)[len(peaks) // 2]])


def _crowded_region(image: np.ndarray, noise: float) -> tuple[slice, slice]:
    """Return the square with most significant sources (bright ones count three
    times) away from its edge.
    """
    known = scipy.ndimage.minimum_filter(np.isfinite(image), 15)
    pixels = scipy.ndimage.gaussian_filter(np.nan_to_num(image, nan=0.0), 1.0)
    contrast = (pixels - scipy.ndimage.uniform_filter(pixels, 15)) / (2 * noise)
    peaks = (pixels == scipy.ndimage.maximum_filter(pixels, 9)) & (contrast > 1) & known
    weight = np.where(peaks, np.clip(contrast, 1, 3), 0.0)
    half = ZOOM_PIXELS // 2
    mean = scipy.ndimage.gaussian_filter(weight, ZOOM_PIXELS / 5)[half : 1 - half, half : 1 - half]
    row, column = (int(index) for index in np.unravel_index(np.argmax(mean), mean.shape))
    return slice(row, row + ZOOM_PIXELS), slice(column, column + ZOOM_PIXELS)


def _ticks(low: float, high: float, linear_width: float) -> list[float]:
    """Return zero and the powers of ten on both sides of it that an asinh
    scale, linear up to ``linear_width``, keeps apart.
    """
    first = int(np.ceil(np.log10(linear_width)))
    powers = 10.0 ** np.arange(first, first + 12)
    return [*(-powers[powers <= -low][::-1]), 0.0, *powers[powers <= high]]
