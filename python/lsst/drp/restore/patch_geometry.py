# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The pixel grid of one patch, whatever it was read from."""

from __future__ import annotations

__all__ = ("PatchGeometry",)

import dataclasses

from lsst.images import SkyProjection, TractFrame
from lsst.images.cells import PatchDefinition


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
