# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Small pictures of restored patches, to look through thousands of them."""

from __future__ import annotations

__all__ = ("PANELS", "draw_thumbnail")

import numpy as np
import scipy.ndimage
from PIL import Image, ImageColor

from ...outputs.plot_tools import NO_DATA_COLOR, block_mean, sky_sigma, upper_limit

# Titles of the panels, from left to right.
PANELS = ("coadd", "restored", "coadd, enlarged", "restored, enlarged")

# Height and width of a panel; the gap between two; height and width of the
# region that is shown enlarged, in pixels of the coadd.
_PANEL = 256
_GAP = 4
_ZOOM = 128

_GAP_COLOR = (255, 255, 255)
_EMPTY = (32, 32, 32)
_NO_DATA = ImageColor.getrgb(NO_DATA_COLOR)


def draw_thumbnail(reference: np.ndarray | None, restored: np.ndarray | None) -> Image.Image:
    """Draw the reference coadd and the restored image side by side: the whole
    patch, and the part of it with most light.

    Parameters
    ----------
    reference, restored : `numpy.ndarray` or `None`
        Images of the same patch, nJy per pixel, NaN where there are no data.
        The restored one may have smaller pixels, several along each axis in a
        pixel of the other.  The panels of one that is missing stay empty.

    Returns
    -------
    picture : `PIL.Image.Image`
        The `PANELS` on one asinh stretch, which is that of the reference
        coadd: what is brighter in it is bright in the picture.  Pixels without
        data are green.  The first row of the arrays is at the bottom.
    """
    picture = Image.new("RGB", (len(PANELS) * (_PANEL + _GAP) - _GAP, _PANEL), _GAP_COLOR)
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
    zoom = _bright_region(first, noise)
    for i, image in enumerate((reference, restored)):
        if image is None:
            continue
        for k, panel in ((i, image), (i + 2, image[zoom])):
            picture.paste(_panel(panel, noise, top), (k * (_PANEL + _GAP), 0))
    return picture


def _panel(image: np.ndarray, noise: float, top: float) -> Image.Image:
    """Draw one image into the middle of a panel."""
    # Between one and two pixels in one of the panel: what is left is resampled.
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


def _bright_region(image: np.ndarray, noise: float) -> tuple[slice, slice]:
    """Return the square with most light in it, of which a single bright star
    is not all.
    """
    means, size = block_mean(image, _PANEL)
    light = np.clip(np.nan_to_num(means, nan=0.0) / noise, 0.0, 10.0)
    within = scipy.ndimage.uniform_filter(light, max(_ZOOM // size, 1), mode="constant")
    center = np.unravel_index(np.argmax(within), within.shape)
    starts = (
        min(max(int(c) * size - _ZOOM // 2, 0), max(extent - _ZOOM, 0))
        for c, extent in zip(center, image.shape, strict=True)
    )
    rows, columns = (slice(start, start + _ZOOM) for start in starts)
    return rows, columns
