# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Description of exceptions, and the errors behind them."""

from __future__ import annotations

import errno
import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsst.drp.restore.errors import (
    InputError,
    RestorationError,
    describe_error,
    find_cause,
    find_environment_error,
)


@given(st.text())
def test_a_description_is_one_line(message: str) -> None:
    text = describe_error(ValueError(message))
    assert len(text.splitlines()) == 1
    assert text.startswith("ValueError")
    if message.strip():
        assert text.endswith(message.strip().splitlines()[0])


def chain(*errors: BaseException) -> BaseException:
    """Raise each error from the next one."""
    for error, cause in zip(errors, errors[1:], strict=False):
        error.__cause__ = cause
    return errors[0]


def test_the_first_cause() -> None:
    last = KeyError("x")
    assert find_cause(chain(ValueError("a"), RuntimeError("b"), last)) is last
    assert find_cause(last) is last


@pytest.mark.parametrize(
    ("error", "of_the_machine"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (PermissionError(errno.EACCES, "denied"), True),
        (TimeoutError("network"), True),
        (MemoryError(), True),
        (ImportError("no lsst.afw"), True),
        # Of the content of a file.
        (OSError("Empty or corrupt FITS file"), False),
        (gzip.BadGzipFile("not gzipped"), False),
        (ValueError("bad"), False),
    ],
)
def test_errors_of_the_machine(error: BaseException, of_the_machine: bool) -> None:
    expected = error if of_the_machine else None
    assert find_environment_error(error) is expected
    assert find_environment_error(chain(ValueError("wrapped"), RuntimeError("again"), error)) is expected
    try:
        try:
            raise error
        except BaseException:
            raise KeyError("while handling") from None
    except KeyError as err:
        assert find_environment_error(err) is expected


def test_errors_have_scalars_for_the_metadata() -> None:
    error = InputError("The warp is wrong.", pixels=3)
    assert isinstance(error, RestorationError)
    assert str(error) == "The warp is wrong." and error.metadata == {"pixels": 3}
