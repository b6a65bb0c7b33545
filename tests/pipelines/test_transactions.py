# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Writing all datasets of a quantum or none, in a real repository."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from lsst.daf.butler import Butler, DataCoordinate, DatasetRef, DatasetType, Quantum
from lsst.drp.restore.transactions import all_or_nothing
from lsst.pipe.base import QuantumContext


@pytest.fixture
def butler(tmp_path: Path) -> Iterator[Butler]:
    Butler.makeRepo(tmp_path / "repo")
    with Butler.from_config(str(tmp_path / "repo"), run="run", writeable=True) as butler:
        for name in ("first", "second"):
            butler.registry.registerDatasetType(
                DatasetType(name, (), "StructuredDataDict", universe=butler.dimensions)
            )
        yield butler


def make_context(butler: Butler) -> tuple[QuantumContext, list[DatasetRef]]:
    types = [butler.get_dataset_type(name) for name in ("first", "second")]
    data_id = DataCoordinate.make_empty(butler.dimensions)
    refs = [DatasetRef(kind, data_id, run="run") for kind in types]
    quantum = Quantum(
        taskName="t", dataId=data_id, outputs={kind: [ref] for kind, ref in zip(types, refs, strict=True)}
    )
    return QuantumContext(butler, quantum), refs


def test_all(butler: Butler) -> None:
    context, refs = make_context(butler)
    with all_or_nothing(context):
        for ref in refs:
            context.put({"name": ref.datasetType.name}, ref)
    assert butler.get("second") == {"name": "second"}


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (ValueError("wrong"), ValueError, "wrong"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            RuntimeError,
            r"No space left.*nothing of it is left.*--extend-run --skip-existing --clobber-outputs",
        ),
    ],
)
def test_nothing(butler: Butler, error: Exception, raised: type[Exception], message: str) -> None:
    context, refs = make_context(butler)
    with pytest.raises(raised, match=message), all_or_nothing(context):
        context.put({"name": "first"}, refs[0])
        raise error
    for ref in refs:
        assert not butler.query_datasets(ref.datasetType, collections="run", explain=False)
        assert not butler.stored(ref)
