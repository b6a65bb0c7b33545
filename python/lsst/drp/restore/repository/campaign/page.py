# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A page for a browser with the restored patches of a campaign."""

from __future__ import annotations

__all__ = ("write_page",)

import importlib.resources
import logging
import math
import os
import string
from collections.abc import Iterable
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from lsst.daf.butler import Butler, DatasetRef

from .inspect import COLUMNS, FIGURE, REFERENCE, RESTORED, TRAINING, Campaign, Column, Patch
from .thumbnails import PANELS, draw_thumbnail

_LOG = logging.getLogger(__name__)

_SHOWN = [column for column in COLUMNS.values() if column.shown]

# Width and height of the curve of the loss, CSS pixels; its points at most.
_CURVE = (90, 30)
_CURVE_POINTS = 60


def write_page(
    butler: Butler,
    campaign: Campaign,
    patches: Iterable[Patch],
    path: str | Path,
    *,
    thumbnails: bool = True,
) -> None:
    """Write a page with patches, and their pictures into a folder beside it.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        The repository of the patches.
    campaign : `Campaign`
        The campaign, for the summary.
    patches : `~collections.abc.Iterable` [`Patch`]
        Its patches to show, in this order.
    path : `str` or `~pathlib.Path`
        The page.  Pictures go to the folder ``NAME_images`` for a page
        ``NAME.html``; those that it has already are not drawn again.
    thumbnails : `bool`, optional
        Whether there are pictures.

    Notes
    -----
    The images of one patch are in memory at a time, and only the pixels are
    read.  The browser loads pictures when they come into sight.
    """
    path = Path(path)
    folder = path.with_name(f"{path.stem}_images")
    if thumbnails:
        folder.mkdir(parents=True, exist_ok=True)
    template = importlib.resources.files(__package__).joinpath("page.html").read_text("utf-8")
    before, after = template.split("$rows")
    titles = [("", "rank", ""), ("", "patch", ""), ("", "warnings", "descending")]
    titles += [("", "", "")] * thumbnails
    titles += [
        ("n", column.title, "descending" if column.high_is_worse else "ascending") for column in _SHOWN
    ]
    texts = {
        "title": escape(campaign.title),
        "summary": escape(campaign.summary()),
        "head": "".join(_title(*title) for title in titles) + "<th>loss by step</th>",
        "columns": "".join(
            f"<dt>{escape(column.title)}</dt><dd>{escape(column.doc)}</dd>" for column in _SHOWN
        ),
        "pictures": f"Pictures, from left to right: {', '.join(PANELS)} (the part with most light). "
        "All four have the coadd's asinh stretch; green: no data."
        if thumbnails
        else "",
    }
    order = {id(patch): i for i, patch in enumerate(sorted(campaign.patches, key=_place))}
    runs = len({patch.run for patch in campaign.patches}) > 1
    # A page that is interrupted does not replace a whole one.
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(string.Template(before).substitute(texts))
        for rank, patch in enumerate(patches, 1):
            cells = [
                _cell(str(rank), rank),
                _cell(_describe(butler, patch, runs), order[id(patch)]),
                _cell(_warnings(patch), 1000 * len(patch.problems) + len(patch.remarks), "w"),
            ]
            if thumbnails:
                cells.append(f"<td>{_picture(butler, patch, folder)}</td>")
            cells += [_number(column, patch) for column in _SHOWN]
            cells.append(f"<td>{_curve(butler, patch)}</td>")
            kind = "problem" if patch.problems else "remark" if patch.remarks else "good"
            stream.write(f'<tr class="{kind}">{"".join(cells)}</tr>\n')
        stream.write(string.Template(after).substitute(texts))
    os.replace(part, path)


def _place(patch: Patch) -> tuple[str, int, int, str, str]:
    return patch.skymap, patch.tract, patch.patch, patch.band, patch.run


def _title(kind: str, text: str, first: str) -> str:
    """Make the title of a column; ``first`` is the direction in which it is
    sorted first.
    """
    if not text:
        return "<th></th>"
    return f'<th class="{kind}" data-first="{first}"><button>{escape(text)}</button></th>'


def _cell(html: str, value: float | None, kind: str = "") -> str:
    """Make a cell that is sorted by ``value``."""
    key = "" if value is None else f"{value:.9g}"
    return f'<td class="{kind}" data-v="{key}">{html}</td>'


def _number(column: Column, patch: Patch) -> str:
    value = patch.values.get(column.name)
    text = escape(column.format(value))
    if value is not None and not math.isfinite(value):
        # What is not a number is worse than any number.
        value = math.inf if column.high_is_worse else -math.inf
        return f'<td class="n" data-v="{"-" * (value < 0)}1e999">{text}</td>'
    return _cell(text, value, "n")


def _describe(butler: Butler, patch: Patch, with_run: bool) -> str:
    """Name a patch, and link its figure if it is a file."""
    band = f", {patch.band}" if patch.band else ""
    lines = [f"<b>tract {patch.tract}, patch {patch.patch}{escape(band)}</b>"]
    lines.append(f"<small>{escape(patch.skymap)}</small>")
    if math.isfinite(patch.ra):
        lines.append(f"<small>RA {patch.ra:.4f}, Dec {patch.dec:+.4f}</small>")
    if with_run:
        lines.append(f"<small>{escape(patch.run)}</small>")
    if (ref := patch.datasets.get(FIGURE)) is not None:
        uri = butler.getURI(ref)
        if uri.isLocal:
            lines.append(f'<small><a href="{escape(uri.geturl())}">figure</a></small>')
    return "".join(lines)


def _warnings(patch: Patch) -> str:
    items = [f'<li class="problem">{escape(text)}</li>' for text in patch.problems]
    items += [f"<li>{escape(text)}</li>" for text in patch.remarks]
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _picture(butler: Butler, patch: Patch, folder: Path) -> str:
    """Draw the picture of a patch, unless there is one, and return the HTML
    that shows it.
    """
    refs = [patch.datasets.get(name) for name in (REFERENCE, RESTORED)]
    named = refs[1] or refs[0]
    if named is None:
        return "" if patch.state in ("failed", "no work") else "no images"
    # One picture for one dataset: a later page of a growing campaign finds it.
    file = folder / f"{named.id}.jpg"
    if not file.exists():
        images = [_pixels(butler, ref) for ref in refs]
        if all(image is None for image in images):
            return "the images cannot be read"
        part = file.with_suffix(".part")
        draw_thumbnail(*images).save(part, format="JPEG", quality=88, subsampling=0)
        os.replace(part, file)
    url = escape(quote(f"{folder.name}/{file.name}"))
    label = escape(f"tract {patch.tract}, patch {patch.patch} {patch.band}")
    return f'<a href="{url}"><img src="{url}" loading="lazy" width="1036" height="256" alt="{label}"></a>'


def _pixels(butler: Butler, ref: DatasetRef | None) -> np.ndarray | None:
    """Read the pixels of an image, `None` if that is not possible."""
    if ref is None:
        return None
    try:
        return butler.get(ref.makeComponentRef("image")).array
    except Exception as error:
        # One damaged file must not hide thousands of others.
        _LOG.warning("Dataset %s cannot be read: %s", ref, error)
        return None


def _curve(butler: Butler, patch: Patch) -> str:
    """Draw the loss by step, on a logarithmic scale, as the thing to look at
    in a training that did not converge.
    """
    ref = patch.datasets.get(TRAINING)
    if ref is None:
        return ""
    try:
        table = butler.get(ref)
        step, loss = np.asarray(table["step"], float), np.asarray(table["loss"], float)
    except Exception as error:
        _LOG.warning("Dataset %s cannot be read: %s", ref, error)
        return ""
    known = np.isfinite(loss) & (loss > 0)
    step, loss = step[known], np.log(loss[known])
    if len(step) < 2:
        return ""
    chosen = np.unique(np.linspace(0, len(step) - 1, _CURVE_POINTS).astype(int))
    step, loss = step[chosen], loss[chosen]
    width, height = _CURVE
    x = 2 + (width - 4) * (step - step[0]) / max(step[-1] - step[0], 1)
    y = 2 + (height - 4) * (loss.max() - loss) / max(np.ptp(loss), 1e-9)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    label = f"loss {math.exp(loss[0]):.3f} to {math.exp(loss[-1]):.3f} in {step[-1]:.0f} steps"
    return f'<svg width="{width}" height="{height}"><title>{label}</title><polyline points="{points}"/></svg>'
