# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Queries for the restored patches of a campaign."""

from __future__ import annotations

__all__ = ("FIGURE", "REFERENCE", "RESTORED", "TRAINING", "find_patches")

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lsst.daf.butler import (
    Butler,
    DataCoordinate,
    DatasetRef,
    MissingCollectionError,
    MissingDatasetTypeError,
)
from lsst.sphgeom import LonLat

from .columns import COLUMNS
from .judge import find_outliers, find_problems, find_remarks
from .outcomes import first_line, read_outcome
from .patches import Campaign, Patch, State, sort_patches

METRICS = "restored_coadd_metrics"
TRAINING = "restored_coadd_training"
RESTORED = "restored_coadd"
REFERENCE = "restored_coadd_reference"
FIGURE = "restored_coadd_plot"

# Labels of the tasks that restore patches.
_TASKS = ("restoreCoadd", "restoreMultibandCoadd")


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
        Collections to search, in this order: the first one that has a patch
        wins.  If not given, each RUN collection of the repository is listed
        with its own patches.
    where : `str`, optional
        Query expression that selects patches.
    bands : `~collections.abc.Sequence` [`str`], optional
        Bands to list; all if not given.

    Returns
    -------
    campaign : `Campaign`
        The patches, worst first (`sort_patches`).

    Raises
    ------
    ValueError
        Raised if a collection does not exist or no patch is found.
    """
    try:
        butler.collections.query_info(list(collections) or "*")
    except MissingCollectionError as error:
        raise ValueError(f"There is no such collection: {error}") from error
    query = _Query(butler=butler, collections=tuple(collections), where=where, bands=tuple(bands))
    patches = _compare(list(_with_metrics(query)))
    patches += _without_metrics(query, patches)
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
        patches=tuple(sort_patches(patches)),
    )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Query:
    """A selection of datasets, of any type."""

    butler: Butler
    collections: tuple[str, ...]
    where: str
    bands: tuple[str, ...]

    def first(self, name: str) -> list[DatasetRef]:
        """Find the first dataset of each data ID, with dimension records."""
        return self._find(name, find_first=bool(self.collections), with_dimension_records=True)

    def all(self, name: str) -> dict[tuple[str, DataCoordinate], DatasetRef]:
        """Find the datasets of all runs, by run and data ID."""
        return {(ref.run, ref.dataId): ref for ref in self._find(name, find_first=False)}

    def _find(self, name: str, **options: Any) -> list[DatasetRef]:
        try:
            refs = self.butler.query_datasets(
                name,
                list(self.collections) or "*",
                where=self.where,
                limit=None,
                explain=False,
                **options,
            )
        except MissingDatasetTypeError:
            return []
        bands = self.bands
        # Tasks of several bands have datasets without a band.
        return [ref for ref in refs if not bands or ref.dataId.get("band", bands[0]) in bands]


def _with_metrics(query: _Query) -> Iterator[Patch]:
    """Find the patches that have metrics, and judge each by its own."""
    others = {name: query.all(name) for name in (TRAINING, RESTORED, REFERENCE, FIGURE)}
    for ref in query.first(METRICS):
        # Only datasets of the same run belong to these metrics.
        place = (ref.run, ref.dataId)
        patch = _patch(ref, {name: refs[place] for name, refs in others.items() if place in refs})
        try:
            metrics = query.butler.get(ref)
        except Exception as error:
            # One damaged file must not hide the other patches.
            reason = first_line(str(error)) or type(error).__name__
            yield dataclasses.replace(
                patch, state=State.UNREADABLE, problems=(f"the metrics cannot be read: {reason}",)
            )
            continue
        values = {name: column.read(metrics) for name, column in COLUMNS.items()}
        converged = not isinstance(metrics, Mapping) or metrics.get("converged") is not False
        yield dataclasses.replace(
            patch,
            values=values,
            problems=tuple(find_problems(values, converged=converged)),
            remarks=tuple(find_remarks(values)),
        )


def _compare(patches: list[Patch]) -> list[Patch]:
    """Add the problems that show only in comparison with the other patches of
    a band.
    """
    compared = []
    for band in {patch.band for patch in patches}:
        of_band = [patch for patch in patches if patch.band == band]
        found = find_outliers([patch.values for patch in of_band])
        compared += [
            dataclasses.replace(patch, problems=patch.problems + problems)
            for patch, problems in zip(of_band, found, strict=True)
        ]
    return compared


def _without_metrics(query: _Query, known: Sequence[Patch]) -> Iterator[Patch]:
    """Find the patches whose task ran, but wrote no metrics."""
    done = {(patch.skymap, patch.tract, patch.patch, patch.band) for patch in known}
    done_in_any_band = {place[:3] for place in done}
    for task in _TASKS:
        finished = query.all(f"{task}_metadata")
        for log in query.first(f"{task}_log"):
            patch = _patch(log)
            place = (patch.skymap, patch.tract, patch.patch)
            if (*place, patch.band) in done or (not patch.band and place in done_in_any_band):
                continue
            outcome = read_outcome(query.butler, log, finished.get((log.run, log.dataId)))
            if outcome.state is State.NO_WORK:
                yield dataclasses.replace(patch, state=outcome.state, remarks=(outcome.reason,))
            else:
                yield dataclasses.replace(patch, state=outcome.state, problems=(outcome.reason,))


def _patch(ref: DatasetRef, datasets: Mapping[str, DatasetRef] | None = None) -> Patch:
    """Make the patch of a dataset with dimension records."""
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
