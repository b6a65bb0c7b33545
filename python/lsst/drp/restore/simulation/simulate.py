# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Simulated exposures of a patch and their truth, written to a repository.

Datasets, all in the RUN collection ``<collection>/run``:

``visit_image`` (instrument, visit, detector; VisitImage)
    Image in nJy with variance, mask, PSF and WCS.
``direct_warp`` (skymap, tract, patch, instrument, visit; CellCoadd)
    With ``warps``: the visit's images, resampled to the patch's grid.
``truth_image`` (skymap, tract, patch, band; ImageV2)
    The noiseless sky without PSF on the patch's outer bounding box, nJy per
    pixel; see `.truth.draw_truth` for its sampling.
``truth_catalog`` (skymap, tract, patch, band; ArrowAstropy)
    The sources on the patch's outer bounding box: the columns of a catalog
    (`.sky`) and ``x``, ``y``, pixels of the tract.
"""

from __future__ import annotations

__all__ = ("SimulationConfig", "SimulationSummary", "simulate_exposures")

import dataclasses
import logging
import time
from collections.abc import Mapping

import astropy.table
import astropy.units as u
import numpy as np

from lsst.daf.butler import (
    Butler,
    DatasetNotFoundError,
    DatasetType,
    MissingCollectionError,
    MissingDatasetTypeError,
)
from lsst.images import DetectorFrame, Image, SkyProjection
from lsst.sphgeom import ConvexPolygon

from ..repository.make_visit_image import make_visit_image
from ..repository.register import (
    define_input_collection,
    put_visit_image,
    register_instrument,
    register_visit,
)
from ..repository.write_warps import write_direct_warps
from ..warping.patch_geometry import PatchGeometry
from ..warping.projections import sky_region
from .camera import SimulatedCamera, SimulatedVisit
from .config import SimulationConfig
from .exposure import SimulatedExposure
from .psf import SimulatedPsf
from .sky import color_catalog, complete_catalog, locate, random_sky
from .truth import draw_truth

_LOG = logging.getLogger(__name__)

_TRUTH_DIMENSIONS = ("skymap", "tract", "patch", "band")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SimulationSummary:
    """Summary of a simulation.

    Parameters
    ----------
    collection : `str`
        CHAINED collection with the exposures, the truth and the geometry of
        the tract.
    visits : `astropy.table.Table`
        One row per visit: ``visit``, ``begin`` (TAI, ISO), ``ra``,
        ``dec``, ``rotation`` (deg), ``seeing`` (arcsec), ``sky_sigma`` (nJy),
        ``gain`` (electrons per nJy), and numbers of ``masked`` and
        ``unmasked`` cosmic rays and ``saturated`` pixels.
    n_sources : `dict` [`str`, `int`]
        Number of stars and of galaxies on the patch, by kind.
    """

    collection: str
    visits: astropy.table.Table
    n_sources: dict[str, int]


def simulate_exposures(butler: Butler, config: SimulationConfig) -> SimulationSummary:
    """Simulate the exposures of a patch.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        Writeable client of the repository.
    config : `SimulationConfig`
        Options.

    Returns
    -------
    summary : `SimulationSummary`
        Summary of the simulation.

    Raises
    ------
    ValueError
        Raised if the tract is not registered, the collection is not empty, the
        repository has other visits with the same IDs, or the catalog has
        values out of range.  No dataset is written then.
    """
    _require_empty(butler, config.run)
    geometry = _get_geometry(butler, config)
    outer = geometry.patch.outer_bbox
    center = geometry.sky_projection.pixel_to_sky(x=outer.x.center, y=outer.y.center)
    right = geometry.sky_projection.pixel_to_sky(x=outer.x.center + 1, y=outer.y.center)
    camera = SimulatedCamera.fitting(config, outer, center.separation(right).to_value(u.arcsec))
    if config.catalog is None:
        catalog = random_sky(config, geometry, camera.field_radius)
    else:
        catalog = complete_catalog(config.catalog)
    color_catalog(config, catalog)

    register_instrument(butler, config.instrument, camera.detectors, {config.physical_filter: config.band})
    ids = range(config.first_visit, config.first_visit + config.n_visits)
    visits = [SimulatedVisit.draw(config, visit, center) for visit in ids]
    pointings = [_register_visit(butler, camera, visit) for visit in visits]
    truth = _put_truth(butler, config, geometry, catalog)
    rows = []
    for visit, projections in zip(visits, pointings, strict=True):
        start = time.perf_counter()
        rows.append(_put_visit(butler, camera, visit, projections, catalog))
        _LOG.info(
            "Visit %d (%d of %d): seeing %.2f arcsec, noise %.1f nJy per pixel, in %.1f s.",
            visit.visit,
            len(rows),
            config.n_visits,
            visit.seeing,
            visit.sky_sigma,
            time.perf_counter() - start,
        )
    if config.warps:
        write_direct_warps(butler, geometry, config.band, collections=config.run, run=config.run)
    define_input_collection(butler, config.collection, [config.run, config.tract_collection])
    return SimulationSummary(
        collection=config.collection,
        visits=astropy.table.Table(rows),
        n_sources={kind: int((truth["kind"] == kind).sum()) for kind in ("star", "galaxy")},
    )


def _require_empty(butler: Butler, run: str) -> None:
    """Raise if a collection has datasets, which would be mixed with those of
    the simulation.
    """
    try:
        types = butler.collections.get_info(run, include_summary=True).dataset_types
    except MissingCollectionError:
        return
    if types:
        raise ValueError(
            f"Collection {run!r} already holds {', '.join(sorted(types))}; "
            "simulate into another collection or remove it first."
        )


def _get_geometry(butler: Butler, config: SimulationConfig) -> PatchGeometry:
    """Read the pixel grid of the patch."""
    try:
        tract_geometry = butler.get(
            "tract_geometry", skymap=config.skymap, tract=config.tract, collections=config.tract_collection
        )
    except (DatasetNotFoundError, MissingCollectionError, MissingDatasetTypeError) as error:
        raise ValueError(
            f"There is no geometry of tract {config.tract} of skymap {config.skymap!r} in collection "
            f"{config.tract_collection!r}; register the tract with 'butler register-tract' first."
        ) from error
    return PatchGeometry.from_tract(tract_geometry, config.patch)


def _put_truth(
    butler: Butler, config: SimulationConfig, geometry: PatchGeometry, catalog: astropy.table.Table
) -> astropy.table.Table:
    """Write the truth datasets; return the catalog of the patch."""
    outer = geometry.patch.outer_bbox
    table = catalog.copy()
    table["x"], table["y"], _ = locate(catalog, geometry.sky_projection)
    table = table[outer.contains(x=np.asarray(table["x"]), y=np.asarray(table["y"]))]
    image = Image(
        draw_truth(catalog, geometry), bbox=outer, unit=u.nJy, sky_projection=geometry.sky_projection
    )
    butler.collections.register(config.run)
    data_id = {"skymap": config.skymap, "tract": config.tract, "patch": config.patch, "band": config.band}
    for name, storage_class, dataset in (
        ("truth_image", "ImageV2", image),
        ("truth_catalog", "ArrowAstropy", table),
    ):
        dataset_type = DatasetType(name, _TRUTH_DIMENSIONS, storage_class, universe=butler.dimensions)
        butler.registry.registerDatasetType(dataset_type)
        butler.put(dataset, dataset_type, data_id, run=config.run)
    return table


def _register_visit(
    butler: Butler, camera: SimulatedCamera, visit: SimulatedVisit
) -> dict[int, SkyProjection[DetectorFrame]]:
    """Register a visit; return the sky projection of each detector."""
    config = camera.config
    projections: dict[int, SkyProjection[DetectorFrame]] = {}
    regions: dict[int, ConvexPolygon] = {}
    for detector in camera.detectors:
        frame = DetectorFrame(
            instrument=config.instrument, visit=visit.visit, detector=detector, bbox=camera.bbox
        )
        projections[detector] = SkyProjection.from_fits_wcs(
            camera.wcs(visit, detector), frame, pixel_bounds=camera.bbox
        )
        regions[detector] = sky_region(projections[detector], camera.bbox)
    # An existing visit must be the same: registering it again would extend its
    # regions.
    known = {
        record.detector: record.region
        for record in butler.query_dimension_records(
            "visit_detector_region", instrument=config.instrument, visit=visit.visit, explain=False
        )
    }
    if known and known != regions:
        raise ValueError(
            f"The repository has another visit {visit.visit} of {config.instrument!r}; choose a first visit "
            "after those it has, or another name for the instrument."
        )
    register_visit(
        butler,
        instrument=config.instrument,
        visit=visit.visit,
        physical_filter=config.physical_filter,
        begin=visit.begin,
        exposure_time=config.exposure_time,
        detector_regions=regions,
        target_name=f"{config.skymap} tract {config.tract} patch {config.patch}",
    )
    return projections


def _put_visit(
    butler: Butler,
    camera: SimulatedCamera,
    visit: SimulatedVisit,
    projections: Mapping[int, SkyProjection[DetectorFrame]],
    catalog: astropy.table.Table,
) -> dict[str, object]:
    """Simulate and write the detectors of a visit, one at a time; return its
    row of the summary.
    """
    config = camera.config
    masked, unmasked, saturated = 0, 0, 0
    for detector, projection in projections.items():
        psf = SimulatedPsf.draw(camera, visit, detector)
        exposure = SimulatedExposure.draw(camera, visit, detector, catalog, projection, psf)
        image = make_visit_image(
            image=exposure.image,
            variance=exposure.variance,
            mask=exposure.masks,
            wcs=projection,
            psf=psf.stored,
            instrument=config.instrument,
            visit=visit.visit,
            detector=detector,
            physical_filter=config.physical_filter,
            band=config.band,
            begin=visit.begin,
            exposure_time=config.exposure_time,
        )
        put_visit_image(butler, image, config.run)
        masked += exposure.n_cosmic_rays[0]
        unmasked += exposure.n_cosmic_rays[1]
        saturated += int(exposure.masks["SATURATED"].sum())
    return {
        "visit": visit.visit,
        "begin": visit.begin.isot,
        "ra": visit.boresight.ra.deg,
        "dec": visit.boresight.dec.deg,
        "rotation": visit.rotation,
        "seeing": visit.seeing,
        "sky_sigma": visit.sky_sigma,
        "gain": visit.gain,
        "masked": masked,
        "unmasked": unmasked,
        "saturated": saturated,
    }
