# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fixtures of the tests of the room ``simulation``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulations import make_repository

from lsst.daf.butler import Butler
from lsst.drp.restore.warping.patch_geometry import PatchGeometry


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a tract of one patch."""
    return make_repository(tmp_path_factory.mktemp("template") / "repo")


@pytest.fixture(scope="session")
def geometry(template: Path) -> PatchGeometry:
    """The patch."""
    with Butler.from_config(str(template)) as butler:
        data = butler.get("tract_geometry", skymap="field", tract=0, collections="skymaps")
    return PatchGeometry.from_tract(data, 0)


@pytest.fixture
def butler(template: Path, tmp_path: Path) -> Iterator[Butler]:
    """A client of a copy of the repository."""
    root = tmp_path / "repo"
    shutil.copytree(template, root)
    with Butler.from_config(str(root), writeable=True) as butler:
        yield butler
