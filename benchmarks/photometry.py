# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fluxes of sources at known positions."""

from __future__ import annotations

__all__ = ("aperture_flux", "psf_flux", "psf_stamp", "shift_kernel")

import numpy as np
import numpy.typing as npt
import scipy.fft

# Of the local background of an aperture, pixels.
_RING = (8.0, 13.0)


def shift_kernel(kernel: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """Shift a well-sampled kernel by a part of a pixel.

    Parameters
    ----------
    kernel : `numpy.ndarray`
        Kernel, shape ``(k, k)``, ``k`` odd.
    dx, dy : `float`
        Shift, pixels, at most half a pixel.

    Returns
    -------
    shifted : `numpy.ndarray`
        The kernel, shifted by the phases of its Fourier transform.
    """
    fx, fy = scipy.fft.rfftfreq(kernel.shape[1]), scipy.fft.fftfreq(kernel.shape[0])
    phase = np.exp(-2j * np.pi * (fx * dx + fy[:, np.newaxis] * dy))
    return scipy.fft.irfft2(scipy.fft.rfft2(np.asarray(kernel, float)) * phase, s=kernel.shape)


def psf_stamp(
    kernels: np.ndarray, cell_shape: tuple[int, int], x: float, y: float, radius: int
) -> np.ndarray:
    """Draw the stated PSF at a position.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        Kernels by cell, shape ``(cells_y, cells_x, k, k)``.
    cell_shape : `tuple` [`int`, `int`]
        Height and width of a cell, pixels.
    x, y : `float`
        Position, pixels.
    radius : `int`
        Half of the size of the stamp, pixels.

    Returns
    -------
    stamp : `numpy.ndarray`
        Image of a point source of unit flux, shape ``(2*radius+1,
        2*radius+1)``; its middle is the pixel nearest to the position.
    """
    column, row = round(x), round(y)
    i = min(max(row // cell_shape[0], 0), kernels.shape[0] - 1)
    j = min(max(column // cell_shape[1], 0), kernels.shape[1] - 1)
    shifted = shift_kernel(kernels[i, j], x - column, y - row)
    half = len(shifted) // 2
    shifted = np.pad(shifted, max(0, radius - half))
    middle = len(shifted) // 2
    return shifted[middle - radius : middle + radius + 1, middle - radius : middle + radius + 1]


def psf_flux(
    image: np.ndarray, variance: np.ndarray, x: float, y: float, stamp: np.ndarray
) -> tuple[float, float]:
    """Fit the flux of a source of known profile, and a constant background.

    Parameters
    ----------
    image, variance : `numpy.ndarray`
        Image and its variance, shape ``(height, width)``.
    x, y : `float`
        Position of the source, pixels.
    stamp : `numpy.ndarray`
        Its profile for unit flux around the nearest pixel, shape ``(2*r+1,
        2*r+1)``.

    Returns
    -------
    flux, sigma : `float`
        The flux and its standard deviation if the pixels are independent; NaN
        where more than a few of the pixels under the source are missing.
    """
    radius = len(stamp) // 2
    column, row = round(x), round(y)
    if not (radius <= row < image.shape[0] - radius and radius <= column < image.shape[1] - radius):
        return np.nan, np.nan
    part = (slice(row - radius, row + radius + 1), slice(column - radius, column + radius + 1))
    pixels, noise = image[part], variance[part]
    valid = np.isfinite(pixels) & np.isfinite(noise) & (noise > 0)
    if stamp[valid].sum() < 0.9 * stamp.sum():
        return np.nan, np.nan
    weight = 1.0 / noise[valid].astype(float)
    profile, values = stamp[valid], pixels[valid].astype(float)
    # Normal equations of flux and background.
    a, b, c = np.sum(weight * profile**2), np.sum(weight * profile), np.sum(weight)
    d, e = np.sum(weight * profile * values), np.sum(weight * values)
    determinant = a * c - b * b
    return float((c * d - b * e) / determinant), float(np.sqrt(c / determinant))


def aperture_flux(
    image: np.ndarray,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    radius: float,
    ring: tuple[float, float] = _RING,
) -> np.ndarray:
    """Sum circular apertures above the local background.

    Parameters
    ----------
    image : `numpy.ndarray`
        Image, shape ``(height, width)``.
    x, y : array-like
        Centers, pixels; one number or shape ``(n,)``.
    radius : `float`
        Radius of the apertures, pixels.
    ring : `tuple` [`float`, `float`], optional
        Radii of the ring whose mean is the background.

    Returns
    -------
    flux : `numpy.ndarray`
        Fluxes, shape ``(n,)``; NaN where a pixel of the aperture is missing or
        the ring is not on the image.
    """
    import sep

    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    missing = ~np.isfinite(image)
    pixels = np.ascontiguousarray(np.where(missing, 0, image), dtype=np.float64)
    lacking = np.ascontiguousarray(missing, dtype=np.float64)
    total, _, _ = sep.sum_circle(pixels, x, y, radius, subpix=0)
    hole, _, _ = sep.sum_circle(lacking, x, y, radius, subpix=0)
    around, _, _ = sep.sum_circann(pixels, x, y, *ring, subpix=0)
    ring_hole, _, _ = sep.sum_circann(lacking, x, y, *ring, subpix=0)
    ring_area = np.pi * (ring[1] ** 2 - ring[0] ** 2) - ring_hole
    with np.errstate(invalid="ignore", divide="ignore"):
        flux = total - np.pi * radius**2 * around / ring_area
    reach = ring[1] + 1
    inside = (x >= reach) & (x < image.shape[1] - reach) & (y >= reach) & (y < image.shape[0] - reach)
    return np.where(inside & (hole < 1e-6) & (ring_area > 100), flux, np.nan)
