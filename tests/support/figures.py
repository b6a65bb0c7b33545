# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figures as arrays, and geometries for their axes."""

from __future__ import annotations

import io

import matplotlib.image
import numpy as np
from astropy.wcs import WCS
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.images import YX, Box, SkyProjection, TractFrame
from lsst.images.cells import CellGrid, PatchDefinition


def render(figure: Figure) -> np.ndarray:
    """Return the pixels of a figure, 0 to 255, shape ``(height, width, 3)``."""
    buffer = io.BytesIO()
    # In the coordinates of the figure, too, for those who look up a pixel.
    figure.set_dpi(50)
    figure.savefig(buffer, format="png", dpi=50)
    buffer.seek(0)
    return matplotlib.image.imread(buffer)[..., :3] * 255


def color_at(figure: Figure, ax: Axes, x: float, y: float) -> np.ndarray:
    """Return the color of a figure at coordinates of a panel, 0 to 255, shape
    ``(3,)``.
    """
    picture = render(figure)
    column, row = ax.transData.transform((x, y))
    return picture[picture.shape[0] - 1 - round(row), round(column)]


def panels(figure: Figure) -> list[Axes]:
    """Return the panels with images, row by row."""
    return [ax for ax in figure.axes if ax.images]


def make_geometry(shape: tuple[int, int], rotation: float = 0.0) -> PatchGeometry:
    """Return a patch with pixels of 0.2", north up and east left, or rotated by
    degrees.
    """
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
