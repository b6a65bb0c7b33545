# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Ingest of exposures as visit images."""

from __future__ import annotations

__all__ = ("IngestSummary", "ingest_exposures")

import dataclasses
import itertools
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import astropy.table

import lsst.utils.logging
from lsst.daf.butler import Butler, MissingCollectionError, MissingDatasetTypeError

from ..instrument import ExternalInstrument
from ..warping.projections import pixel_scale
from .check_exposures import CheckedRow, check_exposures, table_of_values
from .exposure_files import read_exposure
from .frame_manifest import load_manifest
from .make_visit_image import make_visit_image
from .manifest import MAX_NAME_LENGTH, Manifest, ManifestError, ManifestRow
from .psf_files import read_psf
from .register import (
    define_input_collection,
    put_visit_image,
    register_instrument,
    register_visit,
    visit_timespan,
)

_LOG = logging.getLogger(__name__)

# Default collection of the tract's geometry in register-tract and
# simulate-exposures.
_TRACT_COLLECTION = "skymaps"

# Time between progress messages, s.
_LOG_INTERVAL = 5.0


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class IngestSummary:
    """Summary of an ingest.

    Parameters
    ----------
    instrument : `str`
        Name of the instrument.
    collection : `str`
        CHAINED collection with the images.
    n_images, n_visits : `int`
        Numbers of images written and of their visits.
    estimates : `astropy.table.Table`
        Values of each image and their origin, see
        `~lsst.drp.restore.repository.check_exposures.table_of_values`.
    """

    instrument: str
    collection: str
    n_images: int
    n_visits: int
    estimates: astropy.table.Table


def ingest_exposures(
    butler: Butler,
    sources: str | Path | Sequence[str | Path],
    *,
    instrument: str | None = None,
    collection: str = "ingested",
    tract_collection: str | None = None,
    dataset_type: str = "visit_image",
    skip_existing: bool = False,
) -> IngestSummary:
    """Ingest exposures as visit images in nJy.

    All files are read and checked before anything is written; then they are
    read again one by one, so that only one image is in memory.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        Writeable client of the repository.
    sources : `str`, `~pathlib.Path` or `~collections.abc.Sequence`
        A manifest, see `lsst.drp.restore.repository.manifest`; or FITS files
        and folders of FITS files, whose visits are numbered in the order of
        their dates, after those that the repository has of the instrument.
    instrument : `str`, optional
        Name of the instrument; default is that of the manifest, or
        ``External``.
    collection : `str`, optional
        CHAINED collection to make of ``<collection>/run``, which the images
        are written to, and the tract's collection.
    tract_collection : `str`, optional
        Collection with the geometry of the tract; default is ``skymaps``, if
        it exists.
    dataset_type : `str`, optional
        Dataset type of the images.
    skip_existing : `bool`, optional
        Whether to skip images that ``<collection>/run`` has already, for
        example after an interrupted ingest.

    Returns
    -------
    summary : `IngestSummary`
        Summary of the ingest.

    Raises
    ------
    ManifestError
        Raised with all problems, before anything is written.
    ValueError
        Raised if ``collection`` exists and is not a CHAINED collection.
    """
    manifest = load_manifest(sources)
    instrument = instrument or manifest.instrument or ExternalInstrument.getName()
    run = f"{collection}/run"
    if manifest.origin == "header":
        manifest = _number_visits(butler, manifest, instrument)
    existing = _existing(butler, dataset_type, run, instrument)
    rows = list(manifest.rows)
    problems = list(manifest.problems)
    if len(instrument) > MAX_NAME_LENGTH:
        problems.append(f"instrument {instrument!r} has more than {MAX_NAME_LENGTH} characters")
    if skip_existing:
        rows = [row for row in rows if (row.visit, row.detector) not in existing]
    else:
        problems.extend(
            f"{row.label}: {row.image}: collection {run!r} has it already (--skip-existing)"
            for row in rows
            if (row.visit, row.detector) in existing
        )
    checked, file_problems = check_exposures(manifest, rows, instrument)
    problems.extend(file_problems)
    problems.extend(_check_registered(butler, instrument, [row for row in rows if row.complete]))
    if problems:
        raise ManifestError(manifest.path, problems)
    children = [run, *_tract_collections(butler, tract_collection)]

    # The collection comes first because it may be refused.
    define_input_collection(butler, collection, [])
    butler.collections.register(run)
    define_input_collection(butler, collection, children)
    _register(butler, instrument, checked)
    periodic = lsst.utils.logging.PeriodicLogger(_LOG, interval=_LOG_INTERVAL)
    for count, item in enumerate(checked):
        periodic.log("Wrote %d of %d images.", count, len(checked))
        _write(butler, manifest, item, instrument, run, dataset_type)
    n_visits = len({item.row.visit for item in checked})
    _LOG.info("Wrote %d images of %d visits to collection %s.", len(checked), n_visits, run)
    return IngestSummary(
        instrument=instrument,
        collection=collection,
        n_images=len(checked),
        n_visits=n_visits,
        estimates=table_of_values(checked, manifest),
    )


def _number_visits(butler: Butler, manifest: Manifest, instrument: str) -> Manifest:
    """Assign visit numbers to frames, whose headers have none: frames of the time
    and filter of a visit in the repository get its number, others follow its
    last one.
    """
    known = {
        (record.timespan, record.physical_filter): record.id
        for record in butler.query_dimension_records(
            "visit", instrument=instrument, limit=None, explain=False
        )
    }
    free = itertools.count(max(known.values(), default=0) + 1)
    numbers: dict[int, int] = {}
    taken = set()
    for row in manifest.rows:
        if row.complete and row.visit not in numbers:
            number = known.get((visit_timespan(row.begin, row.exposure_time), row.physical_filter))
            # Several frames of one time without detector numbers are visits of their own.
            numbers[row.visit] = number if number is not None and number not in taken else next(free)
            taken.add(number)
    rows = tuple(dataclasses.replace(row, visit=numbers.get(row.visit, row.visit)) for row in manifest.rows)
    return dataclasses.replace(manifest, rows=rows)


def _existing(butler: Butler, dataset_type: str, run: str, instrument: str) -> set[tuple[int, int]]:
    """Return the visit and detector IDs of the images that a run has."""
    try:
        refs = butler.query_datasets(
            dataset_type, collections=run, instrument=instrument, limit=None, explain=False
        )
    except (MissingCollectionError, MissingDatasetTypeError):
        return set()
    return {(int(ref.dataId["visit"]), int(ref.dataId["detector"])) for ref in refs}


def _tract_collections(butler: Butler, name: str | None) -> list[str]:
    """Return the collection of the tract's geometry, if it exists."""
    try:
        return list(butler.collections.query(name or _TRACT_COLLECTION))
    except MissingCollectionError as error:
        if name is None:
            return []
        raise ValueError(
            f"There is no collection {name!r}; register the tract first, with register-tract."
        ) from error


def _check_registered(butler: Butler, instrument: str, rows: list[ManifestRow]) -> list[str]:
    """Return inconsistencies between rows and records of the repository."""
    problems = []
    filters = {
        record.name: record.band
        for record in butler.query_dimension_records("physical_filter", instrument=instrument, explain=False)
    }
    visits = {
        record.id: record
        for record in butler.query_dimension_records(
            "visit", instrument=instrument, limit=None, explain=False
        )
    }
    for row in rows:
        label = f"{row.label}: {row.image}"
        band = filters.get(row.physical_filter, row.band)
        if band != row.band:
            problems.append(
                f"{label}: filter {row.physical_filter!r} of {instrument!r} is registered with band "
                f"{band!r}, not {row.band!r}"
            )
        visit = visits.get(row.visit)
        timespan = visit_timespan(row.begin, row.exposure_time)
        if visit is not None and (visit.physical_filter, visit.timespan) != (row.physical_filter, timespan):
            problems.append(
                f"{label}: visit {row.visit} of {instrument!r} is registered with {visit.physical_filter!r} "
                f"at {visit.timespan}, not with {row.physical_filter!r} at {timespan}"
            )
    return problems


def _register(butler: Butler, instrument: str, checked: list[CheckedRow]) -> None:
    """Register all dimension records."""
    register_instrument(
        butler,
        instrument,
        detectors={item.row.detector: str(item.row.detector) for item in checked},
        filters={item.row.physical_filter: item.row.band for item in checked},
    )
    visits: dict[int, list[CheckedRow]] = defaultdict(list)
    for item in checked:
        visits[item.row.visit].append(item)
    for visit, items in visits.items():
        row = items[0].row
        register_visit(
            butler,
            instrument=instrument,
            visit=visit,
            physical_filter=row.physical_filter,
            begin=row.begin,
            exposure_time=row.exposure_time,
            detector_regions={item.row.detector: item.region for item in items},
        )


def _write(
    butler: Butler, manifest: Manifest, item: CheckedRow, instrument: str, run: str, dataset_type: str
) -> None:
    """Write one image."""
    row, folder = item.row, manifest.path.parent
    arrays = read_exposure(row, folder, instrument=instrument, mask_planes=manifest.mask_planes)
    projection = arrays.sky_projection
    bbox = projection.pixel_frame.bbox
    visit_image = make_visit_image(
        image=arrays.image,
        variance=arrays.variance,
        mask=arrays.mask,
        wcs=projection,
        psf=item.psf or read_psf(row, folder, bbox, pixel_scale(projection, bbox)),
        instrument=instrument,
        visit=row.visit,
        detector=row.detector,
        physical_filter=row.physical_filter,
        band=row.band,
        begin=row.begin,
        exposure_time=row.exposure_time,
        noise_correlation=arrays.correlation,
    )
    put_visit_image(butler, visit_image, run, dataset_type=dataset_type)
