# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The pipeline's own coadd of a patch: small ones of noise, and those of
simulated visits, alone in a repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from warps import GEOMETRY, make_warp

from lsst.daf.butler import Butler, DatasetType
from lsst.drp.restore import BuildStackTask, PatchGeometry, reference_coadd
from lsst.drp.restore.outputs.coadds import make_reference_coadd
from lsst.images import Polygon
from lsst.images.cells import CellCoadd, CoaddProvenance


class CoaddHandle:
    """A coadd in memory, which is read whole.

    Parameters
    ----------
    coadd
        The coadd.
    error : `Exception`, optional
        Raised by reads.
    """

    def __init__(self, coadd: Any, error: Exception | None = None) -> None:
        self.dataId = {"skymap": "test", "tract": 0, "patch": 3, "band": "i"}
        self.coadd = coadd
        self.error = error
        self.n_reads = 0

    def get(self) -> Any:
        self.n_reads += 1
        if self.error is not None:
            raise self.error
        return self.coadd


def make_coadd(**parts: object) -> CellCoadd:
    """Return a coadd of noise with other parts."""
    like = make_warp(border=0, planes=("NO_DATA", "SATURATED"))
    return CellCoadd(
        like.image,
        mask=like.mask,
        variance=like.variance,
        psf=like.psf,
        band="i",
        patch=GEOMETRY.patch,
        **parts,
    )


def make_tables() -> CoaddProvenance:
    """Two detectors of a visit and one of another, in some of the cells."""
    inputs = CoaddProvenance.make_empty_input_table(3)
    contributions = CoaddProvenance.make_empty_contribution_table(5)
    square = Polygon(x_vertices=np.array([20.0, 60.0, 60.0]), y_vertices=np.array([10.0, 10.0, 50.0]))
    for row, (visit, detector) in zip(inputs, ((7, 1), (7, 2), (9, 1)), strict=True):
        row["instrument"], row["physical_filter"], row["day_obs"] = "Cam", "Cam-i", 20240301
        row["visit"], row["detector"], row["polygon"] = visit, detector, square
    cells = ((7, 1, 0, 0), (7, 1, 1, 2), (7, 2, 0, 1), (9, 1, 0, 0), (9, 1, 1, 1))
    for n, (row, (visit, detector, i, j)) in enumerate(zip(contributions, cells, strict=True)):
        row["instrument"], row["visit"], row["detector"] = "Cam", visit, detector
        row["cell_i"], row["cell_j"] = i, j
        row["overlaps_center"], row["overlap_fraction"], row["unmasked_fraction"] = n != 1, 0.9, 0.5 + 0.1 * n
        row["weight"] = 1.0 + n
        row["psf_shape_xx"], row["psf_shape_yy"], row["psf_shape_xy"] = 2.0, 2.5, 0.1 * n
    return CoaddProvenance(inputs=inputs, contributions=contributions)


def coadd_visits(butler: Butler, geometry: PatchGeometry, band: str = "i") -> CellCoadd:
    """Coadd the visit images of a repository that are in a band."""
    refs = butler.query_datasets("visit_image", where=f"band='{band}'", find_first=True)
    stacked = BuildStackTask().run([butler.getDeferred(ref) for ref in refs], geometry, band)
    return make_reference_coadd(reference_coadd(stacked.stack), stacked.inputs, geometry, band)


def write_coadd(source: Path, target: Path, coadd: CellCoadd, data_id: dict[str, Any]) -> None:
    """Make a repository with the dataset ``deep_coadd`` in the collection
    ``coadds``, the records of its data ID, and nothing else.

    Parameters
    ----------
    source : `pathlib.Path`
        A repository with the patch; it gets the coadd, too.
    target : `pathlib.Path`
        The repository to make.
    coadd : `lsst.images.cells.CellCoadd`
        The coadd.
    data_id : `dict`
        Its data ID.
    """
    Butler.makeRepo(str(target))
    with (
        Butler.from_config(str(source), writeable=True, run="coadds") as old,
        Butler.from_config(str(target), writeable=True) as new,
    ):
        old.registry.registerDatasetType(
            DatasetType("deep_coadd", tuple(data_id), "CellCoadd", universe=old.dimensions)
        )
        ref = old.put(coadd, "deep_coadd", data_id)
        new.transfer_from(old, [ref], transfer="copy", register_dataset_types=True, transfer_dimensions=True)
