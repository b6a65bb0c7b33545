# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tables of restored patches: for the terminal and as files."""

from __future__ import annotations

__all__ = ("FORMATS", "format_patches", "make_table", "write_table")

import math
from collections.abc import Sequence
from pathlib import Path

import astropy.table
import numpy as np

from .columns import COLUMNS
from .patches import Patch

FORMATS = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".fits": "fits"}
"""Astropy's name of each file format, by file name extension."""


def format_patches(patches: Sequence[Patch]) -> str:
    """Format patches for a terminal.

    Parameters
    ----------
    patches : `~collections.abc.Sequence` [`Patch`]
        The patches.

    Returns
    -------
    text : `str`
        A line of titles and one line per patch.  Skymap and run are shown if
        there are several.
    """
    shown = [column for column in COLUMNS.values() if column.shown]
    names = [
        name
        for name in ("run", "skymap", "tract", "patch", "band")
        if name not in ("run", "skymap") or len({getattr(patch, name) for patch in patches}) > 1
    ]
    rows = [[*names, *(column.title for column in shown), "warnings"]]
    for patch in patches:
        rows.append(
            [
                *(str(getattr(patch, name)) for name in names),
                *(column.format(patch.values.get(column.name)) for column in shown),
                patch.warnings,
            ]
        )
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        *numbers, warnings = (
            cell.ljust(width) if title in ("run", "skymap", "band") else cell.rjust(width)
            for cell, width, title in zip(row, widths, rows[0], strict=True)
        )
        lines.append(f"{'  '.join(numbers)}  {warnings.strip()}".rstrip())
    return "\n".join(lines)


def make_table(patches: Sequence[Patch]) -> astropy.table.Table:
    """Make a table of patches.

    Parameters
    ----------
    patches : `~collections.abc.Sequence` [`Patch`]
        The patches.

    Returns
    -------
    table : `astropy.table.Table`
        One row per patch: data ID, ``run``, ``state``, ``ra`` and ``dec``
        (degrees), all of `COLUMNS` (NaN where not known), ``n_problems``,
        ``n_remarks`` and, as text, ``warnings``.
    """
    table = astropy.table.Table()
    for name in ("skymap", "tract", "patch", "band", "run", "state"):
        dtype = np.int64 if name in ("tract", "patch") else str
        table[name] = np.array([getattr(patch, name) for patch in patches], dtype)
    for name in ("ra", "dec"):
        table[name] = np.array([getattr(patch, name) for patch in patches], float)
        table[name].unit = "deg"
    for name, column in COLUMNS.items():
        values = [patch.values.get(name) for patch in patches]
        table[name] = np.array([math.nan if value is None else value for value in values], float)
        table[name].description = column.doc
    table["n_problems"] = np.array([len(patch.problems) for patch in patches], np.int64)
    table["n_remarks"] = np.array([len(patch.remarks) for patch in patches], np.int64)
    table["warnings"] = np.array([patch.warnings for patch in patches], str)
    return table


def write_table(patches: Sequence[Patch], path: str | Path) -> None:
    """Write a table of patches (`make_table`) to a file, replacing it.

    Parameters
    ----------
    patches : `~collections.abc.Sequence` [`Patch`]
        The patches.
    path : `str` or `~pathlib.Path`
        The file; its extension, one of `FORMATS`, sets the format.

    Raises
    ------
    ValueError
        Raised if the extension is not one of `FORMATS`.
    """
    try:
        file_format = FORMATS[Path(path).suffix.lower()]
    except KeyError:
        raise ValueError(
            f"{str(path)!r}: the file name of a table must end with one of {', '.join(FORMATS)}."
        ) from None
    make_table(patches).write(path, format=file_format, overwrite=True)
