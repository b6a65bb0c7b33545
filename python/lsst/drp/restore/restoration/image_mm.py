# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""ImageMM: restoration by majorize-minimize steps, without a network
(arXiv:2501.03002).
"""

from __future__ import annotations

__all__ = ("ImageMMConfig", "ImageMMTask")

import time
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from ..stack.exposure_stack import ExposureStack
from ..stack.reference_coadd import ReferenceCoadd
from .backend import COMPUTE_DEVICES, prepare_backend
from .restoration import Restoration, StartingPoint, make_history

# Steps over which the fall of the loss tells whether there is more to come.
_CONVERGENCE_STEPS = 10


class ImageMMConfig(pexConfig.Config):
    """Configuration of `ImageMMTask`."""

    fits_weights: ClassVar[bool] = False
    """Whether the restorer fits weights to each patch."""

    maxSteps = pexConfig.RangeField(
        dtype=int,
        doc="Steps to take.",
        default=100,
        min=1,
    )
    huberDelta = pexConfig.RangeField(
        dtype=float,
        doc="Residual in units of sigma beyond which the loss is linear.",
        default=2.0,
        min=0.0,
        inclusiveMin=False,
    )
    maxFactor = pexConfig.RangeField(
        dtype=float,
        doc="Largest factor (and its inverse the smallest) by which a step changes a pixel: kappa.",
        default=4.0,
        min=1.0,
        inclusiveMin=False,
    )
    minCoverage = pexConfig.RangeField(
        dtype=float,
        doc="Pixels of the latent image that the exposures see with less than this fraction of the median "
        "weight (where there are data) stay dark: nothing holds their value, and it can grow without limit.",
        default=0.01,
        min=0.0,
        max=1.0,
    )
    minImprovement = pexConfig.RangeField(
        dtype=float,
        doc="Decrease of the loss per good pixel in the last 10 steps below which the image counts as "
        "converged. It does not stop the steps: such rules stop far too early.",
        default=1e-2,
        min=0.0,
    )
    computeDevice = pexConfig.ChoiceField[str](
        doc="Where to compute.", default="auto", allowed=dict(COMPUTE_DEVICES), optional=False
    )
    progressInterval = pexConfig.RangeField(
        dtype=float, doc="Seconds between two progress messages.", default=5.0, min=0.0
    )


class ImageMMTask(pipeBase.Task):
    """Restore a stack of exposures by multiplicative majorize-minimize steps.

    Notes
    -----
    The steps are those of `majorize_minimize`, from a constant image: there is
    nothing random about them, and there are no weights.
    """

    ConfigClass = ImageMMConfig
    _DefaultName: ClassVar[str] = "imageMM"
    config: ImageMMConfig

    def run(
        self,
        stack: ExposureStack,
        reference: ReferenceCoadd,
        *,
        start: StartingPoint | None = None,
        n_threads: int = 1,
    ) -> Restoration:
        """Restore the patch.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures.
        reference : `ReferenceCoadd`
            Coadd of the same exposures; not used.
        start : `StartingPoint`, optional
            Not used.
        n_threads : `int`, optional
            CPU threads to use.

        Returns
        -------
        restoration : `Restoration`
            The latent image and how it was found; without weights.

        Raises
        ------
        RestorationError
            Raised if a GPU is asked for and there is none.
        """
        began = time.perf_counter()
        device = prepare_backend(self.config.computeDevice, n_threads, seed=0)
        from .forward_model import ForwardModel
        from .likelihood import Likelihood, coverage
        from .majorize_minimize import majorize_minimize

        model = ForwardModel(stack)
        likelihood = Likelihood(stack, self.config.huberDelta, model)
        covered = coverage(stack, model) > self.config.minCoverage
        first = np.where(covered, stack.median_sigma / stack.oversampling**2, 0.0).astype(np.float32)

        def take_steps(likelihood: Likelihood, latent: np.ndarray) -> Iterator[float]:
            return majorize_minimize(
                likelihood,
                latent,
                covered,
                steps=self.config.maxSteps,
                max_factor=self.config.maxFactor,
            )

        def repeat(other: ExposureStack) -> np.ndarray:
            latent = first.copy()
            for _ in take_steps(Likelihood(other, self.config.huberDelta), latent):
                pass
            return latent

        self.log.info(
            "Taking %d steps with %d exposures of %dx%d pixels on %s.",
            self.config.maxSteps,
            stack.n_exposures,
            *stack.shape,
            device,
        )
        rows, reported = [], began
        latent = first.copy()
        for step, loss in enumerate(take_steps(likelihood, latent), start=1):
            now = time.perf_counter()
            rows.append((step, loss, np.nan, np.nan, now - began))
            if now - reported >= self.config.progressInterval:
                reported = now
                self.log.info(
                    "Step %d of %d: loss %.5f, %.2f Mpixel/s, %.0f s left.",
                    step,
                    self.config.maxSteps,
                    loss,
                    step * stack.image.size / (now - began) / 1e6,
                    (self.config.maxSteps - step) * (now - began) / step,
                )
        loss = likelihood.huber_loss(latent)
        self.log.info("Loss per good pixel: %.5f.", loss)
        before = rows[-_CONVERGENCE_STEPS][1] if len(rows) >= _CONVERGENCE_STEPS else np.inf
        return Restoration(
            latent=latent,
            padding=stack.padding * stack.oversampling,
            converged=bool(before - loss < self.config.minImprovement),
            history=make_history(rows),
            weights={},
            steps=self.config.maxSteps,
            loss=loss,
            device=device,
            seconds=time.perf_counter() - began,
            repeat=repeat,
            model=stack,
            kernels=stack.kernels,
        )
