# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The true image of a simulated sky on the pixel grid of a patch."""

from __future__ import annotations

__all__ = ("add_stamp", "draw_truth")

import astropy.table
import numpy as np
import scipy.special

from lsst.images import Box

from ..warping.patch_geometry import PatchGeometry
from .sky import locate, truncation


def draw_truth(catalog: astropy.table.Table, geometry: PatchGeometry) -> np.ndarray:
    """Draw the noiseless sky without PSF on a patch.

    Parameters
    ----------
    catalog : `astropy.table.Table`
        The sources.
    geometry : `PatchGeometry`
        The patch.

    Returns
    -------
    image : `numpy.ndarray`
        Flux per pixel, nJy, on the outer bounding box of the patch,
        `numpy.float32`.

    Notes
    -----
    Flux at a position is distributed bilinearly over the four nearest pixels,
    which conserves flux and centroid: the PSF of this image is a triangle with
    a base of 2 pixels along each axis, for stars and galaxies alike.  A sharper
    truth has to be drawn from the catalog.
    """
    import galsim

    box = geometry.patch.outer_bbox
    image = np.zeros(box.shape)
    for source, x, y, jacobian in zip(catalog, *locate(catalog, geometry.sky_projection), strict=True):
        flux = float(source["flux_nJy"])
        if source["kind"] == "star":
            _share(image, box, np.array([x]), np.array([y]), np.array([flux]))
            continue
        n, q = float(source["sersic_n"]), float(source["axis_ratio"])
        # Semi-axes of the half-light ellipse along the major and minor axis.
        major = source["half_light_radius"] / np.sqrt(q)
        minor = source["half_light_radius"] * np.sqrt(q)
        scale = np.sqrt(np.abs(np.linalg.det(jacobian)))
        reach = truncation(n) * major * scale * 1.1 + 2
        if not box.dilated_by(int(reach)).contains(x=x, y=y):
            continue
        r0 = galsim.Sersic(n, half_light_radius=1.0, trunc=truncation(n)).scale_radius
        u_, v_, weight = _sample_profile(n, r0, truncation(n), major * scale)
        angle = np.deg2rad(source["position_angle"])
        east = major * u_ * np.sin(angle) + minor * v_ * np.cos(angle)
        north = major * u_ * np.cos(angle) - minor * v_ * np.sin(angle)
        dx, dy = jacobian @ np.stack([east, north])
        _share(image, box, x + dx, y + dy, flux * weight)
    return image.astype(np.float32)


def _sample_profile(
    n: float, r0: float, end: float, pixels: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Represent a round Sersic profile of unit half-light radius by points.

    Parameters
    ----------
    n, r0, end : `float`
        Sersic index, scale radius and truncation radius.
    pixels : `float`
        Half-light radius in pixels, which sets the density of the points.

    Returns
    -------
    u, v, weight : `numpy.ndarray`
        Positions, half-light radii, and fractions of the flux, shape ``(m,)``.

    Notes
    -----
    The points are on rings with the flux and the second moment of the profile,
    integrals of ``r * I(r)`` and ``r**3 * I(r)``.
    """
    # Rings of at most a tenth of a pixel, narrower towards the cusp: the error
    # of the surface brightness is then 0.3 % of its peak.
    edges = [0.0]
    while edges[-1] < end:
        edges.append(edges[-1] + min(0.1 / pixels, 0.005 + 0.075 * edges[-1]))
    t = (np.minimum(edges, end) / r0) ** (1 / n)
    enclosed = scipy.special.gammainc(2 * n, t) * scipy.special.gamma(2 * n)
    moment = scipy.special.gammainc(4 * n, t) * scipy.special.gamma(4 * n) * r0**2
    flux = np.diff(enclosed) / enclosed[-1]
    radius = np.sqrt(np.diff(moment) / np.diff(enclosed))
    counts = np.maximum(8, np.ceil(2 * np.pi * radius * pixels / 0.2)).astype(int)
    ring = np.repeat(np.arange(len(counts)), counts)
    step = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    # Each ring starts at another angle, which avoids spokes.
    angle = 2 * np.pi * (step / counts[ring] + ring * 0.618034)
    return radius[ring] * np.cos(angle), radius[ring] * np.sin(angle), (flux / counts)[ring]


def _share(image: np.ndarray, box: Box, x: np.ndarray, y: np.ndarray, flux: np.ndarray) -> None:
    """Distribute fluxes at positions bilinearly over the pixels of an image in
    place; flux outside of the image is lost.
    """
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    left, bottom = x0.min(), y0.min()
    shape = (int(y0.max() - bottom) + 2, int(x0.max() - left) + 2)
    stamp = np.zeros(shape[0] * shape[1])
    fx, fy = x - x0, y - y0
    for i, wy in ((0, 1 - fy), (1, fy)):
        for j, wx in ((0, 1 - fx), (1, fx)):
            index = (y0 - bottom + i) * shape[1] + x0 - left + j
            stamp += np.bincount(index, wx * wy * flux, len(stamp))
    add_stamp(image, stamp.reshape(shape), int(left) - box.x.start, int(bottom) - box.y.start)


def add_stamp(image: np.ndarray, stamp: np.ndarray, x0: int, y0: int) -> None:
    """Add a stamp to an image in place, where they overlap.

    Parameters
    ----------
    image, stamp : `numpy.ndarray`
        The image and the stamp, two-dimensional.
    x0, y0 : `int`
        Column and row of the stamp's first pixel in the image; may be outside.
    """
    x1, y1 = max(x0, 0), max(y0, 0)
    x2, y2 = min(x0 + stamp.shape[1], image.shape[1]), min(y0 + stamp.shape[0], image.shape[0])
    if x1 < x2 and y1 < y2:
        image[y1:y2, x1:x2] += stamp[y1 - y0 : y2 - y0, x1 - x0 : x2 - x0]
