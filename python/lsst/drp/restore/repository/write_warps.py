# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Warps of visits, written without the full Science Pipelines in the format
that `StackWarpsTask` reads.
"""

from __future__ import annotations

__all__ = ("write_direct_warps",)

import itertools
import logging

from lsst.daf.butler import Butler, DatasetRef, DatasetType
from lsst.pipe.base import NoWorkFound

from ..outputs.coadds import make_direct_warp
from ..warping.build_stack import BuildStackConfig, BuildStackTask
from ..warping.patch_geometry import PatchGeometry

_LOG = logging.getLogger(__name__)

_DIMENSIONS = ("skymap", "tract", "patch", "instrument", "visit")


def write_direct_warps(
    butler: Butler,
    geometry: PatchGeometry,
    band: str,
    *,
    collections: str,
    run: str,
    dataset_type: str = "direct_warp",
    config: BuildStackConfig | None = None,
) -> list[DatasetRef]:
    """Warp the visit images that overlap a patch and write one dataset per
    visit.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        Writeable client of the repository.
    geometry : `PatchGeometry`
        The pixel grid of the patch.
    band : `str`
        Name of the band.
    collections : `str`
        Collection with the dataset type ``visit_image``.
    run : `str`
        RUN collection to write to, registered if it does not exist.
    dataset_type : `str`, optional
        Name of the dataset type, registered as a ``CellCoadd`` if it does not
        exist.
    config : `BuildStackConfig`, optional
        Configuration of the warping; ``minExposures`` is ignored.

    Returns
    -------
    refs : `list` [`lsst.daf.butler.DatasetRef`]
        The datasets, one for each visit with usable pixels on the patch.
    """
    chosen = BuildStackConfig()
    if config is not None:
        chosen.update(**config.toDict())
    chosen.minExposures = 1
    task = BuildStackTask(config=chosen)
    definition = DatasetType(dataset_type, _DIMENSIONS, "CellCoadd", universe=butler.dimensions)
    butler.registry.registerDatasetType(definition)
    butler.collections.register(run)
    data_id = {"skymap": geometry.skymap, "tract": geometry.tract, "patch": geometry.patch.id}
    images = butler.query_datasets(
        "visit_image",
        collections=collections,
        data_id=data_id | {"band": band},
        with_dimension_records=True,
        explain=False,
    )
    refs = []
    visits = sorted(images, key=lambda ref: (ref.dataId["instrument"], ref.dataId["visit"]))
    for (instrument, visit), members in itertools.groupby(
        visits, lambda ref: (ref.dataId["instrument"], ref.dataId["visit"])
    ):
        try:
            result = task.run([butler.getDeferred(ref) for ref in members], geometry, band)
        except NoWorkFound as err:
            _LOG.info("No warp of %s visit %d: %s", instrument, visit, err)
            continue
        warp = make_direct_warp(result.stack, result.inputs, geometry, band)
        refs.append(butler.put(warp, definition, data_id, instrument=instrument, visit=visit, run=run))
    return refs
