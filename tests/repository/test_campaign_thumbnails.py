# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Thumbnails of restored patches."""

from __future__ import annotations

import numpy as np
import pytest

from lsst.drp.restore.repository.campaign.thumbnails import PANELS, SIZE, draw_thumbnail


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("shape", [(300, 520), (40, 30), (600, 600)])
def test_thumbnail(shape: tuple[int, int], factor: int) -> None:
    """A star is where it belongs, as bright in large pixels as in small ones,
    and pixels without data are green.
    """
    rng = np.random.default_rng(1)
    reference = rng.normal(size=shape).astype(np.float32)
    reference[: shape[0] // 4] = np.nan
    reference[-shape[0] // 8 :, : shape[1] // 8] += 10.0
    restored = np.nan_to_num(reference).repeat(factor, axis=0).repeat(factor, axis=1) / factor**2
    picture = np.asarray(draw_thumbnail(reference, restored)).astype(int)
    assert picture.shape == (256, 1036, 3) == (*SIZE[::-1], 3)
    assert len(PANELS) == 4
    scale = 256 / max(shape)
    y0, x0 = ((256 - round(extent * scale)) // 2 for extent in shape)
    bright = (y0 + round(shape[0] * scale / 16), x0 + round(shape[1] * scale / 16))
    dark = (y0 + round(shape[0] * scale / 2), x0 + round(shape[1] * scale / 2))
    for panel in (0, 260):
        around = picture[:, panel : panel + 256]
        assert around[bright].mean() > around[dark].mean() + 40
    green = picture[255 - y0 - 2, x0 + 5]
    assert green[1] > green[0] + 30
    assert np.ptp(picture[255 - y0 - 2, 260 + x0 + 5]) == 0
    np.testing.assert_allclose(picture[:, :256][bright], picture[:, 260:516][bright], atol=3)


def test_enlargements_show_neither_the_brightest_star_nor_missing_data() -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(size=(1024, 1024)).astype(np.float32)
    rows, columns = rng.integers(10, 1000, (2, 400))
    for row, column in zip(rows, columns, strict=True):
        image[row : row + 3, column : column + 3] += 8.0
    image[700:790, 100:190] += 5000.0
    image[:, 900:] = np.nan
    picture = np.asarray(draw_thumbnail(image, image)).astype(int)
    enlarged = picture[:, 520:776].mean(axis=-1)
    # Some sources, no missing pixels, no saturated area.
    assert np.ptp(picture[:, 520:776], axis=-1).max() < 20
    assert (enlarged > 250).mean() < 0.02
    assert (enlarged > np.median(enlarged) + 40).mean() > 0.002


def test_thumbnails_of_what_there_is() -> None:
    image = np.random.default_rng(1).normal(size=(50, 50)).astype(np.float32)
    empty = np.full((50, 50), np.nan, np.float32)
    assert np.ptp(np.asarray(draw_thumbnail(None, None))[:, :256]) == 0
    only = np.asarray(draw_thumbnail(None, image))
    assert np.ptp(only[:, :256]) == 0
    assert np.ptp(only[:, 260:516]) > 0
    assert np.asarray(draw_thumbnail(empty, empty)).shape == (256, 1036, 3)
