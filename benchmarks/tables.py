# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Text tables, and the order of the images in them."""

from __future__ import annotations

__all__ = (
    "DEEP_SIZE",
    "DEEP_VISITS",
    "FROM_COADD",
    "IMAGES",
    "MEASURABLE",
    "OURS",
    "REFERENCE",
    "RESTORED",
    "SNR_LABELS",
    "block",
    "value_at",
)

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .fields import SNR_BINS

REFERENCE, RESTORED, MEASURABLE = "reference coadd", "restored_coadd", "restored_coadd_measurable"

FROM_COADD = "restored from the coadd"
"""The restored reference coadd: what the exposures add is the difference from
`RESTORED`.
"""

OURS = (RESTORED, MEASURABLE)
"""The images of this project's default configuration (`tuple`)."""

IMAGES = (
    *("naive mean", REFERENCE, "proper coadd", "Rubin deconvolution", "SGP", "STARRED"),
    *("network as published", "ImageMM", FROM_COADD, *OURS),
)
"""The images in the order of the tables (`tuple`)."""

SNR_LABELS = {low: f">{low:.0f}" if math.isinf(high) else f"{low:.0f}-{high:.0f}" for low, high in SNR_BINS}
"""Names of the bins of S/N, by their lower end (`dict`)."""

DEEP_SIZE, DEEP_VISITS = 256, 80
"""Height and width of the deep field, pixels, and its number of exposures."""

_LABEL_WIDTH = 26  # at least


def block(
    title: str, header: Sequence[str], rows: Mapping[str, Sequence[float | str]], form: str
) -> list[str]:
    """Format a table.

    Parameters
    ----------
    title : `str`
        Its title.
    header : `~collections.abc.Sequence` [`str`]
        Names of the columns.
    rows : `~collections.abc.Mapping`
        Numbers or text of each row by its name; NaN is a dash.
    form : `str`
        Format of the numbers.

    Returns
    -------
    lines : `list` [`str`]
        The lines, with an empty one at the end.
    """
    texts = [*header, *(value for row in rows.values() for value in row if isinstance(value, str))]
    width = max([9, *(len(text) + 2 for text in texts)])
    labels = max([_LABEL_WIDTH, *(len(name) + 1 for name in rows)])
    lines = [title, _row("".ljust(labels), header, "", width)]
    return [*lines, *(_row(name.ljust(labels), row, form, width) for name, row in rows.items()), ""]


def _row(label: str, values: Sequence[float | str], form: str, width: int) -> str:
    cells = []
    for value in values:
        if isinstance(value, str):
            text = value
        else:
            text = "-" if math.isnan(value) else format(value, form)
        cells.append(text.rjust(width))
    return label + "".join(cells)


def value_at(results: Mapping[str, Any], *names: str) -> float:
    """Look up a number in nested results.

    Parameters
    ----------
    results : `~collections.abc.Mapping`
        The results.
    *names : `str`
        Keys from the outside to the inside.

    Returns
    -------
    value : `float`
        The number; NaN if it is missing.
    """
    value: Any = results
    for name in names:
        value = value.get(name, {}) if isinstance(value, Mapping) else {}
    return math.nan if isinstance(value, Mapping) else float(value)
