# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import time
import types

import numpy as np
import pytest

from benchmarks.stages import Stages


def wait(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_time_belongs_to_the_innermost_stage() -> None:
    start = time.perf_counter()
    stages = Stages()
    module = types.SimpleNamespace(inner=lambda: wait(0.2))
    module.outer = lambda: wait(0.1) + module.inner()
    stages.watch(module, "inner", "inner")
    stages.watch(module, "outer", "outer")
    assert module.outer() == pytest.approx(0.3)
    assert module.inner() == 0.2
    table = stages.table()
    total = time.perf_counter() - start
    # Sleep takes as long as asked for, or longer.
    assert table["inner"].seconds >= 0.4
    assert table["outer"].seconds >= 0.1
    assert table["other"].seconds <= total - 0.5
    assert sum(stage.seconds for stage in table.values()) <= total


def test_whole_stages_contain_others() -> None:
    stages = Stages()
    module = types.SimpleNamespace(inner=lambda: wait(0.1))
    module.outer = lambda: module.inner()
    stages.watch(module, "inner", "inner")
    stages.watch(module, "outer", "outer", whole=True)
    module.outer()
    table = stages.table()
    assert "inner" not in table
    assert table["outer"].seconds >= 0.1


def test_memory_is_that_of_the_stage() -> None:
    stages = Stages()
    with stages.stage("large"):
        np.ones(50_000_000)
    with stages.stage("small"):
        np.ones(1000)
    table = stages.table()
    assert table["large"].peak - table["small"].peak == pytest.approx(0.37, abs=0.1)


def test_errors_pass() -> None:
    stages = Stages()

    def fail() -> None:
        raise ValueError("wrong")

    module = types.SimpleNamespace(fail=fail)
    stages.watch(module, "fail", "stage")
    with pytest.raises(ValueError, match="wrong"):
        module.fail()
    assert stages._current == ["other"]
