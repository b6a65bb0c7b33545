# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Judge the restored patches of a campaign by their metrics."""

from __future__ import annotations

__all__ = (
    "COLUMNS",
    "Campaign",
    "Column",
    "Patch",
    "find_patches",
    "format_patches",
    "make_table",
    "sort_patches",
    "write_table",
)

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import astropy.table
import numpy as np

from lsst.daf.butler import (
    Butler,
    ButlerLogRecords,
    DataCoordinate,
    DatasetRef,
    MissingCollectionError,
    MissingDatasetTypeError,
)
from lsst.sphgeom import LonLat

METRICS = "restored_coadd_metrics"
TRAINING = "restored_coadd_training"
RESTORED = "restored_coadd"
REFERENCE = "restored_coadd_reference"
FIGURE = "restored_coadd_plot"

# What the middleware logs before the reason for which a task ended early.
_ENDED = re.compile(
    r"(?:failed\. Exception \w+|exited early with no work found|saving metadata and skipping): (.+)",
    re.DOTALL,
)

# Labels of the tasks that restore patches.
TASKS = ("restoreCoadd", "restoreMultibandCoadd")

# Formats of the files that tables are written to.
FORMATS = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".fits": "fits"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A number that is shown of every patch.

    Parameters
    ----------
    name : `str`
        Its name in tables.
    title : `str`
        Its title on the terminal and on the page.
    doc : `str`
        What it is, with its unit.
    style : `str`
        Number format.
    high_is_worse : `bool`
        Whether patches with high values, not those with low ones, come first
        when patches are sorted by it.
    key : `tuple` [`str`, ...]
        Where the metrics have it; of two numbers if ``minus`` is given.
    minus : `tuple` [`str`, ...]
        Where the metrics have the number to subtract.
    shown : `bool`
        Whether the terminal and the page show it; tables have all.
    """

    name: str
    title: str
    doc: str
    style: str
    high_is_worse: bool
    key: tuple[str, ...]
    minus: tuple[str, ...] = ()
    shown: bool = False

    def read(self, metrics: Any) -> float | None:
        """Return the value, `None` if the metrics do not have it.

        Parameters
        ----------
        metrics : `~collections.abc.Mapping`
            A dataset ``restored_coadd_metrics``, of any version.

        Returns
        -------
        value : `float` or `None`
            The value; it may be NaN.
        """
        value = _number(metrics, self.key)
        if self.minus and value is not None:
            other = _number(metrics, self.minus)
            value = None if other is None else value - other
        return value

    def format(self, value: float | None) -> str:
        """Format a value, a dash if it is not known.

        Parameters
        ----------
        value : `float` or `None`
            The value.

        Returns
        -------
        text : `str`
            The text.
        """
        return "\N{EN DASH}" if value is None else self.style.format(value)


COLUMNS = {
    column.name: column
    for column in (
        Column(
            name="exposures",
            title="exp.",
            doc="Exposures that the patch was restored from.",
            style="{:.0f}",
            high_is_worse=False,
            key=("n_exposures",),
            shown=True,
        ),
        Column(
            name="dropped",
            title="dropped",
            doc="Visit images that could not be used.",
            style="{:.0f}",
            high_is_worse=True,
            key=("n_dropped",),
        ),
        Column(
            name="seeing",
            title='seeing "',
            doc="Median FWHM of the exposures' PSFs, arcsec.",
            style="{:.2f}",
            high_is_worse=True,
            key=("seeing_arcsec", "median"),
            shown=True,
        ),
        Column(
            name="loss",
            title="loss",
            doc="Mean Huber loss per good pixel: how far the exposures are from what the restored image "
            "predicts of them, 0.5 or a little less if by their noise alone.",
            style="{:.3f}",
            high_is_worse=True,
            key=("loss",),
            shown=True,
        ),
        Column(
            name="inconsistent",
            title="incons.",
            doc="Fraction of the pixels that the exposures contradict.",
            style="{:.1%}",
            high_is_worse=True,
            key=("inconsistent_fraction",),
            shown=True,
        ),
        Column(
            name="no_data",
            title="no data",
            doc="Fraction of the pixels that no exposure has data for.",
            style="{:.1%}",
            high_is_worse=True,
            key=("no_data_fraction",),
            shown=True,
        ),
        Column(
            name="clipped",
            title="clipped",
            doc="Fraction of the exposures' good pixels that were clipped as outliers.",
            style="{:.2%}",
            high_is_worse=True,
            key=("clipped_fraction",),
        ),
        Column(
            name="sharper",
            title="sharper",
            doc="Sharpness S_F of the restored image less that of the reference coadd, dex.",
            style="{:+.2f}",
            high_is_worse=False,
            key=("sharpness", "restored"),
            minus=("sharpness", "reference_coadd"),
            shown=True,
        ),
        Column(
            name="ssim",
            title="SSIM",
            doc="Structural similarity of the restored image and the reference coadd.",
            style="{:.3f}",
            high_is_worse=False,
            key=("ssim", "reference_coadd"),
            shown=True,
        ),
        Column(
            name="psnr",
            title="PSNR",
            doc="Peak signal-to-noise ratio of the restored image against the reference coadd, dB.",
            style="{:.1f}",
            high_is_worse=False,
            key=("psnr", "reference_coadd"),
        ),
        Column(
            name="pedestal",
            title="pedestal",
            doc="Level of the restored image in empty sky, nJy per pixel.",
            style="{:.3g}",
            high_is_worse=True,
            key=("pedestal",),
        ),
        Column(
            name="sky_noise",
            title="sky noise",
            doc="Noise of the reference coadd in empty sky, nJy per pixel.",
            style="{:.3g}",
            high_is_worse=True,
            key=("sky_noise", "reference_coadd"),
        ),
        Column(
            name="kernel",
            title="kernel",
            doc="Lowest fraction of a PSF's flux that its kernel holds.",
            style="{:.1%}",
            high_is_worse=False,
            key=("kernel_fraction", "lowest"),
        ),
        Column(
            name="steps",
            title="steps",
            doc="Optimizer steps.",
            style="{:.0f}",
            high_is_worse=True,
            key=("steps",),
        ),
        Column(
            name="seconds",
            title="time s",
            doc="Wall time of the restoration, s.",
            style="{:.0f}",
            high_is_worse=True,
            key=("seconds",),
        ),
        Column(
            name="memory",
            title="GiB",
            doc="Peak memory of the process, GiB.",
            style="{:.1f}",
            high_is_worse=True,
            key=("peak_memory_gib",),
        ),
    )
}

# Of which the summary has the median of a band.
_MEDIANS = {
    "exposures": "{} exposures",
    "seeing": 'seeing {}"',
    "loss": "loss {}",
    "inconsistent": "{} inconsistent",
    "ssim": "SSIM {}",
}

# Limits beyond which a patch is pointed at.  Those of the image:
_MAX_INCONSISTENT = 0.05
# Noise alone gives 0.5 at most, whatever huberDelta is.
_MAX_LOSS = 0.75
# In units of the coadd's noise.
_MAX_PEDESTAL = 0.5
# And those of its inputs.
_MAX_NO_DATA = 0.05
_MAX_CLIPPED = 0.02
_MAX_DROPPED = 0.2
_MIN_EXPOSURES = 3
_MIN_KERNEL = 0.95
# Loss and SSIM depend on the field: patches are compared with the others of
# their band.  An outlier is further from their median than this many robust
# standard deviations, and than this fraction of the distance from a perfect
# image.
_OUTLIER_SIGMA = 5.0
_OUTLIER_FRACTION = 0.1
_MIN_PATCHES = 8


@dataclasses.dataclass(kw_only=True)
class Patch:
    """What is known of a patch in a band.

    Parameters
    ----------
    skymap, tract, patch, band
        Its data ID; the band is empty if a task of several bands failed.
    run : `str`
        RUN collection.
    state : `str`
        ``restored``, ``unreadable`` (its metrics cannot be read), ``failed``,
        or ``no work`` (there was nothing to restore).
    ra, dec : `float`
        Center, degrees; NaN if not known.
    values : `dict` [`str`, `float` or `None`]
        The values of `COLUMNS` by name; `None` if the metrics lack one.
    problems : `list` [`str`]
        What makes the restored image suspicious, or why there is none.
    remarks : `list` [`str`]
        What is unusual about the data it was restored from.
    datasets : `dict` [`str`, `lsst.daf.butler.DatasetRef`]
        The patch's datasets that the page reads, by dataset type.
    """

    skymap: str
    tract: int
    patch: int
    band: str
    run: str
    state: str = "restored"
    ra: float = math.nan
    dec: float = math.nan
    values: dict[str, float | None] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)
    datasets: dict[str, DatasetRef] = dataclasses.field(default_factory=dict)

    @property
    def warnings(self) -> str:
        """Problems and remarks in one line (`str`)."""
        return "; ".join(self.problems + self.remarks)


@dataclasses.dataclass(kw_only=True)
class Campaign:
    """The patches of a campaign.

    Parameters
    ----------
    title : `str`
        Where they are from.
    patches : `list` [`Patch`]
        The patches, worst first.
    """

    title: str
    patches: list[Patch]

    def summary(self) -> str:
        """Count the patches.

        Returns
        -------
        text : `str`
            A line on all of them and one for each band.
        """
        states = Counter(patch.state for patch in self.patches)
        restored = [patch for patch in self.patches if patch.state == "restored"]
        problems = sum(bool(patch.problems) for patch in restored)
        remarks = sum(bool(patch.remarks) and not patch.problems for patch in restored)
        lines = [
            f"{len(restored)} restored patches: {problems} with a suspicious image, "
            f"{remarks} more with unusual data"
        ]
        for state, label in (
            ("failed", "failed"),
            ("unreadable", "without readable metrics"),
            ("no work", "had nothing to restore"),
        ):
            if states[state]:
                lines[0] += f"; {states[state]} {label}"
        for band in sorted({patch.band for patch in restored}):
            of_band = [patch for patch in restored if patch.band == band]
            medians = []
            for name, text in _MEDIANS.items():
                known = _finite(patch.values[name] for patch in of_band)
                if known.size:
                    medians.append(text.format(COLUMNS[name].style.format(np.median(known))))
            lines.append(f"{band}: {len(of_band)} patches; medians: {', '.join(medians) or 'unknown'}")
        return "\n".join(lines)


def find_patches(
    butler: Butler,
    collections: Sequence[str] = (),
    *,
    where: str = "",
    bands: Sequence[str] = (),
) -> Campaign:
    """Find restored patches, read their metrics and judge them.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        The repository.
    collections : `~collections.abc.Sequence` [`str`], optional
        Collections to search, in this order: of a patch that several of them
        have, the first is taken.  All of the repository if not given: every
        run that has a patch counts.
    where : `str`, optional
        Query expression that selects patches.
    bands : `~collections.abc.Sequence` [`str`], optional
        Only these bands.

    Returns
    -------
    campaign : `Campaign`
        The patches, worst first (`sort_patches`).

    Raises
    ------
    ValueError
        Raised if there is no such collection, or nothing in it.
    """
    try:
        butler.collections.query_info(list(collections) or "*")
    except MissingCollectionError as error:
        raise ValueError(f"There is no such collection: {error}") from error
    query: dict[str, Any] = {"where": where, "find_first": bool(collections)}
    search = list(collections) or "*"
    metrics = _query(butler, METRICS, search, bands, with_dimension_records=True, **query)
    others = {
        name: {
            _place(ref): ref for ref in _query(butler, name, search, bands, **query | {"find_first": False})
        }
        for name in (TRAINING, RESTORED, REFERENCE, FIGURE)
    }
    patches = []
    for ref in metrics:
        # Of the same run: of those that are not its own, nothing would be true.
        patch = _patch(ref, {name: refs[_place(ref)] for name, refs in others.items() if _place(ref) in refs})
        _read_metrics(butler, ref, patch)
        patches.append(patch)
    _compare(patches)
    done = {(patch.skymap, patch.tract, patch.patch, patch.band) for patch in patches}
    for task in TASKS:
        patches += _without_result(butler, task, search, bands, done, query)
    if not patches:
        raise ValueError(
            f"No restored patches ({METRICS!r}) in "
            + (", ".join(collections) or "this repository")
            + (f" where {where}" if where else "")
            + (f" in band {', '.join(bands)}" if bands else "")
            + "."
        )
    return Campaign(
        title=", ".join(collections) or "all collections",
        patches=sort_patches(patches),
    )


def sort_patches(patches: Iterable[Patch], by: str = "warnings", *, reverse: bool = False) -> list[Patch]:
    """Sort patches, worst first.

    Parameters
    ----------
    patches : `~collections.abc.Iterable` [`Patch`]
        The patches.
    by : `str`, optional
        ``warnings``: patches without a restored image, then by the number of
        problems of the image, then by that of remarks on the data, then by the
        loss.  ``patch``: by skymap, tract, patch and band.  Or the name of one
        of `COLUMNS`; patches of which it is not known come last.
    reverse : `bool`, optional
        Best first.

    Returns
    -------
    patches : `list` [`Patch`]
        The sorted patches.
    """

    def place(patch: Patch) -> tuple[Any, ...]:
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
        rank = ("failed", "unreadable", "restored", "no work").index(patch.state)
        return rank, -len(patch.problems), -len(patch.remarks), badness(patch, "loss")

    patches = sorted(patches, key=place)
    match by:
        case "patch":
            key: Any = place
        case "warnings":
            key = severity
        case _:

            def key(patch: Patch) -> tuple[bool, float]:
                return badness(patch, by)

    return sorted(patches, key=key, reverse=reverse)


def format_patches(patches: Sequence[Patch]) -> str:
    """Format patches for a terminal.

    Parameters
    ----------
    patches : `~collections.abc.Sequence` [`Patch`]
        The patches.

    Returns
    -------
    text : `str`
        One line by patch and one with titles.  Skymap and run are shown if
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
    """Make a table for other programs.

    Parameters
    ----------
    patches : `~collections.abc.Sequence` [`Patch`]
        The patches.

    Returns
    -------
    table : `astropy.table.Table`
        A row by patch: data ID, ``run``, ``state``, ``ra`` and ``dec``
        (degrees), all of `COLUMNS` (NaN where not known), ``n_problems``,
        ``n_remarks`` and their texts, ``warnings``.
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
    """Write what `make_table` makes to a file, replacing it.

    Parameters
    ----------
    patches : `~collections.abc.Sequence` [`Patch`]
        The patches.
    path : `str` or `~pathlib.Path`
        The file; its extension is one of `FORMATS` and tells its format.

    Raises
    ------
    ValueError
        Raised if the extension is another one.
    """
    try:
        file_format = FORMATS[Path(path).suffix.lower()]
    except KeyError:
        raise ValueError(
            f"{str(path)!r}: the name of a table ends with one of {', '.join(FORMATS)}."
        ) from None
    make_table(patches).write(path, format=file_format, overwrite=True)


def _query(
    butler: Butler, name: str, collections: Any, bands: Sequence[str], **options: Any
) -> list[DatasetRef]:
    """Return datasets of a type, none if there is no such type."""
    try:
        refs = butler.query_datasets(name, collections, limit=None, explain=False, **options)
    except MissingDatasetTypeError:
        return []
    return [ref for ref in refs if not bands or ref.dataId.get("band", bands[0]) in bands]


def _place(ref: DatasetRef) -> tuple[str, DataCoordinate]:
    """Return what the datasets of one quantum have in common."""
    return ref.run, ref.dataId


def _patch(ref: DatasetRef, datasets: dict[str, DatasetRef] | None = None) -> Patch:
    """Describe the patch of a dataset with dimension records."""
    data_id = ref.dataId
    ra = dec = math.nan
    if (region := data_id.region) is not None:
        center = LonLat(region.getBoundingCircle().getCenter())
        ra, dec = center.getLon().asDegrees() % 360.0, center.getLat().asDegrees()
    return Patch(
        skymap=str(data_id["skymap"]),
        tract=int(data_id["tract"]),
        patch=int(data_id["patch"]),
        band=str(data_id.get("band", "")),
        run=ref.run,
        ra=ra,
        dec=dec,
        datasets=datasets or {},
    )


def _read_metrics(butler: Butler, ref: DatasetRef, patch: Patch) -> None:
    """Read the metrics of a patch and judge them by themselves."""
    try:
        metrics = butler.get(ref)
    except Exception as error:
        # One damaged file must not hide thousands of others.
        patch.state = "unreadable"
        patch.problems.append(f"the metrics cannot be read: {_one_line(str(error) or type(error).__name__)}")
        return
    patch.values = {name: column.read(metrics) for name, column in COLUMNS.items()}
    converged = metrics.get("converged") if isinstance(metrics, Mapping) else None
    patch.problems += _problems(patch.values, converged)
    patch.remarks += _remarks(patch.values)


def _problems(values: Mapping[str, float | None], converged: Any) -> Iterator[str]:
    """Say what makes a restored image suspicious."""
    if converged is False:
        yield "did not converge"
    loss = values["loss"]
    if loss is not None and not math.isfinite(loss):
        yield "the loss is not a number"
    elif _above(loss, _MAX_LOSS):
        yield f"the exposures differ from it by more than their noise (loss {loss:.2f}, noise gives 0.5)"
    if _above(fraction := values["inconsistent"], _MAX_INCONSISTENT):
        yield f"{fraction:.0%} of the pixels contradicted by the exposures"
    pedestal, noise = values["pedestal"], values["sky_noise"]
    if noise and _above(pedestal, _MAX_PEDESTAL * noise):
        yield f"empty sky is at {pedestal:.3g} nJy per pixel (noise of the coadd: {noise:.3g})"


def _remarks(values: Mapping[str, float | None]) -> Iterator[str]:
    """Say what is unusual about the data of a patch."""
    exposures, dropped = values["exposures"], values["dropped"]
    if _above(fraction := values["no_data"], _MAX_NO_DATA):
        yield f"{fraction:.0%} of the pixels without data"
    if exposures is not None and exposures < _MIN_EXPOSURES:
        yield f"only {exposures:.0f} exposure" + "s" * (exposures != 1)
    if exposures is not None and _above(dropped, _MAX_DROPPED * (exposures + (dropped or 0))):
        yield f"{dropped:.0f} visit images could not be used"
    if _above(fraction := values["clipped"], _MAX_CLIPPED):
        yield f"{fraction:.1%} of the pixels clipped as outliers"
    kernel = values["kernel"]
    if kernel is not None and kernel < _MIN_KERNEL:
        yield f"a PSF kernel holds {kernel:.0%} of the flux only"
    sharper = values["sharper"]
    if sharper is not None and sharper < 0:
        yield "no sharper than the coadd"


def _compare(patches: Sequence[Patch]) -> None:
    """Point at patches that differ from the others of their band."""
    for band in {patch.band for patch in patches}:
        of_band = [patch for patch in patches if patch.band == band]
        for name, perfect, text in (
            ("loss", 0.0, "unusually high loss ({:.3f}; median of the band {:.3f})"),
            ("ssim", 1.0, "unusually unlike the coadd (SSIM {:.3f}; median of the band {:.3f})"),
        ):
            values = [patch.values.get(name) for patch in of_band]
            known = _finite(values)
            if known.size < _MIN_PATCHES:
                continue
            median = float(np.median(known))
            sigma = 1.4826 * float(np.median(np.abs(known - median)))
            limit = max(_OUTLIER_SIGMA * sigma, _OUTLIER_FRACTION * abs(median - perfect))
            sign = 1 if COLUMNS[name].high_is_worse else -1
            for patch, value in zip(of_band, values, strict=True):
                if value is not None and sign * (value - median) > limit:
                    patch.problems.append(text.format(value, median))


def _without_result(
    butler: Butler,
    task: str,
    collections: Any,
    bands: Sequence[str],
    done: set[tuple[Any, ...]],
    query: dict[str, Any],
) -> Iterator[Patch]:
    """Find patches that a task worked on and that have no metrics.

    A task that fails leaves its log and no metadata; one that finds nothing to
    do leaves both.
    """
    logs = _query(butler, f"{task}_log", collections, bands, with_dimension_records=True, **query)
    finished = {
        _place(ref)
        for ref in _query(butler, f"{task}_metadata", collections, bands, **query | {"find_first": False})
    }
    several_bands = {place[:3] for place in done}
    for ref in logs:
        patch = _patch(ref)
        place = (patch.skymap, patch.tract, patch.patch)
        if (*place, patch.band) in done or (not patch.band and place in several_bands):
            continue
        reason = _last_words(butler, ref)
        if _place(ref) in finished:
            patch.state = "no work"
            patch.remarks.append(f"nothing to restore: {reason}")
        else:
            patch.state = "failed"
            patch.problems.append(f"failed: {reason}")
        yield patch


def _last_words(butler: Butler, ref: DatasetRef) -> str:
    """Return why a task stopped, by its log."""
    try:
        records: ButlerLogRecords = butler.get(ref)
    except Exception as error:
        return f"its log cannot be read: {_one_line(str(error))}"
    for record in reversed(records):
        if (match := _ENDED.search(record.message)) is not None:
            return _one_line(match[1]).rstrip(".")
    # As of a process that was killed.
    return "its log does not say why"


def _one_line(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= 200 else line[:199] + "\N{HORIZONTAL ELLIPSIS}"


def _number(metrics: Any, key: Sequence[str]) -> float | None:
    for name in key:
        metrics = metrics.get(name) if isinstance(metrics, Mapping) else None
    return float(metrics) if isinstance(metrics, int | float) and not isinstance(metrics, bool) else None


def _above(value: float | None, limit: float) -> bool:
    return value is not None and value > limit


def _finite(values: Iterable[float | None]) -> np.ndarray:
    return np.array([value for value in values if value is not None and math.isfinite(value)])
