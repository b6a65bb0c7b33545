# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""``butler inspect-restored``."""

from __future__ import annotations

from pathlib import Path

import pytest
from astropy.table import Table
from click.testing import CliRunner, Result

from lsst.daf.butler import Butler
from lsst.daf.butler.cli.butler import cli as butler_command
from lsst.drp.restore.repository.campaign.columns import COLUMNS

pytestmark = pytest.mark.slow

NOT_5 = ("--where", "tract=0 AND patch != 5")


def inspect(repo: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(butler_command, ["inspect-restored", str(repo), *map(str, arguments)])


def test_list_and_files(campaign: Path, tmp_path: Path) -> None:
    files = ("--output", tmp_path / "patches.csv", "--html", tmp_path / "page.html")
    result = inspect(campaign, "u/run", "u/failed", "u/idle", *files)
    assert result.exit_code == 0, result.output
    assert "12 restored patches: " in result.output
    assert "1 failed; 1 had nothing to restore" in result.output
    assert f"Wrote 14 patches to {tmp_path / 'patches.csv'}" in result.output
    assert f"Wrote 14 patches to {tmp_path / 'page.html'}" in result.output
    for line in result.output.splitlines():
        assert line == line.rstrip()
    table = Table.read(tmp_path / "patches.csv", format="ascii.csv")
    assert set(COLUMNS) < set(table.colnames)
    assert len(table) == 14 and table["patch"][0] == 6
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert len(list((tmp_path / "page_images").glob("*.jpg"))) == 11


@pytest.mark.parametrize(
    ("options", "patches"),
    [
        (["--sort", "inconsistent", "--limit", "1", *NOT_5], [1]),
        (["--sort", "exposures", "--limit", "1", *NOT_5], [3]),
        # What is not a number is worse than any number; what is missing comes
        # last either way.
        (["--sort", "loss", "--limit", "2", *NOT_5], [7, 2]),
        (["--sort", "ssim", "--where", "tract=0 AND patch IN (3, 4)"], [3, 4]),
        (["--sort", "ssim", "--where", "tract=0 AND patch IN (3, 4)", "--reverse"], [3, 4]),
        (["--sort", "patch", "--limit", "3"], [0, 1, 2]),
        (["--sort", "patch", "--reverse", "--limit", "1"], [13]),
        (["--band", "i", "--band", "r", "--sort", "patch", "--limit", "1"], [0]),
    ],
)
def test_order_and_selection(campaign: Path, tmp_path: Path, options: list[str], patches: list[int]) -> None:
    result = inspect(campaign, "u/run", *options, "--output", tmp_path / "patches.fits")
    assert result.exit_code == 0, result.output
    assert list(Table.read(tmp_path / "patches.fits")["patch"]) == patches


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["sim"], "No restored patches ('restored_coadd_metrics') in sim."),
        (["u/run", "--band", "g"], "in band g"),
        (["u/run", "--where", "skymap='test' AND tract=0 AND patch=99"], "patch=99"),
        (["u/run", "--where", "color='i'"], "color"),
        (["u/run", "--sort", "beauty"], "--sort 'beauty' is none of warnings, patch, exposures"),
        (["u/run", "--output", "patches.xls"], "does not end with one of .csv, .ecsv, .fits"),
        (["u/run", "--html", "no/such/folder/page.html", "--no-thumbnails"], "no/such/folder"),
    ],
)
def test_messages(campaign: Path, arguments: list[str], message: str) -> None:
    result = inspect(campaign, *arguments)
    assert result.exit_code == 1, result.output
    assert message in result.output
    assert "Traceback" not in result.output


def test_limit_of_the_list(campaign: Path) -> None:
    lines = inspect(campaign, "u/run", "--limit", "3").output.splitlines()
    assert lines[-1] == "... and 9 more (--limit)"
    assert len(lines) == 2 + 1 + 1 + 3 + 1


def test_repository_without_any_restored_patch(tmp_path: Path) -> None:
    Butler.makeRepo(tmp_path / "repo")
    result = inspect(tmp_path / "repo")
    assert result.exit_code == 1
    assert "No restored patches ('restored_coadd_metrics') in this repository." in result.output


def test_all_runs_of_a_repository_are_listed(campaign: Path) -> None:
    output = inspect(campaign).output
    assert all(run in output for run in ("u/run", "u/failed", "u/idle"))
