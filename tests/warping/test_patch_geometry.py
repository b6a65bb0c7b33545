# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the pixel grid of a patch from a coadd and from a skymap.

Reading from a registered tract is tested with its registration.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from importlib import resources
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
import pytest
from astropy.wcs import WCS

from lsst.daf.butler import Butler, DatasetType, DeferredDatasetHandle
from lsst.drp.restore import RestoreCoaddConfig
from lsst.drp.restore.errors import InputError
from lsst.drp.restore.repository.register_tract import register_tract
from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.images import YX, Box, Image, MaskPlane, MaskSchema, SkyProjection, TractFrame
from lsst.images._transforms import _ast  # the SkyWcs of afw holds such an object
from lsst.images.cells import (
    CellCoadd,
    CellGridBounds,
    CellIJ,
    CellPointSpreadFunction,
    PatchDefinition,
)

GRID: dict[str, Any] = {
    "ra": 150.0,
    "dec": 2.0,
    "pixel_scale": 0.2,
    "patch_size": 100,
    "patch_border": 50,
    "cell_size": 50,
    "n_patches": (2, 2),
}


@pytest.fixture
def butler(tmp_path):
    """Return a client of a repository with a tract."""
    root = str(tmp_path / "repo")
    Butler.makeRepo(root)
    with Butler.from_config(root, writeable=True) as butler:
        register_tract(butler, "s", **GRID)
        yield butler


def read(butler: Butler, patch: int) -> PatchGeometry:
    """Read a patch of the tract."""
    return PatchGeometry.from_tract(
        butler.get("tract_geometry", skymap="s", tract=0, collections="skymaps"), patch
    )


def make_coadd(geometry: PatchGeometry, patch: PatchDefinition | None, box: Box | None = None) -> CellCoadd:
    """Return a coadd of noise on the grid of a patch."""
    box = box if box is not None else geometry.outer_bbox
    grid = geometry.patch.cells
    missing = frozenset({CellIJ(i=0, j=0)})
    bounds = CellGridBounds(grid=grid, bbox=box, missing=missing)
    size = bounds.subgrid_size
    psf = np.zeros((size.i, size.j, 5, 5))
    psf[..., 2, 2] = 1.0
    psf[0, 0] = np.nan
    rng = np.random.default_rng(1)
    image = Image(
        rng.normal(size=box.shape).astype(np.float32),
        bbox=box,
        unit=u.nJy,
        sky_projection=geometry.sky_projection,
    )
    return CellCoadd(
        image,
        mask_schema=MaskSchema([MaskPlane("NO_DATA", "No data.")]),
        band="i",
        psf=CellPointSpreadFunction(psf, bounds=bounds),
        patch=patch,
    )


def test_coadd_in_memory(butler):
    geometry = read(butler, 2)
    assert PatchGeometry.from_coadd(make_coadd(geometry, geometry.patch)) == geometry


def test_coadd_of_the_repository(butler):
    geometry = read(butler, 3)
    dataset_type = DatasetType(
        "deep_coadd", ("skymap", "tract", "patch", "band"), "CellCoadd", universe=butler.dimensions
    )
    butler.registry.registerDatasetType(dataset_type)
    butler.registry.syncDimensionData("instrument", {"name": "Cam"})
    butler.registry.syncDimensionData("physical_filter", {"instrument": "Cam", "name": "i", "band": "i"})
    butler.collections.register("run")
    data_id = {"skymap": "s", "tract": 0, "patch": 3, "band": "i"}
    ref = butler.put(make_coadd(geometry, geometry.patch), dataset_type, data_id, run="run")

    reads = []

    class Handle(DeferredDatasetHandle):
        """Remembers what is read."""

        def get(self, **kwargs: Any) -> Any:
            result = super().get(**kwargs)
            reads.append(result)
            return result

    handle = Handle(butler=butler, ref=ref, parameters=None)
    assert PatchGeometry.from_coadd(handle) == geometry
    # The box, and one pixel in each direction of the image.
    assert reads[0] == geometry.outer_bbox
    assert reads[1].image.array.size == 1
    assert len(reads) == 2


def test_coadd_without_patch(butler):
    with pytest.raises(InputError, match="no patch information; use patchGeometry='skymap'"):
        PatchGeometry.from_coadd(make_coadd(read(butler, 0), None))


# What PatchGeometry uses of lsst.geom, lsst.afw and lsst.skymap, with the names
# and semantics that they have there.


class Index2D(NamedTuple):
    """`lsst.skymap.Index2D`."""

    x: int
    y: int


@dataclasses.dataclass(frozen=True)
class IntervalI:
    """`lsst.geom.IntervalI`: the end is exclusive."""

    begin: int
    end: int


@dataclasses.dataclass(frozen=True)
class Box2I:
    """`lsst.geom.Box2I`."""

    x: IntervalI
    y: IntervalI

    @classmethod
    def make(cls, x: int, y: int, width: int, height: int, border: int = 0) -> Box2I:
        """Return a box that is grown by a border."""
        return cls(
            IntervalI(x - border, x + width + border),
            IntervalI(y - border, y + height + border),
        )


class SkyWcs:
    """`lsst.afw.geom.SkyWcs`."""

    def __init__(self, wcs: WCS) -> None:
        frame = TractFrame(skymap="x", tract=0, bbox=Box.factory[0:1, 0:1])
        self._frames = SkyProjection.from_fits_wcs(wcs, frame).pixel_to_sky_transform._ast_mapping

    def getFitsApproximation(self) -> None:  # noqa: N802
        return None

    def getFrameDict(self) -> _ast.FrameDict:  # noqa: N802
        return _ast.FrameDict(self._frames)


@dataclasses.dataclass(frozen=True)
class CellInfo:
    """`lsst.skymap.CellInfo`."""

    inner: Box2I

    def getInnerBBox(self) -> Box2I:  # noqa: N802
        return self.inner


@dataclasses.dataclass(frozen=True)
class PatchInfo:
    """`lsst.skymap.PatchInfo` of a tract of 3x2 patches."""

    index: Index2D
    size: int
    border: int
    cell_size: int = 0
    border_cells: int = 0

    def getIndex(self) -> Index2D:  # noqa: N802
        return self.index

    def _box(self, border: int) -> Box2I:
        return Box2I.make(self.index.x * self.size, self.index.y * self.size, self.size, self.size, border)

    def getInnerBBox(self) -> Box2I:  # noqa: N802
        return self._box(0)

    def getOuterBBox(self) -> Box2I:  # noqa: N802
        return self._box(self.border)

    def getNumCells(self) -> Index2D:  # noqa: N802
        if not self.cell_size:
            return Index2D(0, 0)
        n = self.size // self.cell_size + 2 * self.border_cells
        return Index2D(n, n)

    def getCellInfo(self, index: tuple[int, int]) -> CellInfo:  # noqa: N802
        if not self.cell_size:
            raise IndexError("Patch does not contain cells.")
        x, y = (
            (i - self.border_cells) * self.cell_size + patch * self.size
            for i, patch in zip(index, self.index, strict=True)
        )
        return CellInfo(Box2I.make(x, y, self.cell_size, self.cell_size))


class TractInfo:
    """`lsst.skymap.TractInfo`."""

    def __init__(self, wcs: WCS, size: int, **patch: int) -> None:
        self._wcs = SkyWcs(wcs)
        self._size = size
        self._patch = patch

    def getWcs(self) -> SkyWcs:  # noqa: N802
        return self._wcs

    def getBBox(self) -> Box2I:  # noqa: N802
        return Box2I.make(0, 0, 3 * self._size, 2 * self._size)

    def __getitem__(self, index: int) -> PatchInfo:
        return PatchInfo(Index2D(x=index % 3, y=index // 3), self._size, **self._patch)


@pytest.fixture
def wcs():
    """Return the WCS of a tract."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.radesys = ("RA---TAN", "DEC--TAN"), (150.0, 2.0), "ICRS"
    wcs.wcs.crpix, wcs.wcs.cdelt = (451.0, 301.0), (-0.2 / 3600, 0.2 / 3600)
    return wcs


def test_skymap_without_cells(wcs):
    geometry = PatchGeometry.from_skymap(
        {9: TractInfo(wcs, 300, border=50)}, 9, 5, skymap_name="rings", cell_size=50
    )
    assert (geometry.skymap, geometry.tract, geometry.patch.id) == ("rings", 9, 5)
    assert geometry.patch.index == YX(y=1, x=2)
    assert geometry.patch.inner_bbox == Box.factory[300:600, 600:900]
    assert geometry.outer_bbox == Box.factory[250:650, 550:950]
    assert geometry.patch.cells.cell_shape == YX(y=50, x=50)
    assert geometry.tract_bbox == Box.factory[0:600, 0:900]
    sky = wcs.pixel_to_world(700.0, 310.0)
    assert geometry.sky_projection.pixel_to_sky(x=700.0, y=310.0).separation(sky).arcsec < 1e-6
    assert geometry.pixel_scale == pytest.approx(0.2, rel=1e-6)


def test_skymap_of_cells(wcs):
    # The border of the outer box is that of the cells and half a cell more.
    tract = TractInfo(wcs, 300, border=75, cell_size=50, border_cells=1)
    geometry = PatchGeometry.from_skymap({0: tract}, 0, 1, skymap_name="lsst", cell_size=7)
    assert geometry.patch.inner_bbox == Box.factory[0:300, 300:600]
    assert geometry.outer_bbox == Box.factory[-50:350, 250:650]
    assert geometry.patch.cells.cell_shape == YX(y=50, x=50)
    assert geometry.patch.cells.grid_size == CellIJ(i=8, j=8)


@pytest.mark.parametrize(("cell_size", "expected"), [(50, 42), (60, 60), (100, 84), (1000, 420)])
def test_cells_of_a_skymap_are_the_largest_that_tile(wcs, cell_size, expected):
    tract = TractInfo(wcs, 300, border=60)
    geometry = PatchGeometry.from_skymap({3: tract}, 3, 0, skymap_name="rings", cell_size=cell_size)
    assert geometry.cell_shape == (expected, expected)


def test_skymap_that_no_cells_tile(wcs):
    with pytest.raises(InputError, match=r"No cells of 25 to 150 .*tract 3, skymap 'x', which has 421x421"):
        PatchGeometry.from_skymap({3: TractInfo(wcs, 421, border=0)}, 3, 0, skymap_name="x", cell_size=150)


@dataclasses.dataclass(frozen=True)
class ClippedPatchInfo(PatchInfo):
    """A patch of a rings skymap, whose outer box ends where the tract does."""

    tract: Box2I = Box2I.make(0, 0, 0, 0)

    def getOuterBBox(self) -> Box2I:  # noqa: N802
        box = super().getOuterBBox()
        return Box2I(
            *(
                IntervalI(max(mine.begin, its.begin), min(mine.end, its.end))
                for mine, its in ((box.x, self.tract.x), (box.y, self.tract.y))
            )
        )


class RingsTractInfo(TractInfo):
    """A tract of hsc_rings_v1 and decam_rings_v1: a whole number of patches of
    4000 pixels with a border of 100.
    """

    def __init__(self, wcs: WCS, n_patches: int) -> None:
        super().__init__(wcs, 4000, border=100)
        self.n_patches = n_patches

    def getBBox(self) -> Box2I:  # noqa: N802
        return Box2I.make(0, 0, self.n_patches * 4000, self.n_patches * 4000)

    def __getitem__(self, index: int) -> PatchInfo:
        y, x = divmod(index, self.n_patches)
        return ClippedPatchInfo(Index2D(x=x, y=y), self._size, **self._patch, tract=self.getBBox())


@pytest.mark.parametrize("camera", ["HSC", "DECam"])
def test_all_patches_of_a_rings_skymap(wcs, camera):
    """With the cells of the cameras' pipelines, also at the edges."""
    config = RestoreCoaddConfig()
    config.loadFromString(
        (resources.files("lsst.drp.restore") / f"config/{camera}/restoreCoadd.py").read_text()
    )
    tract = RingsTractInfo(wcs, 9)
    sizes = Counter()
    for patch in range(81):
        geometry = PatchGeometry.from_skymap(
            {9813: tract}, 9813, patch, skymap_name="hsc_rings_v1", cell_size=config.cellSize
        )
        (rows, columns), (height, width) = geometry.n_cells, geometry.cell_shape
        assert geometry.outer_bbox.shape == (rows * height, columns * width)
        assert geometry.outer_bbox.contains(geometry.patch.inner_bbox)
        assert geometry.tract_bbox.contains(geometry.outer_bbox)
        sizes[geometry.cell_shape] += 1
    assert sizes == {(150, 150): 49, (100, 100): 32}


def test_no_such_patch(butler):
    with pytest.raises(InputError, match="Tract 0 of skymap 's' has the patches 0 to 3, not 4"):
        read(butler, 4)


def test_pixels_by_cell(butler):
    geometry = read(butler, 1)
    assert geometry.n_cells == (4, 4)
    assert geometry.cell_shape == (50, 50)
    plane = np.arange(geometry.outer_bbox.area).reshape(geometry.outer_bbox.shape)
    by_cell = geometry.by_cell(plane)
    assert by_cell.shape == (4, 50, 4, 50)
    assert np.array_equal(by_cell[1, :, 3], plane[50:100, 150:200])
    assert np.shares_memory(by_cell, plane)


def test_refined_pixels_are_parts_of_the_pixels(butler):
    geometry = read(butler, 3)
    assert geometry.refined(1) is geometry
    fine = geometry.refined(2)
    assert fine.outer_bbox.shape == (400, 400)
    assert (fine.n_cells, fine.cell_shape) == ((4, 4), (100, 100))
    assert fine.pixel_scale == pytest.approx(0.1, rel=1e-6)
    # The four parts of a pixel are around its center.
    x, y = geometry.outer_bbox.x.start + 7, geometry.outer_bbox.y.start + 11
    center = geometry.sky_projection.pixel_to_sky(x=float(x), y=float(y))
    assert fine.sky_projection.pixel_to_sky(x=2 * x + 0.5, y=2 * y + 0.5).separation(center).arcsec < 1e-6
