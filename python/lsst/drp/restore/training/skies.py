# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Random skies to train on: smooth and clumpy galaxies, with bars, arms and
companions, and star densities from the Galactic pole to the bulge.

Fluxes are in units of the standard deviation of the sky noise in a pixel,
lengths in pixels.  All distributions are wider than those of any survey, so
that the network does not depend on them.
"""

from __future__ import annotations

__all__ = ("draw_sky",)

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import galsim

# FWHM of a Gaussian over its standard deviation.
_FWHM_PER_SIGMA = 2.3548

# Galaxies below this signal-to-noise ratio are drawn as round Gaussians: their
# shapes cannot be measured.
_FAINT = 2.0

# Signal-to-noise ratio of the faintest galaxies.
_FAINTEST = 0.5

# Truncation radius of profiles with bright wings, half-light radii.
_TRUNCATION = 8.0

_SERSIC_INDICES = (0.5, 0.8, 1.0, 1.5, 2.5, 4.0)


def draw_sky(rng: np.random.Generator, size: int, target_fwhm: float, seeing: float) -> np.ndarray:
    """Draw a random sky at the target resolution.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Random numbers.
    size : `int`
        Height and width, pixels.
    target_fwhm : `float`
        FWHM of the Gaussian PSF that the sky is drawn with, pixels.
    seeing : `float`
        FWHM of the PSF of the observation, pixels, by which signal-to-noise
        ratios are converted to fluxes.

    Returns
    -------
    sky : `numpy.ndarray`
        Flux per pixel in units of the noise, `numpy.float32`, shape ``(size,
        size)``.
    """
    sky = np.zeros((size, size))
    sigma = target_fwhm / _FWHM_PER_SIGMA
    # Flux of a point source with a signal-to-noise ratio of 1.
    unit = np.sqrt(4 * np.pi) * seeing / _FWHM_PER_SIGMA
    area = size**2 / 1e4
    crowded = rng.random() < 0.15
    _draw_galaxies(rng, sky, sigma, seeing, area * (0.3 if crowded else 1.0))

    # Field stars, from the poles to the bulge.
    density = 10 ** (rng.uniform(1.0, 2.3) if crowded else rng.uniform(-1.5, 1.0))
    number = rng.poisson(density * area)
    slope = rng.uniform(0.5, 1.3)
    snr = np.minimum(rng.uniform(0.5, 3.0) * rng.random(number) ** (-1 / slope), 2e4)
    _add_points(sky, rng.uniform(-3, size + 3, (number, 2)), snr * unit, sigma)
    # Bright ones, up to saturation.
    if rng.random() < 0.6:
        number = int(rng.integers(1, 5))
        flux = 10 ** rng.uniform(2, 4.3, number) * unit
        _add_points(sky, rng.uniform(0, size, (number, 2)), flux, sigma)
    # Close pairs and groups.
    if rng.random() < 0.6:
        for _ in range(rng.poisson(rng.uniform(0.5, 5.0) * area)):
            members = rng.choice((2, 2, 2, 3, 4))
            center = rng.uniform(0, size, 2)
            offsets = rng.normal(0, rng.uniform(0.25, 0.9) * seeing / np.sqrt(2), (members, 2))
            flux = 10 ** rng.uniform(0.7, 2.5) * rng.uniform(0.2, 1.0, members) * unit
            _add_points(sky, center + offsets, flux, sigma)
    return sky.astype(np.float32)


def _draw_galaxies(
    rng: np.random.Generator, sky: np.ndarray, sigma: float, seeing: float, area: float
) -> None:
    """Add galaxies; ``area`` is in units of 100x100 pixels."""
    size = len(sky)
    density, slope = 10 ** rng.uniform(0.2, 1.6), rng.uniform(0.6, 1.2)
    number = min(rng.poisson(density * area * (5.0 / _FAINTEST) ** slope), 4000)
    snr = np.minimum(_FAINTEST * rng.random(number) ** (-1 / slope), 3000.0)
    # Brighter galaxies are larger; the scale varies with a survey's pixel size.
    scale = 10 ** rng.uniform(-0.35, 0.35)
    radius = scale * 2.0 * (snr / 20.0) ** 0.15 * np.exp(rng.normal(0, 0.5, number))
    # A few of low surface brightness.
    diffuse = rng.random(number) < 0.03
    radius[diffuse] *= rng.uniform(2, 4, np.count_nonzero(diffuse))
    radius = np.clip(radius, 0.2, 0.1 * size)
    width = np.hypot(seeing / _FWHM_PER_SIGMA, radius / 1.18)
    flux = snr * np.sqrt(4 * np.pi) * width
    places = rng.uniform(-8, size + 8, (number, 2))
    faint = snr < _FAINT
    for place, one, extent in zip(places[faint], flux[faint], radius[faint], strict=True):
        _add_gaussian(sky, place, one, np.hypot(sigma, extent / 1.18))
    for place, one, extent in zip(places[~faint], flux[~faint], radius[~faint], strict=True):
        _draw_galaxy(rng, sky, place, one, extent, sigma)
        if rng.random() < 0.12:
            angle, apart = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 3.0) * extent + 1.0
            other = place + apart * np.array([np.sin(angle), np.cos(angle)])
            share = 10 ** rng.uniform(-1.2, 0.0)
            _draw_galaxy(rng, sky, other, share * one, extent * rng.uniform(0.3, 0.9), sigma)


def _draw_galaxy(
    rng: np.random.Generator, sky: np.ndarray, place: np.ndarray, flux: float, radius: float, sigma: float
) -> None:
    """Add one galaxy of a random kind; ``radius`` is its half-light radius,
    ``sigma`` the standard deviation of the PSF.
    """
    axis_ratio = float(np.clip(1 - abs(rng.normal(0, 0.35)), 0.15, 1.0))
    angle = rng.uniform(0, np.pi)
    kind = rng.random()
    index = float(rng.choice(_SERSIC_INDICES))
    if kind < 0.35:
        _add_sersic(sky, place, flux, index, radius, axis_ratio, angle, sigma)
        return
    # All others have a disc, and most a bulge.
    bulge = rng.uniform(0.02, 0.6) if rng.random() < 0.7 else 0.0
    structure = 0.0 if kind < 0.55 else rng.uniform(0.1, 0.9)
    rest = flux * (1 - bulge)
    if bulge:
        bulge_index = float(rng.choice((1.0, 2.5, 4.0)))
        round_ratio = max(axis_ratio, rng.uniform(0.5, 1.0))
        _add_sersic(
            sky,
            place,
            flux * bulge,
            bulge_index,
            radius * rng.uniform(0.1, 0.5),
            round_ratio,
            angle,
            sigma,
        )
    if structure:
        _add_structure(rng, sky, place, rest * structure, radius, axis_ratio, angle, sigma)
    _add_sersic(sky, place, rest * (1 - structure), 1.0, radius, axis_ratio, angle, sigma)


def _add_structure(
    rng: np.random.Generator,
    sky: np.ndarray,
    place: np.ndarray,
    flux: float,
    radius: float,
    axis_ratio: float,
    angle: float,
    sigma: float,
) -> None:
    """Add clumps, arms or a bar to the plane of a disc."""
    along = np.array([np.sin(angle), np.cos(angle)])
    across = np.array([along[1], -along[0]]) * axis_ratio
    kind = rng.random()
    if kind < 0.55:  # clumps
        number = rng.integers(2, 25)
        r, theta = radius * rng.gamma(2.0, 0.6, number), rng.uniform(0, 2 * np.pi, number)
        shares = rng.random(number) ** -0.8
        widths = np.where(rng.random(number) < 0.5, 0.0, rng.uniform(0.0, 0.4, number) * radius)
    elif kind < 0.85:  # arms
        arms, points = rng.choice((1, 2, 2, 2, 3, 4)), 40
        along_arm = np.tile(np.linspace(0.3, 1.0, points), arms)
        r = radius * (0.2 + 2.0 * along_arm)
        winding = rng.uniform(1.0, 5.0) * rng.choice((-1, 1))
        theta = winding * np.log(r / radius) + np.repeat(np.arange(arms) * 2 * np.pi / arms, points)
        theta += rng.normal(0, 0.12, len(theta))
        shares = np.exp(-1.2 * along_arm) * rng.exponential(1.0, len(r))
        widths = np.full(len(r), rng.uniform(0.05, 0.2) * radius)
    else:  # a bar
        points = 25
        r, theta = radius * rng.uniform(-1, 1, points) * rng.uniform(0.4, 1.2), np.zeros(points)
        theta += rng.uniform(0, np.pi)
        shares = np.ones(points)
        widths = np.full(points, 0.15 * radius)
    offsets = r[:, np.newaxis] * (
        np.cos(theta)[:, np.newaxis] * along + np.sin(theta)[:, np.newaxis] * across
    )
    for offset, share, width in zip(offsets, flux * shares / shares.sum(), widths, strict=True):
        _add_gaussian(sky, place + offset, share, np.hypot(sigma, width))


@functools.cache
def _sersic(index: float) -> galsim.GSObject:
    """Return a profile of unit half-light radius; GalSim tabulates each Sersic
    index once.
    """
    import galsim

    # An error of some thousandths is acceptable for training.
    params = galsim.GSParams(folding_threshold=0.02, maxk_threshold=0.01, maximum_fft_size=16384)
    end = _TRUNCATION if index > 2 else 0.0
    return galsim.Sersic(index, half_light_radius=1.0, trunc=end, gsparams=params)


def _add_sersic(
    sky: np.ndarray,
    place: np.ndarray,
    flux: float,
    index: float,
    radius: float,
    axis_ratio: float,
    angle: float,
    sigma: float,
) -> None:
    """Add a Sersic profile at the target resolution."""
    import galsim

    radius = max(radius, 0.1)
    profile = _sersic(index).dilate(radius).shear(q=axis_ratio, beta=angle * galsim.radians)
    seen = galsim.Convolve(profile, galsim.Gaussian(sigma=sigma)).withFlux(flux)
    extent = (_TRUNCATION if index > 2 else 6.0) * radius / np.sqrt(axis_ratio)
    reach = int(np.clip(extent + 6 * sigma, 8, len(sky)))
    row, column = np.rint(place).astype(int)
    offset = galsim.PositionD(*(place - (row, column))[::-1])
    stamp = galsim.ImageD(2 * reach + 1, 2 * reach + 1)
    seen.drawImage(stamp, scale=1.0, offset=offset, method="no_pixel")
    _add_stamp(sky, stamp.array, row - reach, column - reach)


def _add_points(sky: np.ndarray, places: np.ndarray, fluxes: np.ndarray, sigma: float) -> None:
    """Add point sources at the target resolution."""
    for place, flux in zip(places, fluxes, strict=True):
        _add_gaussian(sky, place, flux, sigma)


def _add_gaussian(sky: np.ndarray, place: np.ndarray, flux: float, sigma: float) -> None:
    """Add a round Gaussian of a flux; ``place`` is its row and column."""
    reach = int(6 * sigma) + 1
    row, column = np.rint(place).astype(int)
    steps = np.arange(-reach, reach + 1)
    down = np.exp(-0.5 * ((steps + row - place[0]) / sigma) ** 2)
    right = np.exp(-0.5 * ((steps + column - place[1]) / sigma) ** 2)
    stamp = np.outer(down * (flux / (2 * np.pi * sigma**2)), right)
    _add_stamp(sky, stamp, row - reach, column - reach)


def _add_stamp(sky: np.ndarray, stamp: np.ndarray, row: int, column: int) -> None:
    """Add a stamp whose first pixel is at a row and column, where it overlaps
    the sky.
    """
    bottom, left = max(row, 0), max(column, 0)
    top, right = min(row + stamp.shape[0], sky.shape[0]), min(column + stamp.shape[1], sky.shape[1])
    if bottom < top and left < right:
        sky[bottom:top, left:right] += stamp[bottom - row : top - row, left - column : right - column]
