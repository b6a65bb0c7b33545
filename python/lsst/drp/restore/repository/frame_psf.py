# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The PSF of an image, measured from its own stars by Piff."""

from __future__ import annotations

__all__ = ("StarPsf", "TooFewStarsError", "measure_star_psf")

import dataclasses
import math

import numpy as np

from lsst.images import Box
from lsst.images.psfs import PiffWrapper

from ..stack.kernel_shape import fwhm
from .frame_estimates import estimate_sky

# Stars have at least this ratio of flux to its error.
_MIN_SIGNIFICANCE = 20.0
# Brighter ones count no more in the search for the size of stars.
_BRIGHT_SIGNIFICANCE = 200.0

# Half-light radii of stars are within this ratio; pixels.  Smaller ones than the
# second number are those of cosmic rays and hot pixels.
_RADIUS_RATIO = 1.15
_SMALLEST_RADIUS = 0.8

# Numbers of stars: smallest, those from which the PSF varies in the image by a
# polynomial of order 1 and 2, and largest, of the brightest.
_MIN_STARS = 3
_ORDER_STARS = (15, 50)
_MAX_STARS = 60

# Widths of the kernels, pixels: that of a restoration's kernels to the largest,
# as a multiple of the FWHM between.
_SMALLEST_KERNEL = 25
_LARGEST_KERNEL = 31
_KERNEL_WIDTHS = 6.0

# Pixels around a star's center that must all be valid.
_CORE = 4

# Radius in which the light of a star is measured to find its half-light radius,
# pixels.
_LIGHT_RADIUS = 12.0

# Error of the PSF model as a fraction of a star's pixel: without it, the brightest
# stars would fit worst, and be left out.
_MODEL_ERROR = 0.02

# Piff leaves out stars that fit worse than this many sigma, of each pass at most
# this fraction.
_OUTLIER_SIGMA = 4.0
_OUTLIER_FRACTION = 0.1


class TooFewStarsError(ValueError):
    """An image has too few stars to measure its PSF."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StarPsf:
    """A PSF measured from stars.

    Parameters
    ----------
    psf : `lsst.images.psfs.PiffWrapper`
        The PSF.
    n_stars : `int`
        Number of stars that it was fitted to.
    order : `int`
        Order of the polynomial in the position.
    fwhm : `float`
        FWHM in the middle of the image, pixels.
    """

    psf: PiffWrapper
    n_stars: int
    order: int
    fwhm: float


def measure_star_psf(image: np.ndarray, variance: np.ndarray, bad: np.ndarray, bounds: Box) -> StarPsf:
    """Measure the PSF from the stars of an image.

    Parameters
    ----------
    image : `numpy.ndarray`
        Pixels in any unit, shape ``(height, width)``.  A background is removed.
    variance : `numpy.ndarray`
        Their variance, same shape.
    bad : `numpy.ndarray` of `bool`
        Pixels to ignore, such as saturated ones, same shape.
    bounds : `lsst.images.Box`
        The pixels of the image.

    Returns
    -------
    star_psf : `StarPsf`
        The PSF, a kernel on the image's pixels.

    Raises
    ------
    TooFewStarsError
        Raised if there are fewer than 3 stars.

    Notes
    -----
    Stars are bright objects that are not saturated with half-light radii in
    the interval that has most significance per area.  Pixels of other objects
    have no weight.
    """
    import galsim
    import piff

    good = ~bad & np.isfinite(image) & np.isfinite(variance) & (variance > 0.0)
    if not good.any():
        raise TooFewStarsError("it has no valid pixel")
    pixels = np.where(good, image - estimate_sky(image, good).level, 0.0)
    scale = float(np.sqrt(np.median(variance[good])))
    pixels, variance = pixels / scale, np.where(good, variance / scale**2, np.inf)
    stars = _find_stars(pixels, variance, good)
    if len(stars.x) < _MIN_STARS:
        raise TooFewStarsError(f"{len(stars.x)} stars found, of at least {_MIN_STARS}")

    # Twice the half-light radius is about the FWHM of a Gaussian.
    size = math.ceil(_KERNEL_WIDTHS * 2.0 * float(np.median(stars.radius))) | 1
    size = min(max(size, _SMALLEST_KERNEL), _LARGEST_KERNEL)
    order = sum(len(stars.x) >= n for n in _ORDER_STARS)
    psf = piff.SimplePSF(
        piff.PixelGrid(scale=1.0, size=size),
        piff.BasisPolynomial(order=order, keys=("x", "y")),
        outliers=piff.ChisqOutliers(nsigma=_OUTLIER_SIGMA, max_remove=_OUTLIER_FRACTION),
    )
    stamps = [
        _stamp(pixels, variance, stars.segments, number, x, y, size // 2 + 1)
        for number, x, y in zip(stars.number, stars.x, stars.y, strict=True)
    ]
    try:
        psf.fit(stamps, {0: galsim.PixelScale(1.0)}, None)
    except (RuntimeError, ValueError, np.linalg.LinAlgError) as error:
        raise TooFewStarsError(f"Piff cannot fit its {len(stamps)} stars ({error})") from error
    n_stars = sum(not star.is_flagged for star in psf.stars)
    # Not to be stored with the image.
    psf.stars, psf.outliers = [], None
    wrapper = PiffWrapper(psf, bounds, size)
    width = fwhm(wrapper.compute_kernel_image(x=bounds.x.center, y=bounds.y.center).array)
    if not width > 0.0:
        raise TooFewStarsError(f"the fit to its {n_stars} stars is not a PSF")
    return StarPsf(psf=wrapper, n_stars=n_stars, order=order, fwhm=width)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Stars:
    """Stars of an image: their numbers in an image of segments, positions and
    half-light radii, pixels.
    """

    segments: np.ndarray
    number: np.ndarray
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray


def _find_stars(pixels: np.ndarray, variance: np.ndarray, good: np.ndarray) -> _Stars:
    """Find the stars, at most a number of the brightest."""
    import sep

    error = np.where(good, np.sqrt(np.where(good, variance, 1.0)), 1.0)
    objects, segments = sep.extract(pixels, 3.0, err=error, mask=~good, minarea=5, segmentation_map=True)
    number = np.arange(1, len(objects) + 1)
    flux, flux_error, _ = sep.sum_circle(
        pixels,
        objects["x"],
        objects["y"],
        _LIGHT_RADIUS / 2,
        err=error,
        mask=~good,
        segmap=segments,
        seg_id=number,
    )
    radius, _ = sep.flux_radius(
        pixels,
        objects["x"],
        objects["y"],
        np.full(len(objects), _LIGHT_RADIUS),
        0.5,
        mask=~good,
        segmap=segments,
        seg_id=number,
    )
    x, y = np.rint(objects["x"]).astype(int), np.rint(objects["y"]).astype(int)
    inside = (x >= _CORE) & (y >= _CORE) & (x < pixels.shape[1] - _CORE) & (y < pixels.shape[0] - _CORE)
    usable = inside & (flux > _MIN_SIGNIFICANCE * flux_error) & (radius > _SMALLEST_RADIUS)
    for k in np.flatnonzero(usable):
        core = (slice(y[k] - _CORE, y[k] + _CORE + 1), slice(x[k] - _CORE, x[k] + _CORE + 1))
        usable[k] = good[core].all() and not np.any((segments[core] != 0) & (segments[core] != number[k]))
    chosen = np.flatnonzero(usable)
    chosen = chosen[_stellar(radius[chosen], flux[chosen] / flux_error[chosen])]
    chosen = chosen[np.argsort(-flux[chosen])][:_MAX_STARS]
    return _Stars(segments=segments, number=number[chosen], x=x[chosen], y=y[chosen], radius=radius[chosen])


def _stellar(radius: np.ndarray, significance: np.ndarray) -> np.ndarray:
    """Return which objects are stars: those in the interval of radii, of a given
    ratio, with the largest sum of significance per area.  Stars are the
    smallest objects, and the most numerous bright ones of one size.
    """
    if not len(radius):
        return np.zeros(0, dtype=bool)
    inside = (radius >= radius[:, np.newaxis]) & (radius <= _RADIUS_RATIO * radius[:, np.newaxis])
    score = inside @ np.minimum(significance, _BRIGHT_SIGNIFICANCE) / radius**2
    return inside[np.argmax(score)]


def _stamp(
    pixels: np.ndarray, variance: np.ndarray, segments: np.ndarray, number: int, x: int, y: int, reach: int
) -> object:
    """Return the image of a star for Piff; pixels of others have no weight."""
    import galsim
    import piff

    bounds = galsim.BoundsI(x - reach, x + reach, y - reach, y + reach)
    image, weight = galsim.ImageD(bounds, init_value=0.0), galsim.ImageD(bounds, init_value=0.0)
    rows = slice(max(y - reach, 0), min(y + reach + 1, pixels.shape[0]))
    columns = slice(max(x - reach, 0), min(x + reach + 1, pixels.shape[1]))
    part = (rows, columns)
    inner = (
        slice(rows.start - y + reach, rows.stop - y + reach),
        slice(columns.start - x + reach, columns.stop - x + reach),
    )
    own = (segments[part] == 0) | (segments[part] == number)
    image.array[inner] = pixels[part]
    total = variance[part] + (_MODEL_ERROR * pixels[part]) ** 2
    weight.array[inner] = np.where(own, 1.0 / total, 0.0)
    for plane in (image, weight):
        plane.wcs = galsim.PixelScale(1.0)
    return piff.Star(piff.StarData(image, galsim.PositionD(x, y), weight=weight), None)
