# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The sky noise and the bright sources of single exposures, measured without
the other exposures and without trust in the stated variance.
"""

from __future__ import annotations

__all__ = ("Catalog", "ExposureNoise", "measure_catalog", "measure_noise")

import dataclasses

import numpy as np
import scipy.ndimage

from .exposure_stack import ExposureStack, expand_cells
from .kernel_shape import kernel_moments

# Noise is measured in squares of this size, pixels, without known sources; of the squares with at least this
# fraction of usable pixels, the level below which this fraction lies counts: the others have faint sources.
_BLOCK = 32
_MIN_USABLE = 0.5
_QUIET = 0.25

# Pixels per side that are summed for the noise of fluxes: about the area of a PSF.
_BIN = 4

# Sources are found above this many standard deviations of a pixel, in this many pixels, and measured above
# this signal-to-noise ratio.
_THRESHOLD = 5.0
_MIN_AREA = 5
_MIN_SNR = 10.0

# The brightest are measured, and of these the widths of the first.
_MAX_SOURCES = 200
_MAX_WIDTHS = 50

# Half width of the squares in which fluxes are summed, pixels, and pixels beyond a source that may have its
# flux.
_APERTURE = 5
_GROW = 3

# Bad pixels are interpolated where they are further than this from a source's middle, pixels, and fewer than
# this fraction.
_CORE_RADIUS = 2.0
_MAX_BAD = 0.2

# Half width of the stamps to which profiles are fitted, pixels.
_STAMP = 8

_SIGMA_PER_MAD = 1.4826


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExposureNoise:
    """Noise of an exposure's sky over its stated noise.

    Parameters
    ----------
    pixel : `float`
        Scatter of single pixels in units of the root of the variance; NaN
        where no part of the sky is free of sources.
    flux : `float`
        Scatter of sums over 4x4 pixels in units of the root of the sum of
        ``variance`` times ``correlation``; NaN likewise.
    """

    pixel: float
    flux: float


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Catalog:
    """Bright, isolated sources of an exposure, the brightest first.

    Parameters
    ----------
    y, x : `numpy.ndarray`
        Positions, pixels of the patch, shape ``(s,)``.
    flux : `numpy.ndarray`
        Total fluxes, nJy: those in an aperture, over the PSF's fraction in it.
    width_ratio : `numpy.ndarray`
        Width, the root of the second moments, over that of the PSF kernel at
        the place, shape ``(s,)``; NaN where it is not measured.
    variance_rise : `numpy.ndarray`
        Variance in the brightest pixel over that of the sky around it, minus
        1, shape ``(s,)``; NaN where there is no sky around it.
    peak : `numpy.ndarray`
        Flux of the brightest pixel, in units of the sky's stated noise, shape
        ``(s,)``.
    """

    y: np.ndarray
    x: np.ndarray
    flux: np.ndarray
    width_ratio: np.ndarray
    variance_rise: np.ndarray
    peak: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    @property
    def positions(self) -> np.ndarray:
        """Positions in y and x (`numpy.ndarray`, shape ``(s, 2)``)."""
        return np.stack([self.y, self.x], axis=1)


def measure_noise(
    image: np.ndarray, variance: np.ndarray, usable: np.ndarray, correlation: np.ndarray
) -> ExposureNoise:
    """Compare the scatter of an exposure's sky with its variance.

    Parameters
    ----------
    image, variance : `numpy.ndarray`
        Pixels, nJy and nJy**2, shape ``(height, width)``; any values where
        they are not usable.
    usable : `numpy.ndarray`
        `bool`, same shape: good pixels without known sources.
    correlation : `numpy.ndarray`
        Correlation of the noise by pixel (`ExposureStack`), same shape.

    Returns
    -------
    noise : `ExposureNoise`
        The ratios.
    """
    sigma = np.sqrt(np.where(usable, variance, 1.0))
    pixel = _quiet_scatter(np.where(usable, image, 0.0) / sigma, usable, _BLOCK)
    inside = tuple(slice(size - size % _BIN) for size in image.shape)
    full = _bin(usable[inside]) == _BIN**2
    values = _bin(np.where(usable, image, 0.0)[inside])
    power = _bin(np.where(usable, variance * correlation, 0.0)[inside])
    ratio = np.divide(values, np.sqrt(power), out=np.zeros_like(values), where=full)
    # Squares of as many sums, so that as few pixels at the edges are lost.
    return ExposureNoise(pixel=pixel, flux=_quiet_scatter(ratio, full, _BLOCK // 2))


def _bin(array: np.ndarray) -> np.ndarray:
    """Sum squares of `_BIN` pixels a side."""
    height, width = array.shape
    return array.reshape(height // _BIN, _BIN, width // _BIN, _BIN).sum(axis=(1, 3), dtype=np.float64)


def _quiet_scatter(ratio: np.ndarray, usable: np.ndarray, block: int) -> float:
    """Return the robust standard deviation in the quiet squares, NaN if there
    is none.
    """
    scatters = []
    for row in range(0, ratio.shape[0], block):
        for column in range(0, ratio.shape[1], block):
            square = (slice(row, row + block), slice(column, column + block))
            if usable[square].sum() >= _MIN_USABLE * block**2:
                values = ratio[square][usable[square]]
                scatters.append(_SIGMA_PER_MAD * np.median(np.abs(values - np.median(values))))
    return float(np.quantile(scatters, _QUIET)) if scatters else np.nan


def measure_catalog(stack: ExposureStack, t: int) -> tuple[ExposureNoise, Catalog]:
    """Measure the noise and the bright sources of an exposure.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures, sky-subtracted.
    t : `int`
        Index of the exposure.

    Returns
    -------
    noise : `ExposureNoise`
        Its noise over its stated noise.
    catalog : `Catalog`
        Its sources.
    """
    import sep

    good = stack.good[t]
    image = np.where(good, stack.image[t], np.float32(0.0))
    variance = np.where(good, stack.variance[t], np.float32(1.0))
    correlation = expand_cells(stack.correlation[t], stack.cell_shape)
    noise = measure_noise(image, variance, good, correlation)
    # A variance that is wrong must not hide the sources.
    scale = noise.pixel if noise.pixel > 0.0 else 1.0
    sigma = (scale * np.sqrt(np.median(variance[good]) if good.any() else 1.0)).astype(np.float32)
    # The default is for images of some million pixels.
    sep.set_extract_pixstack(max(300000, image.size))
    objects, segments = sep.extract(
        image / sigma, _THRESHOLD, mask=~good, minarea=_MIN_AREA, segmentation_map=True
    )
    sources = scipy.ndimage.binary_dilation(segments > 0, iterations=_GROW) if len(objects) else segments > 0
    empty = good & ~sources
    noise = measure_noise(image, variance, empty, correlation)
    core = slice(_STAMP - _APERTURE, _STAMP + _APERTURE + 1)
    distance = np.hypot(*np.ogrid[-_STAMP : _STAMP + 1, -_STAMP : _STAMP + 1])
    rows: list[tuple[float, ...]] = []
    for index in np.argsort(-objects["flux"], kind="stable"):
        if len(rows) >= _MAX_SOURCES:
            break
        y, x = float(objects["y"][index]), float(objects["x"][index])
        row, column = round(y), round(x)
        height, width = stack.shape
        if not (_STAMP <= row < height - _STAMP and _STAMP <= column < width - _STAMP):
            continue
        stamp = (slice(row - _STAMP, row + _STAMP + 1), slice(column - _STAMP, column + _STAMP + 1))
        others = (segments[stamp] > 0) & (segments[stamp] != index + 1)
        known = good[stamp]
        is_alone = not others[core, core].any()
        is_complete = known[distance <= _CORE_RADIUS].all() and known.mean() > 1.0 - _MAX_BAD
        if not (is_alone and is_complete):
            continue
        pixels = _interpolate(image[stamp], known)
        flux = float(pixels[core, core].sum())
        if flux < _MIN_SNR * float(sigma) * (2 * _APERTURE + 1):
            continue
        kernel = stack.kernels[t, row // stack.cell_shape[0], column // stack.cell_shape[1]]
        ratio = np.nan
        if len(rows) < _MAX_WIDTHS:
            ratio = _width(np.where(others, 0.0, pixels)) / _width(kernel)
        rise, height_over_noise = np.nan, np.nan
        if empty[stamp].any():
            inner = np.where(distance <= _CORE_RADIUS, pixels, -np.inf)
            place = np.unravel_index(np.argmax(inner), inner.shape)
            sky = float(np.median(variance[stamp][empty[stamp]]))
            rise = float(variance[stamp][place]) / sky - 1.0
            height_over_noise = float(pixels[place]) / np.sqrt(sky)
        rows.append((y, x, flux / _aperture_fraction(kernel), ratio, rise, height_over_noise))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 6).T
    names = ("y", "x", "flux", "width_ratio", "variance_rise", "peak")
    return noise, Catalog(**dict(zip(names, columns, strict=True)))


def _interpolate(stamp: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return a stamp, with bad pixels replaced by the mean around them."""
    weight = scipy.ndimage.gaussian_filter(known.astype(np.float64), 1.0)
    around = scipy.ndimage.gaussian_filter(np.where(known, stamp, 0.0).astype(np.float64), 1.0)
    return np.where(known, stamp, around / np.maximum(weight, 1e-6))


def _width(stamp: np.ndarray) -> float:
    """Return the geometric mean of the largest and the smallest width."""
    xx, yy, xy = kernel_moments(stamp)
    return float((xx * yy - xy**2) ** 0.25)


def _aperture_fraction(kernel: np.ndarray) -> float:
    """Return the fraction of a kernel's flux in the aperture, 1 if none is."""
    middle = len(kernel) // 2
    core = slice(max(middle - _APERTURE, 0), middle + _APERTURE + 1)
    fraction = float(kernel[core, core].sum())
    return fraction if fraction > 0.0 else 1.0
