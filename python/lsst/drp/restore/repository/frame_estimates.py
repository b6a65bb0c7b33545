# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Estimates from the pixels of an image: background, variance, saturation and
correlation of the noise.
"""

from __future__ import annotations

__all__ = ("FrameEstimate", "Sky", "estimate_frame", "estimate_sky")

import dataclasses
import math

import numpy as np
import scipy.ndimage

from ..warping.noise_correlation import measure_correlation

# Largest and smallest height and width of a mesh in which the sky is measured,
# pixels.
_LARGEST_MESH = 128
_SMALLEST_MESH = 32

# Sources are found in the image smoothed by a Gaussian of this width (pixels), in
# which independent pixels have this fraction of their standard deviation: above
# this many of them, and within this distance (pixels).
_SMOOTH_WIDTH = 1.5
_SMOOTH_SIGMA = 1.0 / (2.0 * math.sqrt(math.pi) * _SMOOTH_WIDTH)
_SOURCE_SIGMA = 3.0
_SOURCE_GROW = 4

# Background, in standard deviations of a pixel, that is subtracted.  Fainter
# ones are left to the sky subtraction of the restoration, which tells them from
# sources on all exposures at once.
_SIGNIFICANT = 0.2

# Level of the sky, in standard deviations of a pixel, from which its photons are
# taken to be those of the noise.
_SKY_LEVEL = 5.0

# Pixels above this many standard deviations are themselves the estimate of their
# photons, fainter ones the mean of their surroundings.
_BRIGHT = 5.0

# A plateau: at least so many pixels above this fraction of the highest ones, most
# of which differ from their median by less than a few percent.  Those at the peak
# of a PSF have all values between.
_PLATEAU_PIXELS = 10
_PLATEAU_DEPTH = 0.1
_PLATEAU_SCATTER = 0.03
_PLATEAU_FRACTION = 0.75
# Stars below this many standard deviations are not saturated.
_PLATEAU_SIGMA = 50.0


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Sky:
    """The sky of an image.

    Parameters
    ----------
    level : `numpy.ndarray`
        Background, counts, shape ``(height, width)``.
    sigma : `numpy.ndarray`
        Standard deviation of an empty pixel, counts, same shape.
    sources : `numpy.ndarray` of `bool`
        Pixels of sources, same shape.
    mesh : `int`
        Height and width of the mesh in which it is measured, pixels.
    """

    level: np.ndarray
    sigma: np.ndarray
    sources: np.ndarray
    mesh: int


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FrameEstimate:
    """An image with all that is known of its noise.

    Parameters
    ----------
    image, variance : `numpy.ndarray`
        Image without background, counts, and its variance, counts squared,
        shape ``(height, width)``.  Pixels that are not valid keep their values.
    saturated : `numpy.ndarray` of `bool`
        Saturated pixels, same shape.
    gain : `float`
        Electrons per count, 0 if not known.
    background : `float`
        Mesh size of the background that was subtracted, pixels; 0 if none was.
    saturation : `float`
        Counts, infinite if there is none.
    correlation : `float`
        Power of the noise at low spatial frequencies in units of the variance
        of a pixel; 1 where it cannot be measured.
    sigma : `float`
        Median standard deviation of a pixel, counts.
    """

    image: np.ndarray
    variance: np.ndarray
    saturated: np.ndarray
    gain: float
    background: float
    saturation: float
    correlation: float
    sigma: float


def estimate_sky(image: np.ndarray, good: np.ndarray, mesh: int | None = None) -> Sky:
    """Measure the level and the scatter of the sky around sources.

    Parameters
    ----------
    image : `numpy.ndarray`
        Counts, shape ``(height, width)``.
    good : `numpy.ndarray` of `bool`
        Valid pixels, same shape.
    mesh : `int`, optional
        Height and width of a mesh, pixels; default is 128, or a third of a
        smaller image.

    Returns
    -------
    sky : `Sky`
        Level, scatter and sources.

    Notes
    -----
    SExtractor's estimate (`sep.Background`), once with all pixels and once
    without those of the sources found above the first.
    """
    import sep

    if mesh is None:
        mesh = max(_SMALLEST_MESH, min(_LARGEST_MESH, min(image.shape) // 3))
    pixels = np.ascontiguousarray(np.where(good, image, 0.0), dtype=np.float64)
    sources = np.zeros(image.shape, dtype=bool)
    for _ in range(2):
        mask = ~good | sources
        height, width = (math.ceil(n / max(1, round(n / mesh))) for n in image.shape)
        found = sep.Background(pixels, mask=mask if not mask.all() else ~good, bw=width, bh=height)
        level, sigma = found.back(), found.rms()
        # Smoothed, so that faint wings are found.
        smooth = scipy.ndimage.gaussian_filter(np.where(good, pixels - level, 0.0), _SMOOTH_WIDTH)
        core = smooth > _SOURCE_SIGMA * _SMOOTH_SIGMA * sigma
        sources = scipy.ndimage.binary_dilation(
            scipy.ndimage.binary_opening(core, iterations=1), iterations=_SOURCE_GROW
        )
    return Sky(level=level, sigma=sigma, sources=sources, mesh=mesh)


def estimate_frame(
    counts: np.ndarray,
    good: np.ndarray,
    *,
    variance: np.ndarray | None = None,
    gain: float | None = None,
    background: float | None = None,
    saturation: float | None = None,
    correlation: float | None = None,
) -> FrameEstimate:
    """Estimate what is not given of an image's noise and background.

    Parameters
    ----------
    counts : `numpy.ndarray`
        Image, shape ``(height, width)``.
    good : `numpy.ndarray` of `bool`
        Valid pixels, same shape; at least one.
    variance : `numpy.ndarray`, optional
        Variance, counts squared, same shape.  The image is then taken to be
        sky-subtracted, unless ``background`` is given.
    gain, background, saturation, correlation : `float`, optional
        As in `FrameEstimate`; estimated where `None`.

    Returns
    -------
    estimate : `FrameEstimate`
        The image with its noise.

    Notes
    -----
    The variance is the square of the local scatter of the sky, plus ``signal /
    gain`` for the photons of sources.  The gain is estimated as that with which
    the level of the sky has the noise of the sky, correlation included: too
    small a gain, too large an error of sources, if there is other noise.
    """
    image = np.where(good, counts, 0.0).astype(np.float64)
    sky = None
    if variance is None or background:
        sky = estimate_sky(image, good, mesh=int(background) if background else None)
    if background is None:
        background = 0.0
        if sky is not None and _is_significant(sky, good):
            background = float(sky.mesh)
    if saturation is None:
        saturation = _find_saturation(image, good, sky, variance)
    saturated = good & (counts >= saturation)
    if sky is not None and background:
        counts, image = counts - sky.level, np.where(good, image - sky.level, 0.0)
    noise = sky.sigma**2 if variance is None and sky is not None else variance
    assert noise is not None, "The sky is measured without a variance."
    if correlation is None:
        # From the noise of empty pixels, before the photons of sources are added.
        level = 0.0 if background or sky is None else sky.level
        usable = good & ~saturated & (noise > 0.0)
        shape = (image.shape[0], image.shape[1])
        measured = float(measure_correlation(image - level, noise, usable, shape)[0, 0])
        correlation = measured if measured > 0.0 else 1.0
    if gain is None:
        gain = _find_gain(sky, good, correlation) if sky is not None and variance is None else 0.0
    if variance is None and sky is not None:
        variance = noise + _photons(image if background else image - sky.level, sky, gain)
    assert variance is not None
    return FrameEstimate(
        image=counts,
        variance=variance,
        saturated=saturated,
        gain=gain,
        background=background,
        saturation=saturation,
        correlation=correlation,
        sigma=float(np.sqrt(np.median(noise[good]))),
    )


def _is_significant(sky: Sky, good: np.ndarray) -> bool:
    """Whether a background is to be subtracted."""
    return bool(np.mean(np.abs(sky.level[good]) > _SIGNIFICANT * sky.sigma[good]) > 0.25)


def _find_gain(sky: Sky, good: np.ndarray, correlation: float) -> float:
    """Return the gain with which the noise is that of the sky's photons, 0 if
    the image does not have the sky.
    """
    level, sigma = float(np.median(sky.level[good])), float(np.median(sky.sigma[good]))
    return level / (sigma**2 * correlation) if level > _SKY_LEVEL * sigma > 0.0 else 0.0


def _photons(image: np.ndarray, sky: Sky, gain: float) -> np.ndarray:
    """Return the variance of the photons of sources, counts squared."""
    if gain == 0.0:
        return np.zeros(image.shape)
    mean = scipy.ndimage.gaussian_filter(image, 1.0)
    signal = np.where(image > _BRIGHT * sky.sigma, image, mean)
    return np.where(sky.sources, np.maximum(signal, 0.0), 0.0) / gain


def _find_saturation(
    image: np.ndarray, good: np.ndarray, sky: Sky | None, variance: np.ndarray | None
) -> float:
    """Return the level above which pixels are on a plateau, infinite if there
    is none.
    """
    level = float(np.median(image[good]))
    noise = sky.sigma[good] ** 2 if sky is not None else variance[good]  # type: ignore[index]
    above = np.where(good, image - level, 0.0)
    # A single hot pixel is not the top of a star.
    top = float(scipy.ndimage.minimum_filter(above, 2).max())
    if not top > _PLATEAU_SIGMA * math.sqrt(float(np.median(noise))):
        return math.inf
    limit = top * (1.0 - _PLATEAU_DEPTH)
    values = above[scipy.ndimage.binary_opening(above > limit, np.ones((2, 2)))]
    middle = np.median(values)
    alike = np.abs(values - middle) < _PLATEAU_SCATTER * middle
    if len(values) < _PLATEAU_PIXELS or np.mean(alike) < _PLATEAU_FRACTION:
        return math.inf
    return level + limit
