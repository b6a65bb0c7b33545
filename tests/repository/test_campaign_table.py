# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tables of restored patches, on the terminal and as files."""

from __future__ import annotations

import math
from pathlib import Path

import astropy.units as u
import pytest
from astropy.table import Table

from lsst.drp.restore.repository.campaign.columns import COLUMNS
from lsst.drp.restore.repository.campaign.patches import Patch, State
from lsst.drp.restore.repository.campaign.table import FORMATS, format_patches, make_table, write_table

GOOD = Patch(
    **{"skymap": "s", "tract": 0, "patch": 11, "band": "i", "run": "u/a", "ra": 150.0, "dec": 2.0},
    values=dict.fromkeys(COLUMNS) | {"loss": 0.4987, "exposures": 12.0},
    remarks=("no sharper than the coadd",),
)
FAILED = Patch(
    **{"skymap": "s", "tract": 0, "patch": 3, "band": "", "run": "u/b"},
    state=State.FAILED,
    problems=("failed: no space",),
)


def test_terminal() -> None:
    titles, first, second = format_patches([GOOD, FAILED]).splitlines()
    assert titles.split()[:5] == ["run", "tract", "patch", "band", "exp."]
    assert first.startswith("u/a      0     11  i       12")
    assert first.endswith("  no sharper than the coadd")
    assert second.startswith("u/b      0      3")
    assert second.endswith("  failed: no space")
    assert "\N{EN DASH}" in second


def test_terminal_without_what_is_the_same_everywhere() -> None:
    titles = format_patches([GOOD, GOOD]).splitlines()[0]
    assert titles.split()[:3] == ["tract", "patch", "band"]


def test_table() -> None:
    table = make_table([GOOD, FAILED])
    assert table.colnames == [
        *("skymap", "tract", "patch", "band", "run", "state", "ra", "dec"),
        *COLUMNS,
        *("n_problems", "n_remarks", "warnings"),
    ]
    assert list(table["state"]) == ["restored", "failed"]
    assert table["ra"].unit == u.deg
    assert table["loss"][0] == 0.4987 and math.isnan(table["loss"][1])
    assert table["loss"].description == COLUMNS["loss"].doc
    assert list(table["n_problems"]) == [0, 1]
    assert list(table["warnings"]) == ["no sharper than the coadd", "failed: no space"]


@pytest.mark.parametrize("extension", list(FORMATS))
def test_files(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"patches{extension.upper()}"
    write_table([FAILED], path)
    write_table([GOOD, FAILED], path)
    table = Table.read(path, format=FORMATS[extension])
    assert table.colnames == make_table([]).colnames
    assert list(table["patch"]) == [11, 3]


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must end with one of .csv, .ecsv, .fits"):
        write_table([GOOD], tmp_path / "patches.xls")
