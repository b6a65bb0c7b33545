# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Columns read from metrics of any version."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from lsst.drp.restore.repository.campaign.columns import COLUMNS, finite_values

METRICS: dict[str, Any] = {
    "n_exposures": 12,
    "loss": math.nan,
    "sharpness": {"restored": 1.5, "reference_coadd": 1.25},
    "ssim": {"reference_coadd": None},
    "converged": True,
    "seconds": True,
    "steps": "many",
}


@pytest.mark.parametrize(
    ("name", "expected"), [("exposures", 12.0), ("sharper", 0.25), ("ssim", None), ("dropped", None)]
)
def test_values_are_read(name: str, expected: float | None) -> None:
    assert COLUMNS[name].read(METRICS) == expected


def test_nan_is_a_value() -> None:
    value = COLUMNS["loss"].read(METRICS)
    assert value is not None and math.isnan(value)


@pytest.mark.parametrize("name", ["seconds", "steps"])
def test_texts_and_flags_are_no_values(name: str) -> None:
    assert COLUMNS[name].read(METRICS) is None


def test_difference_needs_both_values() -> None:
    assert COLUMNS["sharper"].read({"sharpness": {"restored": 1.5}}) is None
    assert COLUMNS["sharper"].read({"sharpness": {"reference_coadd": 1.5}}) is None


@pytest.mark.parametrize("metrics", [None, [], "text", {"sharpness": 3.0}, {}])
def test_metrics_of_another_form_have_no_values(metrics: Any) -> None:
    assert {column.read(metrics) for column in COLUMNS.values()} == {None}


def test_formats() -> None:
    assert COLUMNS["inconsistent"].format(0.1234) == "12.3%"
    assert COLUMNS["sharper"].format(0.5) == "+0.50"
    assert COLUMNS["loss"].format(math.nan) == "nan"
    assert {column.format(None) for column in COLUMNS.values()} == {"\N{EN DASH}"}


def test_names_are_those_of_the_table() -> None:
    assert all(name == column.name for name, column in COLUMNS.items())
    assert len({column.title for column in COLUMNS.values()}) == len(COLUMNS)


def test_finite_values() -> None:
    values = finite_values([1.0, None, math.nan, math.inf, -2.0])
    np.testing.assert_array_equal(values, [1.0, -2.0])
    assert finite_values([]).size == 0
