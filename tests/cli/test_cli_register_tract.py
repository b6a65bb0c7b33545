# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""``butler register-tract``."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from frames import write_small_frame

from lsst.daf.butler import Butler
from lsst.daf.butler.cli.butler import cli
from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.images import Box


def test_command(tmp_path: Path) -> None:
    repo = str(tmp_path / "repo")
    Butler.makeRepo(repo)
    command = ["register-tract", repo, "s", "--ra", "318.1", "--dec", "-66", "--pixel-scale", "0.25"]
    command += ["--patch-size", "300", "--patch-border", "50", "--patches", "3", "2", "--tract", "4"]
    runner = CliRunner()
    result = runner.invoke(cli, [*command, "--cell-size", "50", "--collection", "grids"])
    assert result.exit_code == 0, result.output
    assert "tract 4 with 3x2 patches of 400x400 pixels" in result.output
    with Butler.from_config(repo) as butler:
        dataset = butler.get("tract_geometry", skymap="s", tract=4, collections="grids")
    geometry = PatchGeometry.from_tract(dataset, 5)
    assert (geometry.tract, geometry.patch.id) == (4, 5)
    assert geometry.outer_bbox == Box.factory[300:700, 600:1000]
    result = runner.invoke(cli, [*command, "--cell-size", "60"])
    assert result.exit_code == 1
    assert "Error: Cells of 60 pixels do not tile" in result.output


def test_grid_from_exposures(tmp_path: Path) -> None:
    repo = str(tmp_path / "repo")
    Butler.makeRepo(repo)
    (tmp_path / "frames").mkdir()
    write_small_frame(tmp_path / "frames/a.fits")
    write_small_frame(tmp_path / "frames/b.fits", 30.0)
    runner = CliRunner()
    command = ["register-tract", repo, "s", "--from", str(tmp_path / "frames")]
    result = runner.invoke(cli, command)
    assert result.exit_code == 0, result.output
    assert "pixels of 0.252 arcsec, cells of 50 pixels, from the exposures" in result.output
    assert "tract 0 with 1x1 patches of 200x200 pixels" in result.output
    result = runner.invoke(cli, [*command, "--patches", "2", "2"])
    assert result.exit_code == 1 and "with another geometry is registered" in result.output
    result = runner.invoke(cli, ["register-tract", repo, "t"])
    assert (
        result.exit_code == 2 and "Give the center by --ra and --dec, or exposures by --from" in result.output
    )
