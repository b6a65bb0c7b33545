# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Registration of a tract and its grid of patches without lsst.skymap."""

from __future__ import annotations

__all__ = ("register_tract",)

import hashlib
import json
import math
from typing import Any

from lsst.daf.butler import Butler, CollectionType, DatasetType

from ..warping.patch_geometry import PatchGeometry
from ..warping.projections import sky_region


def register_tract(
    butler: Butler,
    name: str,
    *,
    ra: float,
    dec: float,
    pixel_scale: float,
    patch_size: int,
    patch_border: int,
    cell_size: int,
    n_patches: tuple[int, int],
    tract: int = 0,
    collection: str = "skymaps",
) -> dict[str, Any]:
    """Register a skymap of one tract with a grid of patches.

    Writes the dimension records of the skymap, the tract and the patches, and
    the dataset ``tract_geometry``, which `PatchGeometry.from_tract` reads.
    Registering the same tract again has no effect.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        Writeable client of the repository.
    name : `str`
        Name of the skymap.
    ra, dec : `float`
        Center of the tract and of its gnomonic projection (ICRS), degrees.
    pixel_scale : `float`
        Size of a pixel at the center, arcsec.
    patch_size : `int`
        Height and width of the inner box of a patch, pixels.  Inner boxes do
        not overlap.
    patch_border : `int`
        Width of the border between inner and outer box on each side of a
        patch, pixels.  Patches at the edge of the tract have a border, too.
    cell_size : `int`
        Height and width of a cell, pixels; cells tile the outer box.
    n_patches : `tuple` [`int`, `int`]
        Number of patches along x and y.
    tract : `int`, optional
        ID of the tract.
    collection : `str`, optional
        RUN collection for the dataset, registered if it does not exist.

    Returns
    -------
    tract_geometry : `dict`
        The dataset.

    Raises
    ------
    ValueError
        Raised if cells do not tile a patch, a number is out of range, or the
        skymap is registered with another geometry.
    """
    _check(ra, dec, pixel_scale, patch_size, patch_border, cell_size, n_patches, tract)
    extent = [n * patch_size + 2 * patch_border for n in n_patches]
    geometry = {
        "skymap": name,
        "tract": tract,
        "wcs": {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CRVAL1": float(ra),
            "CRVAL2": float(dec),
            "CRPIX1": (extent[0] + 1) / 2,
            "CRPIX2": (extent[1] + 1) / 2,
            "CDELT1": -pixel_scale / 3600,
            "CDELT2": pixel_scale / 3600,
            "CUNIT1": "deg",
            "CUNIT2": "deg",
            "RADESYS": "ICRS",
        },
        "patch_size": patch_size,
        "patch_border": patch_border,
        "cell_size": cell_size,
        "n_patches": list(n_patches),
    }
    _register_records(butler, geometry)
    _put_once(butler, geometry, collection)
    return geometry


def _check(
    ra: float,
    dec: float,
    pixel_scale: float,
    patch_size: int,
    patch_border: int,
    cell_size: int,
    n_patches: tuple[int, int],
    tract: int,
) -> None:
    """Raise if the numbers do not define a grid of patches."""
    if not (math.isfinite(ra) and -90.0 <= dec <= 90.0):
        raise ValueError(f"The tract's center (ra={ra}, dec={dec}) is not a position in degrees.")
    if not 0.0 < pixel_scale < 3600.0:
        raise ValueError(f"A pixel scale of {pixel_scale} arcsec is not sensible.")
    if patch_size < 1 or patch_border < 0 or cell_size < 1 or min(n_patches) < 1 or tract < 0:
        raise ValueError(
            f"Patch size {patch_size}, cell size {cell_size} and number of patches {n_patches} must be "
            f"positive, patch border {patch_border} and tract {tract} not negative."
        )
    outer = patch_size + 2 * patch_border
    if outer % cell_size:
        sizes = ", ".join(str(n) for n in range(2, outer + 1) if outer % n == 0)
        raise ValueError(
            f"Cells of {cell_size} pixels do not tile a patch of {patch_size} pixels with a border of "
            f"{patch_border} on each side, {outer} in all.  Cell sizes that do: {sizes}."
        )


def _register_records(butler: Butler, geometry: dict[str, Any]) -> None:
    """Register the skymap, the tract and its patches with their regions."""
    name, tract = geometry["skymap"], geometry["tract"]
    columns, rows = geometry["n_patches"]
    # With the name, because hashes of skymaps are unique in a repository.
    digest = hashlib.sha1(json.dumps(geometry, sort_keys=True).encode()).digest()
    known = butler.query_dimension_records("skymap", skymap=name, explain=False)
    if known:
        if known[0].hash != digest:
            raise ValueError(
                f"A skymap {name!r} with another geometry is registered in this repository.  Choose another "
                "name, or repeat the values it was registered with."
            )
        return
    registry = butler.registry
    with registry.transaction():
        registry.insertDimensionData(
            "skymap",
            {
                "name": name,
                "hash": digest,
                "tract_max": tract + 1,
                "patch_nx_max": columns,
                "patch_ny_max": rows,
            },
        )
        patches = [PatchGeometry.from_tract(geometry, patch) for patch in range(columns * rows)]
        # Edges of a box are great circles in a gnomonic projection, so that
        # the corners define the region.
        projection = patches[0].sky_projection
        registry.insertDimensionData(
            "tract",
            {
                "skymap": name,
                "id": tract,
                "region": sky_region(projection, patches[0].tract_bbox, points_per_edge=2),
            },
        )
        registry.insertDimensionData(
            "patch",
            *(
                {
                    "skymap": name,
                    "tract": tract,
                    "id": patch.patch.id,
                    "cell_x": patch.patch.index.x,
                    "cell_y": patch.patch.index.y,
                    "region": sky_region(projection, patch.outer_bbox, points_per_edge=2),
                }
                for patch in patches
            ),
        )


def _put_once(butler: Butler, geometry: dict[str, Any], collection: str) -> None:
    """Write the dataset unless the collection has it."""
    definition = DatasetType(
        "tract_geometry", ("skymap", "tract"), "StructuredDataDict", universe=butler.dimensions
    )
    butler.registry.registerDatasetType(definition)
    butler.collections.register(collection)
    if (kind := butler.collections.get_info(collection).type) is not CollectionType.RUN:
        raise ValueError(f"Collection {collection!r} is a {kind.name} collection; name a RUN collection.")
    data_id = {"skymap": geometry["skymap"], "tract": geometry["tract"]}
    if butler.find_dataset(definition, data_id, collections=collection) is None:
        butler.put(geometry, definition, data_id, run=collection)
