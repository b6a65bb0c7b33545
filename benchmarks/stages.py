# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Time and memory of a process by stage."""

from __future__ import annotations

__all__ = ("Stage", "Stages")

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@dataclasses.dataclass(kw_only=True)
class Stage:
    """Time and memory of a stage.

    Parameters
    ----------
    seconds, cpu : `float`
        Wall and CPU time, s.
    peak : `float`
        Largest memory of the process in it, GiB.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    peak: float = 0.0


class Stages:
    """Assigns the time of a process to stages, and to ``other`` outside of
    them.

    Parameters
    ----------
    wall, cpu : `~collections.abc.Callable`, optional
        Clocks of wall and CPU time, s.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self.results: dict[str, Stage] = {}
        self._clocks = wall, cpu
        self._current = ["other"]
        self._last = self._now()
        self._switch()

    def _now(self) -> tuple[float, float]:
        wall, cpu = self._clocks
        return wall(), cpu()

    def _switch(self) -> None:
        """Assign the time since the last call to the current stage."""
        now = self._now()
        stage = self.results.setdefault(self._current[-1], Stage())
        stage.seconds += now[0] - self._last[0]
        stage.cpu += now[1] - self._last[1]
        stage.peak = max(stage.peak, _peak_memory())
        self._last = now

    @contextmanager
    def stage(self, name: str, *, whole: bool = False) -> Iterator[None]:
        """Enter a stage.

        Parameters
        ----------
        name : `str`
            Its name.
        whole : `bool`, optional
            Whether stages within it belong to it.
        """
        if self._current[-1].endswith("!"):
            yield
            return
        self._switch()
        self._current.append(name + "!" * whole)
        try:
            yield
        finally:
            self._switch()
            self._current.pop()

    def watch(self, owner: Any, attribute: str, name: str, *, whole: bool = False) -> None:
        """Make a function a stage.

        Parameters
        ----------
        owner : `object`
            Class or module that has it.
        attribute : `str`
            Its name there.
        name : `str`
            Name of the stage.
        whole : `bool`, optional
            See `stage`.
        """
        function = getattr(owner, attribute)

        @functools.wraps(function, updated=())
        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name, whole=whole):
                return function(*args, **kwargs)

        setattr(owner, attribute, watched)

    def table(self) -> dict[str, Stage]:
        """Return the stages (`dict` [`str`, `Stage`])."""
        self._switch()
        return {name.removesuffix("!"): stage for name, stage in self.results.items()}


def _peak_memory() -> float:
    """Return the largest memory, GiB, since the last call."""
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    # Linux starts to look for the largest anew.
    Path("/proc/self/clear_refs").write_text("5")
    return peak / 2**20
