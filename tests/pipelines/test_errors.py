# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the exceptions and of the search for their causes."""

from __future__ import annotations

import errno
import gzip

import pytest

from lsst.drp.restore.errors import (
    DamagedInputError,
    DivergedError,
    InputError,
    RestorationError,
    describe_error,
    find_cause,
    find_environment_error,
)
from lsst.pipe.base import AlgorithmError


def chain(*errors: BaseException) -> BaseException:
    """Return the last of some errors, each raised from the one before."""
    for cause, err in zip(errors[:-1], errors[1:], strict=True):
        err.__cause__ = cause
    return errors[-1]


@pytest.mark.parametrize("kind", [RestorationError, InputError, DivergedError])
def test_failures_of_a_quantum_carry_metadata(kind: type[RestorationError]) -> None:
    err = kind("Visit 3 has no unit of flux.", dataset="visit 3", n=2)
    assert isinstance(err, AlgorithmError)
    assert str(err) == "Visit 3 has no unit of flux."
    assert err.metadata == {"dataset": "visit 3", "n": 2}


def test_damaged_input_is_no_failure_of_the_quantum() -> None:
    assert not issubclass(DamagedInputError, AlgorithmError)


@pytest.mark.parametrize(
    ("err", "text"),
    [
        (ValueError("first line\nsecond line"), "ValueError: first line"),
        (KeyError("ZTILE1"), "KeyError: 'ZTILE1'"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError("\n"), "RuntimeError"),
    ],
)
def test_description_is_one_line(err: BaseException, text: str) -> None:
    assert describe_error(err) == text


def test_root_cause() -> None:
    root = KeyError("root")
    assert find_cause(chain(root, ValueError(), RuntimeError())) is root
    assert find_cause(root) is root


@pytest.mark.parametrize(
    "cause",
    [
        FileNotFoundError(errno.ENOENT, "no such file"),
        OSError(errno.ENOSPC, "no space left on device"),
        ConnectionResetError("gone"),
        TimeoutError("gone"),
        MemoryError(),
        ImportError("No module named 'piff'"),
    ],
)
def test_errors_of_the_machine_are_found(cause: BaseException) -> None:
    assert find_environment_error(cause) is cause
    assert find_environment_error(chain(cause, KeyError(), ValueError())) is cause
    context = ValueError()
    context.__context__ = cause
    assert find_environment_error(context) is cause


@pytest.mark.parametrize(
    "cause", [OSError("Empty or corrupt FITS file"), gzip.BadGzipFile("CRC check failed"), KeyError("ZTILE1")]
)
def test_errors_of_the_data_are_not_of_the_machine(cause: BaseException) -> None:
    assert find_environment_error(chain(cause, ValueError())) is None
