# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The simulated sky: catalogs of stars and galaxies.

A catalog is an `astropy.table.Table` with a row per source and the columns
``id``, ``kind`` (``star`` or ``galaxy``), ``ra`` and ``dec`` (ICRS, degrees),
``flux_nJy`` (total flux), ``half_light_radius`` (arcsec, of the circle with
the area of the half-light ellipse; 0 for stars), ``sersic_n``,
``axis_ratio`` and ``position_angle`` (of the major axis, degrees from north
through east).
"""

from __future__ import annotations

__all__ = (
    "complete_catalog",
    "galaxy_profile",
    "locate",
    "random_sky",
    "star_catalog",
    "truncation",
)

from typing import TYPE_CHECKING, Any

import astropy.table
import astropy.units as u
import numpy as np
import numpy.typing as npt
from astropy.coordinates import SkyCoord

from lsst.images import SkyProjection

from ..warping.patch_geometry import PatchGeometry
from .config import AB_ZERO_POINT, BANDS, SimulationConfig, Stream

if TYPE_CHECKING:
    import galsim

# Values of columns that a catalog may lack: those of a star.
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


def complete_catalog(table: astropy.table.Table) -> astropy.table.Table:
    """Check a catalog and add missing columns.

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
        Raised if a required column is missing or a value is out of range.
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
    """Draw stars and galaxies at random around the center of a patch.

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
    - Stars: ``0.45 * 10**(0.15 * (m - 18))`` brighter than ``m`` per square
      arcminute: 1600 per square degree to 18 mag and ten times as many to
      24.7 mag, about as in star count models of the Galactic poles (Bahcall
      and Soneira 1980).
    - Galaxies are exponential discs whose scale length along the major axis has
      the median ``exp(-1.145 - 0.269 * (m - 23))`` arcsec (Miller et al.
      2013, appendix B1, from HST images) and a scatter of 0.3 in its logarithm;
      20 % are de Vaucouleurs spheroids with that length as half-light radius.
    - The intrinsic shear of galaxies has 0.2 rms per component.
    - Positions are independent of each other: there is no clustering.
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
    stars["flux_nJy"] = 10 ** (0.4 * (AB_ZERO_POINT - magnitudes))

    rng = config.generator(Stream.BRIGHT_STARS)
    x = rng.uniform(box.x.start, box.x.stop - 1, config.bright_stars)
    y = rng.uniform(box.y.start, box.y.stop - 1, config.bright_stars)
    magnitudes = np.linspace(15, 18, config.bright_stars)
    bright = star_catalog(geometry, x, y, 10 ** (0.4 * (AB_ZERO_POINT - magnitudes)))

    rng = config.generator(Stream.GALAXIES)
    faintest = 46 * 10 ** (0.31 * (config.galaxy_magnitudes[1] - 25))
    n_galaxies, magnitudes = _magnitudes(
        rng, config.galaxy_density * faintest * area, 0.31, config.galaxy_magnitudes
    )
    galaxies = _scatter(rng, center, radius, n_galaxies)
    galaxies["kind"] = np.full(n_galaxies, "galaxy")
    galaxies["flux_nJy"] = 10 ** (0.4 * (AB_ZERO_POINT - magnitudes))
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


def color_catalog(config: SimulationConfig, catalog: astropy.table.Table) -> None:
    """Convert the fluxes of sources from i to the simulated band.

    Parameters
    ----------
    config : `SimulationConfig`
        Options; see ``color``.
    catalog : `astropy.table.Table`
        The sources with their fluxes in i.  Changed in place.
    """
    if not any(config.color):
        return
    rng = config.generator(Stream.COLOR)
    color = config.color[0] + config.color[1] * rng.standard_normal(len(catalog))
    catalog["flux_nJy"] *= 10 ** (0.4 * color * (BANDS.index(config.band) - BANDS.index("i")))


def _magnitudes(
    rng: np.random.Generator, number: float, slope: float, limits: tuple[float, float]
) -> tuple[int, np.ndarray]:
    """Draw magnitudes from cumulative counts proportional to
    ``10**(slope * m)`` that reach ``number`` at the faint limit.
    """
    bright, faint = limits
    floor = 10 ** (-slope * (faint - bright))
    n = int(rng.poisson(number * (1 - floor)))
    return n, faint + np.log10(floor + (1 - floor) * rng.random(n)) / slope


def _scatter(rng: np.random.Generator, center: SkyCoord, radius: float, n: int) -> astropy.table.Table:
    """Draw ``n`` positions uniformly within a circle on the sky."""
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
        Derivatives of ``(x, y)`` with respect to offsets to the east and north,
        pixels per arcsec, shape ``(n, 2, 2)``: ``jacobian[:, 0, 1]`` is
        ``dx/dnorth``.
    """
    jacobian = np.empty((len(catalog), 2, 2))
    if not len(catalog):
        # The projection cannot transform empty arrays.
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
    """Return the truncation radius of a galaxy's profile, half-light radii.

    Parameters
    ----------
    sersic_n : `float`
        Sersic index.

    Returns
    -------
    radius : `float`
        As in the models of the SDSS: 4 for discs and 8 for spheroids.  Flux
        and half-light radius of catalogs are those of the truncated profile.
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
        Profile of unit flux; lengths are arcsec, x to the east, y to the north.
    """
    import galsim

    # Made with unit size, so that GalSim tabulates each Sersic index only once.
    n = float(source["sersic_n"])
    profile = galsim.Sersic(n, half_light_radius=1.0, trunc=truncation(n))
    return profile.dilate(float(source["half_light_radius"])).shear(
        q=float(source["axis_ratio"]), beta=(90.0 - float(source["position_angle"])) * galsim.degrees
    )
