# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fixtures of the tests of the room ``repository``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from exposure_files import Exposures
from visit_image_examples import BBOX, BEGIN, make_image

from lsst.daf.butler import Butler
from lsst.drp.restore.repository.register import register_instrument, register_visit
from lsst.drp.restore.warping.projections import sky_region


@pytest.fixture
def exposures(tmp_path: Path) -> Exposures:
    """An empty set of files and rows."""
    (tmp_path / "files").mkdir()
    return Exposures(tmp_path / "files")


@pytest.fixture
def butler(tmp_path: Path) -> Iterator[Butler]:
    """A client of an empty repository."""
    root = str(tmp_path / "repo")
    Butler.makeRepo(root)
    with Butler.from_config(root, writeable=True) as butler:
        yield butler


@pytest.fixture
def repository(butler: Butler) -> Butler:
    """A client of a repository with the instrument ``Cam`` and a visit, 17."""
    register_instrument(butler, "Cam", {3: "S3", 4: "S4"}, {"r_1": "r", "i_1": "i"})
    register_visit(
        butler,
        instrument="Cam",
        visit=17,
        physical_filter="r_1",
        begin=BEGIN,
        exposure_time=30.0,
        detector_regions={3: sky_region(make_image().sky_projection, BBOX)},
    )
    return butler
