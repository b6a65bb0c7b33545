# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pictures of kernels and source lists."""

from __future__ import annotations

import dataclasses
import io

import astropy.table
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from skies import make_geometry
from stacks import moffat_kernel, star_field

from lsst.drp.restore.outputs.plot_kernels import plot_kernels
from lsst.drp.restore.outputs.plot_sources import plot_sources
from lsst.drp.restore.stack.exposure_stack import ExposureStack


def render(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    buffer.seek(0)
    return matplotlib.image.imread(buffer)[..., :3] * 255


def with_kernels(stack: ExposureStack, kernels: np.ndarray) -> ExposureStack:
    return dataclasses.replace(stack, kernels=kernels.astype(np.float32))


def test_kernels_from_the_sharpest_with_their_shapes() -> None:
    stack, _, _ = star_field(n=4)
    widths = [4.0, 2.5, 3.0, 3.5]
    kernels = np.empty_like(stack.kernels)
    for t, width in enumerate(widths):
        # Longer along x or along y.
        kernels[t] = moffat_kernel(width, ellipticity=-0.1 if t == 1 else 0.1)
    geometry = make_geometry(cells=(3, 4), cell_size=32)
    figure = plot_kernels(with_kernels(stack, kernels), geometry=geometry, title="a patch")
    titles = [ax.get_title() for ax in figure.axes if ax.images]
    assert [title.split("\n")[0] for title in titles] == [f"visit {t}" for t in (1, 2, 3, 0)]
    assert titles[0].split("\n")[1].startswith('0.50"  e=0.1')
    # North is along y, east along -x.
    assert titles[0].endswith("at 90\N{DEGREE SIGN}")
    assert titles[1].endswith("at 0\N{DEGREE SIGN}")
    norms = {id(ax.images[0].norm) for ax in figure.axes if ax.images}
    assert len(norms) == 1
    assert figure.get_suptitle() == "a patch"
    assert render(figure).std() > 10


def test_variation_over_the_patch() -> None:
    stack, _, _ = star_field(n=3)
    kernels = np.empty_like(stack.kernels)
    for i, j in np.ndindex(kernels.shape[1:3]):
        kernels[:, i, j] = moffat_kernel(3.0 + 0.5 * i, ellipticity=0.05)
    # An exposure that covers half of the patch, and a cell that none does.
    kernels[0, :, :2] = 0.0
    kernels[:, 0, 0] = 0.0
    figure = plot_kernels(with_kernels(stack, kernels))
    (ax,) = [ax for ax in figure.axes if ax.get_title(loc="left").startswith("Median width")]
    mesh = ax.collections[0]
    shown = np.ma.filled(mesh.get_array(), np.nan)
    assert np.isnan(shown[0, 0])
    np.testing.assert_allclose(shown[:, 1:], np.repeat([[3.0], [3.5], [4.0]], 3, axis=1), rtol=0.03)
    assert render(figure).std() > 10


@pytest.mark.parametrize("n", [1, 2, 33, 50])
def test_any_number_of_kernels(n: int) -> None:
    stack, _, _ = star_field(n=1, shape=(32, 32), n_stars=1)
    kernels = np.array([moffat_kernel(2.5 + 0.05 * t) for t in range(n)])[:, np.newaxis, np.newaxis]
    stack = ExposureStack(
        image=np.repeat(stack.image, n, axis=0),
        variance=np.repeat(stack.variance, n, axis=0),
        good=np.repeat(stack.good, n, axis=0),
        kernels=kernels,
        correlation=np.ones((n, 1, 1), np.float32),
        cell_shape=(32, 32),
        names=tuple(f"visit {t}" for t in range(n)),
    )
    figure = plot_kernels(stack)
    titles = [ax.get_title().split("\n")[0] for ax in figure.axes if ax.images]
    assert len(titles) == min(n, 36)
    assert titles[0] == "visit 0" and titles[-1] == f"visit {n - 1}"
    assert render(figure).std() > 10


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
    panels = [ax for ax in figure.axes if ax.images]
    # Only a large patch has an enlarged part.
    assert len(panels) == (2 if cells == 4 else 4)
    assert [ax.get_title() for ax in panels[:2]] == ["Reference coadd", "Restored"]
    for ax in panels[:2]:
        marked = [collection.get_offsets() for collection in ax.collections]
        for offsets, (x, y, *_) in zip(marked, rows, strict=True):
            np.testing.assert_array_equal(offsets, [[x, y]])
    assert panels[0].images[0].norm is panels[1].images[0].norm
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["alone (1)", "split from a blend (1)", "outside of the inner region (1)"]
    assert render(figure).std() > 10


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_nothing_to_mark(value: float) -> None:
    geometry = make_geometry()
    image = np.full(geometry.outer_bbox.shape, value, np.float32)
    assert render(plot_sources(image, image, make_table([]), geometry=geometry)).shape[2] == 3


def test_large_patch_without_data() -> None:
    geometry = make_geometry(cells=(9, 9))
    image = np.full(geometry.outer_bbox.shape, np.nan, np.float32)
    assert render(plot_sources(image, image, make_table([]), geometry=geometry)).shape[2] == 3
