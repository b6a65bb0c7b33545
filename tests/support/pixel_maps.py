# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Mappings of a patch to detectors."""

from __future__ import annotations

from typing import Any

from astropy.wcs import WCS
from skies import detector_projection, make_geometry, tan_wcs

from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.drp.restore.warping.pixel_map import PixelMap
from lsst.images import Box

SIZE = 300  # of detectors and patches, pixels
BBOX = Box.from_shape((SIZE, SIZE))


def make_map(
    wcs: WCS, *, detector_bbox: Box = BBOX, geometry: PatchGeometry | None = None, **kwargs: Any
) -> PixelMap:
    """Return the map from a whole patch to a detector."""
    geometry = geometry or make_geometry(cells=(10, 10))
    return PixelMap(
        geometry.sky_projection,
        detector_projection(wcs, detector_bbox),
        geometry.outer_bbox,
        detector_bbox,
        **kwargs,
    )


def patch_wcs() -> WCS:
    """Return the FITS WCS of the patch that `make_map` uses."""
    return tan_wcs(center=((SIZE - 1) / 2, (SIZE - 1) / 2))
