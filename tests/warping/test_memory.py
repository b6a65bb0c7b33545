# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the estimate of memory."""

from __future__ import annotations

import pytest

from lsst.drp.restore.errors import RestorationError
from lsst.drp.restore.warping.memory import MemoryEstimate


def test_memory_grows_with_pixels_and_exposures() -> None:
    """A patch of 4000x4000 pixels and 100 exposures."""
    small = MemoryEstimate(n_exposures=10, n_pixels=500**2)
    large = MemoryEstimate(n_exposures=100, n_pixels=4000**2)
    assert 1.3 < small.streamed < small.in_memory < 2.0
    assert 5.0 < large.streamed < 8.0
    assert large.in_memory - large.streamed == pytest.approx(25 * 100 * 4000**2 / 2**30)
    fine = MemoryEstimate(n_exposures=10, n_pixels=500**2, oversampling=2)
    assert fine.streamed == MemoryEstimate(n_exposures=10, n_pixels=1000**2).streamed
    assert fine.in_memory - fine.streamed == pytest.approx(small.in_memory - small.streamed)


def test_files_are_needed_between_both() -> None:
    memory = MemoryEstimate(n_exposures=100, n_pixels=2000**2)
    assert not memory.needs_files(memory.in_memory, "patch 3")
    assert memory.needs_files(0.99 * memory.in_memory, "patch 3")
    assert memory.needs_files(memory.streamed, "patch 3")
    limit = round(0.9 * memory.streamed, 2)
    with pytest.raises(
        RestorationError, match=f"restoration of patch 3 takes about 2.6 GiB.*maxMemory={limit}"
    ):
        memory.needs_files(limit, "patch 3")
