# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sources that an image shows and the sky does not have, and flux that the
exposures contradict.
"""

from __future__ import annotations

__all__ = ("FALSE_BINS", "Peaks", "find_false", "find_peaks")

import dataclasses

import numpy as np
import scipy.ndimage
from scipy.signal import fftconvolve

from lsst.drp.restore.restoration.target_psf import TARGET_FWHM
from lsst.drp.restore.stack.kernel_shape import gaussian_kernel

from .peers import divide_kernels
from .sky_image import SkyImage
from .true_images import bring_to

FALSE_BINS = ((3.0, 5.0), (5.0, 10.0), (10.0, np.inf))
"""Bins of the signal-to-noise ratio that false sources claim."""

_FALSE_RADIUS = 2  # in which the sky is looked at, pixels
_FALSE_RATIO = 3.0  # claimed flux over the true one, from which on it is false
_DENIED = -3.0  # residual in sigma of a point's flux below which flux is contradicted
_SHARP = 1.2  # FWHM over the target's of an image that is not a coadd
_EDGE = 16
_AREA = 512**2


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Peaks:
    """Local maxima of an image, as point sources.

    Parameters
    ----------
    rows, columns : `numpy.ndarray`
        Their pixels, shape ``(n,)``.
    flux : `numpy.ndarray`
        Height over that of a point source of unit flux, shape ``(n,)``.
    """

    rows: np.ndarray
    columns: np.ndarray
    flux: np.ndarray


def find_peaks(flux: np.ndarray, faintest: float) -> Peaks:
    """Find the local maxima of an image.

    Parameters
    ----------
    flux : `numpy.ndarray`
        Pixels over the height of a point source of unit flux, shape
        ``(height, width)``.
    faintest : `float`
        Smallest flux.

    Returns
    -------
    peaks : `Peaks`
        Pixels that are the brightest of the 3x3 around them, 16 pixels away
        from the edges.
    """
    highest = (scipy.ndimage.maximum_filter(flux, 3) == flux) & (flux >= faintest)
    inside = np.zeros_like(highest)
    inside[_EDGE:-_EDGE, _EDGE:-_EDGE] = True
    rows, columns = np.nonzero(highest & inside)
    return Peaks(rows=rows, columns=columns, flux=flux[rows, columns])


def find_false(image: np.ndarray, width: float, truth: np.ndarray, measured: SkyImage) -> dict[str, float]:
    """Count false sources and contradicted flux.

    Parameters
    ----------
    image : `numpy.ndarray`
        Image, shape ``(height, width)``.
    width : `float`
        FWHM of its PSF, pixels: sharper images are brought to the target PSF,
        coadds are filtered with theirs.
    truth : `numpy.ndarray`
        The sky at the target PSF, same shape.
    measured : `SkyImage`
        The proper coadd: a sufficient statistic of all exposures, with white
        noise and a PSF that does not vary.

    Returns
    -------
    results : `dict` [`str`, `float`]
        ``false 3`` and so on: number on 512x512 pixels of peaks that claim the
        flux of a point source of a signal-to-noise ratio (of the proper coadd)
        in a bin, where the truth, within 2 pixels and at the same PSF, has
        less than a third of it. ``denied``: per cent of the pixels at
        which the flux of the residual, proper coadd minus prediction of the
        image, is below -3 sigma (0.13 for noise); ``deepest``, the lowest of
        these residuals, sigma.  NaN for coadds.
    """
    if measured.kernels is None or measured.variance is None:
        raise ValueError("The proper coadd must state its variance and PSF.")
    kernel = measured.kernels.mean(axis=(0, 1)).astype(float)
    sigma = float(np.sqrt(np.median(measured.variance) / np.sum(kernel**2)))
    sharp = width <= _SHARP * TARGET_FWHM
    image, resolution = bring_to(image, width, TARGET_FWHM), max(width, TARGET_FWHM)
    profile = gaussian_kernel(resolution, len(kernel))
    pixels = image
    if not sharp:
        # Single pixels of a coadd are noise: the fluxes that its PSF fits.
        pixels = fftconvolve(image, profile, mode="same")
        resolution *= np.sqrt(2)
        profile = gaussian_kernel(resolution, len(kernel))
    peaks = find_peaks(pixels / profile.max(), FALSE_BINS[0][0] * sigma)
    expected = bring_to(truth, TARGET_FWHM, resolution) / profile.max()
    around = scipy.ndimage.maximum_filter(expected, 2 * _FALSE_RADIUS + 1)
    false = peaks.flux > _FALSE_RATIO * around[peaks.rows, peaks.columns]
    claimed = peaks.flux[false] / sigma
    searched = (image.shape[0] - 2 * _EDGE) * (image.shape[1] - 2 * _EDGE)
    results = {
        f"false {low:.0f}": float(np.sum((claimed >= low) & (claimed < high))) * _AREA / searched
        for low, high in FALSE_BINS
    }
    if not sharp:
        return results | {"denied": np.nan, "deepest": np.nan}
    residual = measured.image - fftconvolve(image, divide_kernels(kernel, profile), mode="same")
    flipped = kernel[::-1, ::-1]
    noise = np.sqrt(fftconvolve(measured.variance, flipped**2, mode="same"))
    significance = (fftconvolve(residual, flipped, mode="same") / noise)[_EDGE:-_EDGE, _EDGE:-_EDGE]
    return results | {
        "denied": 100 * float(np.mean(significance < _DENIED)),
        "deepest": float(significance.min()),
    }
