# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import numpy as np
import pytest
from figures import panels
from matplotlib.text import Annotation
from skies import make_geometry

from lsst.drp.restore.outputs.plot_restoration import plot_comparison
from lsst.drp.restore.outputs.plot_tools import (
    block_mean,
    finite_percentile,
    make_region_panels,
    sky_sigma,
    spaced_indices,
    upper_limit,
)


def make_images(shape: tuple[int, int]) -> list[np.ndarray]:
    return list(np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32))


@pytest.mark.parametrize("rotation", [0.0, 60.0, 180.0])
def test_compass_points_to_north_and_east(rotation: float) -> None:
    geometry = make_geometry(cells=(3, 4), start=(3000, 5000), angle=rotation)
    figure = plot_comparison(*make_images((90, 120)), geometry=geometry)
    ax = panels(figure)[0]
    arrows = [np.subtract(text.xy, text.xyann) for text in ax.texts if isinstance(text, Annotation)]
    center = geometry.sky_projection.pixel_to_sky(x=5060.0, y=3045.0)
    for arrow, attribute in zip(arrows, ("dec", "ra"), strict=True):
        step = 5 * arrow / np.hypot(*arrow)
        there = geometry.sky_projection.pixel_to_sky(x=5060.0 + step[0], y=3045.0 + step[1])
        moved = {
            "dec": (there.dec - center.dec).arcsec,
            "ra": (there.ra - center.ra).arcsec * np.cos(center.dec.rad),
        }
        assert moved.pop(attribute) == pytest.approx(1.0, rel=1e-3)
        assert next(iter(moved.values())) == pytest.approx(0.0, abs=1e-3)


def test_scale_bar_is_five_arcseconds() -> None:
    figure = plot_comparison(*make_images((90, 120)), geometry=make_geometry(cells=(3, 4)))
    (bar,) = panels(figure)[0].lines
    assert np.ptp(bar.get_xdata()) == pytest.approx(25.0, rel=1e-3)


def test_blocks_are_means_of_finite_pixels() -> None:
    image = np.arange(30.0).reshape(5, 6)
    image[0, 0], image[2:4, 2:4] = np.nan, np.nan
    means, size = block_mean(image, 3)
    assert size == 2
    # The last row fills no block.
    np.testing.assert_array_equal(means, [[14 / 3, 5.5, 7.5], [15.5, np.nan, 19.5]])
    assert block_mean(image, 6)[1] == 1


def test_noise_is_that_of_the_sky_below_sources() -> None:
    image = np.random.default_rng(2).normal(scale=3.0, size=(200, 200))
    image[:20] += 1000.0
    image[-5:] = np.nan
    assert sky_sigma(image) == pytest.approx(3.0, rel=0.1)
    assert sky_sigma(np.full((5, 5), np.nan)) == sky_sigma(np.ones((5, 5))) == 1.0


def test_upper_limit_is_above_the_noise() -> None:
    image = np.zeros((100, 100))
    image[0, :50], image[-1] = 500.0, np.nan
    assert upper_limit(image, 1.0) == finite_percentile(image, 99.95) == 500.0
    assert upper_limit(np.zeros((10, 10)), 2.0) == 40.0
    assert finite_percentile(np.full((2, 2), np.nan), 50.0) == 0.0


@pytest.mark.parametrize(
    ("n", "max_number", "expected"),
    [(1, 3, [0]), (3, 9, [0, 1, 2]), (10, 4, [0, 3, 6, 9]), (7, 3, [0, 3, 6]), (0, 3, [])],
)
def test_spaced_indices(n: int, max_number: int, expected: list[int]) -> None:
    assert spaced_indices(n, max_number).tolist() == expected


def test_rows_of_panels_and_their_coordinates() -> None:
    geometry = make_geometry(cells=(3, 4), cell_size=100, start=(3000, 5000))
    region = (slice(40, 160), slice(100, 220))
    panels = make_region_panels(
        (300, 400), region, ["a", "b", "c"], panel_size=3.0, margin=1.0, dpi=100, geometry=geometry
    )
    assert panels.axes.shape == (2, 3)
    assert [ax.get_title() for ax in panels.axes[0]] == ["a", "b", "c"]
    boxes = [box for _, _, box in panels]
    assert boxes == [(5000, 5400, 3000, 3300), (5100, 5220, 3040, 3160)]
    assert panels.regions[1] == region
    for ax in panels.axes[0]:
        (frame,) = ax.patches
        assert (*frame.get_xy(), frame.get_width(), frame.get_height()) == (5099.5, 3039.5, 120, 120)
    np.testing.assert_allclose(panels.figure.get_size_inches(), (9.0, 3.0 * 1.75 + 1.0))
    alone = make_region_panels((300, 400), None, ["a"], panel_size=3.0, margin=1.0, dpi=100)
    assert [box for _, _, box in alone] == [(0, 400, 0, 300)]
    assert not alone.axes[0, 0].patches
