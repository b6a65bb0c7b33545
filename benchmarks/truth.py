# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What there is to be found in a field, by what the reference coadd tells of
it.
"""

from __future__ import annotations

__all__ = ("APERTURE", "PSF_RADIUS", "Truth", "empty_positions")

import dataclasses

import numpy as np
from scipy.signal import fftconvolve

from lsst.drp.restore.outputs.image_quality import sky_noise, star_fwhm
from lsst.drp.restore.stack.reference_coadd import reference_coadd

from .fields import PIXEL_SCALE, Field
from .photometry import psf_flux, psf_stamp
from .robust import median
from .sky_image import Cutout

APERTURE = 5.0
"""Radius of the apertures in empty sky, and of those around sources in images
that state no PSF, pixels.
"""

PSF_RADIUS = 10
"""Half of the size of the stamps in which PSFs are fitted, pixels."""

_BRIGHT_RADIUS = 60.0  # around saturating stars nothing is measured, pixels
_EDGE = 16  # and near the edges of the patch, pixels
_EMPTY_DISTANCE = 12.0
_EMPTY_SNR = 1.0
_FAINT_SNR = 20.0  # below which the noise is that of the sky


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Truth:
    """The truth of a field, and its reference coadd.

    Parameters
    ----------
    field : `Field`
        The field, whose stack is not used.
    snr : `numpy.ndarray`
        Signal-to-noise ratio of each source of the catalog on the reference
        coadd: flux over the uncertainty of fitting its true profile and a
        constant background there.  Of the faint natural galaxies, the PSF.
    usable : `numpy.ndarray`
        `bool`: sources away from the edges and from saturating stars.
    optimal : `numpy.ndarray`
        Flux of each isolated point that the PSF of the reference coadd fits
        to it, nJy; NaN for others.
    softening : `float`
        Standard deviation of the sky on the reference coadd, nJy.
    reference_fwhm : `float`
        FWHM of stars on the reference coadd, pixels.
    empty : `numpy.ndarray`
        Positions x, y in empty sky, shape ``(n, 2)``.
    far : `numpy.ndarray`
        `bool`, shape of the patch: pixels away from edges and saturating
        stars.
    point_sigma : `float`
        Standard deviation of the fluxes of faint points on the reference
        coadd, nJy.
    """

    field: Field
    snr: np.ndarray
    usable: np.ndarray
    optimal: np.ndarray
    softening: float
    reference_fwhm: float
    empty: np.ndarray
    far: np.ndarray
    point_sigma: float

    @classmethod
    def of(cls, field: Field) -> Truth:
        """Measure the reference coadd at the true positions.

        Parameters
        ----------
        field : `Field`
            The field.

        Returns
        -------
        truth : `Truth`
            The truth.
        """
        stack, catalog = field.stack, field.catalog
        coadd = reference_coadd(stack)
        x, y = np.asarray(catalog["x"]), np.asarray(catalog["y"])
        flux, role = np.asarray(catalog["flux_nJy"]), np.asarray(catalog["role"])
        snr, optimal = np.zeros(len(catalog)), np.full(len(catalog), np.nan)
        for n in range(len(catalog)):
            stamp = psf_stamp(coadd.kernels, stack.cell_shape, x[n], y[n], PSF_RADIUS)
            if n in field.stamps:
                i, j = round(y[n]) // stack.cell_shape[0], round(x[n]) // stack.cell_shape[1]
                profile = fftconvolve(field.stamps[n], coadd.kernels[i, j], mode="same")
                middle = len(profile) // 2
                part = slice(middle - PSF_RADIUS, middle + PSF_RADIUS + 1)
                stamp = profile[part, part] / flux[n]
            measured, sigma = psf_flux(coadd.image, coadd.variance, x[n], y[n], stamp)
            snr[n] = flux[n] / sigma if np.isfinite(sigma) else np.nan
            if role[n] == "point":
                optimal[n] = measured
        with np.errstate(invalid="ignore", divide="ignore"):
            sigmas = (flux / snr)[(role != "galaxy") & (snr < _FAINT_SNR)]
        bright = np.stack([x, y], axis=1)[role == "bright"]
        rows, columns = np.indices(field.truth.shape)
        far = np.zeros(field.truth.shape, dtype=bool)
        far[_EDGE:-_EDGE, _EDGE:-_EDGE] = True
        for bx, by in bright:
            far &= np.hypot(columns - bx, rows - by) > _BRIGHT_RADIUS
        row = np.clip(np.rint(y).astype(int), 0, far.shape[0] - 1)
        column = np.clip(np.rint(x).astype(int), 0, far.shape[1] - 1)
        usable = far[row, column] & np.isfinite(snr)
        stars = (role == "point") & usable & (snr > 50)
        widths = [star_fwhm(coadd.image, x[n], y[n]) for n in np.flatnonzero(stars)]
        # Brighter sources have wings that reach further, and the isolated
        # galaxies wings beyond those of the PSF.
        extent = 2 * np.log2(np.maximum(np.nan_to_num(snr, nan=1e4) / 2, 1.0))
        extent += np.where(role == "galaxy", 2 * catalog["half_light_radius"] / PIXEL_SCALE, 0.0)
        disturbing = np.stack([x, y, extent], axis=1)[~(snr < _EMPTY_SNR)]
        return cls(
            field=field,
            snr=snr,
            usable=usable,
            optimal=optimal,
            softening=sky_noise(coadd.image),
            reference_fwhm=median(np.array(widths)),
            empty=empty_positions(disturbing, far, seed=field.options.seed),
            far=far,
            point_sigma=median(sigmas),
        )

    def isolated(self, role: str, low: float, high: float = np.inf) -> list[int]:
        """Choose isolated sources.

        Parameters
        ----------
        role : `str`
            ``point`` or ``galaxy``.
        low, high : `float`
            Range of their signal-to-noise ratio.

        Returns
        -------
        rows : `list` [`int`]
            Rows of the catalog of the usable ones.
        """
        chosen = (self.field.catalog["role"] == role) & self.usable & (self.snr >= low) & (self.snr < high)
        return [int(n) for n in np.flatnonzero(chosen)]

    def regions(self) -> dict[str, np.ndarray]:
        """Choose pixels to test stated uncertainties on.

        Returns
        -------
        regions : `dict` [`str`, `numpy.ndarray`]
            `bool`, shape of the patch: ``empty``, sky without sources;
            ``points`` and ``galaxies``, within two pixels of isolated ones of
            more than 10 sigma.
        """
        catalog = self.field.catalog
        rows, columns = np.indices(self.far.shape)
        regions = {
            "empty": self.far.copy(),
            "points": np.zeros_like(self.far),
            "galaxies": np.zeros_like(self.far),
        }
        names = {"point": "points", "galaxy": "galaxies"}
        for x, y, role, extent, snr in zip(
            *(np.asarray(catalog[name]) for name in ("x", "y", "role", "half_light_radius")),
            self.snr,
            strict=True,
        ):
            distance = np.hypot(columns - x, rows - y)
            if not snr < _EMPTY_SNR:
                regions["empty"] &= distance > 10.0 + 20.0 * extent
            if role in names and snr > 10.0:
                regions[names[role]] |= distance <= 2.0
        for name in names.values():
            regions[name] &= self.far
        return regions

    def crowded(self, size: int) -> Cutout:
        """Choose a part of the patch with many sources.

        Parameters
        ----------
        size : `int`
            Its height and width, pixels.

        Returns
        -------
        cutout : `Cutout`
            The part, away from edges and saturating stars, with the most
            isolated sources and pairs of S/N over 10.
        """
        catalog = self.field.catalog
        chosen = self.usable & (self.snr > 10) & (catalog["role"] != "natural")
        x, y = np.asarray(catalog["x"])[chosen], np.asarray(catalog["y"])[chosen]
        # All sources must be well inside.
        margin = min(8, size // 4)
        best, found = Cutout(row=0, column=0, size=size), -1
        for row in range(0, self.far.shape[0] - size + 1, 8):
            for column in range(0, self.far.shape[1] - size + 1, 8):
                inside = (x >= column + margin) & (x < column + size - margin)
                inside &= (y >= row + margin) & (y < row + size - margin)
                cutout = Cutout(row=row, column=column, size=size)
                if inside.sum() > found and (self.far[cutout.slices].all() or found < 0):
                    best, found = cutout, int(inside.sum())
        return best

    def slim(self) -> Truth:
        """Return the truth without the exposures, which are large (`Truth`)."""
        stack = self.field.stack
        part = dataclasses.replace(
            stack,
            image=stack.image[:1],
            variance=stack.variance[:1],
            good=stack.good[:1],
            kernels=stack.kernels[:1],
            correlation=stack.correlation[:1],
            names=stack.names[:1],
        )
        return dataclasses.replace(self, field=dataclasses.replace(self.field, stack=part))


def empty_positions(sources: np.ndarray, allowed: np.ndarray, *, seed: int, n: int = 300) -> np.ndarray:
    """Draw positions in empty sky.

    Parameters
    ----------
    sources : `numpy.ndarray`
        Positions x, y of the sources to avoid, and how much further than from
        others to keep from them, pixels, shape ``(m, 3)``.
    allowed : `numpy.ndarray`
        `bool`, shape ``(height, width)``: where a position may be.
    seed : `int`
        Seed.
    n : `int`, optional
        Largest number of positions; apertures do not overlap.

    Returns
    -------
    positions : `numpy.ndarray`
        Positions x, y, shape ``(at most n, 2)``.
    """
    rng = np.random.default_rng([seed, 5])
    rows, columns = np.nonzero(allowed)
    order = rng.permutation(len(rows))
    candidates = np.stack([columns[order], rows[order]], axis=1).astype(float)
    for x, y, extent in sources:
        candidates = candidates[np.hypot(*(candidates - (x, y)).T) >= _EMPTY_DISTANCE + extent]
    chosen: list[np.ndarray] = []
    free = np.ones(len(candidates), dtype=bool)
    for k, candidate in enumerate(candidates):
        if len(chosen) == n:
            break
        if free[k]:
            chosen.append(candidate)
            free &= np.hypot(*(candidates - candidate).T) >= 2 * APERTURE
    return np.array(chosen).reshape(-1, 2)
