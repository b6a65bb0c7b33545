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

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from ..stack import memory_map
from ..stack.exposure_stack import ExposureStack
from .inconsistent_pixels import find_inconsistent
from .injected_sources import measure_psf
from .point_signal import point_signal
from .residuals import matched_residual, scale_residuals
from .restoration import Restoration
from .restored_noise import restore_noise
from .seeds import Seeds
from .target_psf import target_kernel

# Pixels by which regions with a significant signal are grown: the light of a
# source that is barely significant at its center.
_GROWTH = 3

# Signal-to-noise ratio of a point source in all exposures together below which light in an image of points
# counts as noise: it is not part of the sky that is restored with new noise.
_MIN_SIGNAL = 4.0


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
        signal, depth = point_signal(matched, n_threads)
        significant = scipy.ndimage.binary_dilation(
            signal > _MIN_SIGNAL, iterations=_GROWTH * stack.oversampling
        )
        # One buffer serves all of the exposures that are made up here.
        pixels = memory_map.empty_like(stack.image)
        inconsistent = find_inconsistent(
            stack,
            restoration,
            pixels,
            probability=self.config.inconsistentProbability,
            n_threads=n_threads,
        )
        scales = scale_residuals(matched_residual(matched, restoration, n_threads=n_threads))
        inconsistent |= (np.abs(scales) > self.config.residualLimit).any(axis=0)
        if restoration.target_fwhm:
            has_kernel = stack.has_kernel.any(axis=0)[..., np.newaxis, np.newaxis]
            psf = target_kernel(restoration.target_fwhm, stack.kernel_size)
            kernels = np.where(has_kernel, psf, np.float32(0.0))
        else:
            kernels = measure_psf(stack, restoration, depth, pixels, seeds=seeds, n_threads=n_threads)
        noise = restore_noise(
            stack,
            restoration,
            significant,
            n_draws=self.config.numRealizations,
            n_kept=self.config.numNoiseRealizations,
            seeds=seeds,
            n_threads=n_threads,
        )
        self.log.info(
            "Pedestal %.3g %s, PSF with %.3f of the flux, %d inconsistent pixels; it took %.1f s.",
            noise.pedestal,
            stack.unit,
            np.median(kernels.sum(axis=(2, 3))),
            np.count_nonzero(inconsistent),
            time.perf_counter() - start,
        )
        return Characterization(
            variance=noise.variance,
            kernels=kernels,
            noise_realizations=noise.realizations,
            inconsistent=inconsistent,
            pedestal=noise.pedestal,
            residuals=np.abs(scales).max(axis=(1, 2)),
            beyond=np.count_nonzero(np.abs(scales) > self.config.residualLimit, axis=(1, 2)),
        )
