# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import types

import numpy as np
import pytest

from benchmarks.stages import Stage, Stages


class Clock:
    """Clocks that go on when they are told to."""

    def __init__(self) -> None:
        self.wall = 100.0
        self.cpu = 10.0

    def take(self, seconds: float) -> float:
        """Let time pass, half of it CPU time."""
        self.wall += seconds
        self.cpu += seconds / 2
        return seconds

    def stages(self) -> Stages:
        return Stages(wall=lambda: self.wall, cpu=lambda: self.cpu)


def times(table: dict[str, Stage]) -> dict[str, tuple[float, float]]:
    return {name: (stage.seconds, stage.cpu) for name, stage in table.items()}


def test_time_belongs_to_the_innermost_stage() -> None:
    clock = Clock()
    stages = clock.stages()
    module = types.SimpleNamespace(inner=lambda: clock.take(2.0))
    module.outer = lambda: clock.take(1.0) + module.inner() + clock.take(4.0)
    stages.watch(module, "inner", "inner")
    stages.watch(module, "outer", "outer")
    clock.take(8.0)
    assert module.outer() == 7.0
    assert module.inner() == 2.0
    clock.take(16.0)
    assert times(stages.table()) == {"other": (24.0, 12.0), "outer": (5.0, 2.5), "inner": (4.0, 2.0)}


def test_whole_stages_contain_others() -> None:
    clock = Clock()
    stages = clock.stages()
    module = types.SimpleNamespace(inner=lambda: clock.take(2.0))
    module.outer = lambda: clock.take(1.0) + module.inner()
    stages.watch(module, "inner", "inner")
    stages.watch(module, "outer", "outer", whole=True)
    module.outer()
    assert times(stages.table()) == {"other": (0.0, 0.0), "outer": (3.0, 1.5)}


def test_memory_is_that_of_the_stage() -> None:
    stages = Stages()
    with stages.stage("large"):
        np.ones(50_000_000)
    with stages.stage("small"):
        np.ones(1000)
    table = stages.table()
    assert table["large"].peak - table["small"].peak == pytest.approx(0.37, abs=0.1)


def test_a_stage_ends_with_an_error() -> None:
    clock = Clock()
    stages = clock.stages()

    def fail() -> None:
        clock.take(1.0)
        raise ValueError("wrong")

    module = types.SimpleNamespace(fail=fail)
    stages.watch(module, "fail", "stage")
    with pytest.raises(ValueError, match="wrong"):
        module.fail()
    clock.take(2.0)
    assert times(stages.table()) == {"other": (2.0, 1.0), "stage": (1.0, 0.5)}
