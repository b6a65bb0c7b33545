# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""True images at a given PSF, and images brought to it."""

from __future__ import annotations

__all__ = ("blur", "bring_to", "convolve_truth", "truth_at", "widen")

from typing import TYPE_CHECKING

import numpy as np
import scipy.fft
import scipy.ndimage

if TYPE_CHECKING:
    from .fields import Field

_SIGMA_TO_FWHM = float(np.sqrt(8 * np.log(2)))

# Pixel truths share each bit of flux bilinearly (`draw_truth`): their PSF is a
# triangle of variance 1/6 pixel**2 on each axis.
_TRIANGLE_FWHM = _SIGMA_TO_FWHM / float(np.sqrt(6))


def blur(image: np.ndarray, fwhm: float) -> np.ndarray:
    """Convolve with a Gaussian.

    Parameters
    ----------
    image : `numpy.ndarray`
        Image, shape ``(height, width)``; pixels that are missing count as zero
        and stay missing.
    fwhm : `float`
        Full width at half maximum of the Gaussian, pixels.

    Returns
    -------
    blurred : `numpy.ndarray`
        The convolution, same shape.
    """
    missing = ~np.isfinite(image)
    blurred = scipy.ndimage.gaussian_filter(
        np.where(missing, 0, image).astype(np.float64), fwhm / _SIGMA_TO_FWHM, mode="constant", truncate=6
    )
    blurred[missing] = np.nan
    return blurred


def widen(fwhm: float, target: float) -> float:
    """Return the FWHM of the Gaussian that turns one Gaussian into a wider
    one (`float`, pixels); 0 if it is not wider.
    """
    return float(np.sqrt(max(target**2 - fwhm**2, 0.0)))


def bring_to(image: np.ndarray, fwhm: float, target: float) -> np.ndarray:
    """Blur an image to a resolution.

    Parameters
    ----------
    image : `numpy.ndarray`
        Image, shape ``(height, width)``.
    fwhm, target : `float`
        Its resolution and the one to bring it to, FWHM in pixels.

    Returns
    -------
    image : `numpy.ndarray`
        The blurred image, or the image as it is where it is not sharper.
    """
    by = widen(fwhm, target)
    return blur(image, by) if by > 0 else image


def truth_at(field: Field, fwhm: float) -> np.ndarray:
    """Draw the true sky of a simulated field at a Gaussian PSF.

    Parameters
    ----------
    field : `Field`
        The field.
    fwhm : `float`
        Full width at half maximum of the PSF, more than 1 pixel, pixels.

    Returns
    -------
    image : `numpy.ndarray`
        Flux per pixel, nJy, shape of the patch.

    Notes
    -----
    Stars are drawn where they are: in the pixel truth their width depends on
    the fraction of a pixel that they are at.  What remains of the pixel truth
    is blurred by the Gaussian that turns its triangle's variance into that of
    the PSF.
    """
    catalog = field.catalog
    stars = catalog[catalog["kind"] == "star"]
    rest = field.truth.astype(np.float64)
    drawn = np.zeros_like(rest)
    sigma = fwhm / _SIGMA_TO_FWHM
    for x, y, flux in zip(*(np.asarray(stars[name]) for name in ("x", "y", "flux_nJy")), strict=True):
        column, row = int(np.floor(x)), int(np.floor(y))
        right, up = x - column, y - row
        for i, j, share in (
            (row, column, (1 - up) * (1 - right)),
            (row, column + 1, (1 - up) * right),
            (row + 1, column, up * (1 - right)),
            (row + 1, column + 1, up * right),
        ):
            if 0 <= i < rest.shape[0] and 0 <= j < rest.shape[1]:
                rest[i, j] -= share * flux
        add_gaussian(drawn, x, y, flux, sigma)
    return blur(rest, widen(_TRIANGLE_FWHM, fwhm)) + drawn


def add_gaussian(image: np.ndarray, x: float, y: float, flux: float, sigma: float) -> None:
    """Add a Gaussian sampled at pixel centers to an image, in place.

    Parameters
    ----------
    image : `numpy.ndarray`
        Image, shape ``(height, width)``.
    x, y : `float`
        Position, pixels.
    flux : `float`
        Its flux, unit of the pixels.
    sigma : `float`
        Its standard deviation, pixels.
    """
    reach = int(np.ceil(6 * sigma)) + 1
    rows = slice(max(round(y) - reach, 0), max(round(y) + reach + 1, 0))
    columns = slice(max(round(x) - reach, 0), max(round(x) + reach + 1, 0))
    part = image[rows, columns]
    if part.size:
        row, column = np.arange(part.shape[0]) + rows.start, np.arange(part.shape[1]) + columns.start
        profile = np.outer(*(np.exp(-((r - r0) ** 2) / (2 * sigma**2)) for r, r0 in ((row, y), (column, x))))
        part += flux / (2 * np.pi * sigma**2) * profile


def convolve_truth(stamp: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve a pixel truth with a PSF, and take its own triangle out.

    Parameters
    ----------
    stamp : `numpy.ndarray`
        Pixel truth, shape ``(height, width)``.
    kernel : `numpy.ndarray`
        PSF, shape ``(k, k)``, ``k`` odd, well sampled.

    Returns
    -------
    image : `numpy.ndarray`
        Image at that PSF, shape of ``stamp``.
    """
    size = len(kernel)
    shape = [scipy.fft.next_fast_len(n + size, real=True) for n in stamp.shape]
    padded = np.zeros(shape)
    padded[:size, :size] = kernel
    transfer = scipy.fft.rfft2(np.roll(padded, (-(size // 2), -(size // 2)), axis=(0, 1)))
    triangle = np.outer(np.sinc(scipy.fft.fftfreq(shape[0])), np.sinc(scipy.fft.rfftfreq(shape[1]))) ** 2
    image = scipy.fft.irfft2(scipy.fft.rfft2(stamp, s=shape) * transfer / triangle, s=shape)
    return image[: stamp.shape[0], : stamp.shape[1]]
