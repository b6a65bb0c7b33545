# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the part that readers of visit images and warps share."""

from __future__ import annotations

from typing import Any

import pytest
from handles import WarpHandle, formatter_error

from lsst.drp.restore.errors import DamagedInputError, InputError
from lsst.drp.restore.warping.handle_input import HandleInput


class TextInput(HandleInput):
    """A dataset of text."""

    def __str__(self) -> str:
        return f"text {self.visit}"

    @property
    def detector(self) -> int:
        return 7

    def read(self, *words: str) -> str:
        text = self._read_dataset()
        self._check_planes(words, text.split())
        return text


def test_dimensions_of_the_data_id() -> None:
    item = TextInput(WarpHandle("", 17))
    assert (item.instrument, item.visit, item.detector) == ("Cam", 17, 7)
    assert (item.physical_filter, item.day_obs) == ("Cam-i", 20240301)


def test_dimensions_that_are_not_known() -> None:
    handle = WarpHandle("")
    del handle.dataId["physical_filter"], handle.dataId["day_obs"]
    item = TextInput(handle)
    assert (item.physical_filter, item.day_obs) == ("unknown", 0)


def test_missing_planes_are_named_with_the_dataset() -> None:
    item = TextInput(WarpHandle("BAD SAT CR", 17))
    assert item.read("CR", "BAD") == "BAD SAT CR"
    with pytest.raises(
        InputError, match="text 17 has no mask plane NOISE, SUSPECT, .* BAD, CR, SAT. .*badMaskPlanes"
    ) as info:
        item.read("SUSPECT", "CR", "NOISE")
    assert info.value.metadata == {"dataset": "text 17", "missing": "NOISE, SUSPECT"}


def test_reads_of_damaged_files() -> None:
    class Damaged(WarpHandle):
        def get(self) -> Any:
            raise formatter_error(OSError("Empty or corrupt FITS file"))

    with pytest.raises(DamagedInputError, match="cannot be decoded"):
        TextInput(Damaged("")).read()
