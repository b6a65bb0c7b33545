# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The simulated sky: catalogs of stars and galaxies, and the true image.

A catalog is an `astropy.table.Table` with a row per source and the columns
``id``, ``kind`` (``star`` or ``galaxy``), ``ra`` and ``dec`` (ICRS, degrees),
``flux_nJy`` (all of the source's flux), ``half_light_radius`` (arcsec, of the
circle with the area of the half-light ellipse; 0 for stars), ``sersic_n``,
``axis_ratio`` and ``position_angle`` (of the major axis, degrees from north
through east).
"""

from __future__ import annotations

__all__ = (
    "complete_catalog",
    "draw_truth",
    "galaxy_profile",
    "locate",
    "random_sky",
    "star_catalog",
)

from typing import TYPE_CHECKING, Any

import astropy.table
import astropy.units as u
import numpy as np
import numpy.typing as npt
import scipy.special
from astropy.coordinates import SkyCoord

from lsst.images import Box, SkyProjection

from .patch_geometry import PatchGeometry
from .simulate_config import SimulationConfig, Stream

if TYPE_CHECKING:
    import galsim

# Columns that a catalog may lack, and what they are then: those of a star.
_DEFAULTS: dict[str, Any] = {
    "kind": "star",
    "half_light_radius": 0.0,
    "sersic_n": 0.0,
    "axis_ratio": 1.0,
    "position_angle": 0.0,
}
_UNITS = {
    "ra": u.deg,
    "dec": u.deg,
    "flux_nJy": u.nJy,
    "half_light_radius": u.arcsec,
    "position_angle": u.deg,
}
_AB_ZERO_POINT = 31.4  # AB magnitude of 1 nJy


def complete_catalog(table: astropy.table.Table) -> astropy.table.Table:
    """Check a catalog and add the columns it lacks.

    Parameters
    ----------
    table : `astropy.table.Table`
        Sources.  The columns ``ra``, ``dec`` and ``flux_nJy`` are required;
        without ``kind``, all are stars.

    Returns
    -------
    catalog : `astropy.table.Table`
        A copy with all columns of a catalog, in their units.

    Raises
    ------
    ValueError
        Raised if a required column is missing or a value is not usable.
    """
    if missing := {"ra", "dec", "flux_nJy"} - set(table.colnames):
        raise ValueError(f"The catalog of sources lacks the columns {sorted(missing)}.")
    catalog = astropy.table.Table({"id": np.arange(len(table))})
    catalog["id"] = table["id"] if "id" in table.colnames else catalog["id"]
    for name in ("kind", "ra", "dec", "flux_nJy", *list(_DEFAULTS)[1:]):
        values = table[name] if name in table.colnames else np.full(len(table), _DEFAULTS[name])
        if name in _UNITS:
            quantity = u.Quantity(values, dtype=float)
            unit = _UNITS[name]
            values = quantity.value if quantity.unit == u.one else quantity.to_value(unit)
        catalog[name] = np.asarray(values, dtype=str if name == "kind" else float)
        catalog[name].unit = _UNITS.get(name)
    galaxy = catalog["kind"] == "galaxy"
    for problem, bad in {
        "kinds that are neither star nor galaxy": ~galaxy & (catalog["kind"] != "star"),
        "fluxes that are not finite": ~np.isfinite(catalog["flux_nJy"]),
        "positions that are not finite": ~np.isfinite(catalog["ra"]) | ~np.isfinite(catalog["dec"]),
        "galaxies without a size": galaxy & ~(catalog["half_light_radius"] > 0),
        "Sersic indices out of 0.5 to 5": galaxy & ~(abs(catalog["sersic_n"] - 2.75) <= 2.25),
        "axis ratios out of 0.05 to 1": galaxy & ~(abs(catalog["axis_ratio"] - 0.525) <= 0.475),
    }.items():
        if np.any(bad):
            raise ValueError(f"The catalog of sources has {problem}, first in row {int(np.argmax(bad))}.")
    return catalog


def star_catalog(
    geometry: PatchGeometry, x: npt.ArrayLike, y: npt.ArrayLike, flux: npt.ArrayLike
) -> astropy.table.Table:
    """Make a catalog of stars at given pixels of a tract.

    Parameters
    ----------
    geometry : `PatchGeometry`
        The pixel grid.
    x, y : array-like
        Positions, pixels of the tract, shape ``(n,)``.
    flux : array-like
        Fluxes, nJy; one number or shape ``(n,)``.

    Returns
    -------
    catalog : `astropy.table.Table`
        The stars.
    """
    x, y = np.atleast_1d(x), np.atleast_1d(y)
    fluxes = np.broadcast_to(np.asarray(flux, dtype=float), x.shape)
    if not len(x):
        return complete_catalog(astropy.table.Table({"ra": x, "dec": y, "flux_nJy": fluxes}))
    sky = geometry.sky_projection.pixel_to_sky(x=x, y=y)
    return complete_catalog(astropy.table.Table({"ra": sky.ra.deg, "dec": sky.dec.deg, "flux_nJy": fluxes}))


def random_sky(config: SimulationConfig, geometry: PatchGeometry, radius: float) -> astropy.table.Table:
    """Draw stars and galaxies at random around the centre of a patch.

    Parameters
    ----------
    config : `SimulationConfig`
        Options.
    geometry : `PatchGeometry`
        The patch.
    radius : `float`
        Radius of the circle to fill, arcsec.

    Returns
    -------
    catalog : `astropy.table.Table`
        The sources.

    Notes
    -----
    Counts, sizes and shapes are those of the i band in a field far from the
    Galactic plane, as wide-field surveys see it:

    - Galaxies: ``46 * 10**(0.31 * (m - 25))`` brighter than ``m`` per square
      arcminute (LSST Science Book, section 3.7, from the CFHTLS Deep fields).
    - Stars: ``0.45 * 10**(0.15 * (m - 18))`` per square arcminute: 1600 per
      square degree brighter than 18 mag and ten times as many to 24.7, about
      what star count models (Bahcall and Soneira 1980) have at the Galactic
      poles.
    - Galaxies are exponential discs whose scale length along the major axis has
      the median ``exp(-1.145 - 0.269 * (m - 23))`` arcsec (Miller et al.
      2013, appendix B1, from HST images) and a scatter of 0.3 in its logarithm;
      20 % are de Vaucouleurs spheroids with that length as half-light radius.
    - The shear that makes a round galaxy elliptical has 0.2 rms per component.
    - Positions are independent of each other: nothing is clustered.
    """
    box = geometry.patch.outer_bbox
    center = geometry.sky_projection.pixel_to_sky(x=box.x.center, y=box.y.center)
    area = np.pi * (radius / 60) ** 2

    rng = config.generator(Stream.STARS)
    faintest = 0.45 * 10 ** (0.15 * (config.star_magnitudes[1] - 18))
    n_stars, magnitudes = _magnitudes(
        rng, config.star_density * faintest * area, 0.15, config.star_magnitudes
    )
    stars = _scatter(rng, center, radius, n_stars)
    stars["flux_nJy"] = 10 ** (0.4 * (_AB_ZERO_POINT - magnitudes))

    rng = config.generator(Stream.BRIGHT_STARS)
    x = rng.uniform(box.x.start, box.x.stop - 1, config.bright_stars)
    y = rng.uniform(box.y.start, box.y.stop - 1, config.bright_stars)
    magnitudes = np.linspace(15, 18, config.bright_stars)
    bright = star_catalog(geometry, x, y, 10 ** (0.4 * (_AB_ZERO_POINT - magnitudes)))

    rng = config.generator(Stream.GALAXIES)
    faintest = 46 * 10 ** (0.31 * (config.galaxy_magnitudes[1] - 25))
    n_galaxies, magnitudes = _magnitudes(
        rng, config.galaxy_density * faintest * area, 0.31, config.galaxy_magnitudes
    )
    galaxies = _scatter(rng, center, radius, n_galaxies)
    galaxies["kind"] = np.full(n_galaxies, "galaxy")
    galaxies["flux_nJy"] = 10 ** (0.4 * (_AB_ZERO_POINT - magnitudes))
    shear = np.minimum(rng.rayleigh(0.2, n_galaxies), 0.8)
    galaxies["axis_ratio"] = (1 - shear) / (1 + shear)
    galaxies["position_angle"] = rng.uniform(0, 180, n_galaxies)
    length = np.exp(-1.145 - 0.269 * (magnitudes - 23) + rng.normal(0, 0.3, n_galaxies))
    spheroid = rng.random(n_galaxies) < 0.2
    galaxies["sersic_n"] = np.where(spheroid, 4.0, 1.0)
    # 1.678 scale lengths hold half of the flux of an exponential disc.
    major = np.clip(np.where(spheroid, length, 1.678 * length), 0.05, 4.0)
    galaxies["half_light_radius"] = major * np.sqrt(galaxies["axis_ratio"])

    parts = [bright, complete_catalog(stars), complete_catalog(galaxies)]
    catalog = astropy.table.vstack(parts, metadata_conflicts="silent")
    catalog["id"] = np.arange(len(catalog))
    return catalog


def _magnitudes(
    rng: np.random.Generator, number: float, slope: float, limits: tuple[float, float]
) -> tuple[int, np.ndarray]:
    """Draw magnitudes from counts ``10**(slope * m)`` that reach ``number`` at
    the faint limit.
    """
    bright, faint = limits
    floor = 10 ** (-slope * (faint - bright))
    n = int(rng.poisson(number * (1 - floor)))
    return n, faint + np.log10(floor + (1 - floor) * rng.random(n)) / slope


def _scatter(rng: np.random.Generator, center: SkyCoord, radius: float, n: int) -> astropy.table.Table:
    """Scatter ``n`` positions over a circle on the sky."""
    r = radius * np.sqrt(rng.random(n)) * u.arcsec
    angle = rng.uniform(0, 2 * np.pi, n)
    sky = center.spherical_offsets_by(r * np.cos(angle), r * np.sin(angle))
    return astropy.table.Table({"ra": sky.ra.deg, "dec": sky.dec.deg})


def locate(
    catalog: astropy.table.Table, projection: SkyProjection
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Locate sources on a pixel grid.

    Parameters
    ----------
    catalog : `astropy.table.Table`
        The sources.
    projection : `lsst.images.SkyProjection`
        Maps pixels to the sky.

    Returns
    -------
    x, y : `numpy.ndarray`
        Positions, pixels, shape ``(n,)``.
    jacobian : `numpy.ndarray`
        Derivatives of ``(x, y)``, pixels, by offsets to the east and north,
        arcsec, shape ``(n, 2, 2)``: ``jacobian[:, 0, 1]`` is ``dx/dnorth``.
    """
    jacobian = np.empty((len(catalog), 2, 2))
    if not len(catalog):
        # The projection refuses to transform no points.
        return np.empty(0), np.empty(0), jacobian
    sky = SkyCoord(catalog["ra"], catalog["dec"])
    position = projection.sky_to_pixel(sky)
    step = 1.0 * u.arcsec
    for axis, (east, north) in enumerate(((step, 0 * step), (0 * step, step))):
        ahead = projection.sky_to_pixel(sky.spherical_offsets_by(east, north))
        behind = projection.sky_to_pixel(sky.spherical_offsets_by(-east, -north))
        jacobian[:, 0, axis] = (ahead.x - behind.x) / (2 * step.value)
        jacobian[:, 1, axis] = (ahead.y - behind.y) / (2 * step.value)
    return position.x, position.y, jacobian


def truncation(sersic_n: float) -> float:
    """Radius where a galaxy's profile ends, in half-light radii (`float`).

    As in the models of the SDSS: 4 for discs and 8 for spheroids.  The flux
    and half-light radius in the catalog are those of the truncated profile.
    """
    return 8.0 if sersic_n > 2 else 4.0


def galaxy_profile(source: astropy.table.Row) -> galsim.GSObject:
    """Make the profile of a galaxy on the sky.

    Parameters
    ----------
    source : `astropy.table.Row`
        Row of a catalog.

    Returns
    -------
    profile : `galsim.GSObject`
        Profile of unit flux in arcsec, x to the east and y to the north.
    """
    import galsim

    # Of unit size first, so that GalSim tabulates each Sersic index only once.
    n = float(source["sersic_n"])
    profile = galsim.Sersic(n, half_light_radius=1.0, trunc=truncation(n))
    return profile.dilate(float(source["half_light_radius"])).shear(
        q=float(source["axis_ratio"]), beta=(90.0 - float(source["position_angle"])) * galsim.degrees
    )


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
    No pixels can hold the sky at infinite resolution.  Here each bit of flux
    is shared bilinearly between the four pixels around it, which keeps flux and
    position exactly, so the PSF of this image is a triangle of 2 pixels base on
    each axis, the same for stars and galaxies everywhere.  Any sharper truth
    has to be drawn from the catalog.
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
        Pixels per half-light radius, to choose how dense points are.

    Returns
    -------
    u, v, weight : `numpy.ndarray`
        Positions and their share of the flux.

    Notes
    -----
    The points are on rings; flux and second moment of each ring are those of
    the profile, integrals of ``r * I(r)`` and ``r**3 * I(r)``.
    """
    # Rings of at most a tenth of a pixel, and narrower towards the cusp: the
    # surface brightness is then right to 0.3 % of its peak.
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
    # Each ring starts at another angle, so that no spokes appear.
    angle = 2 * np.pi * (step / counts[ring] + ring * 0.618034)
    return radius[ring] * np.cos(angle), radius[ring] * np.sin(angle), (flux / counts)[ring]


def _share(image: np.ndarray, box: Box, x: np.ndarray, y: np.ndarray, flux: np.ndarray) -> None:
    """Share fluxes at positions bilinearly between the pixels of an image in
    place; what falls outside is lost.
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
        Image and what to add to it.
    x0, y0 : `int`
        Column and row of the image where the stamp begins.
    """
    x1, y1 = max(x0, 0), max(y0, 0)
    x2, y2 = min(x0 + stamp.shape[1], image.shape[1]), min(y0 + stamp.shape[0], image.shape[0])
    if x1 < x2 and y1 < y2:
        image[y1:y2, x1:x2] += stamp[y1 - y0 : y2 - y0, x1 - x0 : x2 - x0]
