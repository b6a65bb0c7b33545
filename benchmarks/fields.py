# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fields with a known truth: the sources on the sky, and exposures of them."""

from __future__ import annotations

__all__ = ("ROLES", "SNR_BINS", "Field", "FieldOptions", "make_field")

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import astropy.table
import astropy.units as u
import numpy as np

from lsst.daf.butler import Butler
from lsst.drp.restore.repository.register_tract import register_tract
from lsst.drp.restore.simulation.camera import SimulatedVisit
from lsst.drp.restore.simulation.config import SimulationConfig
from lsst.drp.restore.simulation.simulate import simulate_exposures
from lsst.drp.restore.simulation.sky import complete_catalog, locate, random_sky
from lsst.drp.restore.simulation.truth import draw_truth
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.warping.build_stack import BuildStackTask
from lsst.drp.restore.warping.patch_geometry import PatchGeometry

SNR_BINS = ((5.0, 10.0), (10.0, 20.0), (20.0, 50.0), (50.0, np.inf))
"""Bins of the signal-to-noise ratio on the reference coadd."""

ROLES = ("point", "galaxy", "pair", "bright", "natural")
"""What a source of a field is there for: isolated points and galaxies to
measure fluxes on, pairs of stars, saturating stars, and faint galaxies
everywhere as any sky has them.  Of a random sky, what is neither isolated nor
saturating is natural.
"""

PIXEL_SCALE = 0.2
"""Size of a pixel, arcsec."""

_SKYMAP = "benchmark"
_BORDER = 16
# Distance between the places that sources are put at, and how far from them
# they may be, pixels.
_SPACING = 30.0
_JITTER = 3.0
# Distance of the outermost places from the edge of the patch, pixels.
_MARGIN = 20
# A saturating star gets this much room, pixels.
_BRIGHT_RADIUS = 45.0
# Coadd S/N that points and galaxies are drawn from, one range a bin: a bit
# inside of the bin, because it is predicted from seeing and sky brightness.
_DRAWN_SNR = ((5.6, 9.2), (11.0, 18.5), (22.0, 46.0), (60.0, 600.0))
# Numbers on 512x512 pixels.
_POINTS_PER_BIN = 20
_FAINT_POINTS = 16
_FAINT_SNR = (3.2, 4.8)
_GALAXIES_PER_BIN = 15
_PAIRS = 36
# Largest half-light radius of the isolated galaxies, pixels.
_LARGEST_GALAXY = 3.5
_BRIGHT_MAGNITUDES = (15.5, 16.3, 17.0)
# Faint galaxies everywhere: the coadd S/N of the brightest, and the range of
# magnitudes below it.
_NATURAL_SNR = 2.0
_NATURAL_RANGE = 1.0
_AB_ZERO_POINT = 31.4
# A source of a random sky is isolated if the others within this distance
# (pixels, and more by twice their half-light radii) have less than this
# fraction of its flux together.
_ISOLATION = 10.0
_NEIGHBORS = 0.05
_SATURATING = 17.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class FieldOptions:
    """Which field to make.

    Parameters
    ----------
    seed : `int`
        Seed of the sky and of the exposures.
    size : `int`
        Height and width of the patch, pixels; a multiple of 64.
    visits : `int`
        Number of exposures.
    wide : `bool`
        Whether to show the simulator's own random sky, as bright and crowded
        as the average field of a wide survey, instead of sources to measure.
    noise_seed : `int` or `None`
        Seed of the photon noise alone; see `SimulationConfig`.
    band : `str`
        Band of the exposures; the signal-to-noise ratios that the sources are
        made for are those of as many exposures in i.
    first_visit : `int`
        ID of the first exposure: other ones have other seeing and noise.
    design_visits : `int` or `None`
        The number of exposures in i that the sources are made for; `None` for
        ``visits``.
    color : `tuple` [`float`, `float`]
        Mean and scatter of the colors; see `SimulationConfig`.
    """

    seed: int
    size: int = 512
    visits: int = 16
    wide: bool = False
    noise_seed: int | None = None
    band: str = "i"
    first_visit: int = 1
    design_visits: int | None = None
    color: tuple[float, float] = (0.0, 0.0)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Field:
    """Exposures of a field, and the truth.

    Parameters
    ----------
    options : `FieldOptions`
        What was asked for.
    stack : `ExposureStack`
        The exposures on the patch grid.
    truth : `numpy.ndarray`
        The true sky without PSF, nJy per pixel, shape ``(size, size)``; see
        `draw_truth`.
    catalog : `astropy.table.Table`
        The sources on the patch: the simulator's columns; ``x`` and ``y``,
        pixels of the arrays; ``role`` (of `ROLES`); ``group``, which is the
        same for the two stars of a pair.
    stamps : `dict` [`int`, `numpy.ndarray`]
        The truth image of each isolated galaxy alone, shape ``(2*r+1,
        2*r+1)`` around its nearest pixel, by the row of the catalog.
    seeing : `float`
        Median FWHM of the exposures' PSFs, pixels.
    """

    options: FieldOptions
    stack: ExposureStack
    truth: np.ndarray
    catalog: astropy.table.Table
    stamps: dict[int, np.ndarray]
    seeing: float

    @property
    def area(self) -> float:
        """Area in square arcminutes (`float`)."""
        return self.truth.size * (PIXEL_SCALE / 60) ** 2


def make_field(options: FieldOptions) -> Field:
    """Simulate a field and bring its exposures onto the patch grid.

    Parameters
    ----------
    options : `FieldOptions`
        Which field.

    Returns
    -------
    field : `Field`
        The exposures and the truth.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = str(Path(folder) / "repo")
        Butler.makeRepo(root)
        with Butler.from_config(root, writeable=True) as butler:
            tract = register_tract(
                butler,
                _SKYMAP,
                ra=150.0,
                dec=2.0,
                pixel_scale=PIXEL_SCALE,
                patch_size=options.size - 2 * _BORDER,
                patch_border=_BORDER,
                cell_size=64,
                n_patches=(1, 1),
            )
            geometry = PatchGeometry.from_tract(tract, 0)
            config = SimulationConfig(
                skymap=_SKYMAP,
                seed=options.seed,
                n_visits=options.visits if options.design_visits is None else options.design_visits,
                noise_seed=options.noise_seed,
            )
            if options.wide:
                catalog, roles, groups = None, None, None
            else:
                catalog, roles, groups = _design(config, geometry, options)
                config = dataclasses.replace(config, catalog=catalog)
            config = dataclasses.replace(
                config,
                band=options.band,
                n_visits=options.visits,
                first_visit=options.first_visit,
                color=options.color,
            )
            simulate_exposures(butler, config)
            result = BuildStackTask().run(_handles(butler), geometry, config.band)
            data_id = {"skymap": _SKYMAP, "tract": 0, "patch": 0, "band": config.band}
            table = butler.get(
                "truth_catalog",
                data_id,
                collections=config.collection,
            )
            truth = butler.get(
                "truth_image",
                data_id,
                collections=config.collection,
            )
    table["x"] -= geometry.outer_bbox.x.start
    table["y"] -= geometry.outer_bbox.y.start
    table["role"] = roles[table["id"]] if roles is not None else _natural_roles(table)
    table["group"] = groups[table["id"]] if groups is not None else np.full(len(table), -1)
    return Field(
        options=options,
        stack=result.stack,
        truth=truth.array,
        catalog=table,
        stamps=_galaxy_stamps(table, geometry),
        seeing=float(np.median(result.seeing)),
    )


def _handles(butler: Butler) -> list:
    """Return deferred handles of all visit images."""
    with butler.query() as query:
        refs = list(query.datasets("visit_image", collections="sim").with_dimension_records())
    return [butler.getDeferred(ref) for ref in refs]


def _coadd_sigma(config: SimulationConfig, geometry: PatchGeometry) -> tuple[float, float]:
    """Predict the noise of PSF fluxes on the reference coadd, nJy, and the
    median FWHM of the visits' PSFs, pixels: from the visits' seeing and sky
    brightness only.
    """
    box = geometry.outer_bbox
    center = geometry.sky_projection.pixel_to_sky(x=box.x.center, y=box.y.center)
    ids = range(config.first_visit, config.first_visit + config.n_visits)
    visits = [SimulatedVisit.draw(config, visit, center) for visit in ids]
    weights = np.array([visit.sky_sigma**-2 for visit in visits])
    offset = np.arange(-20, 21)
    radius2 = offset[:, None] ** 2 + offset**2
    psf = np.zeros(radius2.shape)
    # The pixel makes a profile a bit wider.
    widths = [float(np.hypot(visit.seeing / PIXEL_SCALE, 0.8)) for visit in visits]
    for width, weight in zip(widths, weights, strict=True):
        alpha = width / 2 / np.sqrt(2 ** (1 / config.moffat_beta) - 1)
        profile = (1 + radius2 / alpha**2) ** -config.moffat_beta
        psf += weight / weights.sum() * profile / profile.sum()
    sigma = 1 / np.sqrt(weights.sum() * np.sum(psf**2))
    return float(sigma), float(np.median(widths))


def _design(
    config: SimulationConfig, geometry: PatchGeometry, options: FieldOptions
) -> tuple[astropy.table.Table, np.ndarray, np.ndarray]:
    """Lay out the sources of a field.

    Returns
    -------
    catalog : `astropy.table.Table`
        The sources; ``id`` counts the rows.
    roles, groups : `numpy.ndarray`
        Role and group of each row.
    """
    rng = np.random.default_rng([options.seed, 20260])
    sigma, seeing = _coadd_sigma(config, geometry)
    share = (options.size / 512) ** 2
    count = [max(1, round(share * n)) for n in (_POINTS_PER_BIN, _GALAXIES_PER_BIN, _PAIRS, _FAINT_POINTS)]

    side = int((options.size - 2 * _MARGIN) // _SPACING) + 1
    steps = np.linspace(_MARGIN, options.size - 1 - _MARGIN, side)
    places = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    places += rng.uniform(-_JITTER, _JITTER, places.shape)
    rng.shuffle(places)
    bright = _bright_places(rng, options.size, round(share * len(_BRIGHT_MAGNITUDES)))
    distance = np.linalg.norm(places[:, None] - bright, axis=-1).min(axis=1, initial=np.inf)
    free = places[distance > _BRIGHT_RADIUS].tolist()
    if len(free) < count[2] + len(_DRAWN_SNR) * (count[0] + count[1]):
        raise ValueError(f"{options.size} pixels are too few for the sources to measure; 192 are enough.")

    rows: list[tuple[float, float, float, str, str, int]] = []
    for k, (x, y) in enumerate(bright):
        flux = 10 ** (0.4 * (_AB_ZERO_POINT - _BRIGHT_MAGNITUDES[k]))
        rows.append((x, y, flux, "star", "bright", -1))
    for group in range(count[2]):
        x, y = free.pop()
        snr = np.exp(rng.uniform(*np.log((25.0, 90.0))))
        apart, angle = rng.uniform(0.6, 1.0) * seeing, rng.uniform(0, 2 * np.pi)
        ratio = rng.uniform(0.8, 1.25)
        for sign, factor in ((-0.5, np.sqrt(ratio)), (0.5, 1 / np.sqrt(ratio))):
            dx, dy = sign * apart * np.cos(angle), sign * apart * np.sin(angle)
            rows.append((x + dx, y + dy, snr * factor * sigma, "star", "pair", group))
    for low, high in _DRAWN_SNR:
        for kind, role, n in (("star", "point", count[0]), ("galaxy", "galaxy", count[1])):
            for snr in np.exp(rng.uniform(np.log(low), np.log(high), n)):
                x, y = free.pop()
                rows.append((x, y, snr * sigma, kind, role, -1))
    # What is left of the places of a small field.
    for snr in rng.uniform(*_FAINT_SNR, min(count[3], len(free))):
        x, y = free.pop()
        rows.append((x, y, snr * sigma, "star", "point", -1))
    placed = _catalog(rows, config, geometry, seeing)
    natural = _natural(config, geometry, _NATURAL_SNR * sigma)
    catalog = astropy.table.vstack([placed, natural], metadata_conflicts="silent")
    catalog["id"] = np.arange(len(catalog))
    roles = np.array([row[4] for row in rows] + ["natural"] * len(natural))
    groups = np.array([row[5] for row in rows] + [-1] * len(natural))
    return catalog, roles, groups


def _bright_places(rng: np.random.Generator, size: int, n: int) -> np.ndarray:
    """Draw places of the saturating stars, far from each other."""
    places: list[np.ndarray] = []
    while len(places) < n:
        place = rng.uniform(50, size - 51, 2)
        if all(np.linalg.norm(place - other) > 3 * _BRIGHT_RADIUS for other in places):
            places.append(place)
    return np.array(places).reshape(-1, 2)


def _catalog(
    rows: Sequence[tuple[float, float, float, str, str, int]],
    config: SimulationConfig,
    geometry: PatchGeometry,
    seeing: float,
) -> astropy.table.Table:
    """Make a catalog of sources at given places.

    Galaxies get sizes and shapes of those of the random sky that are nearest
    in brightness, and are brighter than the given flux by as much as their
    size makes the noise under them larger than under a point.
    """
    box = geometry.outer_bbox
    x, y, flux = (np.array([row[k] for row in rows]) for k in range(3))
    kind = np.array([row[3] for row in rows])
    sky = geometry.sky_projection.pixel_to_sky(x=x + box.x.start, y=y + box.y.start)
    table = astropy.table.Table({"ra": sky.ra.deg, "dec": sky.dec.deg, "flux_nJy": flux, "kind": kind})
    radius = 60.0
    drawn = random_sky(dataclasses.replace(config, galaxy_density=5.0), geometry, radius)
    # Of those that fit between their neighbors.
    fits = (drawn["kind"] == "galaxy") & (drawn["half_light_radius"] < _LARGEST_GALAXY * PIXEL_SCALE)
    drawn = drawn[fits]
    models = np.zeros(len(table), dtype=int)
    unused = np.ones(len(drawn), dtype=bool)
    for i in np.flatnonzero(kind == "galaxy"):
        mismatch = np.where(unused, np.abs(np.log(np.asarray(drawn["flux_nJy"]) / flux[i])), np.inf)
        models[i] = np.argmin(mismatch)
        unused[models[i]] = False
    for name in ("half_light_radius", "sersic_n", "axis_ratio", "position_angle"):
        default = 1.0 if name == "axis_ratio" else 0.0
        table[name] = np.where(kind == "galaxy", np.asarray(drawn[name])[models], default)
    # Of Gaussians: the noise grows as the width.
    width = table["half_light_radius"] / PIXEL_SCALE / 1.18 / (seeing / 2.355)
    table["flux_nJy"] = flux * np.sqrt(1 + width**2)
    return complete_catalog(table)


def _natural(config: SimulationConfig, geometry: PatchGeometry, brightest: float) -> astropy.table.Table:
    """Draw the galaxies of the random sky that are fainter than a flux, on
    the patch and a bit around it.
    """
    magnitude = _AB_ZERO_POINT - 2.5 * np.log10(brightest)
    limits = (magnitude, magnitude + _NATURAL_RANGE)
    box = geometry.outer_bbox
    radius = 0.5 * np.hypot(*box.shape) * PIXEL_SCALE + 5.0
    sky = random_sky(dataclasses.replace(config, galaxy_magnitudes=limits), geometry, radius)
    # The range of random_sky is closed by galaxies alone.
    sky = sky[sky["kind"] == "galaxy"]
    x, y, _ = locate(sky, geometry.sky_projection)
    return sky[box.dilated_by(20).contains(x=x, y=y)]


def _natural_roles(table: astropy.table.Table) -> np.ndarray:
    """Tell which sources of a random sky are isolated."""
    x, y, flux = (np.asarray(table[name]) for name in ("x", "y", "flux_nJy"))
    extent = 2 * np.asarray(table["half_light_radius"]) / PIXEL_SCALE
    roles = np.where(table["kind"] == "star", "point", "galaxy").astype("U7")
    for n in range(len(table)):
        near = np.hypot(x - x[n], y - y[n]) < _ISOLATION + extent + extent[n]
        if flux[near].sum() > (1 + _NEIGHBORS) * flux[n]:
            roles[n] = "natural"
    magnitude = _AB_ZERO_POINT - 2.5 * np.log10(flux)
    roles[(table["kind"] == "star") & (magnitude < _SATURATING)] = "bright"
    return roles


def _galaxy_stamps(
    table: astropy.table.Table, geometry: PatchGeometry, radius: int = 32
) -> dict[int, np.ndarray]:
    """Draw the truth image of each isolated galaxy alone."""
    stamps = {}
    for i in np.flatnonzero(table["role"] == "galaxy"):
        image = np.pad(draw_truth(table[i : i + 1], geometry), radius)
        row, column = round(table["y"][i]), round(table["x"][i])
        stamps[int(i)] = image[row : row + 2 * radius + 1, column : column + 2 * radius + 1]
    return stamps


def counts(field: Field) -> dict[str, float]:
    """Count the sources of a field.

    Parameters
    ----------
    field : `Field`
        The field.

    Returns
    -------
    counts : `dict` [`str`, `float`]
        Stars and galaxies per square arcminute brighter than 22, 24 and 26
        mag.
    """
    magnitude = _AB_ZERO_POINT - 2.5 * np.log10(u.Quantity(field.catalog["flux_nJy"]).value)
    return {
        f"{kind}<{limit}": float(np.sum((field.catalog["kind"] == kind) & (magnitude < limit)) / field.area)
        for kind in ("star", "galaxy")
        for limit in (22, 24, 26)
    }
