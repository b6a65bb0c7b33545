# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""``butler simulate-exposures``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from click.testing import CliRunner
from simulations import (
    make_repository,
    read_all,
    same_pixels,
    simulate,
)

from lsst.daf.butler import Butler
from lsst.drp.restore.cli.simulate import simulate_exposures as simulate_command
from lsst.drp.restore.simulation.config import SimulationConfig
from lsst.drp.restore.simulation.sky import (
    star_catalog,
)
from lsst.drp.restore.warping.patch_geometry import PatchGeometry


def test_command(tmp_path: Path) -> None:
    """The command does what the function does."""
    root = str(make_repository(tmp_path / "repo"))
    butler = Butler.from_config(root, writeable=True)
    geometry = PatchGeometry.from_tract(
        butler.get("tract_geometry", skymap="field", tract=0, collections="skymaps"), 0
    )
    catalog = star_catalog(geometry, 80.0, 90.0, 1e4)
    catalog.write(tmp_path / "sources.ecsv")
    arguments = [root, "--skymap", "field", "--n-visits", "1", "--psf", "gaussian", "--collection", "by_hand"]
    arguments += ["--catalog", str(tmp_path / "sources.ecsv"), "--no-noise", "--detectors", "1", "2"]
    result = CliRunner().invoke(simulate_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "1 stars and 0 galaxies on the patch; input collection: by_hand" in result.output
    butler.registry.refresh()
    assert len(read_all(butler, "by_hand")) == 2
    simulate(butler, "by_call", psf="gaussian", catalog=catalog, noise=False, detectors=(1, 2))
    for a, b in zip(read_all(butler, "by_hand"), read_all(butler, "by_call"), strict=True):
        assert same_pixels(a, b)
    # A second time into the same collection, and an option that is refused.
    result = CliRunner().invoke(simulate_command, arguments)
    assert result.exit_code == 1 and "already holds" in result.output
    result = CliRunner().invoke(simulate_command, [root, "--skymap", "field", "--seeing-range", "1", "0.5"])
    assert result.exit_code == 1 and "seeing_range" in result.output


def test_command_defaults() -> None:
    """The command has every option of the configuration, with its default."""
    options = {option.name: option for option in simulate_command.params}
    for field in dataclasses.fields(SimulationConfig):
        if field.name != "skymap":
            assert options[field.name].default == field.default, field.name
    assert options.keys() - {field.name for field in dataclasses.fields(SimulationConfig)} == {"repo"}
