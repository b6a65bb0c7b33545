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
from typing import TYPE_CHECKING, ClassVar

import numpy as np

import lsst.pex.config as pexConfig

from ..stack.exposure_stack import ExposureStack
from .backend import Backend
from .restoration import FittedRestorer, Restoration, Restorer, RestorerConfig, StartingPoint, make_history
from .seeds import Seeds

if TYPE_CHECKING:
    from .likelihood import Likelihood

# Steps over which the decrease of the loss is a measure of convergence.
_CONVERGENCE_STEPS = 10

# Residual in units of sigma beyond which the loss is linear.
_HUBER_DELTA = 2.0

# Largest factor, kappa (and its inverse the smallest), by which a step changes a pixel.
_MAX_FACTOR = 4.0

# Pixels of the latent image that the exposures see with less than this fraction of the median weight stay
# zero: nothing constrains their value, and it can grow without limit.
_MIN_COVERAGE = 0.01

# Seconds between two progress messages.
_PROGRESS_INTERVAL = 5.0


class ImageMMConfig(RestorerConfig):
    """Configuration of `ImageMMTask`."""

    maxSteps = pexConfig.RangeField(
        dtype=int,
        doc="Steps to take.",
        default=100,
        min=1,
    )
    minImprovement = pexConfig.RangeField(
        dtype=float,
        doc="Decrease of the loss per good pixel in the last 10 steps below which the image counts as "
        "converged. It does not stop the steps: such rules stop far too early.",
        default=1e-2,
        min=0.0,
    )


class ImageMMTask(Restorer):
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
        self, stack: ExposureStack, start: StartingPoint, *, backend: Backend, seeds: Seeds
    ) -> Restoration:
        """Restore a patch; see `Restorer.run`.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures.
        start : `StartingPoint`
            Not used: the steps start from a constant image.
        backend : `Backend`
            Device and threads.
        seeds : `Seeds`
            Not used.

        Returns
        -------
        restoration : `Restoration`
            The latent image, one of points, and how it was found; without
            weights.
        """
        began = time.perf_counter()
        from .likelihood import Likelihood

        likelihood = Likelihood(stack, _HUBER_DELTA, n_threads=backend.n_threads)
        fitted = FittedImageMM(stack, self.config.maxSteps, backend.n_threads)
        self.log.info(
            "Taking %d steps with %d exposures of %dx%d pixels on %s.",
            self.config.maxSteps,
            stack.n_exposures,
            *stack.shape,
            backend.device,
        )
        rows, reported = [], began
        latent = fitted.start()
        for step, loss in enumerate(fitted.steps(likelihood, latent), start=1):
            now = time.perf_counter()
            rows.append((step, loss, np.nan, np.nan, now - began))
            if now - reported >= _PROGRESS_INTERVAL:
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
            device=backend.device,
            seconds=time.perf_counter() - began,
            fitted=fitted,
            model=stack,
            kernels=stack.kernels,
        )


class FittedImageMM(FittedRestorer):
    """The steps on a patch: there is nothing else to fit.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures; they are not kept.
    n_steps : `int`
        Steps to take.
    n_threads : `int`
        CPU threads to use.
    """

    def __init__(self, stack: ExposureStack, n_steps: int, n_threads: int) -> None:
        from .forward_model import ForwardModel
        from .likelihood import coverage

        self._covered = coverage(stack, ForwardModel(stack, n_threads=n_threads)) > _MIN_COVERAGE
        self._first = np.float32(stack.median_sigma / stack.oversampling**2)
        self._n_steps = n_steps
        self._n_threads = n_threads

    def start(self) -> np.ndarray:
        """Return the constant image that the steps start from, nJy
        (`numpy.ndarray`).
        """
        return np.where(self._covered, self._first, np.float32(0.0))

    def steps(self, likelihood: Likelihood, latent: np.ndarray) -> Iterator[float]:
        """Take the steps, in place.

        Parameters
        ----------
        likelihood : `Likelihood`
            Likelihood of the exposures.
        latent : `numpy.ndarray`
            The latent image, nJy; changed.

        Yields
        ------
        loss : `float`
            Loss per good pixel before each step.
        """
        from .majorize_minimize import majorize_minimize

        return majorize_minimize(
            likelihood, latent, self._covered, steps=self._n_steps, max_factor=_MAX_FACTOR
        )

    def restore(self, exposures: ExposureStack) -> np.ndarray:
        """Take all steps with other pixels.

        Parameters
        ----------
        exposures : `ExposureStack`
            The exposures with other pixels.

        Returns
        -------
        latent : `numpy.ndarray`
            The latent image, nJy.
        """
        from .likelihood import Likelihood

        latent = self.start()
        likelihood = Likelihood(exposures, _HUBER_DELTA, n_threads=self._n_threads)
        for _ in self.steps(likelihood, latent):
            pass
        return latent
