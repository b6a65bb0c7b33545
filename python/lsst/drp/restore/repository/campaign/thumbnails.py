# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Thumbnails of restored patches."""

from __future__ import annotations

__all__ = ("PANELS", "SIZE", "draw_thumbnail")

import numpy as np
import scipy.ndimage
from PIL import Image, ImageColor

from ...outputs.plot_tools import NO_DATA_COLOR, block_mean, sky_sigma, upper_limit

PANELS = ("coadd", "restored", "coadd, enlarged", "restored, enlarged")
"""Titles of the panels, from left to right."""

# Height and width of a panel and gap between two panels, pixels of the
# picture; height and width of the enlarged region, pixels of the coadd.
_PANEL = 256
_GAP = 4
_ZOOM = 128

# Fraction of the possible regions that have less flux than the enlarged one: sources, but no special ones.
_FLUX_QUANTILE = 0.75

SIZE = (len(PANELS) * (_PANEL + _GAP) - _GAP, _PANEL)
"""Width and height of a thumbnail, pixels."""

_GAP_COLOR = (255, 255, 255)
_EMPTY = (32, 32, 32)
_NO_DATA = ImageColor.getrgb(NO_DATA_COLOR)


def draw_thumbnail(reference: np.ndarray | None, restored: np.ndarray | None) -> Image.Image:
    """Draw the reference coadd and the restored image side by side: the whole
    patch and a typical region.

    Parameters
    ----------
    reference, restored : `numpy.ndarray` or `None`
        Images of the same patch, nJy per pixel, shape ``(height, width)``; NaN
        where there are no data.  Each pixel of the reference may cover several
        pixels of the restored image along each axis.  The panels of a missing
        image stay empty.

    Returns
    -------
    picture : `PIL.Image.Image`
        The `PANELS`, all with the asinh stretch of the reference coadd.
        Pixels without data are green.  The first row of the arrays is at the
        bottom.
    """
    picture = Image.new("RGB", SIZE, _GAP_COLOR)
    empty = Image.new("RGB", (_PANEL, _PANEL), _EMPTY)
    for k in range(len(PANELS)):
        picture.paste(empty, (k * (_PANEL + _GAP), 0))
    first = restored if reference is None else reference
    if first is None:
        return picture
    if restored is not None and restored.shape != first.shape:
        restored = block_mean(restored, max(first.shape))[0] * (restored.shape[0] / first.shape[0]) ** 2
    noise = sky_sigma(first)
    top = upper_limit(first, noise)
    zoom = _typical_region(first, noise)
    for i, image in enumerate((reference, restored)):
        if image is None:
            continue
        for k, panel in ((i, image), (i + 2, image[zoom])):
            picture.paste(_panel(panel, noise, top), (k * (_PANEL + _GAP), 0))
    return picture


def _panel(image: np.ndarray, noise: float, top: float) -> Image.Image:
    """Draw one image into the middle of a panel."""
    # Block means leave one to two pixels per pixel of the panel; the rest is
    # resampled.
    means, _ = block_mean(image, 2 * _PANEL - 1)
    low, high = np.arcsinh(-1.0), np.arcsinh(top / (3 * noise))
    level = (np.arcsinh(means / (3 * noise)) - low) / (high - low)
    known = np.isfinite(level)
    grey = (np.clip(np.where(known, level, 0.0), 0.0, 1.0) * 255).round().astype(np.uint8)
    pixels = np.where(known[..., np.newaxis], grey[..., np.newaxis], np.array(_NO_DATA, np.uint8))
    drawn = Image.fromarray(np.ascontiguousarray(pixels[::-1]))
    scale = _PANEL / max(drawn.size)
    drawn = drawn.resize(
        (max(round(drawn.width * scale), 1), max(round(drawn.height * scale), 1)),
        # The pixels of a small image stay squares.
        Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BILINEAR,
    )
    panel = Image.new("RGB", (_PANEL, _PANEL), _EMPTY)
    panel.paste(drawn, ((_PANEL - drawn.width) // 2, (_PANEL - drawn.height) // 2))
    return panel


def _typical_region(image: np.ndarray, noise: float) -> tuple[slice, slice]:
    """Return a square with more flux than most others, but neither the
    brightest star nor the densest group: of those without missing data, that
    at a quantile of the flux, where bright pixels count no more than 10 sigma.
    """
    means, size = block_mean(image, _PANEL)
    known = np.isfinite(means)
    flux = np.clip(np.where(known, means, 0.0) / noise, 0.0, 10.0)
    window = tuple(min(max(_ZOOM // size, 1), extent) for extent in means.shape)
    within, coverage = (
        scipy.ndimage.uniform_filter(np.asarray(values, float), window, mode="constant")
        for values in (flux, known)
    )
    possible = coverage >= coverage.max() - 1e-6
    level = np.quantile(within[possible], _FLUX_QUANTILE)
    center = np.unravel_index(np.argmin(np.where(possible, np.abs(within - level), np.inf)), within.shape)
    starts = (
        min(max(int(c) * size - _ZOOM // 2, 0), max(extent - _ZOOM, 0))
        for c, extent in zip(center, image.shape, strict=True)
    )
    rows, columns = (slice(start, start + _ZOOM) for start in starts)
    return rows, columns
