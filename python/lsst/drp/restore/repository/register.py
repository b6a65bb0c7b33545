# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Dimension records, datasets and collections of exposures from outside the
Science Pipelines.
"""

from __future__ import annotations

__all__ = (
    "define_input_collection",
    "put_visit_image",
    "register_instrument",
    "register_visit",
    "visit_timespan",
)

from collections.abc import Iterable, Mapping

import astropy.units as u
from astropy.time import Time

from lsst.daf.butler import Butler, CollectionType, DatasetRef, DatasetType, Timespan
from lsst.images import VisitImage
from lsst.sphgeom import ConvexPolygon

from ..instrument import ExternalInstrument


def register_instrument(
    butler: Butler, name: str, detectors: Mapping[int, str], filters: Mapping[str, str]
) -> None:
    """Register an instrument with its detectors and filters.

    Existing records are not changed, even if they name another instrument
    class: exposures can be added to an instrument of an obs package.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        Writeable client of the repository.
    name : `str`
        Name of the instrument.
    detectors : `~collections.abc.Mapping` [`int`, `str`]
        Full name of each detector by its ID.
    filters : `~collections.abc.Mapping` [`str`, `str`]
        Band of each physical filter by its name.

    Raises
    ------
    ValueError
        Raised if a physical filter is registered with another band.
    """
    registry = butler.registry
    with registry.transaction():
        if not butler.query_dimension_records("instrument", instrument=name, explain=False):
            registry.insertDimensionData("instrument", ExternalInstrument.make_record(name))
        known_filters = {
            record.name: record.band
            for record in butler.query_dimension_records("physical_filter", instrument=name, explain=False)
        }
        for physical_filter, band in filters.items():
            if (known := known_filters.get(physical_filter, band)) != band:
                raise ValueError(
                    f"Filter {physical_filter!r} of {name!r} is registered with band {known!r}, not {band!r}."
                )
            if physical_filter not in known_filters:
                registry.insertDimensionData(
                    "physical_filter", {"instrument": name, "name": physical_filter, "band": band}
                )
        known_detectors = {
            record.id for record in butler.query_dimension_records("detector", instrument=name, explain=False)
        }
        for detector, full_name in detectors.items():
            if detector not in known_detectors:
                registry.insertDimensionData(
                    "detector",
                    {"instrument": name, "id": detector, "full_name": full_name, "purpose": "SCIENCE"},
                )


def register_visit(
    butler: Butler,
    *,
    instrument: str,
    visit: int,
    physical_filter: str,
    begin: Time,
    exposure_time: float,
    detector_regions: Mapping[int, ConvexPolygon],
    name: str | None = None,
    target_name: str = "",
) -> None:
    """Register a visit with the regions of its detectors.

    Existing regions grow to contain the new ones, so that more detectors of a
    visit, or another astrometric solution, can be added later.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        Writeable client of the repository.
    instrument : `str`
        Name of the instrument, which must be registered.
    visit : `int`
        ID of the visit.
    physical_filter : `str`
        Name of the filter, which must be registered.
    begin : `astropy.time.Time`
        Start of the exposure.
    exposure_time : `float`
        Exposure time, s.
    detector_regions : `~collections.abc.Mapping` \
            [`int`, `lsst.sphgeom.ConvexPolygon`]
        Region on the sky by detector ID; the visit's own region is the convex
        hull of all of them.
    name : `str`, optional
        Name of the visit; its ID if not given.
    target_name : `str`, optional
        Name of the target.

    Raises
    ------
    ValueError
        Raised if the visit is registered with another filter or time.
    """
    registry = butler.registry
    timespan = visit_timespan(begin, exposure_time)
    night = observing_night(begin)
    vertices = [vertex for region in detector_regions.values() for vertex in region.getVertices()]
    known = butler.query_dimension_records("visit", instrument=instrument, visit=visit, explain=False)
    with registry.transaction():
        if known:
            record = known[0].toDict()
            if (record["physical_filter"], record["timespan"]) != (physical_filter, timespan):
                raise ValueError(
                    f"Visit {visit} of {instrument!r} is registered with {record['physical_filter']!r} at "
                    f"{record['timespan']}, not with {physical_filter!r} at {timespan}."
                )
            # The region also contains the detectors that were added earlier.
            vertices.extend(record["region"].getVertices())
        else:
            registry.syncDimensionData("day_obs", {"instrument": instrument, "id": night})
            record = {
                "instrument": instrument,
                "id": visit,
                "name": name if name is not None else str(visit),
                "physical_filter": physical_filter,
                "day_obs": night,
                "seq_num": visit % 100000,
                "exposure_time": float(exposure_time),
                "target_name": target_name,
                "observation_reason": "science",
                "science_program": "",
                "timespan": timespan,
            }
        record["region"] = ConvexPolygon.convexHull(vertices)
        registry.syncDimensionData("visit", record, update=True)
        known_regions = {
            record.detector: record.region
            for record in butler.query_dimension_records(
                "visit_detector_region", instrument=instrument, visit=visit, explain=False
            )
        }
        for detector, region in detector_regions.items():
            if detector in known_regions and known_regions[detector] != region:
                # Another processing of the same exposure, with another WCS.
                vertices = [*known_regions[detector].getVertices(), *region.getVertices()]
                region = ConvexPolygon.convexHull(vertices)
            registry.syncDimensionData(
                "visit_detector_region",
                {"instrument": instrument, "visit": visit, "detector": detector, "region": region},
                update=True,
            )


def visit_timespan(begin: Time, exposure_time: float) -> Timespan:
    """Return the time span of a visit, as in its dimension record.

    Parameters
    ----------
    begin : `astropy.time.Time`
        Start of the exposure.
    exposure_time : `float`
        Exposure time, s.

    Returns
    -------
    timespan : `lsst.daf.butler.Timespan`
        Start to end of the exposure.
    """
    return Timespan(begin, begin + exposure_time * u.s)


def observing_night(begin: Time) -> int:
    """Return the night of an observation.

    Parameters
    ----------
    begin : `astropy.time.Time`
        Start of the exposure.

    Returns
    -------
    day_obs : `int`
        Date as YYYYMMDD, rolling over at noon UTC as Rubin's does.
    """
    return int((begin.utc - 12 * u.hour).strftime("%Y%m%d"))


def put_visit_image(
    butler: Butler, image: VisitImage, run: str, *, dataset_type: str = "visit_image"
) -> DatasetRef:
    """Write a visit image whose instrument, visit and detector are registered.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        Writeable client of the repository.
    image : `lsst.images.VisitImage`
        The image; the frame of its sky projection has the data ID.
    run : `str`
        RUN collection to write to, registered if it does not exist.
    dataset_type : `str`, optional
        Name of the dataset type, registered if it does not exist.

    Returns
    -------
    ref : `lsst.daf.butler.DatasetRef`
        The dataset.
    """
    definition = DatasetType(
        dataset_type, ("instrument", "visit", "detector"), "VisitImage", universe=butler.dimensions
    )
    butler.registry.registerDatasetType(definition)
    butler.collections.register(run)
    frame = image.sky_projection.pixel_frame
    return butler.put(
        image,
        definition,
        instrument=frame.instrument,
        visit=frame.visit,
        detector=frame.detector,
        run=run,
    )


def define_input_collection(butler: Butler, chain: str, children: Iterable[str]) -> None:
    """Define a collection with all inputs of a pipeline.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        Writeable client of the repository.
    chain : `str`
        Name of the CHAINED collection.  If it exists, the children are
        appended.
    children : `~collections.abc.Iterable` [`str`]
        Collections to search, for example the RUN of the exposures and the
        collection of the tract's geometry.

    Raises
    ------
    ValueError
        Raised if ``chain`` exists and is no CHAINED collection.
    """
    butler.collections.register(chain, CollectionType.CHAINED)
    info = butler.collections.get_info(chain)
    if info.type is not CollectionType.CHAINED:
        raise ValueError(
            f"Collection {chain!r} is a {info.type.name} collection; choose another name for the inputs."
        )
    new = [child for child in dict.fromkeys(children) if child not in info.children]
    butler.collections.redefine_chain(chain, [*info.children, *new])
