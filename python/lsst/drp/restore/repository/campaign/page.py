# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""An HTML page with the restored patches of a campaign."""

from __future__ import annotations

__all__ = ("write_page",)

import dataclasses
import importlib.resources
import logging
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import jinja2
import numpy as np

from lsst.daf.butler import Butler, DatasetRef

from .columns import COLUMNS
from .find import FIGURE, REFERENCE, RESTORED, TRAINING
from .patches import Campaign, Patch, State, sort_patches
from .thumbnails import PANELS, SIZE, draw_thumbnail

_LOG = logging.getLogger(__name__)

# Width and height of the curve of the loss and margin around it, CSS pixels;
# maximum number of its points.
_CURVE_SIZE = (90, 30)
_CURVE_MARGIN = 2
_CURVE_POINTS = 60

_JPEG_QUALITY = 88


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Picture:
    """The picture of a patch, or the reason why there is none.

    Parameters
    ----------
    path : `str`
        File, relative to the page; empty if there is none.
    missing : `str`
        Reason, if there is no file.
    """

    path: str = ""
    missing: str = ""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Curve:
    """The loss as a function of the step, on a logarithmic scale.

    Parameters
    ----------
    points : `list` [`tuple` [`float`, `float`]]
        Points ``(x, y)``, CSS pixels, y downwards.
    first, last : `float`
        Loss of the first and of the last step.
    steps : `float`
        Number of the last step.
    """

    points: list[tuple[float, float]]
    first: float
    last: float
    steps: float


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Row:
    """A row of the page.

    Parameters
    ----------
    patch : `Patch`
        The patch.
    index : `int`
        Place of the patch in the order by data ID.
    figure : `str` or `None`
        URL of the figure ``restored_coadd_plot``, if it is a local file.
    picture : `_Picture` or `None`
        The thumbnail; `None` on a page without them.
    curve : `_Curve` or `None`
        The loss, if it is known for at least two steps.
    """

    patch: Patch
    index: int
    figure: str | None
    picture: _Picture | None
    curve: _Curve | None


def write_page(
    butler: Butler,
    campaign: Campaign,
    patches: Iterable[Patch],
    path: str | Path,
    *,
    thumbnails: bool = True,
) -> None:
    """Write an HTML page with patches, and their pictures into a folder.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        The repository of the patches.
    campaign : `Campaign`
        The campaign, for the summary.
    patches : `~collections.abc.Iterable` [`Patch`]
        Patches of the campaign to show, in this order.
    path : `str` or `~pathlib.Path`
        The page.  Pictures go to the folder ``NAME_images`` for a page
        ``NAME.html``; existing ones are not drawn again.
    thumbnails : `bool`, optional
        Whether to show pictures.

    Notes
    -----
    Pixels of one patch at a time are read.  The browser loads pictures when
    they scroll into view.
    """
    path = Path(path)
    folder = path.with_name(f"{path.stem}_images") if thumbnails else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["sort_key"] = _sort_key
    source = importlib.resources.files(__package__).joinpath("page.html").read_text("utf-8")
    page = environment.from_string(source).generate(
        campaign=campaign,
        columns=[column for column in COLUMNS.values() if column.shown],
        rows=_rows(butler, campaign, patches, folder),
        panels=PANELS if thumbnails else (),
        picture_size=SIZE,
        curve_size=_CURVE_SIZE,
        show_run=len({patch.run for patch in campaign.patches}) > 1,
    )
    # An interrupted call does not replace a complete page.
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as stream:
        stream.writelines(page)
    os.replace(part, path)


def _sort_key(value: float | None, high_is_worse: bool = True) -> str:
    """Format a number for the script that sorts rows; empty if not known."""
    if value is None:
        return ""
    if not math.isfinite(value):
        # Worse than any number; JavaScript reads it as infinity.
        return "1e999" if high_is_worse else "-1e999"
    return f"{value:.9g}"


def _rows(
    butler: Butler, campaign: Campaign, patches: Iterable[Patch], folder: Path | None
) -> Iterator[_Row]:
    """Gather the rows, one patch at a time."""
    indices = {patch: index for index, patch in enumerate(sort_patches(campaign.patches, "patch"))}
    for patch in patches:
        yield _Row(
            patch=patch,
            index=indices[patch],
            figure=_figure(butler, patch),
            picture=None if folder is None else _draw_picture(butler, patch, folder),
            curve=_read_curve(butler, patch),
        )


def _figure(butler: Butler, patch: Patch) -> str | None:
    """Return the URL of the figure of a patch, if it is a local file."""
    if (ref := patch.datasets.get(FIGURE)) is None:
        return None
    uri = butler.getURI(ref)
    return uri.geturl() if uri.isLocal else None


def _draw_picture(butler: Butler, patch: Patch, folder: Path) -> _Picture:
    """Draw the picture of a patch, unless it exists."""
    refs = [patch.datasets.get(name) for name in (REFERENCE, RESTORED)]
    named = refs[1] or refs[0]
    if named is None:
        return _Picture(missing="" if patch.state in (State.FAILED, State.NO_WORK) else "no images")
    # Named by dataset, so that a later page of a growing campaign finds it.
    file = folder / f"{named.id}.jpg"
    if not file.exists():
        images = [_read_pixels(butler, ref) for ref in refs]
        if all(image is None for image in images):
            return _Picture(missing="the images cannot be read")
        part = file.with_suffix(".part")
        draw_thumbnail(*images).save(part, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
        os.replace(part, file)
    return _Picture(path=f"{folder.name}/{file.name}")


def _read_pixels(butler: Butler, ref: DatasetRef | None) -> np.ndarray | None:
    """Read the pixels of an image, `None` if that is not possible."""
    if ref is None:
        return None
    try:
        return butler.get(ref.makeComponentRef("image")).array
    except Exception as error:
        # One damaged file must not hide the other patches.
        _LOG.warning("Dataset %s cannot be read and is not shown: %s", ref, error)
        return None


def _read_curve(butler: Butler, patch: Patch) -> _Curve | None:
    """Read the loss of each step, which shows why a training did not
    converge.
    """
    ref = patch.datasets.get(TRAINING)
    if ref is None:
        return None
    try:
        table = butler.get(ref)
        step, loss = np.asarray(table["step"], float), np.asarray(table["loss"], float)
    except Exception as error:
        _LOG.warning("Dataset %s cannot be read and is not shown: %s", ref, error)
        return None
    known = np.isfinite(loss) & (loss > 0)
    step, loss = step[known], loss[known]
    if len(step) < 2:
        return None
    chosen = np.unique(np.linspace(0, len(step) - 1, _CURVE_POINTS).astype(int))
    step, loss = step[chosen], loss[chosen]
    width, height = (extent - 2 * _CURVE_MARGIN for extent in _CURVE_SIZE)
    level = np.log(loss)
    x = _CURVE_MARGIN + width * (step - step[0]) / max(step[-1] - step[0], 1)
    y = _CURVE_MARGIN + height * (level.max() - level) / max(np.ptp(level), 1e-9)
    return _Curve(
        points=list(zip(x.tolist(), y.tolist(), strict=True)),
        first=float(loss[0]),
        last=float(loss[-1]),
        steps=float(step[-1]),
    )
