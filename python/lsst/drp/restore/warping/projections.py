# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sky projections of FITS WCSs, and the regions and sizes of their pixels."""

from __future__ import annotations

__all__ = ("pixel_scale", "sky_projection_from_wcs", "sky_region")

import math

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

from lsst.images import Box, DetectorFrame, SkyProjection
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

# Largest difference between a FITS WCS and the projection made of it: well below
# the accuracy of astrometry from the ground.
_WCS_TOLERANCE = 1e-3 * u.arcsec


def sky_projection_from_wcs(wcs: WCS, frame: DetectorFrame) -> SkyProjection[DetectorFrame]:
    """Return the sky projection of a FITS WCS in any celestial frame.

    `lsst.images.SkyProjection.from_fits_wcs` takes any WCS as an ICRS one,
    which would move an FK5 image by up to 0.1 arcsec; here the WCS is rotated
    to ICRS first and the result compared with Astropy's.

    Parameters
    ----------
    wcs : `astropy.wcs.WCS`
        Celestial FITS WCS; its pixel (0, 0) is the first of the image.
    frame : `lsst.images.DetectorFrame`
        Frame of the pixels, whose bounding box starts at (0, 0).

    Returns
    -------
    projection : `lsst.images.SkyProjection` [`lsst.images.DetectorFrame`]
        Maps pixels to ICRS coordinates.

    Raises
    ------
    ValueError
        Raised if the WCS is not celestial, or cannot be represented to a
        milliarcsecond.
    """
    if wcs.naxis != 2 or not wcs.has_celestial:
        raise ValueError(f"The WCS is not one of two celestial axes: CTYPE is {list(wcs.wcs.ctype)}.")
    if wcs.wcs.lng != 0:
        raise ValueError(f"The first axis of the WCS must be the longitude, not {wcs.wcs.ctype[0]}.")
    projection = SkyProjection.from_fits_wcs(_rotated_to_icrs(wcs), frame, pixel_bounds=frame.bbox)
    x, y = (grid.ravel() for grid in np.meshgrid(*(np.linspace(0, n - 1, 5) for n in frame.bbox.shape[::-1])))
    expected = wcs.pixel_to_world(x, y).icrs
    try:
        error = projection.pixel_to_sky(x=x, y=y).separation(expected).max()
    except ValueError as err:
        raise ValueError(f"The WCS {list(wcs.wcs.ctype)} cannot be represented: {err}") from err
    if not error < _WCS_TOLERANCE:
        raise ValueError(
            f"The WCS {list(wcs.wcs.ctype)} can only be represented to {error.arcsec:.3g} arcsec."
        )
    return projection


def _rotated_to_icrs(wcs: WCS) -> WCS:
    """Return a WCS with the same pixels and projection, but ICRS coordinates.

    For a zenithal projection, a change of the celestial frame moves the
    reference point and turns the position angle of north there.
    """
    frame = wcs.pixel_to_world(0.0, 0.0).frame
    if frame.name == "icrs":
        return wcs
    reference = SkyCoord(*wcs.wcs.crval, unit=u.deg, frame=frame.replicate_without_data())
    north = reference.directional_offset_by(0.0 * u.deg, 1.0 * u.arcmin)
    result = wcs.deepcopy()
    prefix_length = len("RA--")
    result.wcs.ctype = [
        name + ctype[prefix_length:] for name, ctype in zip(("RA--", "DEC-"), wcs.wcs.ctype, strict=True)
    ]
    result.wcs.crval = [reference.icrs.ra.deg, reference.icrs.dec.deg]
    result.wcs.lonpole = wcs.wcs.lonpole + reference.icrs.position_angle(north.icrs).deg
    result.wcs.radesys = "ICRS"
    result.wcs.equinox = math.nan
    result.wcs.set()
    return result


def sky_region(sky_projection: SkyProjection, bbox: Box, *, points_per_edge: int = 5) -> ConvexPolygon:
    """Return the part of the sky that a box of pixels covers.

    Parameters
    ----------
    sky_projection : `lsst.images.SkyProjection`
        Maps pixels to the sky.
    bbox : `lsst.images.Box`
        The pixels; their outer edges are half a pixel beyond the centers of
        the first and the last.
    points_per_edge : `int`, optional
        Points sampled on each edge, so that a distorted edge is followed.

    Returns
    -------
    region : `lsst.sphgeom.ConvexPolygon`
        Convex hull of the sampled points.
    """
    steps = np.linspace(0.0, 1.0, points_per_edge)[:-1]
    along = np.concatenate([steps, np.ones_like(steps), 1.0 - steps, np.zeros_like(steps)])
    across = np.concatenate([np.zeros_like(steps), steps, np.ones_like(steps), 1.0 - steps])
    sky = sky_projection.pixel_to_sky(
        x=bbox.x.start - 0.5 + along * bbox.x.size, y=bbox.y.start - 0.5 + across * bbox.y.size
    )
    return ConvexPolygon.convexHull(
        [UnitVector3d(LonLat.fromDegrees(ra, dec)) for ra, dec in zip(sky.ra.deg, sky.dec.deg, strict=True)]
    )


def pixel_scale(sky_projection: SkyProjection, bbox: Box) -> float:
    """Return the size of a pixel in the middle of a box, along x.

    Parameters
    ----------
    sky_projection : `lsst.images.SkyProjection`
        Maps pixels to the sky.
    bbox : `lsst.images.Box`
        The pixels.

    Returns
    -------
    scale : `float`
        Size of the pixel, arcsec.
    """
    x, y = bbox.x.center, bbox.y.center
    left, right = sky_projection.pixel_to_sky(x=np.array([x - 0.5, x + 0.5]), y=np.array([y, y]))
    return float(left.separation(right).arcsec)
