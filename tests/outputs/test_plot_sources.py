# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import astropy.table
import matplotlib.colors
import numpy as np
import pytest
from figures import color_at, panels, render
from skies import make_geometry

from lsst.drp.restore.outputs.plot_sources import plot_sources
from lsst.drp.restore.outputs.plot_tools import NO_DATA_COLOR


def make_table(rows: list[tuple[float, float, int, int, bool]]) -> astropy.table.Table:
    names = ("x", "y", "parent", "deblend_nChild", "detect_isPrimary")
    return astropy.table.Table(rows=rows or None, names=names, dtype=(float, float, int, int, bool))


@pytest.mark.parametrize("cells", [4, 10])
def test_sources_are_marked_where_they_are(cells: int) -> None:
    geometry = make_geometry(cells=(cells, cells), cell_size=30, start=(40, 70))
    shape = geometry.outer_bbox.shape
    rng = np.random.default_rng(1)
    image = rng.standard_normal(shape).astype(np.float32)
    image[20:30, 20:30] = np.nan
    rows = [(100.0, 80.0, 0, 0, True), (130.0, 90.0, 4, 0, True), (71.0, 41.0, 0, 0, False)]
    table = make_table([*rows, (129.0, 91.0, 0, 2, False)])
    figure = plot_sources(image, np.maximum(image, 0), table, geometry=geometry, title="a patch")
    shown = panels(figure)
    # Only a large patch has an enlarged part.
    assert len(shown) == (2 if cells == 4 else 4)
    assert [ax.get_title() for ax in shown[:2]] == ["Reference coadd", "Restored"]
    for ax in shown[:2]:
        marked = [collection.get_offsets() for collection in ax.collections]
        for offsets, (x, y, *_) in zip(marked, rows, strict=True):
            np.testing.assert_array_equal(offsets, [[x, y]])
    assert shown[0].images[0].norm is shown[1].images[0].norm
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["isolated (1)", "from a blend (1)", "outside of the inner region (1)"]
    assert render(figure).std() > 10


@pytest.mark.parametrize("cells", [4, 9])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_nothing_to_mark(value: float, cells: int) -> None:
    """No source, and an image of nothing but sky, or without data."""
    geometry = make_geometry(cells=(cells, cells))
    image = np.full(geometry.outer_bbox.shape, value, np.float32)
    figure = plot_sources(image, image, make_table([]), geometry=geometry)
    shown = panels(figure)
    assert len(shown) == (2 if cells == 4 else 4)
    assert all(len(marks.get_offsets()) == 0 for ax in shown for marks in ax.collections)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["isolated (0)", "from a blend (0)", "outside of the inner region (0)"]
    center = geometry.outer_bbox
    color = color_at(figure, shown[0], center.x.center + 5, center.y.center + 5) / 255
    missing = np.allclose(color, matplotlib.colors.to_rgb(NO_DATA_COLOR), atol=0.01)
    assert missing == np.isnan(value)
