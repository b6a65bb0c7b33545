# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fixtures of the tests of inputs."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from warps import HAS_AFW

from lsst.daf.butler import Butler


@pytest.fixture
def butler(tmp_path: Path) -> Iterator[Butler]:
    """Provide a client of an empty repository."""
    root = str(tmp_path / "repo")
    Butler.makeRepo(root)
    with Butler.from_config(root, writeable=True) as butler:
        yield butler


@pytest.fixture
def geom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Provide lsst.geom."""
    if not HAS_AFW:
        module = types.ModuleType("lsst.geom")
        module.Point2D = lambda x, y: types.SimpleNamespace(x=x, y=y)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "lsst.geom", module)
