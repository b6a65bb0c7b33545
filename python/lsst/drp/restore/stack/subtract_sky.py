# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Removal of the background that the exposures' sky subtraction left."""

from __future__ import annotations

__all__ = ("Background", "SubtractSkyConfig", "SubtractSkyTask")

import dataclasses
from typing import ClassVar

import numpy as np
import scipy.ndimage
from numpy.polynomial import chebyshev

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from . import memory_map
from .exposure_stack import ExposureStack
from .kernel_shape import FWHM_PER_SIGMA
from .reference_coadd import cell_weights, weighted_mean

# Passes of the fit: the first with all pixels, the others without those that the one before it contradicts.
_PASSES = 4

# Passes of the search for sources: the background of the second is not that of the first one's sources.  On
# a crowded field it takes most of their wings out of the fit.
_SOURCE_PASSES = 3

# Full width at half maximum of the Gaussian with which sources are found, pixels: about the seeing.
_DETECTION_FWHM = 4.0

# Pixels within this distance of a source do not show the background, pixels.
_GROW = 5

# Pixels that differ from a fit by more than this many sigma are left out of the next one.
_CLIP_SIGMA = 3.0

# Smallest width, pixels, of the gaps without good pixels between detectors: dead columns are narrower.
_DETECTOR_GAP = 12

# Smallest number of usable pixels for each coefficient of a fit, whose error is then about 0.03 of the noise
# of a pixel.  With fewer, the order is lowered; where they are too few for a constant, nothing is subtracted.
_MIN_PIXELS = 1000


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Background:
    """The background of exposures.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures without it.
    coefficients : `list` [`numpy.ndarray`]
        For each exposure, the Chebyshev coefficients of each of its parts,
        nJy, shape ``(parts, order + 1, order + 1)`` by the order in y and x,
        both from -1 to 1 over the patch's pixels.
    rms : `numpy.ndarray`
        Root mean square of the background over the good pixels of each
        exposure, nJy, shape ``(n,)``.
    """

    stack: ExposureStack
    coefficients: list[np.ndarray]
    rms: np.ndarray


class SubtractSkyConfig(pexConfig.Config):
    """Configuration of `SubtractSkyTask`."""

    order = pexConfig.RangeField(
        dtype=int,
        doc="Total order in x and y of the background that is fitted to each detector of each exposure and "
        "subtracted; -1 subtracts nothing.",
        default=2,
        min=-1,
        max=10,
    )
    detectionSigma = pexConfig.RangeField(
        dtype=float,
        doc="Pixels belong to sources where the mean of the exposures, smoothed by a Gaussian of 4 pixels "
        "FWHM, is above this many standard deviations.",
        default=3.0,
        min=1.0,
    )
    meshSize = pexConfig.RangeField(
        dtype=int,
        doc="Height and width, pixels, of the squares whose medians are the large-scale background of the "
        "mean on which sources are found.",
        default=128,
        min=8,
    )


class SubtractSkyTask(pipeBase.Task):
    """Subtract a smooth background from each exposure.

    Notes
    -----
    The residual of the pipeline's sky subtraction, some percent of the noise of
    a pixel, is too faint to be seen in one exposure.  It is not in the model
    ``y = f * x + noise`` with ``x >= 0``: a positive level becomes light of
    ``x``, and a negative one hides faint sources.  A level per exposure that
    is fitted together with ``x`` is degenerate with it, so this is done
    before.

    The background is a polynomial, fitted to the pixels without sources by
    least squares with clipping.  Detectors have been subtracted one by one, so each
    one has its own.  Sources too faint to be found on the mean of all
    exposures stay in the fit: their mean light is subtracted with the
    background.  On simulated fields as crowded as those of a wide survey, and
    with five times as many stars, that lowers the level of the mean by 0.02 of
    its noise per pixel or less.  Where stars are closer than about three times
    the seeing everywhere, no pixel shows the sky: switch it off.
    """

    ConfigClass = SubtractSkyConfig
    _DefaultName: ClassVar[str] = "subtractSky"
    config: SubtractSkyConfig

    def run(self, stack: ExposureStack) -> Background:
        """Fit the background and subtract it.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures.

        Returns
        -------
        background : `Background`
            The exposures without it, and its coefficients.
        """
        n, order = stack.n_exposures, self.config.order
        coefficients = [np.zeros((0, order + 1, order + 1)) for _ in range(n)]
        rms = np.zeros(n)
        if order < 0:
            return Background(stack=stack, coefficients=coefficients, rms=rms)
        empty = ~self._sources(stack)
        subtracted = memory_map.empty_like(stack.image)
        for t, image, variance, good in stack.planes():
            fits, level = self._fit_parts(image, variance, good, empty)
            subtracted[t] = image - level
            memory_map.release(subtracted)
            if fits:
                coefficients[t] = np.stack(fits)
                rms[t] = np.sqrt(float(np.sum(level**2, dtype=np.float64)) / np.count_nonzero(good))
            else:
                self.log.warning(
                    "%s has too few pixels without sources: its background is not subtracted.",
                    stack.names[t],
                )
        if rms.any():
            self.log.info(
                "Subtracted backgrounds of %.2g to %.2g %s (rms) from %d exposures, whose pixels have noise "
                "of %.2g %s; %.0f%% of the patch is without sources.",
                rms.min(),
                rms.max(),
                stack.unit,
                sum(len(fits) > 0 for fits in coefficients),
                stack.median_sigma,
                stack.unit,
                100.0 * empty.mean(),
            )
        return Background(
            stack=dataclasses.replace(stack, image=subtracted), coefficients=coefficients, rms=rms
        )

    def _fit_parts(
        self, image: np.ndarray, variance: np.ndarray, good: np.ndarray, empty: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Fit the parts of an exposure that gaps separate; return their
        coefficients and the background, zero where a pixel is not good.
        """
        fits = []
        background = np.zeros_like(image)
        parts = self._parts(good)
        for label, where in enumerate(scipy.ndimage.find_objects(parts), start=1):
            inside = (parts[where] == label) & good[where]
            basis = tuple(
                _chebyshev(axis, size, self.config.order)
                for axis, size in zip(where, image.shape, strict=True)
            )
            fit = self._fit(image[where], variance[where], inside & empty[where], *basis)
            if fit is not None:
                fits.append(fit)
                level = basis[0] @ fit @ basis[1].T
                background[where][inside] = level.astype(np.float32)[inside]
        return fits, background

    def _sources(self, stack: ExposureStack) -> np.ndarray:
        """Tell which pixels belong to sources, or have no data, shape
        ``(height, width)``.
        """
        import sep

        mean = weighted_mean(stack, cell_weights(stack))
        covered = np.isfinite(mean)
        sigma = _DETECTION_FWHM / FWHM_PER_SIGMA
        norm = scipy.ndimage.gaussian_filter(covered.astype(np.float32), sigma)
        smooth = scipy.ndimage.gaussian_filter(np.where(covered, mean, np.float32(0)), sigma)
        np.divide(smooth, norm, out=smooth, where=covered)
        size = self.config.meshSize
        masked = ~covered
        for _ in range(_SOURCE_PASSES):
            if masked.all():
                break
            background = sep.Background(smooth, mask=masked, bw=size, bh=size)
            sources = smooth - background.back() > self.config.detectionSigma * background.rms()
            if sources.any():
                sources = scipy.ndimage.distance_transform_edt(~sources) <= _GROW
            masked = sources | ~covered
        return masked

    def _parts(self, good: np.ndarray) -> np.ndarray:
        """Label the parts of an exposure that gaps separate, from 1; zero
        elsewhere.
        """
        gap = _DETECTOR_GAP
        # Closing fills gaps that are narrower: dead columns, cosmic rays.  Beyond the edge nothing is good.
        padded = np.pad(good, gap)
        closed = scipy.ndimage.maximum_filter(padded, gap)
        closed = scipy.ndimage.minimum_filter(closed, gap, origin=-1 if gap % 2 == 0 else 0)
        labels, _ = scipy.ndimage.label(closed[gap:-gap, gap:-gap])
        return labels

    def _fit(
        self,
        image: np.ndarray,
        variance: np.ndarray,
        usable: np.ndarray,
        basis_y: np.ndarray,
        basis_x: np.ndarray,
    ) -> np.ndarray | None:
        """Fit a polynomial to the usable pixels of an image.

        Returns
        -------
        coefficients : `numpy.ndarray` or `None`
            Chebyshev coefficients, shape ``(order + 1, order + 1)``; `None`
            if there are too few pixels.
        """
        terms = _terms(self.config.order)
        count = np.count_nonzero(usable)
        while len(terms) and count < _MIN_PIXELS * len(terms):
            terms = _terms(int(terms.sum(axis=1).max()) - 1)
        if not len(terms):
            return None
        fit = np.zeros((self.config.order + 1,) * 2)
        # The same for all pixels, as their weights are: the variance of a pixel may have been estimated from
        # its value, and a mean weighted by its inverse would be too low.
        limit = _CLIP_SIGMA * np.sqrt(np.median(variance[usable]))
        fit[0, 0] = np.median(image[usable])
        for _ in range(_PASSES):
            deviation = np.where(usable, image - basis_y @ fit @ basis_x.T, 0.0)
            used = usable & (np.abs(deviation) < limit)
            deviation[~used] = 0.0
            fit[tuple(terms.T)] += _solve(used, deviation, basis_y, basis_x, terms)
        return fit


def _terms(order: int) -> np.ndarray:
    """Return the orders in y and x of the terms up to a total order, shape
    ``(terms, 2)``.
    """
    return np.array([(a, b) for a in range(order + 1) for b in range(order + 1 - a)], dtype=int).reshape(
        -1, 2
    )


def _chebyshev(pixels: slice, size: int, order: int) -> np.ndarray:
    """Evaluate the Chebyshev polynomials at some pixels of an axis that goes
    from -1 to 1, shape ``(pixels, order + 1)``.
    """
    return chebyshev.chebvander(np.linspace(-1.0, 1.0, size)[pixels], order)


def _solve(
    used: np.ndarray, values: np.ndarray, basis_y: np.ndarray, basis_x: np.ndarray, terms: np.ndarray
) -> np.ndarray:
    """Fit terms to the used pixels by least squares.

    The sums over pixels are separable, so that no matrix with a row for each
    pixel is needed.
    """
    y, x = terms.T
    vector = (basis_y.T @ values @ basis_x)[y, x]
    size = basis_y.shape[1]
    pairs_y = (basis_y[:, :, np.newaxis] * basis_y[:, np.newaxis]).reshape(-1, size**2)
    pairs_x = (basis_x[:, :, np.newaxis] * basis_x[:, np.newaxis]).reshape(-1, size**2)
    sums = (pairs_y.T @ used.astype(np.float32) @ pairs_x).reshape((size,) * 4)
    matrix = sums[y[:, np.newaxis], y, x[:, np.newaxis], x]
    return np.linalg.lstsq(matrix, vector, rcond=1e-10)[0]
