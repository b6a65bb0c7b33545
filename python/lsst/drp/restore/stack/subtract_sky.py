# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Removal of the background that the exposures' sky subtraction left."""

from __future__ import annotations

__all__ = ("SubtractSkyConfig", "SubtractSkyTask")

from typing import ClassVar

import numpy as np
import scipy.ndimage
from numpy.polynomial import chebyshev

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from .exposure_stack import ExposureStack
from .reference_coadd import cell_weights, weighted_mean

# Passes of the fit: the first with all pixels, the others without those that the one before it contradicts.
_PASSES = 4

# Passes of the search for sources: the background of the second is not that of the first one's sources.  On
# a crowded field it takes most of their wings out of the fit.
_SOURCE_PASSES = 3


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
        doc="Pixels belong to sources where the mean of the exposures, smoothed with detectionFwhm, is above "
        "this many standard deviations.",
        default=3.0,
        min=1.0,
    )
    detectionFwhm = pexConfig.RangeField(
        dtype=float,
        doc="Full width at half maximum of the Gaussian with which sources are found, pixels.",
        default=4.0,
        min=0.0,
        inclusiveMin=False,
    )
    grow = pexConfig.RangeField(
        dtype=int,
        doc="Pixels within this distance of a source are not used either, pixels.",
        default=5,
        min=0,
    )
    meshSize = pexConfig.RangeField(
        dtype=int,
        doc="Height and width, pixels, of the squares whose medians are the large-scale background of the "
        "mean on which sources are found.",
        default=128,
        min=8,
    )
    clipSigma = pexConfig.RangeField(
        dtype=float,
        doc="Pixels that differ from the fit by more than this many sigma are left out of the next one.",
        default=3.0,
        min=1.0,
    )
    detectorGap = pexConfig.RangeField(
        dtype=int,
        doc="Smallest width, pixels, of the gaps without good pixels between detectors: the parts of an "
        "exposure on both sides of one are fitted separately.  0 fits each exposure as one.",
        default=12,
        min=0,
    )
    minPixels = pexConfig.RangeField(
        dtype=int,
        doc="Smallest number of usable pixels for each coefficient of a fit. With fewer, the order is "
        "lowered; where they are too few for a constant, nothing is subtracted.",
        default=1000,
        min=1,
    )


class SubtractSkyTask(pipeBase.Task):
    """Subtract a smooth background from each exposure.

    Notes
    -----
    What the pipeline's sky subtraction leaves, some percent of the noise of a
    pixel, is too faint to be seen in one exposure.  It is not in the model
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

    def run(self, stack: ExposureStack) -> pipeBase.Struct:
        """Subtract the background.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures.  Their good pixels are changed in place.

        Returns
        -------
        result : `lsst.pipe.base.Struct`
            Result struct with these attributes:

            ``coefficients``
                For each exposure, the Chebyshev coefficients of each of its
                parts, nJy, shape ``(parts, order + 1, order + 1)`` by the
                order in y and x, both from -1 to 1 over the patch's pixels
                (`list` [`numpy.ndarray`]).
            ``rms``
                Root mean square over its good pixels of what was subtracted
                from each exposure, nJy, shape ``(n,)`` (`numpy.ndarray`).
        """
        n, order = stack.n_exposures, self.config.order
        coefficients = [np.zeros((0, order + 1, order + 1)) for _ in range(n)]
        rms = np.zeros(n)
        if order < 0:
            return pipeBase.Struct(coefficients=coefficients, rms=rms)
        empty = ~self._sources(stack)
        for t, image, variance, good in stack.planes():
            name = stack.names[t]
            parts = self._parts(good)
            fits, squares = [], 0.0
            for label, where in enumerate(scipy.ndimage.find_objects(parts), start=1):
                inside = (parts[where] == label) & good[where]
                basis = tuple(
                    _chebyshev(axis, size, order) for axis, size in zip(where, stack.shape, strict=True)
                )
                usable = inside & empty[where]
                fit = self._fit(image[where], variance[where], usable, *basis)
                if fit is None:
                    continue
                fits.append(fit)
                level = (basis[0] @ fit @ basis[1].T).astype(np.float32)[inside]
                image[where][inside] -= level
                squares += float(np.sum(level**2, dtype=np.float64))
            if not fits:
                self.log.warning(
                    "%s has too few pixels without sources: its background is not subtracted.", name
                )
                continue
            coefficients[t] = np.stack(fits)
            rms[t] = np.sqrt(squares / np.count_nonzero(good))
        if rms.any():
            self.log.info(
                "Subtracted backgrounds of %.2g to %.2g nJy (rms) from %d exposures, whose pixels have noise "
                "of %.2g nJy; %.0f%% of the patch is without sources.",
                rms.min(),
                rms.max(),
                sum(len(fits) > 0 for fits in coefficients),
                stack.median_sigma,
                100.0 * empty.mean(),
            )
        return pipeBase.Struct(coefficients=coefficients, rms=rms)

    def _sources(self, stack: ExposureStack) -> np.ndarray:
        """Tell which pixels belong to sources, or have no data, shape
        ``(height, width)``.
        """
        import sep

        mean = weighted_mean(stack, cell_weights(stack))
        covered = np.isfinite(mean)
        sigma = self.config.detectionFwhm / np.sqrt(8.0 * np.log(2.0))
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
                sources = scipy.ndimage.distance_transform_edt(~sources) <= self.config.grow
            masked = sources | ~covered
        return masked

    def _parts(self, good: np.ndarray) -> np.ndarray:
        """Label the parts of an exposure that gaps separate, from 1; zero
        elsewhere.
        """
        gap = self.config.detectorGap
        if not gap:
            return np.ones(good.shape, np.int32)
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
        while len(terms) and count < self.config.minPixels * len(terms):
            terms = _terms(int(terms.sum(axis=1).max()) - 1)
        if not len(terms):
            return None
        fit = np.zeros((self.config.order + 1,) * 2)
        # The same for all pixels, as their weights are: the variance of a pixel may have been estimated from
        # its value, and a mean weighted by its inverse would be too low.
        limit = self.config.clipSigma * np.sqrt(np.median(variance[usable]))
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
