# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Order and summary of the patches of a campaign."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsst.drp.restore.repository.campaign.columns import COLUMNS
from lsst.drp.restore.repository.campaign.patches import Campaign, Patch, State, sort_patches

NUMBERS = st.one_of(st.none(), st.floats())
TEXTS = st.lists(st.text(max_size=5), max_size=3).map(tuple)
PATCHES = st.builds(
    Patch,
    skymap=st.sampled_from("ab"),
    tract=st.integers(0, 2),
    patch=st.integers(0, 9),
    band=st.sampled_from(["", "g", "i"]),
    run=st.just("u/run"),
    state=st.sampled_from(State),
    values=st.fixed_dictionaries({name: NUMBERS for name in COLUMNS}),
    problems=TEXTS,
    remarks=TEXTS,
)


def patch(number: int, state: State = State.RESTORED, **values: float | None) -> Patch:
    return Patch(skymap="s", tract=0, patch=number, band="i", run="r", state=state, values=values)


def numbers(patches: list[Patch]) -> list[int]:
    return [item.patch for item in patches]


def test_order_of_states() -> None:
    patches = [patch(1, State.NO_WORK), patch(2), patch(3, State.UNREADABLE), patch(4, State.FAILED)]
    assert numbers(sort_patches(patches)) == [4, 3, 2, 1]


def test_patches_without_a_value_come_last() -> None:
    patches = [patch(1), patch(2, loss=None), patch(3, loss=0.5), patch(4, loss=0.6), patch(5, loss=math.nan)]
    assert numbers(sort_patches(patches, "loss")) == [5, 4, 3, 1, 2]
    assert numbers(sort_patches(patches, "loss", reverse=True))[:3] == [3, 4, 5]


def test_low_similarity_is_worse() -> None:
    patches = [patch(1, ssim=0.9), patch(2, ssim=0.8), patch(3, ssim=0.95)]
    assert numbers(sort_patches(patches, "ssim")) == [2, 1, 3]


@given(st.lists(PATCHES, max_size=8), st.sampled_from(["warnings", "patch", *COLUMNS]), st.booleans())
def test_sorting_keeps_all_patches(patches: list[Patch], by: str, reverse: bool) -> None:
    result = sort_patches(patches, by, reverse=reverse)
    assert sorted(map(id, result)) == sorted(map(id, patches))
    if by in COLUMNS:
        unknown = [item.values[by] is None for item in result]
        assert unknown == sorted(unknown)


@given(st.lists(PATCHES, max_size=8))
def test_problems_count_more_than_remarks(patches: list[Patch]) -> None:
    ranks = [
        (list(State).index(item.state), -len(item.problems), -len(item.remarks))
        for item in sort_patches(patches)
    ]
    assert ranks == sorted(ranks)


def test_warnings_in_one_line() -> None:
    item = Patch(skymap="s", tract=0, patch=1, band="i", run="r", problems=("a", "b"), remarks=("c",))
    assert item.warnings == "a; b; c"
    assert patch(1).warnings == ""


def test_summary() -> None:
    known = dict.fromkeys(COLUMNS) | {"exposures": 4.0, "seeing": 0.8, "loss": 0.5, "inconsistent": 0.02}
    bad = Patch(
        skymap="s", tract=0, patch=2, band="i", run="r", values=known, problems=("a",), remarks=("b",)
    )
    odd = Patch(
        skymap="s", tract=0, patch=3, band="g", run="r", values=dict.fromkeys(COLUMNS), remarks=("b",)
    )
    patches = (patch(1, **known), bad, odd, patch(4, State.FAILED), patch(5, State.NO_WORK))
    assert Campaign(title="u/run", patches=patches).summary().splitlines() == [
        "3 restored patches: 1 with a suspicious image, 1 more with unusual data; 1 failed; "
        "1 had nothing to restore",
        "g: 1 patches; medians: unknown",
        'i: 2 patches; medians: 4 exposures, seeing 0.80", loss 0.500, 2.0% inconsistent',
    ]


@pytest.mark.parametrize("state", list(State))
def test_summary_of_one_state(state: State) -> None:
    summary = Campaign(title="", patches=(patch(1, state, **dict.fromkeys(COLUMNS)),)).summary()
    expected = {
        State.FAILED: "; 1 failed",
        State.UNREADABLE: "; 1 without readable metrics",
        State.NO_WORK: "; 1 had nothing to restore",
        State.RESTORED: "1 restored patches: 0 with a suspicious image",
    }
    assert expected[state] in summary
