# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Footprints of known images."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from benchmarks.footprints import (
    COMMAND,
    find_blends,
    find_footprints,
    format_table,
    measure_footprints,
)
from benchmarks.scenes import crowded_scene
from benchmarks.tables import REFERENCE


def make_image() -> np.ndarray:
    """A square of 16 pixels, a ring of 16, a bar of 8 and faint pixels."""
    image = np.zeros((30, 30))
    image[2:6, 2:6] = 6.0
    image[10:15, 10:15] = 6.0
    image[11:14, 11:14] = 0.0
    image[20, 2:10] = 9.0
    image[25:, 25:] = 4.9
    return image


def test_footprints() -> None:
    """Small and faint ones are none; those that are left are numbered."""
    image = make_image()
    image[0, 0] = np.nan
    labels = find_footprints(image, 1.0)
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert (labels == 1).sum() == (labels == 2).sum() == 16
    assert find_footprints(image, 2.0).max() == 0


def test_measurements() -> None:
    labels = find_footprints(make_image(), 1.0)
    stars = np.array([[3, 3], [12, 10], [4, 4], [28, 28]])
    pairs = np.array([[0, 1], [0, 2], [1, 3]])
    truth = np.where(np.indices(labels.shape)[0] < 8, 10.0, 2.4)
    result = measure_footprints(labels, pairs, stars, truth, 1.0)
    assert dataclasses.asdict(result) == {
        "number": 2,
        "largest": 16,
        "resolved": pytest.approx(1.0 / 3.0),
        "blends": 3,
        "rings": 1,
        "false": 0.5,
    }
    nothing = measure_footprints(np.zeros_like(labels), pairs[:0], stars, truth, 1.0)
    assert (nothing.number, nothing.largest, nothing.rings) == (0, 0, 0)
    assert math.isnan(nothing.resolved) and math.isnan(nothing.false)


def test_blends() -> None:
    """Stars that are together on the coadd and apart on the truth."""
    scene = crowded_scene(8103, 64)
    together = np.ones((64, 64), int)
    stars, pairs = find_blends(scene, together, np.arange(64 * 64).reshape(64, 64) + 1)
    assert len(pairs) > 10
    distance = np.hypot(*(stars[pairs[:, 0]] - stars[pairs[:, 1]]).T)
    assert (distance <= 10.0).all() and (distance > 0.0).all()
    for blended, apart in ((together, together), (0 * together, together)):
        assert len(find_blends(scene, blended, apart)[1]) == 0


def test_table() -> None:
    labels = find_footprints(make_image(), 1.0)
    stars, pairs = np.array([[3, 3], [12, 10]]), np.array([[0, 1]])
    result = measure_footprints(labels, pairs, stars, np.full(labels.shape, 9.0), 1.0)
    larger = dataclasses.replace(result, number=4)
    table = format_table([{REFERENCE: result}, {REFERENCE: larger}])
    assert table.splitlines()[2].split() == ["reference", "coadd", "3", "16", "1", "1", "1", "0"]
    assert COMMAND.parse(["--size", "128"]).size == 128
