# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A grid of patches that contains given exposures."""

from __future__ import annotations

__all__ = ("TractProposal", "propose_tract")

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import CartesianRepresentation, SkyCoord
from astropy.wcs import WCS

from lsst.images import Box, DetectorFrame
from lsst.sphgeom import ConvexPolygon, LonLat

from ..warping.projections import pixel_scale, sky_region
from .exposure_files import ExposureFileError, read_fits_image, read_sky_projection
from .frame_manifest import load_sources
from .manifest import ManifestError

# Height and width of a cell, of a patch without its border, and width of the
# border, pixels: patches of 12x12 cells take some minutes and a few GB each.
_CELL_SIZE = 50
_PATCH_SIZE = 500
_PATCH_BORDER = 50


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TractProposal:
    """Arguments of `register_tract` for a set of exposures.

    Parameters
    ----------
    ra, dec : `float`
        Center, degrees.
    pixel_scale : `float`
        Size of a pixel, arcsec.
    patch_size, patch_border, cell_size : `int`
        Sizes, pixels.
    n_patches : `tuple` [`int`, `int`]
        Number of patches along x and y.
    """

    ra: float
    dec: float
    pixel_scale: float
    patch_size: int
    patch_border: int
    cell_size: int
    n_patches: tuple[int, int]


def propose_tract(
    sources: str | Path | Sequence[str | Path],
    *,
    pixel_scale: float | None = None,
    patch_size: int | None = None,
    patch_border: int | None = None,
    cell_size: int | None = None,
) -> TractProposal:
    """Propose a grid of patches that contains all exposures.

    Parameters
    ----------
    sources : `str`, `~pathlib.Path` or `~collections.abc.Sequence`
        A manifest, or FITS files and folders of FITS files.  Of the files, only
        the WCSs are used.
    pixel_scale : `float`, optional
        Size of a pixel, arcsec; default is the median of the exposures.
    patch_size, patch_border, cell_size : `int`, optional
        Sizes, pixels; default is 500, or less for smaller exposures, 50 and 50.

    Returns
    -------
    proposal : `TractProposal`
        Center, scale and numbers of patches.

    Raises
    ------
    ManifestError
        Raised if an exposure has no WCS.
    """
    label, folder, names = load_sources(sources)
    regions, scales = [], []
    problems: list[str] = []
    for name in names:
        try:
            region, scale = _footprint(folder, name)
        except ExposureFileError as error:
            problems.extend(error.reasons)
        else:
            regions.append(region)
            scales.append(scale)
    if problems:
        raise ManifestError(label, problems)
    scale = pixel_scale if pixel_scale is not None else float(f"{np.median(scales):.3g}")
    corners = _corners(regions)
    mean = corners.cartesian.mean()
    center = SkyCoord(CartesianRepresentation(mean.xyz), frame="icrs").spherical
    # In the middle of the pixels' range rather than of the corners.
    x, y = _project(corners, center.lon.deg, center.lat.deg, scale)
    middle = _tangent(center.lon.deg, center.lat.deg, scale).pixel_to_world(
        0.5 * (x.min() + x.max()), 0.5 * (y.min() + y.max())
    )
    ra, dec = round(float(middle.ra.deg), 6), round(float(middle.dec.deg), 6)
    x, y = _project(corners, ra, dec, scale)
    extent = [2.0 * float(np.abs(values).max()) for values in (x, y)]
    cell = cell_size if cell_size is not None else _CELL_SIZE
    border = patch_border if patch_border is not None else cell * math.ceil(_PATCH_BORDER / cell)
    if patch_size is None:
        # Whole cells with the border, and no larger than the exposures.
        largest = max(_PATCH_SIZE, cell)
        size = cell * math.ceil((min(max(extent), largest) + 2 * border) / cell) - 2 * border
    else:
        size = patch_size
    n_x, n_y = (max(1, math.ceil(length / size)) for length in extent)
    return TractProposal(
        ra=ra,
        dec=dec,
        pixel_scale=scale,
        patch_size=size,
        patch_border=border,
        cell_size=cell,
        n_patches=(n_x, n_y),
    )


def _footprint(folder: Path, name: str) -> tuple[ConvexPolygon, float]:
    """Return the region of an image, and its pixel scale in arcsec."""
    array, header, hdus = read_fits_image(folder, name)
    frame = DetectorFrame(instrument="External", visit=0, detector=0, bbox=Box.from_shape(array.shape))
    try:
        projection = read_sky_projection(header, hdus, frame)
    except ValueError as error:
        raise ExposureFileError(f"{name}: {error}") from error
    return sky_region(projection, frame.bbox), pixel_scale(projection, frame.bbox)


def _corners(regions: list[ConvexPolygon]) -> SkyCoord:
    """Return the vertices of regions."""
    points = [LonLat(vertex) for region in regions for vertex in region.getVertices()]
    return SkyCoord(
        [point.getLon().asDegrees() for point in points],
        [point.getLat().asDegrees() for point in points],
        unit=u.deg,
        frame="icrs",
    )


def _tangent(ra: float, dec: float, scale: float) -> WCS:
    """Return a gnomonic projection whose pixel (0, 0) is its center."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [1.0, 1.0]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    return wcs


def _project(points: SkyCoord, ra: float, dec: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of points in pixels from a center."""
    x, y = _tangent(ra, dec, scale).world_to_pixel(points)
    return np.asarray(x), np.asarray(y)
