# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The pixel grid of one patch, from a tract, a coadd or a skymap."""

from __future__ import annotations

__all__ = ("MIN_CELL_SIZE", "PatchGeometry")

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import astropy.io.fits
import astropy.wcs
import numpy as np

from lsst.images import YX, Box, SkyProjection, TractFrame
from lsst.images.cells import CellCoadd, CellGrid, PatchDefinition

from ..errors import InputError
from .projections import pixel_scale

MIN_CELL_SIZE = 25
"""Smallest height and width of a cell, pixels: that of a PSF kernel.  Smaller
ones take time and memory, and PSFs vary little over them.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchGeometry:
    """The pixel grid of one patch.

    Parameters
    ----------
    skymap : `str`
        Name of the skymap.
    tract : `int`
        ID of the tract.
    patch : `lsst.images.cells.PatchDefinition`
        ID, index, inner bounding box and cell grid of the patch; the outer
        bounding box is the cell grid's.
    sky_projection : `lsst.images.SkyProjection` [`lsst.images.TractFrame`]
        Maps pixels of the tract to the sky.
    """

    skymap: str
    tract: int
    patch: PatchDefinition
    sky_projection: SkyProjection[TractFrame]

    @property
    def outer_bbox(self) -> Box:
        """Pixels of the patch with its border (`lsst.images.Box`)."""
        return self.patch.outer_bbox

    @property
    def n_cells(self) -> tuple[int, int]:
        """Number of cells along y and x (`tuple` [`int`, `int`])."""
        size = self.patch.cells.grid_size
        return size.i, size.j

    @property
    def cell_shape(self) -> tuple[int, int]:
        """Height and width of a cell, pixels (`tuple` [`int`, `int`])."""
        shape = self.patch.cells.cell_shape
        return shape.y, shape.x

    @property
    def tract_bbox(self) -> Box:
        """Pixels of the tract (`lsst.images.Box`)."""
        return self.sky_projection.pixel_frame.bbox

    @property
    def pixel_scale(self) -> float:
        """Size of a pixel at the center of the patch, along x, arcsec
        (`float`).
        """
        return pixel_scale(self.sky_projection, self.outer_bbox)

    @classmethod
    def from_tract(cls, tract_geometry: Mapping[str, Any], patch: int) -> PatchGeometry:
        """Read a patch of a tract that ``butler register-tract`` registered.

        Parameters
        ----------
        tract_geometry : `~collections.abc.Mapping`
            The dataset ``tract_geometry``, with these keys: ``skymap`` and
            ``tract``; ``wcs``, FITS keywords of the tract's WCS, whose first
            pixel is the first of the tract's outer box; ``patch_size``,
            ``patch_border`` and ``cell_size``, pixels; ``n_patches``, the
            number of patches along x and y.
        patch : `int`
            ID of the patch.

        Returns
        -------
        geometry : `PatchGeometry`
            The pixel grid of the patch.

        Raises
        ------
        InputError
            Raised if the tract has no such patch.
        """
        columns, rows = tract_geometry["n_patches"]
        skymap, tract = tract_geometry["skymap"], tract_geometry["tract"]
        if not 0 <= patch < columns * rows:
            raise InputError(
                f"Tract {tract} of skymap {skymap!r} has the patches 0 to {columns * rows - 1}, not {patch}."
            )
        size, border = tract_geometry["patch_size"], tract_geometry["patch_border"]
        index = YX(y=patch // columns, x=patch % columns)
        outer_size = size + 2 * border
        outer = Box.from_shape((outer_size, outer_size), start=YX(y=index.y * size, x=index.x * size))
        cell_size = tract_geometry["cell_size"]
        wcs = astropy.wcs.WCS(astropy.io.fits.Header(tract_geometry["wcs"]))
        tract_bbox = Box.from_shape((rows * size + 2 * border, columns * size + 2 * border))
        return cls(
            skymap=skymap,
            tract=tract,
            patch=PatchDefinition(
                id=patch,
                index=index,
                inner_bbox=outer.padded(-border),
                cells=CellGrid(bbox=outer, cell_shape=YX(y=cell_size, x=cell_size)),
            ),
            sky_projection=SkyProjection.from_fits_wcs(
                wcs, TractFrame(skymap=skymap, tract=tract, bbox=tract_bbox), pixel_bounds=tract_bbox
            ),
        )

    @classmethod
    def from_coadd(cls, coadd: Any) -> PatchGeometry:
        """Take the grid of an existing coadd of the patch.

        Parameters
        ----------
        coadd : `lsst.images.cells.CellCoadd` or \
                `lsst.daf.butler.DeferredDatasetHandle`
            The coadd; of a handle's dataset one cell is read.

        Returns
        -------
        geometry : `PatchGeometry`
            The pixel grid of the patch.

        Raises
        ------
        InputError
            Raised if the coadd has no patch information.
        """
        if not isinstance(coadd, CellCoadd):
            # The patch is not a component that can be read by itself.
            bbox = coadd.get(component="bbox")
            coadd = coadd.get(parameters={"bbox": Box.from_shape((1, 1), start=bbox.start)})
        try:
            patch = coadd.patch
        except AttributeError as err:
            raise InputError(
                f"The coadd of tract {coadd.tract} has no patch information; use patchGeometry='skymap' or "
                "'tract'."
            ) from err
        return cls(skymap=coadd.skymap, tract=coadd.tract, patch=patch, sky_projection=coadd.sky_projection)

    @classmethod
    def from_skymap(
        cls, sky_map: Any, tract: int, patch: int, *, skymap_name: str, cell_size: int
    ) -> PatchGeometry:
        """Take the grid of a patch of a skymap of the Science Pipelines.

        Parameters
        ----------
        sky_map : `lsst.skymap.BaseSkyMap`
            The dataset ``skyMap``.
        tract, patch : `int`
            IDs of the tract and patch.
        skymap_name : `str`
            Name of the skymap.
        cell_size : `int`
            Largest height and width of a cell, pixels, where the skymap has no
            cells.  The cells tile the outer box of the patch, which is smaller
            at the edges of a tract: they are as large as possible.  A skymap
            of cells has its own, which also define the outer box here (the
            border of the outermost cells belongs to their neighbors).

        Returns
        -------
        geometry : `PatchGeometry`
            The pixel grid of the patch.

        Raises
        ------
        InputError
            Raised if no cells of this size or somewhat less tile the patch.
        """
        tract_info = sky_map[tract]
        patch_info = tract_info[patch]
        cells = _cells_of(patch_info)
        if cells is None:
            outer = Box.from_legacy(patch_info.getOuterBBox())
            size = _largest_divisor(math.gcd(*outer.shape), cell_size)
            if size < MIN_CELL_SIZE:
                raise InputError(
                    f"No cells of {MIN_CELL_SIZE} to {cell_size} pixels tile patch {patch} of tract {tract}, "
                    f"skymap {skymap_name!r}, which has {outer.x.size}x{outer.y.size} pixels.  Increase "
                    "cellSize, or use another skymap."
                )
            cells = CellGrid(bbox=outer, cell_shape=YX(y=size, x=size))
        index = patch_info.getIndex()
        tract_bbox = Box.from_legacy(tract_info.getBBox())
        return cls(
            skymap=skymap_name,
            tract=tract,
            patch=PatchDefinition(
                id=patch,
                index=YX(y=index.y, x=index.x),
                inner_bbox=Box.from_legacy(patch_info.getInnerBBox()),
                cells=cells,
            ),
            sky_projection=SkyProjection.from_legacy(
                tract_info.getWcs(),
                TractFrame(skymap=skymap_name, tract=tract, bbox=tract_bbox),
                pixel_bounds=tract_bbox,
            ),
        )

    def by_cell(self, plane: np.ndarray) -> np.ndarray:
        """View an image of the patch by cell.

        Parameters
        ----------
        plane : `numpy.ndarray`
            Pixels of the patch, shape ``(height, width)``, contiguous.

        Returns
        -------
        view : `numpy.ndarray`
            The same pixels, shape ``(cells_y, cell_height, cells_x,
            cell_width)``.
        """
        (rows, columns), (height, width) = self.n_cells, self.cell_shape
        return plane.reshape(rows, height, columns, width)

    def refined(self, oversampling: int) -> PatchGeometry:
        """Divide the pixels into smaller ones.

        Parameters
        ----------
        oversampling : `int`
            Parts of a pixel along each axis.

        Returns
        -------
        geometry : `PatchGeometry`
            The same patch and cells on a grid whose pixel ``(0, 0)`` is the
            lower left part of pixel ``(0, 0)``.

        Raises
        ------
        InputError
            Raised if the sky projection is not a FITS WCS.
        """
        if oversampling == 1:
            return self
        cells, bbox = self.patch.cells, _refine(self.tract_bbox, oversampling)
        wcs = self.sky_projection.as_fits_wcs(self.tract_bbox)
        if wcs is None:
            raise InputError(
                f"The projection of tract {self.tract} is not a FITS WCS: its pixels cannot be divided. Set "
                "superResolution to 1."
            )
        wcs = wcs.deepcopy()
        # The first pixel's center is 1, its lower left corner 0.5.
        wcs.wcs.crpix = (wcs.wcs.crpix - 0.5) * oversampling + 0.5
        if wcs.wcs.has_cd():
            wcs.wcs.cd = wcs.wcs.cd / oversampling
        else:
            wcs.wcs.cdelt = wcs.wcs.cdelt / oversampling
        frame = TractFrame(skymap=self.skymap, tract=self.tract, bbox=bbox)
        return PatchGeometry(
            skymap=self.skymap,
            tract=self.tract,
            patch=PatchDefinition(
                id=self.patch.id,
                index=self.patch.index,
                inner_bbox=_refine(self.patch.inner_bbox, oversampling),
                cells=CellGrid(
                    bbox=_refine(cells.bbox, oversampling),
                    cell_shape=YX(y=cells.cell_shape.y * oversampling, x=cells.cell_shape.x * oversampling),
                ),
            ),
            sky_projection=SkyProjection.from_fits_wcs(
                wcs, frame, pixel_bounds=bbox, x0=bbox.x.start, y0=bbox.y.start
            ),
        )


def _largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor of a number up to a limit."""
    return next(n for n in range(min(number, limit), 0, -1) if number % n == 0)


def _refine(bbox: Box, factor: int) -> Box:
    return Box.from_shape(
        (bbox.y.size * factor, bbox.x.size * factor),
        start=YX(y=bbox.y.start * factor, x=bbox.x.start * factor),
    )


def _cells_of(patch_info: Any) -> CellGrid | None:
    """Return the cells of a `lsst.skymap.PatchInfo`, or `None` if it has
    none.
    """
    n_cells = patch_info.getNumCells()
    if not n_cells.x or not n_cells.y:
        return None
    first = Box.from_legacy(patch_info.getCellInfo((0, 0)).getInnerBBox())
    bbox = Box.from_shape((n_cells.y * first.y.size, n_cells.x * first.x.size), start=first.start)
    return CellGrid(bbox=bbox, cell_shape=first.shape)
