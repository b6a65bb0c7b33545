# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tracts registered without lsst.skymap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from lsst.daf.butler import Butler, CollectionType
from lsst.drp.restore.repository.register import register_instrument, register_visit
from lsst.drp.restore.repository.register_tract import register_tract
from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.drp.restore.warping.projections import sky_region
from lsst.images import Box
from lsst.sphgeom import LonLat, UnitVector3d

GRID: dict[str, Any] = {
    "ra": 318.1,
    "dec": -66.0,
    "pixel_scale": 0.25,
    "patch_size": 300,
    "patch_border": 50,
    "cell_size": 50,
    "n_patches": (3, 2),
}


def read(butler: Butler, patch: int, *, tract: int = 0, collections: str = "skymaps") -> PatchGeometry:
    """Read a patch of the tract."""
    return PatchGeometry.from_tract(
        butler.get("tract_geometry", skymap="s", tract=tract, collections=collections), patch
    )


def vector(sky: SkyCoord) -> UnitVector3d:
    """Convert a position to a unit vector."""
    return UnitVector3d(LonLat.fromDegrees(sky.ra.deg, sky.dec.deg))


def test_patches_of_the_grid(butler: Butler) -> None:
    register_tract(butler, "s", **GRID)
    patches = [read(butler, patch) for patch in range(6)]
    assert [p.patch.id for p in patches] == list(range(6))
    assert [(p.patch.index.x, p.patch.index.y) for p in patches[:4]] == [(0, 0), (1, 0), (2, 0), (0, 1)]
    assert all(p.tract_bbox == Box.factory[0:700, 0:1000] for p in patches)
    inner = np.zeros((700, 1000), int)
    for geometry in patches:
        assert geometry.outer_bbox.shape == (400, 400)
        assert geometry.patch.inner_bbox.padded(50) == geometry.outer_bbox
        assert geometry.tract_bbox.contains(geometry.outer_bbox)
        assert geometry.patch.cells.cell_shape == (50, 50)
        box = geometry.patch.inner_bbox
        inner[box.y.start : box.y.stop, box.x.start : box.x.stop] += 1
    # The inner boxes fill the tract without its border, and do not overlap.
    assert (inner[50:-50, 50:-50] == 1).all()
    assert inner.sum() == 600 * 900
    # Adjacent patches overlap by twice the border.
    assert patches[0].outer_bbox.intersection(patches[1].outer_bbox) == Box.factory[0:400, 300:400]
    assert patches[1].outer_bbox.intersection(patches[4].outer_bbox) == Box.factory[300:400, 300:700]


def test_projection_is_gnomonic(butler: Butler) -> None:
    register_tract(butler, "s", **GRID)
    geometry = read(butler, 4)
    assert geometry.sky_projection == read(butler, 0).sky_projection  # one pixel grid for all
    center = geometry.sky_projection.pixel_to_sky(x=499.5, y=349.5)
    assert center.separation(SkyCoord(318.1, -66.0, unit="deg")).arcsec < 1e-6
    reference = WCS(naxis=2)
    reference.wcs.ctype, reference.wcs.crval = ("RA---TAN", "DEC--TAN"), (318.1, -66.0)
    reference.wcs.crpix, reference.wcs.cdelt = (500.5, 350.5), (-0.25 / 3600, 0.25 / 3600)
    x, y = np.array([0.0, 999.0, 300.0]), np.array([699.0, 20.0, 311.0])
    sky = geometry.sky_projection.pixel_to_sky(x=x, y=y)
    assert sky.separation(reference.pixel_to_world(x, y)).arcsec.max() < 1e-6
    back = geometry.sky_projection.sky_to_pixel(sky)
    np.testing.assert_allclose([back.x, back.y], [x, y], atol=1e-7)
    assert geometry.pixel_scale == pytest.approx(0.25, rel=1e-6)


def test_records_and_regions(butler: Butler) -> None:
    register_tract(butler, "s", **GRID)
    (skymap,) = butler.query_dimension_records("skymap", skymap="s")
    assert (skymap.tract_max, skymap.patch_nx_max, skymap.patch_ny_max) == (1, 3, 2)
    (tract,) = butler.query_dimension_records("tract", skymap="s")
    records = {r.id: r for r in butler.query_dimension_records("patch", skymap="s", tract=0)}
    assert {(r.id, r.cell_x, r.cell_y) for r in records.values()} == {(p, p % 3, p // 3) for p in range(6)}
    for patch, record in records.items():
        geometry = read(butler, patch)
        box = geometry.outer_bbox
        for dx, dy in [(-0.49, -0.49), (399.49, -0.49), (399.49, 399.49), (-0.49, 399.49), (200.0, 200.0)]:
            sky = geometry.sky_projection.pixel_to_sky(x=box.x.start + dx, y=box.y.start + dy)
            assert record.region.contains(vector(sky))
            assert tract.region.contains(vector(sky))
        for dx, dy in [(-0.51, 200.0), (400.0, 200.0), (200.0, -0.51), (200.0, 400.0)]:
            sky = geometry.sky_projection.pixel_to_sky(x=box.x.start + dx, y=box.y.start + dy)
            assert not record.region.contains(vector(sky))


def test_visits_are_joined_with_patches(butler: Butler) -> None:
    register_tract(butler, "s", **GRID)
    register_instrument(butler, "Cam", {0: "S0", 1: "S1"}, {"r": "r"})
    geometry = read(butler, 0)
    # One detector within patch 2, one in the middle, where four patches meet.
    boxes = {0: Box.factory[100:160, 820:880], 1: Box.factory[330:370, 330:370]}
    register_visit(
        butler,
        instrument="Cam",
        visit=7,
        physical_filter="r",
        begin=Time("2024-03-02T03:04:05"),
        exposure_time=30.0,
        detector_regions={n: sky_region(geometry.sky_projection, box) for n, box in boxes.items()},
    )
    found = {
        (data_id["detector"], data_id["patch"])
        for data_id in butler.query_data_ids(
            ("visit", "detector", "patch"), instrument="Cam", skymap="s", visit=7
        )
    }
    assert found == {(0, 2), (1, 0), (1, 1), (1, 3), (1, 4)}


def test_registering_again(butler: Butler) -> None:
    first = register_tract(butler, "s", **GRID)
    assert register_tract(butler, "s", **GRID) == first
    refs = butler.query_datasets("tract_geometry", collections="skymaps")
    assert len(refs) == 1
    # What an interrupted command left out is completed.
    butler.pruneDatasets(refs, purge=True, unstore=True, disassociate=True)
    register_tract(butler, "s", **GRID)
    assert butler.get("tract_geometry", skymap="s", tract=0, collections="skymaps") == first
    register_tract(butler, "s", **GRID, collection="elsewhere")
    assert read(butler, 1, collections="elsewhere") == read(butler, 1)
    # Another name, the same geometry.
    register_tract(butler, "s2", **GRID)


@pytest.mark.parametrize(
    "change", [{"ra": 318.2}, {"cell_size": 40}, {"n_patches": (2, 2)}, {"tract": 1}, {"pixel_scale": 0.2}]
)
def test_name_with_another_geometry(butler: Butler, change: dict[str, Any]) -> None:
    register_tract(butler, "s", **GRID)
    with pytest.raises(ValueError, match="A skymap 's' with another geometry is registered"):
        register_tract(butler, "s", **GRID | change)
    assert butler.get("tract_geometry", skymap="s", tract=0, collections="skymaps")["n_patches"] == [3, 2]


@pytest.mark.parametrize(
    "change,message",
    [
        (
            {"cell_size": 60},
            "do not tile a patch of 300 pixels with a border of 50 on each side, 400 in all.*"
            "Cell sizes that do: 2, 4, 5, 8, 10, 16, 20, 25, 40, 50, 80, 100, 200, 400",
        ),
        ({"dec": 95.0}, "not a position in degrees"),
        ({"ra": float("nan")}, "not a position in degrees"),
        ({"pixel_scale": 0.0}, "pixel scale of 0.0 arcsec is not sensible"),
        ({"patch_border": -1}, "patch border -1"),
        ({"n_patches": (0, 1)}, r"number of patches \(0, 1\)"),
    ],
)
def test_refused(butler: Butler, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        register_tract(butler, "s", **GRID | change)
    assert not butler.query_dimension_records("skymap", explain=False)


def test_refused_collection(butler: Butler) -> None:
    butler.collections.register("chain", CollectionType.CHAINED)
    with pytest.raises(ValueError, match="'chain' is a CHAINED collection"):
        register_tract(butler, "s", **GRID, collection="chain")


@settings(max_examples=40)
@given(
    ra=st.floats(0.0, 360.0, exclude_max=True),
    dec=st.floats(-90.0, 90.0),
    size=st.integers(1, 400),
    border=st.integers(0, 50),
    nx=st.integers(1, 4),
    ny=st.integers(1, 4),
)
def test_any_place_on_the_sky(ra: float, dec: float, size: int, border: int, nx: int, ny: int) -> None:
    geometry = {
        "skymap": "s",
        "tract": 0,
        "wcs": {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CRVAL1": ra,
            "CRVAL2": dec,
            "CRPIX1": 10.0,
            "CRPIX2": 20.0,
            "CDELT1": -1e-4,
            "CDELT2": 1e-4,
            "CUNIT1": "deg",
            "CUNIT2": "deg",
            "RADESYS": "ICRS",
        },
        "patch_size": size,
        "patch_border": border,
        "cell_size": size + 2 * border,
        "n_patches": [nx, ny],
    }
    for patch in range(nx * ny):
        grid = PatchGeometry.from_tract(geometry, patch)
        region = sky_region(grid.sky_projection, grid.outer_bbox, points_per_edge=2)
        center = grid.sky_projection.pixel_to_sky(x=grid.outer_bbox.x.center, y=grid.outer_bbox.y.center)
        assert region.contains(vector(center))
        back = grid.sky_projection.sky_to_pixel(center)
        assert abs(back.x - grid.outer_bbox.x.center) < 1e-6
        assert abs(back.y - grid.outer_bbox.y.center) < 1e-6
