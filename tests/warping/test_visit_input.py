# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the reading of single visit images."""

from __future__ import annotations

import errno
import gzip
import logging

import pytest
from handles import StoredHandle
from test_build_stack import build, make_image

from lsst.daf.butler import FileIntegrityError
from lsst.drp.restore.errors import DamagedInputError, InputError
from lsst.drp.restore.warping.visit_input import VisitInput
from lsst.pipe.base import NoWorkFound


def test_label_and_data_id():
    visit_input = VisitInput(StoredHandle(make_image(17, 3)))
    assert str(visit_input) == "Cam visit 17 detector 3"
    assert (visit_input.instrument, visit_input.visit, visit_input.detector) == ("Cam", 17, 3)
    assert (visit_input.physical_filter, visit_input.day_obs) == ("i_1", 20240301)


def test_what_the_data_id_lacks_comes_from_the_image():
    handle = StoredHandle(make_image())
    del handle.dataId["physical_filter"], handle.dataId["day_obs"]
    visit_input = VisitInput(handle)
    assert visit_input.physical_filter == "i_1"
    assert visit_input.day_obs == 0


@pytest.mark.parametrize(
    "error", [KeyError("disk on fire"), ValueError("disk on fire"), FileNotFoundError("gone")]
)
def test_other_errors_are_not_swallowed(error):
    handle = StoredHandle(make_image())

    def get(**kwargs):
        raise error

    handle.get = get
    with pytest.raises(type(error), match="disk on fire|gone"):
        VisitInput(handle).get("unit")


def wrapped(error):
    """Return an error as a datastore raises it for one of a formatter."""
    try:
        try:
            raise error
        except Exception as err:
            raise ValueError("Failure from formatter for dataset from file:///data/x.fits") from err
    except ValueError as err:
        return err


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileIntegrityError("Size of file /data/x.fits (1) is not 2"), "not the size"),
        (wrapped(OSError("Empty or corrupt FITS file")), "decoded .OSError: Empty or corrupt FITS file"),
        (wrapped(gzip.BadGzipFile("CRC check failed")), "decoded .BadGzipFile: CRC check failed"),
        (wrapped(KeyError("JSONADDR")), "decoded .KeyError: 'JSONADDR'"),
    ],
)
def test_damaged_file(error, reason):
    visit_input = VisitInput(StoredHandle(make_image(), broken={"psf": error}))
    with pytest.raises(DamagedInputError, match=reason) as info:
        visit_input.get("psf")
    assert "/data" not in str(info.value)


class ServerError(Exception):
    """Of a client that is not known here."""

    __module__ = "botocore.exceptions"


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no such file"),
        wrapped(PermissionError(errno.EACCES, "denied")),
        wrapped(OSError(errno.EIO, "input/output error")),
        wrapped(ConnectionResetError("gone")),
        wrapped(TimeoutError("gone")),
        wrapped(MemoryError()),
        wrapped(ServerError("SlowDown")),
    ],
)
def test_failures_of_the_machine_do_not_drop_an_image(error):
    """Another try may read it: the quantum fails, and says what it read."""
    broken = make_image(2)
    for component in ("psf", "image and all", "unit"):
        handle = StoredHandle(broken, broken={component: error})
        with pytest.raises(type(error)) as info:
            build(make_image(1), handle, make_image(3))
        assert "While reading Cam visit 2 detector 1." in info.value.__notes__


@pytest.mark.parametrize("component", ["sky_projection", "unit", "psf", "image and all"])
def test_damaged_image_is_dropped(component, caplog):
    handle = StoredHandle(make_image(2), broken={component: wrapped(KeyError("ZTILE1"))})
    with caplog.at_level(logging.WARNING, "lsst"):
        result = build(make_image(1), handle, make_image(3))
    assert result.stack.names == ("Cam visit 1", "Cam visit 3")
    assert result.dropped == [("Cam visit 2 detector 1", "its file cannot be decoded (KeyError: 'ZTILE1')")]
    assert result.metadata["n_visit_images_damaged"] == 1
    # The log names the file.
    assert "from file:///data/x.fits" in caplog.text


def test_too_few_visits_because_of_damage_is_a_failure():
    """No work would count as done."""
    damaged = StoredHandle(make_image(2), broken={"psf": wrapped(KeyError("ZTILE1"))})
    with pytest.raises(InputError, match="1 usable.*but 1 others are damaged.*skip-existing") as info:
        build(make_image(1), damaged)
    assert "Cam visit 2 detector 1: its file cannot be decoded" in str(info.value)
    # Repaired, they would still be too few.
    with pytest.raises(NoWorkFound):
        build(make_image(1), damaged, minExposures=3)
