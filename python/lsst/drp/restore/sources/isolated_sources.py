# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Aperture fluxes and moments of sources whose neighbors are subtracted."""

from __future__ import annotations

__all__ = ("IsolatedSources", "measure_isolated")

import dataclasses

import numpy as np

from ..stack.kernel_shape import kernel_moments
from .cell_psf import CellPsf
from .psf_photometry import PsfPhotometry
from .source_image import SourceImage, nearest_pixel

# Half of the size of the square in which moments are measured, pixels: several
# times the width of the weight, and no larger, as the background is not exact.
_SHAPE_RADIUS = 10

# Inner and outer radius of the ring of the background, pixels beyond the
# aperture: the wings of the PSF are faint there.
_RING = (2.0, 7.0)

# Smallest number of pixels of a ring whose median is better than the background
# of the PSF fit.
_MIN_RING_PIXELS = 30


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class IsolatedSources:
    """Measurements of sources without their neighbors.

    Parameters
    ----------
    flux, flux_err : `numpy.ndarray`
        Flux in a circular aperture above the local background, divided by the
        fraction of the PSF's flux in the aperture, and its standard deviation,
        nJy, shape ``(n,)``; NaN where pixels of the aperture are missing.
    moments, psf_moments : `numpy.ndarray`
        Second moments xx, yy and xy of the source and of the PSF in its cell,
        pixels**2, shape ``(n, 3)``; NaN where the measurement fails.
    """

    flux: np.ndarray
    flux_err: np.ndarray
    moments: np.ndarray
    psf_moments: np.ndarray


def measure_isolated(
    measured: SourceImage, psf: CellPsf, photometry: PsfPhotometry, *, aperture_radius: float
) -> IsolatedSources:
    """Measure each source on the image minus all others.

    Parameters
    ----------
    measured : `SourceImage`
        The image.
    psf : `CellPsf`
        Its PSF.
    photometry : `PsfPhotometry`
        The sources fitted to it.
    aperture_radius : `float`
        Radius of the aperture, pixels.

    Returns
    -------
    isolated : `IsolatedSources`
        The measurements; NaN for sources without a PSF flux.
    """
    n = len(photometry.x)
    row, column = nearest_pixel(photometry.x, photometry.y, measured.image.shape)
    flux, error = np.full(n, np.nan), np.full(n, np.nan)
    moments, psf_moments = np.full((n, 3), np.nan), np.full((n, 3), np.nan)
    of_cell: dict[tuple[int, int], tuple[float, float, float]] = {}
    for k, (i, j) in enumerate(zip(*psf.cell_of(photometry.x, photometry.y), strict=True)):
        if not np.isfinite(photometry.flux[k]):
            continue
        if (i, j) not in of_cell:
            of_cell[i, j] = kernel_moments(psf.kernels[i, j])
        psf_moments[k] = of_cell[i, j]
        one = slice(k, k + 1)
        stamp = psf.stamps(photometry.x[one], photometry.y[one])[0, 0]
        flux[k], error[k], moments[k] = _measure_one(
            measured, photometry, k, row[k], column[k], stamp, aperture_radius
        )
    return IsolatedSources(flux=flux, flux_err=error, moments=moments, psf_moments=psf_moments)


def _measure_one(
    measured: SourceImage,
    photometry: PsfPhotometry,
    k: int,
    row: int,
    column: int,
    stamp: np.ndarray,
    aperture: float,
) -> tuple[float, float, tuple[float, float, float]]:
    """Return the aperture flux of a source, its error, and its moments."""
    import sep

    ring = aperture + _RING[0], aperture + _RING[1]
    radius = int(np.ceil(ring[1])) + 1
    image = _cutout(photometry.residual, row, column, radius, np.nan)
    variance = _cutout(measured.variance, row, column, radius, np.nan)
    own = _cutout(stamp, stamp.shape[0] // 2, stamp.shape[1] // 2, radius, 0.0)
    good = np.isfinite(image) & np.isfinite(variance)
    offset = np.arange(-radius, radius + 1)
    dx, dy = photometry.x[k] - column, photometry.y[k] - row
    distance = np.hypot(offset - dx, (offset - dy)[:, np.newaxis])
    around = good & (distance >= ring[0]) & (distance < ring[1])
    many = np.count_nonzero(around) > _MIN_RING_PIXELS
    level = float(np.median(image[around])) if many else photometry.background[k]
    alone = image - level + photometry.flux[k] * own

    inner = slice(max(radius - _SHAPE_RADIUS, 0), radius + _SHAPE_RADIUS + 1)
    moments = (np.nan, np.nan, np.nan)
    if good[inner, inner].all():
        moments = kernel_moments(alone[inner, inner])

    if not good[distance < aperture + 1].all():
        return np.nan, np.nan, moments
    place = (np.array([radius + dx]), np.array([radius + dy]), aperture)
    total, noise, fraction = (
        float(sep.sum_circle(np.ascontiguousarray(pixels, np.float64), *place, subpix=0)[0][0])
        for pixels in (np.where(good, alone, 0), np.where(good, variance, 0), own)
    )
    # The variance of a median is pi/2 times that of a mean.
    noise += (np.pi * aperture**2) ** 2 * np.pi / 2 * np.mean(variance[around]) / max(around.sum(), 1)
    return total / fraction, float(np.sqrt(noise)) / fraction, moments


def _cutout(image: np.ndarray, row: int, column: int, radius: int, outside: float) -> np.ndarray:
    """Cut a square out of an image, padded where it reaches beyond it."""
    result = np.full((2 * radius + 1, 2 * radius + 1), outside)
    y0, x0 = max(row - radius, 0), max(column - radius, 0)
    part = image[y0 : row + radius + 1, x0 : column + radius + 1]
    y, x = y0 - row + radius, x0 - column + radius
    result[y : y + part.shape[0], x : x + part.shape[1]] = part
    return result
