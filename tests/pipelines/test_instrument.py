# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The instrument of exposures without an obs package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lsst.daf.butler import Butler
from lsst.drp.restore.instrument import ExternalInstrument
from lsst.drp.restore.repository.register import register_instrument
from lsst.pipe.base import Instrument


@pytest.fixture
def butler(tmp_path: Path) -> Iterator[Butler]:
    """A client of an empty repository."""
    root = str(tmp_path / "repo")
    Butler.makeRepo(root)
    with Butler.from_config(root, writeable=True) as butler:
        yield butler


def test_any_name_gives_the_class(butler: Butler) -> None:
    register_instrument(butler, "Cam", {}, {})
    assert isinstance(Instrument.fromName("Cam", butler.registry), ExternalInstrument)
    (record,) = butler.query_dimension_records("instrument", instrument="Cam")
    # The column of the class name is no wider.
    assert len(record.class_name) <= 64


def test_default_name_can_be_registered_again(butler: Butler) -> None:
    for _ in range(2):
        ExternalInstrument().register(butler.registry)
    assert isinstance(Instrument.fromName("External", butler.registry), ExternalInstrument)
    (record,) = butler.query_dimension_records("instrument", instrument="External")
    assert record.detector_max == ExternalInstrument.DETECTOR_MAX
    assert record.visit_max == ExternalInstrument.VISIT_MAX


def test_no_raw_exposures() -> None:
    with pytest.raises(NotImplementedError, match="no raw exposures"):
        ExternalInstrument().getRawFormatter({"detector": 1})
