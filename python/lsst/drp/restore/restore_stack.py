# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The restoration of a stack of exposures: from arrays to arrays.

`RestoreCoaddTask`, `RestoreMultibandCoaddTask` and `restore` share it.
"""

from __future__ import annotations

__all__ = ("RestoreStackConfig", "RestoreStackTask")

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from .outputs.restored_stack import RestoredStack
from .psf_fitting.fit_kernels import FitKernelsTask
from .restoration.astro_clear_net import AstroClearNetTask
from .restoration.backend import prepare_backend
from .restoration.characterize import CharacterizeTask
from .restoration.divergence import require_finite
from .restoration.measurable import MeasurableTask, matched_stack
from .restoration.restoration import BandImage, Restorer, StartingPoint
from .restoration.seeds import Seeds
from .restoration.target_psf import TARGET_FWHM
from .stack.exposure_checks import CheckExposuresTask
from .stack.exposure_stack import ExposureStack
from .stack.reference_coadd import naive_mean, reference_coadd
from .stack.subtract_sky import SubtractSkyTask


class RestoreStackConfig(pexConfig.Config):
    """Configuration of `RestoreStackTask`."""

    sky: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=SubtractSkyTask, doc="Removes the background that the exposures' sky subtraction left."
    )
    checkExposures: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=CheckExposuresTask,
        doc="Checks noise, fluxes, positions and PSF of each exposure; drops those that are wrong.",
    )
    clipSigma = pexConfig.RangeField(
        dtype=float,
        doc="Pixels of an exposure that differ from the others' median by more than this many sigma, and by "
        "more than differences between the PSFs explain, are outliers: neither coadded nor fitted.",
        default=5.0,
        min=1.0,
    )
    fitKernels: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=FitKernelsTask, doc="Fits the PSF kernels to the exposures, for a blind restoration."
    )
    superResolution = pexConfig.RangeField(
        dtype=int,
        doc="Pixels of the restored coadd along each axis in a pixel of the patch: 2 for pixels half as "
        "large, which resolve closer pairs of sources. All other datasets keep the patch's pixels.",
        default=1,
        min=1,
        max=4,
    )
    restorer: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=AstroClearNetTask, doc="Restores the latent image."
    )
    targetFwhm = pexConfig.RangeField(
        dtype=float,
        doc="Full width at half maximum of the restored coadd's PSF, a Gaussian, pixels of the restored "
        "coadd. The default is a standard deviation of 0.8 pixels, the model PSF of the Rubin deblender; "
        "the network is trained at it, and larger ones are smoothed. ImageMMTask and PublishedNetTask end in "
        "pixels instead, as published.",
        default=TARGET_FWHM,
        min=TARGET_FWHM,
        max=8.0,
    )
    measurable: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=MeasurableTask, doc="Makes the image for photometry."
    )
    characterize: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=CharacterizeTask, doc="Measures variance and PSF of the restored image."
    )
    fewExposures = pexConfig.RangeField(
        dtype=int,
        doc="Pixels with fewer exposures than this get the mask plane FEW_EXPOSURES.",
        default=3,
        min=0,
    )
    seed = pexConfig.RangeField(
        dtype=int,
        doc="Seed of all random numbers: noise realizations, injected sources, trainings. They also depend "
        "on the data ID of the patch.",
        default=42,
        min=0,
        max=2**31 - 1,
    )


class RestoreStackTask(pipeBase.Task):
    """Restore a stack of exposures.

    Notes
    -----
    The steps are those of the page "How it works" of the documentation:
    background, checks, outliers, PSF kernels, first estimate, white-noise coadd,
    network and consistency, uncertainty.
    """

    ConfigClass = RestoreStackConfig
    _DefaultName: ClassVar[str] = "restoreStack"
    config: RestoreStackConfig
    sky: SubtractSkyTask
    checkExposures: CheckExposuresTask
    fitKernels: FitKernelsTask
    restorer: Restorer
    measurable: MeasurableTask
    characterize: CharacterizeTask

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.makeSubtask("sky")
        self.makeSubtask("checkExposures")
        self.makeSubtask("fitKernels")
        self.makeSubtask("restorer")
        self.makeSubtask("measurable")
        self.makeSubtask("characterize")

    def restore(
        self,
        stack: ExposureStack,
        *,
        n_threads: int = 1,
        other_bands: Sequence[BandImage] = (),
        patch: str = "",
    ) -> RestoredStack:
        """Restore a stack of exposures.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures.
        n_threads : `int`, optional
            CPU threads to use.
        other_bands : `~collections.abc.Sequence` [`BandImage`], optional
            Restored images of the patch in deeper bands.
        patch : `str`, optional
            Data ID of the patch: random numbers differ between patches.

        Returns
        -------
        restored : `RestoredStack`
            The latent image, and the images and the uncertainty that go with
            it.

        Raises
        ------
        RestorationError
            Raised if the configuration is wrong, most exposures contradict the
            others, or a training fails; a `DivergedError` if it diverges.
        """
        seeds = Seeds(self.config.seed, patch)
        backend = prepare_backend(self.restorer.config.computeDevice, n_threads)
        # It imports Keras, which takes seconds: not before it is needed.
        from .restoration.first_estimate import first_estimate

        background = self.sky.run(stack)
        self.metadata["background_rms"] = background.rms.tolist()
        checks = self.checkExposures.run(
            background.stack, background.rms, check_kernels=self.config.fitKernels.mode != "gaussian"
        )
        self.metadata["n_exposures_dropped"] = int(checks.dropped.sum())
        sky_subtracted = checks.stack
        naive = naive_mean(sky_subtracted)
        reference = reference_coadd(sky_subtracted, clip_sigma=self.config.clipSigma)
        clean = sky_subtracted.without(reference.clipped)

        # Kernels are of the exposures' own pixels.
        kernel_fit = self.fitKernels.run(dataclasses.replace(clean, oversampling=1), reference, seeds=seeds)
        if kernel_fit is not None:
            # Outliers depend on the kernels.
            fitted = dataclasses.replace(sky_subtracted, kernels=kernel_fit.cell_kernels)
            reference = reference_coadd(fitted, clip_sigma=self.config.clipSigma)
            clean = fitted.without(reference.clipped)

        latent = first_estimate(clean, n_threads=n_threads)
        white = self.measurable.run(
            clean, reference, latent, target_fwhm=0.0, seeds=seeds, n_threads=n_threads
        )
        measurable = white
        if self.measurable.config.targetFwhm:
            measurable = self.measurable.run(clean, reference, latent, seeds=seeds, n_threads=n_threads)
        start = StartingPoint(
            latent=latent,
            matched=matched_stack(clean, white),
            weights=reference.weights,
            target_fwhm=self.config.targetFwhm,
            other_bands=other_bands,
        )
        restoration = require_finite(self.restorer.run(clean, start, backend=backend, seeds=seeds), clean)
        self.metadata["n_retries"] = restoration.n_retries
        characterization = self.characterize.run(
            clean, restoration, start.matched, seeds=seeds, n_threads=n_threads
        )
        return RestoredStack(
            stack=clean,
            checks=checks,
            naive=naive,
            reference=reference,
            kernel_fit=kernel_fit,
            restoration=restoration,
            measurable=measurable,
            characterization=characterization,
        )
