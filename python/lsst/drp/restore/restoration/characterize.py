# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Uncertainty, PSF and quality mask of a restored image: its variance, and where not to
trust it, measured by restoring noise and point sources that are known.
"""

from __future__ import annotations

__all__ = ("Characterization", "CharacterizeConfig", "CharacterizeTask")

import dataclasses
import time
from typing import ClassVar

import numpy as np
import scipy.ndimage
import scipy.spatial
import scipy.stats

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from ..stack import memory_map
from ..stack.exposure_stack import ExposureStack
from ..stack.subpixel import point_stamp, shift
from .residuals import matched_residual, scale_residuals
from .restoration import Restoration
from .seeds import Seeds
from .target_psf import target_kernel

# Pixels by which regions with a significant signal are grown: the light of a
# source that is barely significant at its center.
_GROWTH = 3

# Smallest standard deviation that is stated, in units of the median sigma of
# the exposures: weights must be finite even where the image is always zero.
_SMALLEST_SIGMA = 1e-3

# Fraction of the weight of the smoothing kernel that must be on good pixels
# for an exposure to count in the test of consistency.
_MIN_WEIGHT = 0.2

# Smallest depth at which point sources are injected, as a fraction of the
# median.
_MIN_DEPTH = 0.1

# Signal-to-noise ratio of a point source in all exposures together below which light in an image of points
# counts as noise: it is not part of the sky that is restored with new noise.
_MIN_SIGNAL = 4.0

# Widths (sigma, pixels) of the Gaussians over which the variance is averaged: relative to the brightness on
# sources, and in empty sky.
_SOURCE_SCALE = 1.5
_SKY_SCALE = 10.0

# Signal-to-noise ratio of the injected point sources; height and width in pixels of the blocks that each get
# one (twice a kernel's size keeps them apart); and how many are averaged for the PSF of a cell.
_INJECTION_SIGNAL = 50.0
_INJECTION_SPACING = 50
_INJECTIONS_PER_CELL = 9


# Ratios of a pixel to its stated error between which errors are calibrated
# together, and the number of pixels that this takes.
_SIGNAL_EDGES = np.array([0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
_MIN_GROUP = 200

# Width (sigma, pixels) of the Gaussian that the calibrated variance is averaged
# over: about that of the PSF.
_CORRELATION = 1.0


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Characterization:
    """The properties of a latent image.

    Parameters
    ----------
    variance : `numpy.ndarray`
        Variance of the latent image under the noise of the exposures, and
        under the random seed where it is the mean over several, nJy**2,
        positive, `numpy.float32`, shape of the patch in latent pixels.
    kernels : `numpy.ndarray`
        Effective PSF by cell, `numpy.float32`, shape ``(cells_y, cells_x, k,
        k)``, centered on the middle pixel and normalized to the flux of the
        source: the sum is the fraction that the latent image recovers inside
        of the kernel (it can be above 1).  Zero where no exposure has a PSF.
    noise_realizations : `list` [`numpy.ndarray`]
        Images of the exposures' noise alone, nJy, of mean zero and the scatter
        that ``variance`` is made from, shape and type of ``variance``.
    inconsistent : `numpy.ndarray`
        `bool`, shape of the patch: `True` where the exposures contradict the restored
        image: variable and moving objects, artifacts that no mask shows,
        errors of PSF models and of registration.
    pedestal : `float`
        Mean level of the latent image in empty sky due to noise alone, nJy
        per pixel: the bias of non-negativity.
    residuals : `numpy.ndarray`
        Largest residual of the white-noise coadd by starlet scale, in units of
        its standard deviation there, shape ``(5,)``.
    beyond : `numpy.ndarray`
        Number of pixels with residuals beyond ``residualLimit`` by scale,
        `int`, shape ``(5,)``.  They are ``inconsistent``.
    """

    variance: np.ndarray
    kernels: np.ndarray
    noise_realizations: list[np.ndarray]
    inconsistent: np.ndarray
    pedestal: float
    residuals: np.ndarray
    beyond: np.ndarray


class CharacterizeConfig(pexConfig.Config):
    """Configuration of `CharacterizeTask`."""

    numRealizations = pexConfig.RangeField(
        dtype=int,
        doc="Draws of the noise to restore for the variance. Each takes as long as the network and the "
        "consistency do, and all steps again with ImageMMTask.",
        default=3,
        min=2,
    )
    numNoiseRealizations = pexConfig.RangeField(
        dtype=int, doc="Noise realizations that are stored with the image.", default=1, min=0
    )
    residualLimit = pexConfig.RangeField(
        dtype=float,
        doc="Residual of the exposures' white-noise coadd at any starlet scale, in units of its standard "
        "deviation there, beyond which pixels count as inconsistent.",
        default=4.0,
        min=1.0,
    )
    inconsistentProbability = pexConfig.RangeField(
        dtype=float,
        doc="Probability that noise alone makes a pixel inconsistent by the scatter of the exposures.",
        default=1e-6,
        min=0.0,
        max=1.0,
        inclusiveMin=False,
    )

    def validate(self) -> None:
        """Check that there are as many realizations as are to be kept.

        Raises
        ------
        lsst.pex.config.FieldValidationError
            Raised if ``numNoiseRealizations`` is above ``numRealizations``.
        """
        super().validate()
        if self.numNoiseRealizations > self.numRealizations:
            raise pexConfig.FieldValidationError(
                CharacterizeConfig.numNoiseRealizations, self, "must not be above numRealizations"
            )


class CharacterizeTask(pipeBase.Task):
    """Measure the variance and the PSF of a restored image.

    Notes
    -----
    All of it is measured with ``Restoration.fitted``: the restorer as it was
    fitted, on other pixels.  The scatter of the fit itself is not included.

    **Variance.**  A parametric bootstrap: the restored image is taken for the
    true sky, exposures of it (or, for the trained network, their white-noise
    coadd) are made with new noise of the variance ``noise_variance``, and
    restored.

    Where a network states an error for each pixel, the mean squared errors of
    the draws say by which factor it is wrong: around each pixel on sources,
    and in empty sky as a function of the pixel's ratio of signal to stated
    error.  They contain the lost flux of faint sources as well as the
    noise.  The result is averaged over the PSF.

    Of an image of points, only light that is significant is taken for
    the sky: its own noise must not be part of it, or empty sky would have it
    twice.  The scatter of a few draws is itself noisy.  It is averaged over a
    wide Gaussian in empty sky, where the image is zero nearly everywhere and
    bright in few pixels, different ones with other noise: the stated variance
    is the mean over neighboring pixels of their scatter, and it is not
    the width of a Gaussian distribution.  On sources the variance changes
    within two pixels, so that it is its ratio to the brightness that is
    averaged, over a narrow Gaussian.

    Neighboring pixels are correlated: the variance of a flux in an aperture is
    not the sum of the pixels' variances; the noise realizations have these
    correlations.

    **PSF.**  That of an image at a stated resolution is stated.  For an image of
    points, point sources of known flux are added to the exposures at random
    fractions of a pixel, in quiet places, and the difference that they make to
    the restored image is shifted to the pixel's center and averaged.  A
    restoration is not linear, and it has no PSF in the strict sense, but the
    response hardly depends on the flux of isolated sources above a
    signal-to-noise ratio of about 20; fainter ones lose some of their light.
    Such a PSF is narrower than two pixels, so that the apparent width of a
    star depends on where in its pixel it is: compare stars with the PSF
    shifted to the same place.

    **Consistency.**  The residual of each exposure in units of its noise,
    smoothed as wide as its PSF, is squared and summed over the exposures: chi
    squared with as many degrees of freedom as there are exposures.  Besides
    variable sources, the surroundings of the brightest stars are flagged, where
    errors of the PSF models exceed the noise.
    The residual of all exposures together, their white-noise coadd minus the
    restored image, is compared with its noise at the scales of a starlet
    transform (`scale_residuals`): no residual is above ``residualLimit`` but
    where pixels are flagged.
    """

    ConfigClass = CharacterizeConfig
    _DefaultName: ClassVar[str] = "characterize"
    config: CharacterizeConfig

    def run(
        self,
        stack: ExposureStack,
        restoration: Restoration,
        matched: ExposureStack,
        *,
        seeds: Seeds,
        n_threads: int = 1,
    ) -> Characterization:
        """Measure the uncertainty, the PSF and the flagged pixels of a restored
        image.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures that were restored.  They are not changed; one more
            array of the size of their pixels is needed.
        restoration : `Restoration`
            The restored image.
        matched : `ExposureStack`
            White-noise coadd of the exposures (`matched_stack`).
        seeds : `Seeds`
            Seeds of the noise and of the injected positions.
        n_threads : `int`, optional
            CPU threads to use.

        Returns
        -------
        characterization : `Characterization`
            Its variance, noise, PSF and flagged pixels.
        """
        start = time.perf_counter()
        signal, depth = _point_signal(stack, n_threads)
        significant = scipy.ndimage.binary_dilation(
            signal > _MIN_SIGNAL, iterations=_GROWTH * stack.oversampling
        )
        # One buffer serves all of the exposures that are made up here.
        pixels = memory_map.empty_like(stack.image)
        inconsistent = self._inconsistent(stack, restoration, pixels, n_threads)
        scales = scale_residuals(matched_residual(matched, restoration, n_threads=n_threads))
        inconsistent |= (np.abs(scales) > self.config.residualLimit).any(axis=0)
        if restoration.target_fwhm:
            has_kernel = stack.has_kernel.any(axis=0)[..., np.newaxis, np.newaxis]
            psf = target_kernel(restoration.target_fwhm, stack.kernel_size)
            kernels = np.where(has_kernel, psf, np.float32(0.0))
        else:
            kernels = self._psf(stack, restoration, depth, pixels, seeds, n_threads)
        variance, realizations, pedestal = self._noise(stack, restoration, significant, seeds, n_threads)
        self.log.info(
            "Pedestal %.3g %s, PSF with %.3f of the flux, %d inconsistent pixels; it took %.1f s.",
            pedestal,
            stack.unit,
            np.median(kernels.sum(axis=(2, 3))),
            np.count_nonzero(inconsistent),
            time.perf_counter() - start,
        )
        return Characterization(
            variance=variance,
            kernels=kernels,
            noise_realizations=realizations,
            inconsistent=inconsistent,
            pedestal=pedestal,
            residuals=np.abs(scales).max(axis=(1, 2)),
            beyond=np.count_nonzero(np.abs(scales) > self.config.residualLimit, axis=(1, 2)),
        )

    def _noise(
        self,
        stack: ExposureStack,
        restoration: Restoration,
        significant: np.ndarray,
        seeds: Seeds,
        n_threads: int,
    ) -> tuple[np.ndarray, list[np.ndarray], float]:
        """Return the variance, the noise realizations and the pedestal."""
        from .forward_model import ForwardModel

        number, patch = self.config.numRealizations, stack.latent_patch
        sky = restoration.latent
        if restoration.error is None:
            # An image of points has its noise in it: the sky would have it twice.
            sky = np.where(significant, sky, np.float32(0))
        model = restoration.model
        pixels = memory_map.empty_like(model.image)
        other = dataclasses.replace(model, image=pixels)
        forward_model = ForwardModel(other, n_threads=n_threads)
        mean = np.zeros(sky[patch].shape, np.float64)
        squares = np.zeros(sky[patch].shape, np.float64)
        kept = []
        for index in range(number):
            rng = seeds.generator("characterize", index)
            for rows, columns, predicted in forward_model.predictions(sky):
                sigma = np.sqrt(model.noise_variance(rows, columns))
                noisy = predicted + sigma * rng.standard_normal(sigma.shape, dtype=np.float32)
                pixels[:, rows, columns] = np.where(model.good[:, rows, columns], noisy, 0.0)
            latent = restoration.fitted.restore(other)[patch]
            # Differences to the first guess, so that no digits are lost.
            difference = latent - sky[patch]
            mean += difference
            squares += difference.astype(np.float64) ** 2
            if index < self.config.numNoiseRealizations:
                kept.append(difference)
        mean /= number
        squares /= number
        scatter = np.maximum(squares - mean**2, 0.0) * number / (number - 1)
        # A realization's difference from their mean, which it is part of, is
        # smaller than from the true one.
        grow = np.sqrt(number / (number - 1))
        realizations = [((noise - mean) * grow).astype(np.float32) for noise in kept]

        empty = ~significant[patch] & stack.latent_seen
        pedestal = float(mean[empty].mean()) if empty.any() else 0.0
        smallest = _SMALLEST_SIGMA * stack.median_sigma / stack.oversampling**2
        if restoration.error is None:
            brightness = sky[patch] + max(pedestal, smallest)
            variance = self._variance_of_points(stack, scatter, brightness, empty)
        else:
            variance = self._variance_of_network(stack, restoration.error[patch], squares, sky[patch], empty)
        return np.maximum(variance, smallest**2).astype(np.float32), realizations, pedestal

    def _variance_of_network(
        self,
        stack: ExposureStack,
        error: np.ndarray,
        squares: np.ndarray,
        sky: np.ndarray,
        empty: np.ndarray,
    ) -> np.ndarray:
        """Bring the error that a network states to the scale of those that
        were found.
        """
        stated = error.astype(np.float64) ** 2
        scale = _SOURCE_SCALE * stack.oversampling
        variance = stated * _smooth(squares, scale) / _smooth(stated, scale)
        np.copyto(variance, _calibrated_variance(error, squares, sky, empty), where=empty)
        # Errors are correlated over the PSF.  Where a source's wings are as good as zero, so would be their
        # variance, and fits with the inverse variance as weight would see nothing but wings.
        return scipy.ndimage.gaussian_filter(variance, _CORRELATION, mode="nearest")

    def _variance_of_points(
        self, stack: ExposureStack, scatter: np.ndarray, brightness: np.ndarray, empty: np.ndarray
    ) -> np.ndarray:
        """Average the scatter of an image of points over its neighborhood."""
        on_sources, in_sky = (
            _SOURCE_SCALE * stack.oversampling,
            _SKY_SCALE * stack.oversampling,
        )
        # The variance follows the brightness, to which it is a smooth ratio.
        variance = brightness * _smooth(scatter, on_sources)
        variance /= _smooth(brightness, on_sources)
        weight = _smooth(empty.astype(np.float64), in_sky)
        of_sky = _smooth(np.where(empty, scatter, 0.0), in_sky)
        np.divide(of_sky, weight, out=variance, where=empty)
        return variance

    def _psf(
        self,
        stack: ExposureStack,
        restoration: Restoration,
        depth: np.ndarray,
        pixels: np.ndarray,
        seeds: Seeds,
        n_threads: int,
    ) -> np.ndarray:
        """Return the response to point sources by cell, ``(cells_y, cells_x,
        k, k)``.
        """
        from .forward_model import ForwardModel

        kernels = np.zeros(stack.kernels.shape[1:], np.float32)
        places = self._places(stack, restoration, depth)
        if not len(places):
            return kernels
        rng = seeds.generator("injected sources")
        offsets = rng.uniform(-0.5, 0.5, size=places.shape)
        pad, size = stack.padding * stack.oversampling, stack.kernel_size
        fluxes = _INJECTION_SIGNAL / np.sqrt(depth[places[:, 0] + pad, places[:, 1] + pad])
        # From the places on the patch to the first pixels of their stamps.
        corners = places + pad - size // 2
        points = np.zeros_like(restoration.latent)
        for (y, x), offset, flux in zip(corners, offsets, fluxes, strict=True):
            points[y : y + size, x : x + size] += flux * point_stamp(offset, size)
        other = dataclasses.replace(stack, image=pixels)
        # It gives back the memory of the pixels that are written.
        for rows, columns, predicted in ForwardModel(other, n_threads=n_threads).predictions(points):
            pixels[:, rows, columns] = np.where(
                stack.good[:, rows, columns], stack.image[:, rows, columns] + predicted, 0.0
            )
        response = restoration.fitted.restore(other) - restoration.latent
        stamps = np.array([response[y : y + size, x : x + size] for y, x in corners])
        stamps = shift(stamps / fluxes[:, np.newaxis, np.newaxis], -offsets)

        number = min(_INJECTIONS_PER_CELL, len(places))
        tree = scipy.spatial.KDTree(places)
        has_kernel = stack.has_kernel.any(axis=0)
        for i, j, rows, columns in stack.cells():
            if has_kernel[i, j]:
                center = [(stack.oversampling * (part.start + part.stop) - 1) / 2 for part in (rows, columns)]
                _, nearest = tree.query(center, k=number)
                kernels[i, j] = stamps[np.atleast_1d(nearest)].mean(axis=0)
        return kernels

    def _places(self, stack: ExposureStack, restoration: Restoration, depth: np.ndarray) -> np.ndarray:
        """Choose the latent pixels, y and x, that get an injected source: the
        quietest place of each block, away from the block's edges.
        """
        spacing, patch = _INJECTION_SPACING * stack.oversampling, stack.latent_patch
        light = _smooth(restoration.latent, stack.padding * stack.oversampling / 2)[patch]
        light[depth[patch] < _MIN_DEPTH * _typical(depth, stack)] = np.inf
        places = []
        for rows, columns in (
            (slice(y, y + spacing), slice(x, x + spacing))
            for y in range(0, light.shape[0] - spacing // 2, spacing)
            for x in range(0, light.shape[1] - spacing // 2, spacing)
        ):
            block = light[rows, columns]
            # Sources of neighboring blocks are half a block apart at least.
            inner = block[spacing // 4 : 3 * spacing // 4, spacing // 4 : 3 * spacing // 4]
            if inner.size and np.isfinite(inner).any():
                y, x = np.unravel_index(np.argmin(inner), inner.shape)
                places.append((rows.start + spacing // 4 + y, columns.start + spacing // 4 + x))
        return np.array(places, dtype=int).reshape(-1, 2)

    def _inconsistent(
        self, stack: ExposureStack, restoration: Restoration, pixels: np.ndarray, n_threads: int
    ) -> np.ndarray:
        """Return where the exposures contradict the image."""
        from .forward_model import ForwardModel

        other = dataclasses.replace(stack, image=pixels)
        forward_model = ForwardModel(other, kernels=restoration.kernels, n_threads=n_threads)
        for rows, columns, predicted in forward_model.predictions(restoration.latent):
            variance = stack.noise_variance(rows, columns)
            residual = stack.image[:, rows, columns] - predicted
            pixels[:, rows, columns] = np.divide(
                residual, np.sqrt(variance), out=np.zeros_like(residual), where=variance > 0.0
            )
        chi2 = np.zeros(stack.shape, np.float32)
        count = np.zeros(stack.shape, np.intp)
        for t, residual, _, good in other.planes():
            kernels = stack.kernels[t]
            kernels = kernels[kernels.any(axis=(2, 3))]
            if not len(kernels):
                continue
            # The Gaussian with the PSF's effective area.
            area = np.median(kernels.sum(axis=(1, 2)) ** 2 / (kernels**2).sum(axis=(1, 2)))
            width = float(np.sqrt(area / (4 * np.pi)))
            # The square of a Gaussian is a narrower one.
            weight = _smooth(good.astype(np.float32), width / np.sqrt(2))
            used = weight > _MIN_WEIGHT
            smooth = _smooth(residual, width)
            chi2 += np.divide(smooth**2 * np.float32(area), weight, out=np.zeros_like(smooth), where=used)
            count += used
        limits = scipy.stats.chi2.isf(self.config.inconsistentProbability, np.arange(stack.n_exposures + 1))
        limits[0] = np.inf
        return chi2 > limits[count]


def _calibrated_variance(
    error: np.ndarray, squares: np.ndarray, sky: np.ndarray, seen: np.ndarray
) -> np.ndarray:
    """Bring a stated error to the scale of the errors that were found.

    Parameters
    ----------
    error : `numpy.ndarray`
        Standard deviation as the network states it, nJy.
    squares : `numpy.ndarray`
        Mean squared errors of a few restorations of a known sky, nJy**2, same
        shape.
    sky : `numpy.ndarray`
        That sky, nJy, same shape.
    seen : `numpy.ndarray`
        `bool`, same shape: the pixels to compare.

    Returns
    -------
    variance : `numpy.ndarray`
        ``error**2`` times a factor that depends on ``sky / error``, nJy**2.
    """
    signal = sky / error
    groups = np.digitize(signal, _SIGNAL_EDGES)
    count = np.bincount(groups[seen], minlength=len(_SIGNAL_EDGES) + 1)
    found, stated, place = (
        np.bincount(groups[seen], values[seen], minlength=len(count))
        for values in (squares, error.astype(np.float64) ** 2, np.log1p(signal))
    )
    known = count >= _MIN_GROUP
    if not known.any():
        return error.astype(np.float64) ** 2
    centers = place[known] / count[known]
    factors = np.log(np.maximum(found[known], np.finfo(float).tiny) / stated[known])
    return error.astype(np.float64) ** 2 * np.exp(np.interp(np.log1p(signal), centers, factors))


def _smooth(image: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve with a Gaussian; outside of the image there is nothing."""
    return scipy.ndimage.gaussian_filter(image, sigma, mode="constant")


def _point_signal(stack: ExposureStack, n_threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the signal-to-noise ratio of a point source at each latent pixel
    in all exposures together, and the inverse variance of its flux, nJy**-2.
    """
    from .forward_model import ForwardModel

    def inverse(rows: slice, columns: slice) -> np.ndarray:
        variance = stack.noise_variance(rows, columns)
        return np.divide(1.0, variance, out=np.zeros_like(variance), where=variance > 0.0)

    def weighted(rows: slice, columns: slice) -> np.ndarray:
        return inverse(rows, columns) * stack.image[:, rows, columns]

    # Rounding errors of the Fourier transforms can be negative.
    squares = ForwardModel(stack, squared=True, n_threads=n_threads)
    depth = np.maximum(squares.adjoint(inverse), 0.0)
    flux = ForwardModel(stack, n_threads=n_threads).adjoint(weighted)
    deep = depth > 1e-3 * _typical(depth, stack)
    return np.divide(flux, np.sqrt(depth), out=np.zeros_like(flux), where=deep), depth


def _typical(depth: np.ndarray, stack: ExposureStack) -> float:
    """Return the median depth of the pixels that an exposure sees."""
    return float(np.median(depth[stack.latent_patch][stack.latent_seen]))
