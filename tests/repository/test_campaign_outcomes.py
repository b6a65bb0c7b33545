# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Reasons of quanta that left no restored patch, as the middleware stores them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lsst.daf.butler import Butler, DatasetRef, DatasetType
from lsst.daf.butler.logging import ButlerLogRecord, ButlerLogRecords
from lsst.drp.restore.repository.campaign.outcomes import first_line, read_outcome
from lsst.drp.restore.repository.campaign.patches import State
from lsst.pipe.base import ExceptionInfo, QuantumSuccessCaveats, TaskMetadata

EXECUTOR = "lsst.pipe.base.single_quantum_executor"
NO_WORK = "Task 'restoreCoadd' on quantum {patch: 9} exited early with no work found: "


@pytest.fixture(scope="module")
def butler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Butler]:
    """A client of a repository with the dataset types ``log`` and
    ``metadata``.
    """
    root = str(tmp_path_factory.mktemp("outcomes") / "repo")
    Butler.makeRepo(root)
    with Butler.from_config(root, writeable=True) as butler:
        for name, storage_class in (("log", "ButlerLogRecords"), ("metadata", "TaskMetadata")):
            butler.registry.registerDatasetType(DatasetType(name, butler.dimensions.empty, storage_class))
        yield butler


def put_log(butler: Butler, run: str, *messages: str, name: str = EXECUTOR, **extra: Any) -> DatasetRef:
    """Write a log as the executor does."""
    records = [
        ButlerLogRecord(
            **{"name": name, "message": message, "levelno": 20, "levelname": "INFO", "MDC": {}},
            **{"filename": "a.py", "pathname": "a.py", "lineno": 1, "process": 1, "processName": "main"},
            asctime=datetime.datetime.now(tz=datetime.UTC),
        )
        for message in messages
    ]
    butler.collections.register(run)
    return butler.put(ButlerLogRecords.from_records(records, extra=extra), "log", run=run)


def put_metadata(butler: Butler, run: str, caveats: QuantumSuccessCaveats) -> DatasetRef:
    metadata = TaskMetadata()
    metadata["quantum"] = TaskMetadata.from_dict({"caveats": caveats.value})
    butler.collections.register(run)
    return butler.put(metadata, "metadata", run=run)


def test_exception_is_the_reason_of_a_failure(butler: Butler) -> None:
    # In the log's text there is another message.
    exception = ExceptionInfo(type_name="a.B", message="\n  no space left.\nwhat to do", metadata={})
    log = put_log(butler, "failed", NO_WORK + "another", exception=exception.model_dump())
    outcome = read_outcome(butler, log, None)
    assert (outcome.state, outcome.reason) == (State.FAILED, "failed: no space left")


def test_exception_without_a_message(butler: Butler) -> None:
    exception = ExceptionInfo(type_name="builtins.MemoryError", message="", metadata={})
    log = put_log(butler, "memory", exception=exception.model_dump())
    assert read_outcome(butler, log, None).reason == "failed: builtins.MemoryError"


def test_killed_process_leaves_no_exception(butler: Butler) -> None:
    log = put_log(butler, "killed", "Preparing execution")
    outcome = read_outcome(butler, log, None)
    assert (outcome.state, outcome.reason) == (State.FAILED, "failed: its log does not say why")


@pytest.mark.parametrize(
    ("run", "text", "caveats"),
    [
        ("task", NO_WORK, QuantumSuccessCaveats.NO_WORK),
        (
            "adjust",
            "Nothing to do for task 'restoreCoadd' on quantum {patch: 9}; saving metadata and skipping: ",
            QuantumSuccessCaveats.from_adjust_quantum_no_work(),
        ),
    ],
)
def test_nothing_to_restore(butler: Butler, run: str, text: str, caveats: QuantumSuccessCaveats) -> None:
    log = put_log(butler, run, "first", f"{text}Patch 9 has no exposures: 3 of 4..", "last")
    outcome = read_outcome(butler, log, put_metadata(butler, run, caveats))
    assert outcome.state is State.NO_WORK
    assert outcome.reason == "nothing to restore: Patch 9 has no exposures: 3 of 4"


def test_other_loggers_do_not_say_why(butler: Butler) -> None:
    log = put_log(butler, "other", NO_WORK + "a", name="restoreCoadd")
    outcome = read_outcome(butler, log, put_metadata(butler, "other", QuantumSuccessCaveats.NO_WORK))
    assert outcome.reason == "nothing to restore: its log does not say why"


def test_metrics_of_a_success_are_missing(butler: Butler) -> None:
    metadata = put_metadata(butler, "success", QuantumSuccessCaveats.ANY_OUTPUTS_MISSING)
    outcome = read_outcome(butler, put_log(butler, "success", "done"), metadata)
    assert outcome.state is State.UNREADABLE
    assert outcome.reason == "the task finished, but its metrics are not in the repository"


def test_damaged_files(butler: Butler) -> None:
    log = put_log(butler, "damaged", NO_WORK + "a")
    metadata = put_metadata(butler, "damaged", QuantumSuccessCaveats.NO_WORK)
    for ref in (log, metadata):
        path = Path(butler.getURI(ref).ospath)
        # The Butler checks the size of its files.
        path.write_text("x" * path.stat().st_size)
    failed = read_outcome(butler, log, None)
    assert failed.state is State.FAILED
    assert failed.reason.startswith("failed: its log cannot be read: ")
    finished = read_outcome(butler, log, metadata)
    assert finished.state is State.UNREADABLE
    assert finished.reason.startswith("the task's metadata cannot be read: ")


def test_first_line() -> None:
    assert first_line("\n \n  one \ntwo") == "one"
    assert first_line("") == ""
    assert first_line(200 * "x") == 200 * "x"
    assert first_line(201 * "x") == 199 * "x" + "\N{HORIZONTAL ELLIPSIS}"


@pytest.mark.slow
def test_outcomes_of_real_tasks(campaign: Path) -> None:
    """The middleware stores what is read here."""
    with Butler.from_config(str(campaign)) as butler:
        (failed,) = butler.query_datasets("restoreCoadd_log", "u/failed")
        outcome = read_outcome(butler, failed, None)
        assert outcome.state is State.FAILED
        assert outcome.reason.startswith("failed: initialFwhm has 2 values for 3 exposures")
        (idle,) = butler.query_datasets("restoreCoadd_log", "u/idle")
        (metadata,) = butler.query_datasets("restoreCoadd_metadata", "u/idle")
        outcome = read_outcome(butler, idle, metadata)
        assert outcome.state is State.NO_WORK
        assert outcome.reason.startswith("nothing to restore: ") and "minExposures=4" in outcome.reason
        (log,) = butler.query_datasets("restoreCoadd_log", "u/run")
        (metadata,) = butler.query_datasets("restoreCoadd_metadata", "u/run")
        assert read_outcome(butler, log, metadata).state is State.UNREADABLE
