# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Width, moments and profile of a PSF kernel.

The adaptive moments of `galsim.hsm` do not replace these functions.  The width
that follows from them is that of the best Gaussian: 11 % above the full width
at half maximum for a Moffat profile with an exponent of 3.5, 16 % with 2.5.
The moments are as precise for stars in noise (within 20 %), and for profiles
of more than 2.2 pixels they depend less on the position in the pixel.  Below,
where restored images are, the adaptation collapses: for 1 position in 3 at a
full width of 1.9 pixels, for 8 in 10 at 1.5, for all at 1.0.
"""

from __future__ import annotations

__all__ = ("FWHM_PER_SIGMA", "fwhm", "gaussian_kernel", "gaussian_profile", "kernel_moments", "moffat")

import numpy as np
import scipy.ndimage
import scipy.optimize

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
"""FWHM of a Gaussian over its standard deviation."""


def gaussian_profile(distance: np.ndarray, fwhm: float) -> np.ndarray:
    """Evaluate a Gaussian profile whose peak is 1.

    Parameters
    ----------
    distance : `numpy.ndarray`
        Distance from its center, pixels.
    fwhm : `float`
        Full width at half maximum, pixels.

    Returns
    -------
    profile : `numpy.ndarray`
        ``exp(-4 ln(2) (d / fwhm)**2)``, shape of ``distance``.
    """
    return np.exp(-4.0 * np.log(2.0) * (distance / fwhm) ** 2)


def moffat(parameters: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Evaluate an elliptical Moffat profile whose peak is 1.

    Parameters
    ----------
    parameters : `numpy.ndarray`
        Full width at half maximum (pixels), exponent, and the two components
        of the ellipticity, below 1 together, shape ``(4,)``.
    y, x : `numpy.ndarray`
        Distance from its center, pixels.

    Returns
    -------
    profile : `numpy.ndarray`
        ``(1 + (2**(1/beta) - 1) (2 r / fwhm)**2)**-beta``, ``r`` being the
        elliptical radius that keeps the area.
    """
    width, beta, e1, e2 = parameters
    unit = np.sqrt(1.0 - e1**2 - e2**2)
    radius2 = ((1.0 - e1) * x**2 + (1.0 + e1) * y**2 - 2.0 * e2 * x * y) / unit
    return (1.0 + (2.0 ** (1.0 / beta) - 1.0) * radius2 / (0.5 * width) ** 2) ** -beta


def gaussian_kernel(fwhm: float, size: int = 25) -> np.ndarray:
    """Draw a round Gaussian.

    Parameters
    ----------
    fwhm : `float`
        Full width at half maximum, pixels.
    size : `int`, optional
        Height and width of the kernel, odd, pixels.

    Returns
    -------
    kernel : `numpy.ndarray`
        Kernel centered on its middle pixel, with sum 1, `numpy.float64`, shape
        ``(size, size)``.
    """
    profile = gaussian_profile(np.arange(size) - size // 2, fwhm)
    kernel = np.outer(profile, profile)
    return kernel / kernel.sum()


def kernel_moments(kernel: np.ndarray) -> tuple[float, float, float]:
    """Measure the second moments of a kernel.

    Parameters
    ----------
    kernel : `numpy.ndarray`
        Kernel, shape ``(k, k)``.

    Returns
    -------
    xx, yy, xy : `float`
        Moments about the centroid under a circular Gaussian weight of the
        kernel's own width, corrected for that weight as if the kernel were a
        Gaussian, pixels**2; NaN where that fails.  Unweighted moments would
        be those of the noise and the truncation of the wings.
    """
    failed = (np.nan, np.nan, np.nan)
    kernel = np.asarray(kernel, dtype=np.float64)
    if not np.isfinite(kernel).all() or kernel.max() <= 0.0:
        return failed
    row, column = (int(index) for index in np.unravel_index(np.argmax(kernel), kernel.shape))
    y, x = np.indices(kernel.shape, dtype=np.float64)
    x0, y0 = float(column), float(row)
    variance = (_area_width(kernel, row, column) / FWHM_PER_SIGMA) ** 2
    for _ in range(10):
        weighted = kernel * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / variance)
        weighted /= weighted.sum()
        x0, y0 = float((weighted * x).sum()), float((weighted * y).sum())
    dx, dy = x - x0, y - y0
    xx, yy, xy = (weighted * dx * dx).sum(), (weighted * dy * dy).sum(), (weighted * dx * dy).sum()
    measured = np.array([[xx, xy], [xy, yy]])
    if not np.isfinite(measured).all() or not _is_positive(measured):
        return failed
    # A Gaussian times a Gaussian: the inverse covariances add.
    inverse = np.linalg.inv(measured) - np.eye(2) / variance
    if not _is_positive(inverse):
        return failed
    moments = np.linalg.inv(inverse)
    return float(moments[0, 0]), float(moments[1, 1]), float(moments[0, 1])


def _is_positive(matrix: np.ndarray) -> bool:
    """Tell whether a symmetric 2x2 matrix is positive definite."""
    return bool(matrix[0, 0] > 0.0 and np.linalg.det(matrix) > 0.0)


def _area_width(stamp: np.ndarray, row: int, column: int) -> float:
    """Return the diameter of the circle with the area of the pixels around a
    peak that are above half of it, pixels: a rough width.
    """
    regions, _ = scipy.ndimage.label(stamp > 0.5 * stamp[row, column])
    return float(2.0 * np.sqrt(np.count_nonzero(regions == regions[row, column]) / np.pi))


def fwhm(kernel: np.ndarray) -> float:
    """Measure the full width at half maximum of a PSF or a star.

    Parameters
    ----------
    kernel : `numpy.ndarray`
        Image of a point source without background, shape ``(h, w)``, with
        its peak in the middle half of the stamp (off the pixel center by any
        fraction).  Pixels further from the peak than 1.5 times the width do
        not matter: other sources may be there.

    Returns
    -------
    fwhm : `float`
        Full width at half maximum, pixels, of the elliptical Moffat profile
        that fits best: the geometric mean of its largest and its smallest
        width.  NaN if the stamp has pixels that are not finite or no positive
        peak, or if the fit fails.

    Notes
    -----
    The fit is to the values at the pixel centers, so the width is that of the
    image as it is, pixel response included, and it is right even where the
    pixels are too coarse for an interpolation of the profile (a Gaussian of
    1.5 pixels, for example, as in restored images).  Widths below half a
    pixel cannot be told apart and are returned as half a pixel.
    """
    stamp = np.asarray(kernel, dtype=np.float64)
    if not np.isfinite(stamp).all():
        return np.nan
    quarter = [n // 4 for n in stamp.shape]
    middle = stamp[quarter[0] : stamp.shape[0] - quarter[0], quarter[1] : stamp.shape[1] - quarter[1]]
    row, column = (
        int(index) + start
        for index, start in zip(np.unravel_index(np.argmax(middle), middle.shape), quarter, strict=True)
    )
    peak = stamp[row, column]
    if peak <= 0.0:
        return np.nan
    # A first guess, to choose the pixels of the fit.
    guess = _area_width(stamp, row, column)
    y, x = np.indices(stamp.shape, dtype=np.float64)
    used = np.hypot(x - column, y - row) <= max(2.5, 1.5 * guess)
    x, y, values = x[used] - column, y[used] - row, stamp[used] / peak

    def residual(parameters: np.ndarray) -> np.ndarray:
        amplitude, x0, y0 = parameters[:3]
        return amplitude * moffat(parameters[3:], y - y0, x - x0) - values

    limit = 1.5 * max(stamp.shape)
    fit = scipy.optimize.least_squares(
        residual,
        x0=[1.0, 0.0, 0.0, min(guess, limit), 3.0, 0.0, 0.0],
        bounds=([0.1, -1.0, -1.0, 0.5, 1.1, -0.6, -0.6], [10.0, 1.0, 1.0, 2.0 * limit, 100.0, 0.6, 0.6]),
    )
    return float(fit.x[3]) if fit.success else np.nan
