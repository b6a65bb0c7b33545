# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Random numbers of a patch."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lsst.drp.restore.restoration.seeds import Seeds


@given(seed=st.integers(0, 2**31 - 1), patch=st.text(max_size=20), index=st.integers(0, 100))
def test_the_same_numbers_for_the_same_use(seed: int, patch: str, index: int) -> None:
    first, second = (Seeds(seed, patch).generator("noise", index).normal(size=5) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    number = Seeds(seed, patch).number("noise")
    assert number == Seeds(seed, patch).number("noise")
    assert 0 <= number < 2**31


def test_other_numbers_for_any_other_use() -> None:
    uses = [
        (Seeds(1, "patch 3"), "noise", 0),
        (Seeds(2, "patch 3"), "noise", 0),
        (Seeds(1, "patch 4"), "noise", 0),
        (Seeds(1, "patch 3"), "sources", 0),
        (Seeds(1, "patch 3"), "noise", 1),
    ]
    draws = [seeds.generator(purpose, index).normal(size=1000) for seeds, purpose, index in uses]
    for one, other in itertools.combinations(draws, 2):
        # Independent: their correlation is that of chance.
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.13
    assert len({seeds.number(purpose) for seeds, purpose, _ in uses}) == 4
