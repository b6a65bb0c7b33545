# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""``butler ingest-exposures``."""

from __future__ import annotations

from pathlib import Path

import pytest
from astropy.table import Table
from click.testing import CliRunner
from exposure_files import Exposures
from frames import write_small_frame

from lsst.daf.butler import Butler, CollectionType
from lsst.daf.butler.cli.butler import cli
from lsst.drp.restore.repository.register_tract import register_tract


def test_command(tmp_path: Path) -> None:
    root = str(tmp_path / "repo")
    Butler.makeRepo(root)
    butler = Butler.from_config(root, writeable=True)
    exposures = Exposures(tmp_path)
    grid = {"patch_size": 60, "patch_border": 20, "cell_size": 50, "n_patches": (1, 1)}
    register_tract(butler, "s", ra=150.0, dec=2.0, pixel_scale=0.25, **grid)
    exposures.add(1)
    repo, manifest = root, str(exposures.manifest())
    runner = CliRunner()
    command = ["ingest-exposures", repo, manifest, "--instrument", "Cam", "--collection", "in"]
    result = runner.invoke(cli, command)
    assert result.exit_code == 0, result.output
    assert "Ingested 1 images of 1 visits with 'Cam'; input collection: in" in result.output
    info = butler.collections.get_info("in")
    assert (info.type, list(info.children)) == (CollectionType.CHAINED, ["in/run", "skymaps"])
    (data_id,) = butler.registry.queryDataIds(
        ("visit", "detector", "patch", "band"), datasets="visit_image", collections="in"
    )
    assert (data_id["visit"], data_id["patch"], data_id["band"]) == (1, 0, "r")
    result = runner.invoke(cli, command)
    assert result.exit_code == 1
    assert "Error: Nothing was ingested, 1 problem(s)" in result.output
    result = runner.invoke(
        cli, ["ingest-exposures", repo, manifest, "--collection", "in2", "--tract-collection", "nowhere"]
    )
    assert result.exit_code == 1
    assert "There is no collection 'nowhere'" in result.output
    assert not butler.collections.query("in2*")
    result = runner.invoke(cli, ["ingest-exposures", repo, manifest, "--collection", "skymaps"])
    assert result.exit_code == 1
    assert "'skymaps' is a RUN collection" in result.output


def test_manifest_of_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Butler.makeRepo("repo")
    Path("frames").mkdir()
    write_small_frame(Path("frames/a.fits"), MAGZP=None)
    runner = CliRunner()
    command = ["ingest-exposures", "repo", "frames"]
    result = runner.invoke(cli, command)
    assert result.exit_code == 1
    assert "Error: Nothing was ingested, 1 problem(s)" in result.output
    assert "frames/a.fits: no zero point" in result.output
    result = runner.invoke(cli, [*command, "--write-manifest", "list.ecsv"])
    assert result.exit_code == 0, result.output
    assert "Wrote 1 rows to list.ecsv; nothing was ingested." in result.output
    assert "To fill in: frames/a.fits: no zero point" in result.output
    table = Table.read("list.ecsv")
    table["zero_point"], table["psf_kind"], table["psf"] = [27.0], ["fwhm_pixel"], ["3.0"]
    table.write("list.ecsv", overwrite=True)
    result = runner.invoke(cli, ["ingest-exposures", "repo", "list.ecsv"])
    assert result.exit_code == 0, result.output
    assert "27.000 g" in result.output and "Origins: h header" in result.output
    assert "Ingested 1 images of 1 visits with 'My_Camera'" in result.output
