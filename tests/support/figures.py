# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figures as arrays."""

from __future__ import annotations

import io

import matplotlib.image
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure


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
