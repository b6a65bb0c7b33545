# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The pipeline's own coadd of a patch: of simulated visits, and alone in a
repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lsst.daf.butler import Butler, DatasetType
from lsst.drp.restore import BuildStackTask, PatchGeometry, reference_coadd
from lsst.drp.restore.outputs.coadds import make_reference_coadd
from lsst.images.cells import CellCoadd


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
