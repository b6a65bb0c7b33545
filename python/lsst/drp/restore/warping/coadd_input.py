# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Reading of the coadd of a patch, to restore it."""

from __future__ import annotations

__all__ = ("CoaddInput",)

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from lsst.images import Box
from lsst.images.cells import CellCoadd, CoaddProvenance

from .stack_input import StackInput
from .warp_input import WarpInput


class CoaddInput(WarpInput):
    """The coadd of a patch behind a deferred handle: it is read like a warp.

    A coadd is a `~lsst.images.cells.CellCoadd`, or an afw ``ExposureF``.  It is
    kept in memory until it is closed.

    Parameters
    ----------
    handle : `lsst.daf.butler.DeferredDatasetHandle`
        Handle of the dataset; or anything with its ``dataId`` and ``get``.
    """

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        self._coadd: Any = None

    def __str__(self) -> str:
        data_id = self._handle.dataId
        return f"tract {data_id['tract']} patch {data_id['patch']} {data_id['band']} coadd"

    def close(self) -> None:
        """Release the memory of the coadd."""
        self._coadd = None

    def visits(self, n_cells: tuple[int, int]) -> list[StackInput]:
        """Return the visit images that the coadd was made of.

        Parameters
        ----------
        n_cells : `tuple` [`int`, `int`]
            Number of cells along y and x.

        Returns
        -------
        visits : `list` [`StackInput`]
            Those of its provenance; empty if it has none.
        """
        coadd = self._read_dataset()
        if not isinstance(coadd, CellCoadd):
            return []
        try:
            provenance = coadd.provenance
        except AttributeError:
            # It raises where others return None.
            return []
        return _visits_of(provenance, n_cells)

    def describe_background(self) -> str:
        """Describe the background models that the coadd has.

        Returns
        -------
        description : `str`
            Which of them is subtracted; empty if it has none.
        """
        backgrounds = getattr(self._read_dataset(), "backgrounds", None)
        if not backgrounds:
            return ""
        names = ", ".join(repr(name) for name in backgrounds)
        subtracted = backgrounds.subtracted
        state = f"{subtracted.name!r} is" if subtracted is not None else "none is"
        return f"it has the background models {names}, of which {state} subtracted"

    def pixels_with(self, plane: str, bbox: Box) -> np.ndarray | None:
        """Return the pixels in which a mask plane is set.

        Parameters
        ----------
        plane : `str`
            Name of the plane, the same in both libraries.
        bbox : `lsst.images.Box`
            Which pixels of the tract; those that the coadd does not have are
            not set.

        Returns
        -------
        pixels : `numpy.ndarray` of `bool` or `None`
            The pixels, shape of the box; `None` if there is no such plane.
        """
        stored = self._read_stored()
        if plane not in stored.mask_planes:
            return None
        pixels = np.zeros(bbox.shape, dtype=bool)
        common = bbox.intersection(stored.bbox)
        pixels[common.slice_within(bbox)] = stored.masked([plane])[common.slice_within(stored.bbox)]
        return pixels

    def _read_dataset(self, **selection: Any) -> Any:
        if self._coadd is None:
            self._coadd = super()._read_dataset(**selection)
        return self._coadd

    def _present_planes(self, wanted: Sequence[str], present: Collection[str]) -> Sequence[str]:
        """Leave out missing planes: coadds differ in those that they have, and
        pixels without data are NaN in all of them.
        """
        return [name for name in wanted if name in present]


def _visits_of(provenance: CoaddProvenance, n_cells: tuple[int, int]) -> list[StackInput]:
    """Convert the tables of a coadd's visit images."""
    contributions = provenance.contributions
    columns = {name: np.asarray(contributions[name]) for name in contributions.colnames}
    visits = []
    for row in provenance.inputs:
        # Several instruments may be one comma-separated name: IDs are enough.
        mine = (columns["visit"] == row["visit"]) & (columns["detector"] == row["detector"])
        cells = columns["cell_i"][mine], columns["cell_j"][mine]

        def by_cell(name: str, empty: float) -> np.ndarray:
            values = np.full(n_cells, empty)
            values[cells] = columns[name][mine]  # noqa: B023
            return values

        visits.append(
            StackInput(
                instrument=str(row["instrument"]),
                visit=int(row["visit"]),
                detector=int(row["detector"]),
                physical_filter=str(row["physical_filter"]),
                day_obs=int(row["day_obs"]),
                exposure=0,
                polygon=row["polygon"],
                overlap_fraction=by_cell("overlap_fraction", 0.0),
                overlaps_center=by_cell("overlaps_center", 0.0).astype(bool),
                unmasked_fraction=by_cell("unmasked_fraction", 0.0),
                weight=by_cell("weight", 0.0),
                kernel_fraction=np.full(n_cells, np.nan),
                psf_xx=by_cell("psf_shape_xx", np.nan),
                psf_yy=by_cell("psf_shape_yy", np.nan),
                psf_xy=by_cell("psf_shape_xy", np.nan),
            )
        )
    return visits
