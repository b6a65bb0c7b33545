# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The outcome of quanta that left no restored patch, and its reason."""

from __future__ import annotations

__all__ = ("Outcome", "first_line", "read_outcome")

import dataclasses

from lsst.daf.butler import Butler, ButlerLogRecords, DatasetRef
from lsst.pipe.base import ExceptionInfo, QuantumSuccessCaveats

from .patches import State

# Logger of pipe_base's executor, and the text between the data ID and the
# message of NoWorkFound in what it logs if the task, or adjustQuantum, raises
# it.
_EXECUTOR = "lsst.pipe.base.single_quantum_executor"
_NO_WORK = ("exited early with no work found: ", "saving metadata and skipping: ")

_MAX_LENGTH = 200


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """The outcome of a quantum without metrics.

    Parameters
    ----------
    state : `State`
        What became of the patch.
    reason : `str`
        The reason, in one line.
    """

    state: State
    reason: str


def read_outcome(butler: Butler, log: DatasetRef, metadata: DatasetRef | None) -> Outcome:
    """Read the outcome of a quantum that left no metrics.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        The repository.
    log : `lsst.daf.butler.DatasetRef`
        Log of the quantum.
    metadata : `lsst.daf.butler.DatasetRef` or `None`
        Metadata of the quantum, which are written if and only if it succeeds.

    Returns
    -------
    outcome : `Outcome`
        State and reason.
    """
    if metadata is None:
        return Outcome(state=State.FAILED, reason=f"failed: {_exception(butler, log)}")
    try:
        caveats = QuantumSuccessCaveats(int(butler.get(metadata)["quantum"]["caveats"]))
    except Exception as error:
        # One damaged file must not hide the other patches.
        reason = f"the task's metadata cannot be read: {first_line(str(error))}"
        return Outcome(state=State.UNREADABLE, reason=reason)
    if QuantumSuccessCaveats.NO_WORK in caveats:
        return Outcome(state=State.NO_WORK, reason=f"nothing to restore: {_no_work(butler, log)}")
    return Outcome(
        state=State.UNREADABLE, reason="the task finished, but its metrics are not in the repository"
    )


def first_line(text: str) -> str:
    """Return the first line of a text that is not empty.

    Parameters
    ----------
    text : `str`
        Any text, for example the message of an exception.

    Returns
    -------
    line : `str`
        The line, at most 200 characters.
    """
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= _MAX_LENGTH else line[: _MAX_LENGTH - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _exception(butler: Butler, log: DatasetRef) -> str:
    """Return the message of the exception that made a quantum fail.

    The executor stores it beside the records of the log; a provenance graph
    would have a copy, but not every repository has one.
    """
    try:
        records: ButlerLogRecords = butler.get(log)
        stored = records.extra.get("exception")
        exception = None if stored is None else ExceptionInfo.model_validate(stored)
    except Exception as error:
        return f"its log cannot be read: {first_line(str(error))}"
    if exception is None:
        # The process was killed.
        return "its log does not say why"
    return first_line(exception.message).rstrip(".") or exception.type_name


def _no_work(butler: Butler, log: DatasetRef) -> str:
    """Return the message of the `~lsst.pipe.base.NoWorkFound` that ended a
    quantum.

    The metadata have a flag for it, but no message: only the log has that.
    """
    try:
        records: ButlerLogRecords = butler.get(log)
    except Exception as error:
        return f"its log cannot be read: {first_line(str(error))}"
    for record in reversed(records):
        for marker in _NO_WORK:
            if record.name == _EXECUTOR and marker in record.message:
                return first_line(record.message.partition(marker)[2]).rstrip(".")
    return "its log does not say why"
