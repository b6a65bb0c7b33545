# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Projections of small patches and detectors, for the tests of the inputs."""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS

from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.images import YX, Box, DetectorFrame, SkyProjection, TractFrame
from lsst.images.cells import CellGrid, PatchDefinition

RA, DEC = 30.0, -5.0


def tan_wcs(
    *, center: tuple[float, float], scale: float = 0.2, angle: float = 0.0, flip: bool = False
) -> WCS:
    """Return a gnomonic WCS.

    Parameters
    ----------
    center : `tuple` [`float`, `float`]
        Pixel (x, y, the first being 0, 0) that is at (RA, DEC).
    scale : `float`
        Pixel size, arcsec.
    angle : `float`
        Rotation, degrees.
    flip : `bool`
        Whether the handedness is the other one.
    """
    a = np.radians(angle)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [RA, DEC]
    wcs.wcs.crpix = [center[0] + 1.0, center[1] + 1.0]
    handedness = 1.0 if flip else -1.0
    wcs.wcs.cd = scale / 3600.0 * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    wcs.wcs.cd = wcs.wcs.cd @ np.diag([handedness, 1.0])
    wcs.wcs.set()
    return wcs


def tpv_wcs(*, center: tuple[float, float], scale: float = 0.2, angle: float = 0.0) -> WCS:
    """Return a WCS as `tan_wcs`, but with a distortion of some ten pixels
    over a thousand as cameras have near the edge of their field.
    """
    header = tan_wcs(center=center, scale=scale, angle=angle).to_header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TPV", "DEC--TPV"
    for axis in (1, 2):
        for term, value in {1: 1.0, 2: 0.004, 4: 0.3, 5: -0.2, 6: 0.15, 7: 3.0, 9: 2.0}.items():
            header[f"PV{axis}_{term}"] = value
    return WCS(header)


def detector_projection(wcs: WCS, bbox: Box, detector: int = 1) -> SkyProjection[DetectorFrame]:
    """Return a detector's projection, whose pixel (0, 0) is the WCS's."""
    frame = DetectorFrame(instrument="Cam", visit=1, detector=detector, bbox=bbox)
    return SkyProjection.from_fits_wcs(wcs, frame, pixel_bounds=bbox)


def make_geometry(
    *,
    cells: tuple[int, int] = (4, 4),
    cell_size: int = 30,
    start: tuple[int, int] = (0, 0),
    scale: float = 0.2,
    angle: float = 0.0,
) -> PatchGeometry:
    """Return a patch that has (RA, DEC) in its middle.

    Parameters
    ----------
    cells : `tuple` [`int`, `int`]
        Number of cells along y and x.
    cell_size : `int`
        Height and width of a cell, pixels.
    start : `tuple` [`int`, `int`]
        First pixel (y, x) of the patch in the tract.
    scale : `float`
        Pixel size, arcsec.
    angle : `float`
        Rotation, degrees; without it north is up and east left.
    """
    outer = Box.from_shape((cells[0] * cell_size, cells[1] * cell_size), start=start)
    wcs = tan_wcs(center=(outer.x.center, outer.y.center), scale=scale, angle=angle)
    tract = Box.from_shape((outer.y.stop + 50, outer.x.stop + 50))
    return PatchGeometry(
        skymap="test",
        tract=0,
        patch=PatchDefinition(
            id=3,
            index=YX(y=0, x=3),
            inner_bbox=outer.padded(-5),
            cells=CellGrid(bbox=outer, cell_shape=YX(y=cell_size, x=cell_size)),
        ),
        sky_projection=SkyProjection.from_fits_wcs(
            wcs, TractFrame(skymap="test", tract=0, bbox=tract), pixel_bounds=tract
        ),
    )
