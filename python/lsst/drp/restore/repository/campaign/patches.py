# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The patches of a campaign, their order and their summary."""

from __future__ import annotations

__all__ = ("Campaign", "Patch", "State", "sort_patches")

import dataclasses
import enum
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lsst.daf.butler import DatasetRef

from .columns import COLUMNS, finite_values

# Columns whose medians the summary gives for each band.
_MEDIANS = {
    "exposures": "{} exposures",
    "seeing": 'seeing {}"',
    "loss": "loss {}",
    "inconsistent": "{} inconsistent",
    "ssim": "SSIM {}",
}


class State(enum.StrEnum):
    """Outcome of the restoration of a patch, in the order "worst first"."""

    FAILED = "failed"
    """The task raised an exception or was killed."""

    UNREADABLE = "unreadable"
    """The task finished, but its metrics are missing or cannot be read."""

    RESTORED = "restored"
    """The metrics could be read."""

    NO_WORK = "no work"
    """There was nothing to restore."""


# The summary's description of patches in these states.
_COUNTED = {
    State.FAILED: "failed",
    State.UNREADABLE: "without readable metrics",
    State.NO_WORK: "had nothing to restore",
}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Patch:
    """A patch in one band, as listed.

    Parameters
    ----------
    skymap : `str`
        Name of the skymap.
    tract, patch : `int`
        IDs of the tract and the patch.
    band : `str`
        Name of the band; empty if a task of several bands failed.
    run : `str`
        RUN collection.
    state : `State`
        Outcome of the restoration.
    ra, dec : `float`
        Center (ICRS), degrees; NaN if not known.
    values : `~collections.abc.Mapping` [`str`, `float` or `None`]
        Values of `COLUMNS` by name; `None` for those that the metrics lack.
    problems : `tuple` [`str`, ...]
        Reasons why the restored image is suspicious, or why there is none.
    remarks : `tuple` [`str`, ...]
        Unusual properties of its input data.
    datasets : `~collections.abc.Mapping` [`str`, `lsst.daf.butler.DatasetRef`]
        Datasets of the patch that the page reads, by dataset type.
    """

    skymap: str
    tract: int
    patch: int
    band: str
    run: str
    state: State = State.RESTORED
    ra: float = math.nan
    dec: float = math.nan
    values: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    datasets: Mapping[str, DatasetRef] = dataclasses.field(default_factory=dict)

    @property
    def warnings(self) -> str:
        """Problems and remarks in one line (`str`)."""
        return "; ".join(self.problems + self.remarks)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Campaign:
    """The patches of a campaign.

    Parameters
    ----------
    title : `str`
        Names of the collections that were searched.
    patches : `tuple` [`Patch`, ...]
        The patches, worst first.
    """

    title: str
    patches: tuple[Patch, ...]

    def summary(self) -> str:
        """Summarize the patches.

        Returns
        -------
        text : `str`
            One line with counts and one line with medians for each band.
        """
        states = Counter(patch.state for patch in self.patches)
        restored = [patch for patch in self.patches if patch.state is State.RESTORED]
        problems = sum(bool(patch.problems) for patch in restored)
        remarks = sum(bool(patch.remarks) and not patch.problems for patch in restored)
        counts = [
            f"{len(restored)} restored patches: {problems} with a suspicious image, "
            f"{remarks} more with unusual data"
        ]
        counts += [f"{states[state]} {label}" for state, label in _COUNTED.items() if states[state]]
        lines = ["; ".join(counts)]
        for band in sorted({patch.band for patch in restored}):
            of_band = [patch for patch in restored if patch.band == band]
            medians = []
            for name, text in _MEDIANS.items():
                known = finite_values(patch.values[name] for patch in of_band)
                if known.size:
                    medians.append(text.format(COLUMNS[name].format(float(np.median(known)))))
            lines.append(f"{band}: {len(of_band)} patches; medians: {', '.join(medians) or 'unknown'}")
        return "\n".join(lines)


def sort_patches(patches: Iterable[Patch], by: str = "warnings", *, reverse: bool = False) -> list[Patch]:
    """Sort patches, worst first.

    Parameters
    ----------
    patches : `~collections.abc.Iterable` [`Patch`]
        The patches.
    by : `str`, optional
        ``warnings``: by `State`, then by the number of problems, the number of
        remarks, and the loss.  ``patch``: by skymap, tract, patch and band.
        Or the name of one of `COLUMNS`; patches without this value come last.
    reverse : `bool`, optional
        Best first.

    Returns
    -------
    patches : `list` [`Patch`]
        The sorted patches.
    """

    def data_id(patch: Patch) -> tuple[Any, ...]:
        return patch.skymap, patch.tract, patch.patch, patch.band, patch.run

    def badness(patch: Patch, name: str) -> tuple[bool, float]:
        value = patch.values.get(name)
        if value is None:
            # Last in either direction.
            return (not reverse, 0.0)
        if math.isnan(value):
            return (reverse, -math.inf)
        return (reverse, -value if COLUMNS[name].high_is_worse else value)

    def severity(patch: Patch) -> tuple[Any, ...]:
        rank = list(State).index(patch.state)
        return rank, -len(patch.problems), -len(patch.remarks), badness(patch, "loss")

    patches = sorted(patches, key=data_id)
    match by:
        case "patch":
            key: Any = data_id
        case "warnings":
            key = severity
        case _:

            def key(patch: Patch) -> tuple[bool, float]:
                return badness(patch, by)

    return sorted(patches, key=key, reverse=reverse)
