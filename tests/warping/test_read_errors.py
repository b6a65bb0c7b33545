# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the distinction of damaged files and other failures."""

from __future__ import annotations

import errno
import gzip

import pytest
from handles import ServerError, formatter_error

from lsst.daf.butler import FileIntegrityError
from lsst.drp.restore.errors import DamagedInputError, InputError
from lsst.drp.restore.warping.read_errors import reading


def test_nothing_happens_without_an_error() -> None:
    with reading("visit 1"):
        value = 3
    assert value == 3


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileIntegrityError("Size of file /data/x.fits (1) is not 2"), "does not have the size"),
        (formatter_error(OSError("Empty or corrupt FITS file")), "OSError: Empty or corrupt FITS file"),
        (formatter_error(gzip.BadGzipFile("CRC check failed")), "BadGzipFile: CRC check failed"),
        (formatter_error(KeyError("JSONADDR")), "KeyError: 'JSONADDR'"),
    ],
)
def test_damaged_file(error: Exception, reason: str) -> None:
    with pytest.raises(DamagedInputError, match=reason) as info, reading("visit 1"):
        raise error
    # The path is in the cause only.
    assert "/data" not in str(info.value)
    assert info.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no such file"),
        formatter_error(PermissionError(errno.EACCES, "denied")),
        formatter_error(OSError(errno.EIO, "input/output error")),
        formatter_error(ConnectionResetError("gone")),
        formatter_error(TimeoutError("gone")),
        formatter_error(MemoryError()),
        formatter_error(ImportError("No module named 'piff'")),
        formatter_error(ServerError("SlowDown")),
        ValueError("not of a formatter"),
        KeyError("not of a formatter"),
    ],
)
def test_other_failures_pass_with_a_note(error: Exception) -> None:
    with pytest.raises(type(error)) as info, reading("visit 1"):
        raise error
    assert info.value is error
    assert "While reading visit 1." in info.value.__notes__


@pytest.mark.parametrize("error", [DamagedInputError("its file is empty"), InputError("no unit")])
def test_errors_that_say_it_already_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as info, reading("visit 1"):
        raise error
    assert info.value is error
    assert not hasattr(error, "__notes__")
