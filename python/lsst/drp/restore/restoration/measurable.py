# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The image for photometry: the restored image at a stated resolution plus
the residuals of the exposures.
"""

from __future__ import annotations

__all__ = ("Measurable", "MeasurableConfig", "MeasurableTask", "matched_stack")

import dataclasses
from typing import ClassVar

import numpy as np

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from ..stack.coadd_filters import coadd_filters
from ..stack.exposure_stack import ExposureStack
from ..stack.reference_coadd import ReferenceCoadd, constrained_pixels
from .seeds import Seeds

# Fraction of the exposures' weight under a PSF below which the white-noise coadd counts as missing, and below
# which the residuals of the few good pixels are not scaled up further.
_MIN_COVERAGE = 0.2

# Spatial frequencies of which the exposures pass less than this fraction (squared transfer function relative
# to frequency 0) are left to the restored image, if a target resolution is asked for.
_RIDGE = 1e-4


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Measurable:
    """An image of known PSF and noise, unbiased whatever the restoration lost.

    Parameters
    ----------
    image : `numpy.ndarray`
        Flux per pixel, nJy, `numpy.float32`, shape ``(height, width)``; NaN
        where no exposure has data within reach of a PSF.
    variance : `numpy.ndarray`
        Its variance, nJy**2, same shape and type.
    kernels : `numpy.ndarray`
        Its PSF by cell, `numpy.float32`, shape ``(cells_y, cells_x, k, k)``,
        normalized to the total flux of a source: the sum is the fraction
        inside of the kernel.  Zero where no exposure has a PSF.
    coverage : `numpy.ndarray`
        Weight of the good pixels under the PSF of a source at each pixel, as
        a fraction of the weight of the cell's exposures, `numpy.float32`,
        shape ``(height, width)``.
    noise_realizations : `list` [`numpy.ndarray`]
        Images of nothing but noise, nJy, same shape and type.
    """

    image: np.ndarray
    variance: np.ndarray
    kernels: np.ndarray
    coverage: np.ndarray
    noise_realizations: list[np.ndarray]


class MeasurableConfig(pexConfig.Config):
    """Configuration of `MeasurableTask`."""

    targetFwhm = pexConfig.RangeField(
        dtype=float,
        doc="Full width at half maximum of the image's Gaussian PSF, pixels of the patch. With 0, the noise "
        "is white and PSF photometry optimal: the PSF is about as wide as the coadd's, and varies between "
        "cells. Set it for one PSF everywhere; narrow ones have more noise, correlated between pixels.",
        default=0.0,
        min=0.0,
    )
    numNoiseRealizations = pexConfig.RangeField(
        dtype=int, doc="Noise realizations that are stored with the image.", default=1, min=0
    )

    def validate(self) -> None:
        """Check that the target resolution is sampled.

        Raises
        ------
        lsst.pex.config.FieldValidationError
            Raised if ``targetFwhm`` is below two pixels.
        """
        super().validate()
        if 0.0 < self.targetFwhm < 2.0:
            raise pexConfig.FieldValidationError(
                MeasurableConfig.targetFwhm, self, "a Gaussian narrower than 2 pixels is not well sampled"
            )


def matched_stack(stack: ExposureStack, measurable: Measurable) -> ExposureStack:
    """Make a stack of one exposure that is a sufficient statistic of all.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.
    measurable : `Measurable`
        Their white-noise coadd.

    Returns
    -------
    matched : `ExposureStack`
        The coadd, its variance, and its PSF by cell.

    Notes
    -----
    In a hole, the coadd is the estimate that replaces missing pixels, with
    hardly any noise.  A pixel that no exposure has is not good, and no variance is
    less than that of the weighted mean of the exposures that have the pixel.
    """
    weight = np.zeros(stack.shape, np.float32)
    for _, _, rows, columns in stack.cells():
        inverse = stack.noise_variance(rows, columns)
        np.divide(1.0, inverse, out=inverse, where=inverse > 0.0)
        weight[rows, columns] = inverse.sum(axis=0)
    good = np.isfinite(measurable.image) & (measurable.coverage >= _MIN_COVERAGE) & (weight > 0.0)
    smallest = np.divide(1.0, weight, out=np.zeros_like(weight), where=good)
    return ExposureStack(
        image=np.where(good, measurable.image, np.float32(0.0))[np.newaxis],
        variance=np.where(good, np.maximum(measurable.variance, smallest), np.float32(np.inf))[np.newaxis],
        good=good[np.newaxis],
        kernels=measurable.kernels[np.newaxis],
        correlation=np.ones((1, *stack.kernels.shape[1:3]), np.float32),
        cell_shape=stack.cell_shape,
        names=("white-noise coadd",),
        oversampling=stack.oversampling,
    )


class MeasurableTask(pipeBase.Task):
    """Make the image for photometry.

    Notes
    -----
    With an estimate ``x`` of the latent image, exposures ``y``, good
    pixels ``m`` and PSF kernels ``K`` (equation 1), it is

    ``M = g * x + sum_t R[t] * (m (y - K * x))[t] / c``

    with the filters ``R`` and the PSF ``g`` of `coadd_filters`, and the
    fraction ``c`` of the weight that is on good pixels.  Where no pixel is
    missing ``M = sum_t R[t] * y[t]``: linear in the exposures, so that no flux
    is lost, no level is added and the noise is known, whatever the
    estimate is.  The estimate replaces missing pixels (and, for a PSF
    narrower than those of the exposures, the spatial frequencies that they do
    not pass).

    The weights are constant by exposure and cell: those of each pixel contain
    the photon noise of the source itself, and would bias its flux.
    """

    ConfigClass = MeasurableConfig
    _DefaultName: ClassVar[str] = "measurable"
    config: MeasurableConfig

    def run(
        self,
        stack: ExposureStack,
        reference: ReferenceCoadd,
        latent: np.ndarray,
        *,
        seeds: Seeds,
        target_fwhm: float | None = None,
        n_threads: int = 1,
    ) -> Measurable:
        """Make the image.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures.
        reference : `ReferenceCoadd`
            Coadd of the same exposures; its weights are used.
        latent : `numpy.ndarray`
            An estimate of the latent image, nJy, which replaces missing pixels.
        seeds : `Seeds`
            Seeds of the noise realizations.
        target_fwhm : `float`, optional
            Instead of that of the configuration.
        n_threads : `int`, optional
            CPU threads to use.

        Returns
        -------
        measurable : `Measurable`
            The image with its noise and PSF.
        """
        from .forward_model import ForwardModel

        if target_fwhm is None:
            target_fwhm = self.config.targetFwhm
        filters, psf, footprints = self._filters(stack, reference.weights, target_fwhm)
        model = ForwardModel(stack, n_threads=n_threads)
        # To pixels of the exposures, whatever those of the restored image are.
        adder = ForwardModel(stack, kernels=filters, oversampling=1, n_threads=n_threads)
        pad = stack.padding
        patch = (slice(pad, -pad), slice(pad, -pad))

        shares = ForwardModel(stack, kernels=footprints, oversampling=1, n_threads=n_threads)
        coverage = shares.adjoint(stack.good)[patch]
        scale = 1.0 / np.maximum(coverage, np.float32(_MIN_COVERAGE))
        image = ForwardModel(stack, kernels=psf[np.newaxis], n_threads=n_threads).forward(latent)[0]

        def residual(rows: slice, columns: slice) -> np.ndarray:
            predicted = model.predict(latent, rows, columns)
            return np.where(stack.good[:, rows, columns], stack.image[:, rows, columns] - predicted, 0.0)

        image += adder.adjoint(residual)[patch] * scale
        squares = ForwardModel(stack, kernels=filters, oversampling=1, squared=True, n_threads=n_threads)
        variance = squares.adjoint(stack.noise_variance)[patch] * scale**2

        realizations = []
        for index in range(self.config.numNoiseRealizations):
            rng = seeds.generator("measurable", index)

            def noise(rows: slice, columns: slice, rng: np.random.Generator = rng) -> np.ndarray:
                sigma = np.sqrt(stack.noise_variance(rows, columns))
                return rng.standard_normal(sigma.shape, dtype=np.float32) * sigma

            realizations.append(adder.adjoint(noise)[patch] * scale)

        nothing = ~constrained_pixels(stack, reference)
        for plane in (image, variance, *realizations):
            plane[nothing] = np.nan
        return Measurable(
            image=image, variance=variance, kernels=psf, coverage=coverage, noise_realizations=realizations
        )

    def _filters(
        self, stack: ExposureStack, weights: np.ndarray, target_fwhm: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compute the filters of each cell, turned around as the adjoint of
        the forward model wants them, ``(n, cells_y, cells_x, k, k)``; the PSF,
        ``(cells_y, cells_x, k, k)``; and, to measure the coverage, the PSF
        kernels in their share of the sum, shape of the filters.
        """
        filters = np.zeros_like(stack.kernels)
        footprints = np.zeros_like(stack.kernels)
        psf = np.zeros(stack.kernels.shape[1:], np.float32)
        for i, j in np.argwhere(weights.any(axis=0)):
            kernels = stack.kernels[:, i, j]
            of_cell, psf[i, j] = coadd_filters(
                kernels, weights[:, i, j], target_fwhm=target_fwhm, ridge=_RIDGE
            )
            filters[:, i, j] = of_cell[:, ::-1, ::-1]
            sums = kernels.sum(axis=(1, 2))
            share = np.divide(of_cell.sum(axis=(1, 2)), sums, out=np.zeros_like(sums), where=sums > 0.0)
            footprints[:, i, j] = share[:, np.newaxis, np.newaxis] * kernels
        return filters, psf, footprints
