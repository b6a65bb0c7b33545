# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the reading of single visit images."""

from __future__ import annotations

import pytest
from handles import StoredHandle
from test_build_stack import make_image

from lsst.drp.restore.visit_input import VisitInput


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
