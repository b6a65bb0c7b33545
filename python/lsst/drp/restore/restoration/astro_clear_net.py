# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""AstroClearNet: restore the sky at a stated resolution with a network that
was trained on simulated skies, and bring it back to the exposures.
"""

from __future__ import annotations

__all__ = ("AstroClearNetConfig", "AstroClearNetTask")

import dataclasses
import time
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.ndimage

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from ..stack.exposure_stack import ExposureStack
from ..stack.reference_coadd import ReferenceCoadd
from .backend import COMPUTE_DEVICES, prepare_backend
from .consistency import ConsistencyTask
from .measurable import matched_stack
from .network_weights import describe_weights, read_weights
from .restoration import Restoration, StartingPoint, make_history
from .target_psf import FWHM_PER_SIGMA, TARGET_FWHM, convolution_kernels

if TYPE_CHECKING:
    from .trained_network import TrainedNetwork


class AstroClearNetConfig(pexConfig.Config):
    """Configuration of `AstroClearNetTask`."""

    passes = pexConfig.RangeField(
        dtype=int,
        doc="Passes of the network; between two of them it is shown what the exposures have beyond its "
        "image. It is trained with the default.",
        default=2,
        min=1,
    )
    consistency: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=ConsistencyTask, doc="Brings the network's image back to the exposures."
    )
    tileSize = pexConfig.RangeField(
        dtype=int,
        doc="Height and width of the tiles of a pass, pixels: bounds its memory. The result does not depend "
        "on it.",
        default=256,
        min=64,
    )
    weightsFile = pexConfig.Field[str](
        doc="File of the network's weights (`write_weights`), for example fine-tuned on patches of a survey "
        "(`fine_tune`). None for the weights that the package ships.",
        default=None,
        optional=True,
    )
    fineTuneSteps = pexConfig.RangeField(
        dtype=int,
        doc="Steps for which the weights are trained further on the patch, without any truth: some of the "
        "exposures predict the others. At least 4 exposures are needed. 0 uses the weights as they are.",
        default=0,
        min=0,
    )
    fineTuneRate = pexConfig.RangeField(
        dtype=float,
        doc="Largest learning rate of these steps.",
        default=1e-4,
        min=0.0,
        inclusiveMin=False,
    )
    seed = pexConfig.RangeField(
        dtype=int,
        doc="Seed of the halves of the exposures and of the crops that these steps are taken on.",
        default=42,
        min=0,
        max=2**31 - 1,
    )
    computeDevice = pexConfig.ChoiceField[str](
        doc="Where to compute.", default="auto", allowed=dict(COMPUTE_DEVICES), optional=False
    )

    @property
    def fits_weights(self) -> bool:
        """Whether the restorer fits weights to each patch (`bool`)."""
        return self.fineTuneSteps > 0


class AstroClearNetTask(pipeBase.Task):
    """Restore a stack of exposures with a trained network.

    Notes
    -----
    The network sees the white-noise coadd of all exposures, which is all that
    they say together (B. Zackay and E. O. Ofek 2017), whatever their number:
    what it has beyond the first estimate, at the target resolution and as the
    PSF sees it.  Its output is an image and the error of this image, with which
    the exposures correct it (`ConsistencyTask`).
    """

    ConfigClass = AstroClearNetConfig
    _DefaultName: ClassVar[str] = "astroClearNet"
    config: AstroClearNetConfig
    consistency: ConsistencyTask

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.makeSubtask("consistency")

    def run(
        self,
        stack: ExposureStack,
        reference: ReferenceCoadd,
        *,
        start: StartingPoint,
        n_threads: int = 1,
    ) -> Restoration:
        """Restore the patch.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures.
        reference : `ReferenceCoadd`
            Coadd of the same exposures; not used.
        start : `StartingPoint`
            First estimate and white-noise coadd; the target's FWHM is at least
            `TARGET_FWHM`.
        n_threads : `int`, optional
            CPU threads to use.

        Returns
        -------
        restoration : `Restoration`
            The latent image at the target resolution.

        Raises
        ------
        RestorationError
            Raised if a GPU is asked for and there is none.
        DivergedError
            Raised if fine-tuning diverges.
        """
        began = time.perf_counter()
        device = prepare_backend(self.config.computeDevice, n_threads, seed=0)
        from .first_estimate import first_estimate
        from .likelihood import Likelihood
        from .shared_structure import share_structure
        from .trained_network import load_network

        tuned = self._fine_tune(stack)
        network = load_network(self.config.weightsFile) if tuned is None else tuned
        # The network has one resolution; coarser ones are made from it.
        fwhm = TARGET_FWHM / stack.oversampling
        kernels = convolution_kernels(stack.kernels, fwhm)
        sharp = dataclasses.replace(stack, kernels=kernels)
        matched = matched_stack(stack, start.measurable)
        final_fwhm = start.target_fwhm / stack.oversampling
        blur = np.sqrt(max(start.target_fwhm**2 - TARGET_FWHM**2, 0.0)) / FWHM_PER_SIGMA

        def modeled(coadd: ExposureStack, fwhm: float = fwhm) -> ExposureStack:
            return dataclasses.replace(coadd, kernels=convolution_kernels(coadd.kernels, fwhm))

        def restore(exposures: ExposureStack, coadd: ExposureStack, latent: np.ndarray) -> tuple:
            begin = _smooth(latent, TARGET_FWHM / FWHM_PER_SIGMA)
            image, error = network.apply(coadd, begin, self.config.passes, self.config.tileSize)
            # A smoother guide would blur.
            if start.guides and not blur:
                image, error = share_structure(image, error, modeled(coadd), start.guides)
            return image, error, _smooth(self.consistency.run(exposures, image, error), blur)

        def repeat(other: ExposureStack) -> np.ndarray:
            coadd = dataclasses.replace(matched, image=other.image)
            return restore(modeled(coadd), coadd, first_estimate(coadd))[2]

        predicted, error, latent = restore(sharp, matched, start.latent)
        final = convolution_kernels(stack.kernels, final_fwhm) if blur else kernels
        coarse = dataclasses.replace(stack, kernels=final)
        delta = self.consistency.config.huberDelta
        rows = [
            (step, loss, np.nan, np.nan, time.perf_counter() - began)
            for step, loss in (
                (0, Likelihood(stack, delta).huber_loss(start.latent)),
                (self.config.passes, Likelihood(sharp, delta).huber_loss(predicted)),
                (
                    self.config.passes + self.consistency.config.gradients,
                    Likelihood(coarse, delta).huber_loss(latent),
                ),
            )
        ]
        self.log.info(
            "Loss per good pixel: %.5f of the first estimate, %.5f of the network, %.5f after consistency.",
            *(row[1] for row in rows),
        )
        return Restoration(
            latent=latent,
            padding=stack.padding * stack.oversampling,
            converged=rows[2][1] <= rows[1][1],
            history=make_history(rows),
            weights={} if tuned is None else tuned.weights,
            steps=rows[-1][0],
            loss=rows[-1][1],
            device=device,
            seconds=time.perf_counter() - began,
            repeat=repeat,
            model=modeled(matched, final_fwhm),
            kernels=final,
            target_fwhm=start.target_fwhm,
            error=error,
            network={
                **describe_weights(self.config.weightsFile),
                "fine_tuning_steps": 0 if tuned is None else self.config.fineTuneSteps,
            },
        )

    def _fine_tune(self, stack: ExposureStack) -> TrainedNetwork | None:
        """Train the weights further on the patch, if this is asked for and
        possible.
        """
        if not self.config.fineTuneSteps:
            return None
        from .fine_tuning import MIN_EXPOSURES, MIN_SIZE, fine_tune

        if stack.n_exposures < MIN_EXPOSURES or min(stack.shape) < MIN_SIZE:
            self.log.warning(
                "The network is not fine-tuned: that needs %d exposures of %dx%d pixels, and there are %d of "
                "%dx%d.",
                *(MIN_EXPOSURES, MIN_SIZE, MIN_SIZE),
                *(stack.n_exposures, *stack.shape),
            )
            return None
        network, history = fine_tune(
            [stack],
            read_weights(self.config.weightsFile),
            passes=self.config.passes,
            steps=self.config.fineTuneSteps,
            rate=self.config.fineTuneRate,
            seed=self.config.seed,
            log=self.log,
        )
        self.log.info(
            "Fine-tuned the network: loss per good pixel of the exposures that it did not see from %.5f to "
            "%.5f in %d steps, %.0f s.",
            *(history["loss"][0], history["loss"][-1], self.config.fineTuneSteps, history["seconds"][-1]),
        )
        return network


def _smooth(image: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve with a Gaussian; outside of the image there is nothing."""
    return scipy.ndimage.gaussian_filter(image, sigma, mode="constant", truncate=6.0) if sigma else image
