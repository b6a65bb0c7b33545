# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Parts of the figures that several of them share."""

from __future__ import annotations

__all__ = (
    "FRAME_COLOR",
    "NO_DATA_COLOR",
    "PANEL_PIXELS",
    "ZOOM_PIXELS",
    "RegionPanels",
    "block_mean",
    "draw_compass",
    "draw_scale_bar",
    "finite_percentile",
    "make_region_panels",
    "show_image",
    "sky_sigma",
    "spaced_indices",
    "upper_limit",
)

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..warping.patch_geometry import PatchGeometry

# Largest height and width of an image in a panel, pixels: blocks of more pixels
# are averaged, as a panel cannot show them.
PANEL_PIXELS = 1000

# Height and width of the enlarged region, pixels.
ZOOM_PIXELS = 120

# Pixels without data; frames, arrows and scale bars.
NO_DATA_COLOR = "#2f6b5e"
FRAME_COLOR = "#ffb000"

# Length of the scale bar, arcsec.
_SCALE_BAR = 5.0


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RegionPanels:
    """A figure with a row of panels of the whole image, and one of an enlarged
    region.

    Parameters
    ----------
    figure : `matplotlib.figure.Figure`
        The figure.
    axes : `numpy.ndarray` [`matplotlib.axes.Axes`]
        The panels, shape ``(n_rows, n_columns)``.
    regions : `tuple` [`tuple` [`slice`, `slice`], ...]
        Rows and columns of the image that each row of panels shows.
    origin : `tuple` [`int`, `int`]
        Coordinates x and y of the first pixel of the image.
    """

    figure: Figure
    axes: np.ndarray
    regions: tuple[tuple[slice, slice], ...]
    origin: tuple[int, int]

    def __iter__(self) -> Iterator[tuple[np.ndarray, tuple[slice, slice], tuple[int, int, int, int]]]:
        """Iterate over rows: their panels, the region, and its x start, x stop,
        y start and y stop.
        """
        x0, y0 = self.origin
        for row, (rows, columns) in zip(self.axes, self.regions, strict=True):
            yield (
                row,
                (rows, columns),
                (x0 + columns.start, x0 + columns.stop, y0 + rows.start, y0 + rows.stop),
            )


def make_region_panels(
    shape: tuple[int, ...],
    enlarged: tuple[slice, slice] | None,
    titles: list[str],
    *,
    panel_size: float,
    margin: float,
    dpi: int,
    geometry: PatchGeometry | None = None,
) -> RegionPanels:
    """Make a figure for images of the same pixels.

    Parameters
    ----------
    shape : `tuple` [`int`, `int`]
        Height and width of the images.
    enlarged : `tuple` [`slice`, `slice`] or `None`
        Rows and columns of the region that the lower row of panels enlarges;
        `None` for no such row.
    titles : `list` [`str`]
        Titles of the columns.
    panel_size : `float`
        Width of a panel, inches.
    margin : `float`
        Height of the figure beyond that of the panels, inches.
    dpi : `int`
        Resolution, pixels per inch.
    geometry : `PatchGeometry`, optional
        The pixel grid; without it, the axes are those of the array.

    Returns
    -------
    panels : `RegionPanels`
        Panels with labels, and frames around the enlarged region.
    """
    from matplotlib.patches import Rectangle

    from lsst.utils.plotting import make_figure

    regions = [(slice(0, shape[0]), slice(0, shape[1]))]
    if enlarged is not None:
        regions.append(enlarged)
    ratios = [min(max((r.stop - r.start) / (c.stop - c.start), 0.5), 2.0) for r, c in regions]
    figure = make_figure(
        figsize=(panel_size * len(titles), panel_size * sum(ratios) + margin), dpi=dpi, layout="compressed"
    )
    axes = figure.subplots(len(regions), len(titles), squeeze=False, height_ratios=ratios)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=13)
    for row in axes:
        row[0].set_ylabel("y (pixels)")
        for ax in row:
            ax.set_xlabel("x (pixels)")
            ax.tick_params(labelleft=ax is row[0])
    origin = (0, 0) if geometry is None else (geometry.outer_bbox.x.start, geometry.outer_bbox.y.start)
    if enlarged is not None:
        rows, columns = enlarged
        for whole, detail in axes.T:
            whole.add_patch(
                Rectangle(
                    (origin[0] + columns.start - 0.5, origin[1] + rows.start - 0.5),
                    columns.stop - columns.start,
                    rows.stop - rows.start,
                    edgecolor=FRAME_COLOR,
                    facecolor="none",
                    linewidth=1.5,
                )
            )
            for spine in detail.spines.values():
                spine.set(color=FRAME_COLOR, linewidth=1.5)
    return RegionPanels(figure=figure, axes=axes, regions=tuple(regions), origin=origin)


def show_image(ax: Axes, image: np.ndarray, box: tuple[int, int, int, int], style: dict[str, Any]) -> None:
    """Show an image in a panel.

    Parameters
    ----------
    ax : `matplotlib.axes.Axes`
        The panel.
    image : `numpy.ndarray`
        Image, shape ``(height, width)``; pixels that are not finite have the
        color of missing data.
    box : `tuple` [`int`, `int`, `int`, `int`]
        Coordinates of its pixels: x start, x stop, y start and y stop.
    style : `dict`
        Arguments of `matplotlib.axes.Axes.imshow`: ``norm`` and ``cmap``.
    """
    left, right, bottom, top = box
    means, size = block_mean(image, PANEL_PIXELS)
    ax.set_facecolor(NO_DATA_COLOR)
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


def block_mean(image: np.ndarray, max_size: int) -> tuple[np.ndarray, int]:
    """Average square blocks of pixels.

    Parameters
    ----------
    image : `numpy.ndarray`
        Image, shape ``(height, width)``.
    max_size : `int`
        Largest height and width of the result.

    Returns
    -------
    means : `numpy.ndarray`
        Means of the finite pixels of each block, NaN without any.  Pixels that
        do not fill a block are left out.
    size : `int`
        Height and width of a block, pixels.
    """
    size = -(-max(image.shape) // max_size)
    if size == 1:
        return image, 1
    height, width = (extent // size for extent in image.shape)
    blocks = image[: height * size, : width * size].reshape(height, size, width, size)
    known = np.isfinite(blocks)
    count = np.count_nonzero(known, axis=(1, 3))
    with np.errstate(invalid="ignore"):
        return np.where(known, blocks, 0).sum(axis=(1, 3)) / np.where(count > 0, count, np.nan), size


def sky_sigma(image: np.ndarray) -> float:
    """Measure the noise of the sky.

    Parameters
    ----------
    image : `numpy.ndarray`
        Image, any shape.

    Returns
    -------
    sigma : `float`
        Robust standard deviation of the pixels below the median, which sources
        do not affect; 1 for an image without noise or without finite pixels.
    """
    pixels = image[np.isfinite(image)]
    if not pixels.size:
        return 1.0
    median = np.median(pixels)
    sigma = 1.4826 * np.median(median - pixels[pixels <= median])
    return float(sigma) if sigma > 0 else 1.0


def finite_percentile(image: np.ndarray, percent: float) -> float:
    """Return a percentile of the finite pixels.

    Parameters
    ----------
    image : `numpy.ndarray`
        Image, any shape.
    percent : `float`
        0 to 100.

    Returns
    -------
    value : `float`
        The percentile, 0 without finite pixels.
    """
    pixels = image[np.isfinite(image)]
    return float(np.percentile(pixels, percent)) if pixels.size else 0.0


def upper_limit(image: np.ndarray, noise: float) -> float:
    """Choose the brightest value of a stretch.

    Parameters
    ----------
    image : `numpy.ndarray`
        Image, any shape.
    noise : `float`
        Its noise (`sky_sigma`).

    Returns
    -------
    top : `float`
        The 99.95th percentile of the finite pixels, at least 20 sigma.
    """
    return max(finite_percentile(image, 99.95), 20 * noise)


def spaced_indices(n: int, max_number: int) -> np.ndarray:
    """Choose evenly spaced indices, the first and the last one included.

    Parameters
    ----------
    n : `int`
        Number of items.
    max_number : `int`
        Largest number of indices.

    Returns
    -------
    indices : `numpy.ndarray`
        `int`, increasing.
    """
    return np.unique(np.rint(np.linspace(0, n - 1, min(n, max_number))).astype(int))


def draw_compass(ax: Axes, geometry: PatchGeometry) -> None:
    """Draw arrows to north and east in the lower left corner.

    Parameters
    ----------
    ax : `matplotlib.axes.Axes`
        A panel that shows the whole patch.
    geometry : `PatchGeometry`
        The pixel grid.
    """
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
            arrowprops={"arrowstyle": "-|>", "color": FRAME_COLOR, "lw": 1.5, "shrinkA": 0, "shrinkB": 0},
        )
        x, y = corner + 1.35 * direction
        ax.text(x, y, name, color=FRAME_COLOR, ha="center", va="center", fontsize=11)


def draw_scale_bar(ax: Axes, pixel_scale: float) -> None:
    """Draw a scale bar of 5 arcsec in the lower right corner.

    Parameters
    ----------
    ax : `matplotlib.axes.Axes`
        A panel with an image.
    pixel_scale : `float`
        Size of a pixel, arcsec.
    """
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    length, y = _SCALE_BAR / pixel_scale, bottom + 0.06 * (top - bottom)
    x = right - 0.06 * (right - left) - length
    ax.plot([x, x + length], [y, y], color=FRAME_COLOR, lw=2, solid_capstyle="butt")
    ax.text(
        x + length / 2,
        y + 0.02 * (top - bottom),
        f'{_SCALE_BAR:g}"',
        color=FRAME_COLOR,
        ha="center",
        va="bottom",
    )
