# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Options and random numbers of a simulation."""

from __future__ import annotations

__all__ = ("AB_ZERO_POINT", "BANDS", "SimulationConfig", "Stream")

import dataclasses
import enum

import astropy.table
import numpy as np

BANDS = ("u", "g", "r", "i", "z", "y")
"""Bands for which sources have colors, from blue to red."""

AB_ZERO_POINT = 31.4
"""AB magnitude of 1 nJy."""


class Stream(enum.IntEnum):
    """The independent streams of random numbers of a simulation."""

    STARS = 0
    GALAXIES = 1
    BRIGHT_STARS = 2
    DETECTOR = 3
    VISIT = 4
    PSF = 5
    PIXELS = 6
    NOISE = 7
    COLOR = 8


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SimulationConfig:
    """Options of `simulate_exposures`.

    Parameters
    ----------
    skymap, tract, patch : `str`, `int`, `int`
        The patch to point at; its tract must have been registered.
    band : `str`
        Band of the exposures.
    tract_collection : `str`
        Collection with the pixel geometry of the tract.
    collection : `str`
        CHAINED collection to make.  The datasets go to ``<collection>/run``.
    instrument : `str`
        Name of the camera; its physical filters are ``<instrument>-<band>``.
    seed : `int`
        Seed of everything random, at least 0.
    n_visits : `int`
        Number of visits.
    first_visit : `int`
        ID of the first visit; the others follow.  Two simulations in one
        repository (of two bands, for example) need different IDs.  The random
        numbers of a visit depend on its ID: more visits do not change the first
        ones.
    begin : `str`
        Start of the first visit, ISO format, TAI.  There is one visit per
        night.
    exposure_time : `float`
        Exposure time, s.
    detectors : `tuple` [`int`, `int`]
        Number of detectors along x and y.
    detector_size : `int` or `None`
        Height and width of a detector, pixels, at least 16.  `None` makes the
        camera 25 % wider than the patch, so that it covers nearly all of it at
        any rotation.
    detector_gap : `int`
        Gap between detectors, pixels.
    pixel_scale : `float`
        Size of a camera pixel at the optical axis, arcsec.
    distortion : `float`
        Radial distortion at the corner of the camera, as a fraction of its
        distance from the axis.
    dither_radius : `float`
        Visits point at random positions within this distance from the center
        of the patch, arcsec.
    rotations : `tuple` [`float`, `float`]
        Range of the camera's rotation, degrees.
    psf : `str`
        Model of the PSF: ``piff`` (Moffat profile whose size and shape vary
        over each detector in second order), ``kernel`` (pixels that vary over
        each detector in first order) or ``gaussian`` (round and constant over
        each detector).
    seeing_range : `tuple` [`float`, `float`]
        Range of the visits' seeing (FWHM of the PSF at the optical axis without
        the pixel response), arcsec.
    moffat_beta : `float`
        Exponent of the Moffat profile of the PSF, above 1.  GalSim draws
        profiles with 2.5, 3.5 and 4.5 several times faster than others.
    psf_variation : `float`
        Amplitude of the variation over the camera of the PSF's size
        (relative) and of its ellipticity (absolute).
    psf_loss : `float`
        Fraction of the flux that may fall outside of the stamp of the stored
        PSF, and of the stamps of sources.
    depth : `float`
        AB magnitude of a point source of 5 sigma in a typical visit with 0.7
        arcsec of seeing, sky noise only.
    sky_brightness : `float`
        Typical brightness of the sky, AB mag / arcsec**2.  With ``depth`` it
        sets the gain.
    sky_scatter, zero_point_scatter : `float`
        Scatter of sky brightness and zero point between visits, mag.
    calibration_error : `float`
        Scatter of the relative flux error between visits.
    full_well : `float`
        Electrons at which a pixel saturates, sky included.
    sky_residual : `float`
        Amplitude of the second-order residual background, in units of the sky
        noise per pixel.
    bad_columns : `float`
        Average number of dead columns (BAD) of a detector.
    hot_pixels : `float`
        Hot pixels (BAD) per million pixels.
    cosmic_rays : `float`
        Cosmic rays per million pixels of a visit.
    unmasked_cosmic_rays : `float`
        Fraction of the cosmic rays that is missing in the mask.
    noise : `bool`
        Whether to add noise to the image.  The variance does not depend on it.
    noise_seed : `int` or `None`
        Seed of the photon noise: two simulations that differ only in it have
        the same sky, PSFs, detector effects and cosmic rays.  `None` draws the
        noise with ``seed``.
    star_density, galaxy_density : `float`
        Numbers of stars and galaxies relative to those in the notes of
        `random_sky`.
    star_magnitudes, galaxy_magnitudes : `tuple` [`float`, `float`]
        Brightest and faintest AB magnitude of the random sources.
    bright_stars : `int`
        Number of additional stars of 15 to 18 mag within the patch; with the
        defaults the brighter ones are saturated.
    warps : `bool`
        Whether to write warps on the patch's grid, too.
    color : `tuple` [`float`, `float`]
        Mean and scatter over the sources of the color between neighboring
        bands of u, g, r, i, z and y, mag; positive for sources that are
        brighter in the redder band.  Magnitudes and fluxes of other options
        are those in i.  A source has the same color in all bands simulated
        with the same ``seed`` and catalog.
    catalog : `astropy.table.Table` or `None`
        Sources to draw instead of a random sky; see `complete_catalog` for the
        columns.

    Raises
    ------
    ValueError
        Raised if an option is out of range.
    """

    skymap: str
    tract: int = 0
    patch: int = 0
    band: str = "i"
    tract_collection: str = "skymaps"
    collection: str = "sim"
    instrument: str = "SimCam"
    seed: int = 0
    n_visits: int = 8
    first_visit: int = 1
    begin: str = "2025-11-20T02:00:00"
    exposure_time: float = 30.0
    detectors: tuple[int, int] = (2, 2)
    detector_size: int | None = None
    detector_gap: int = 20
    pixel_scale: float = 0.2
    distortion: float = 0.01
    dither_radius: float = 10.0
    rotations: tuple[float, float] = (0.0, 360.0)
    psf: str = "piff"
    seeing_range: tuple[float, float] = (0.5, 0.95)
    moffat_beta: float = 3.5
    psf_variation: float = 0.04
    psf_loss: float = 5e-4
    depth: float = 24.5
    sky_brightness: float = 20.0
    sky_scatter: float = 0.25
    zero_point_scatter: float = 0.1
    calibration_error: float = 0.0
    full_well: float = 1e5
    sky_residual: float = 0.05
    bad_columns: float = 1.0
    hot_pixels: float = 100.0
    cosmic_rays: float = 60.0
    unmasked_cosmic_rays: float = 0.1
    noise: bool = True
    noise_seed: int | None = None
    star_density: float = 1.0
    galaxy_density: float = 1.0
    star_magnitudes: tuple[float, float] = (15.0, 26.0)
    galaxy_magnitudes: tuple[float, float] = (18.0, 26.5)
    bright_stars: int = 3
    warps: bool = False
    color: tuple[float, float] = (0.0, 0.0)
    catalog: astropy.table.Table | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.psf not in ("piff", "kernel", "gaussian"):
            problems.append(f"psf must be piff, kernel or gaussian, not {self.psf!r}")
        for name in ("n_visits", "exposure_time", "pixel_scale", "full_well", "psf_loss"):
            if getattr(self, name) <= 0:
                problems.append(f"{name} must be positive, not {getattr(self, name)}")
        for name in (
            *("seed", "first_visit", "detector_gap", "dither_radius", "psf_variation", "sky_scatter"),
            *("zero_point_scatter", "calibration_error", "sky_residual", "bad_columns", "hot_pixels"),
            *("cosmic_rays", "unmasked_cosmic_rays", "star_density", "galaxy_density", "bright_stars"),
        ):
            if getattr(self, name) < 0:
                problems.append(f"{name} must not be negative, but is {getattr(self, name)}")
        for name in ("seeing_range", "rotations", "star_magnitudes", "galaxy_magnitudes"):
            low, high = getattr(self, name)
            if low > high:
                problems.append(f"{name} goes from {low} down to {high}")
        if self.seeing_range[0] <= 0:
            problems.append("the seeing must be positive")
        if min(self.detectors) < 1 or (self.detector_size is not None and self.detector_size < 16):
            problems.append("the camera needs at least one detector of at least 16 pixels a side")
        if self.moffat_beta <= 1:
            problems.append("a Moffat profile with moffat_beta <= 1 has no finite flux")
        if self.noise_seed is not None and self.noise_seed < 0:
            problems.append(f"noise_seed must not be negative, but is {self.noise_seed}")
        if self.color[1] < 0:
            problems.append(f"the scatter of the colors must not be negative, but is {self.color[1]}")
        if any(self.color) and self.band not in BANDS:
            problems.append(f"with colors, band must be one of {', '.join(BANDS)}, not {self.band!r}")
        if self.unmasked_cosmic_rays > 1:
            problems.append("unmasked_cosmic_rays is a fraction")
        if problems:
            raise ValueError(f"Cannot simulate: {'; '.join(problems)}.")

    @property
    def physical_filter(self) -> str:
        """Name of the physical filter (`str`)."""
        return f"{self.instrument}-{self.band}"

    @property
    def run(self) -> str:
        """RUN collection of the datasets (`str`)."""
        return f"{self.collection}/run"

    def generator(self, stream: Stream, *key: int) -> np.random.Generator:
        """Make the generator of an independent stream of random numbers.

        Parameters
        ----------
        stream : `Stream`
            Purpose of the stream.
        *key : `int`
            IDs that distinguish streams of one purpose, for example those of
            visit and detector.

        Returns
        -------
        generator : `numpy.random.Generator`
            The generator; it depends only on seed, stream and key.
        """
        seed = self.seed if stream != Stream.NOISE or self.noise_seed is None else self.noise_seed
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, *key)))
