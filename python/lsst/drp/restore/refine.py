# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Data-consistency steps after the network: what it lost, the exposures still
have.
"""

from __future__ import annotations

__all__ = ("RefineConfig", "RefineTask")

import dataclasses
import time
from typing import ClassVar

import numpy as np

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from .exposure_stack import ExposureStack
from .restoration import Restoration


class RefineConfig(pexConfig.Config):
    """Configuration of `RefineTask`."""

    steps = pexConfig.RangeField(
        dtype=int,
        doc="Accelerated majorize-minimize steps to take, times superResolution, as finer structure takes "
        "longer; 0 leaves the image as it is. More of them tell closer pairs of stars apart and make stars "
        "sharper.",
        default=30,
        min=0,
    )
    stepsPerLook = pexConfig.RangeField(
        dtype=int,
        doc="Steps from one look at all exposures to the next. Between two looks the steps are taken on one "
        "exposure that stands for all of them: they cost little.",
        default=10,
        min=1,
    )
    penalty = pexConfig.RangeField(
        dtype=float,
        doc="Cost of light, in units of the standard deviation with which the exposures measure the flux of "
        "a point source: only pixels more significant than that stay lit. It puts out the noise that the "
        "steps let in, and sources become fainter by about as many standard deviations. 0 for none.",
        default=1.0,
        min=0.0,
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
        doc="Largest factor (and its inverse the smallest) by which a step changes a pixel.",
        default=4.0,
        min=1.0,
        inclusiveMin=False,
    )
    floor = pexConfig.RangeField(
        dtype=float,
        doc="Value, in units of the median sigma, to which darker pixels are raised before the first step: a "
        "step multiplies, so that a dark pixel would stay dark.",
        default=0.03,
        min=0.0,
    )
    minCoverage = pexConfig.RangeField(
        dtype=float,
        doc="Pixels that the exposures see with less than this fraction of the median weight are left alone.",
        default=0.01,
        min=0.0,
        max=1.0,
    )


class RefineTask(pipeBase.Task):
    """Take a few majorize-minimize steps from a restored image."""

    ConfigClass = RefineConfig
    _DefaultName: ClassVar[str] = "refine"
    config: RefineConfig

    def run(self, stack: ExposureStack, restoration: Restoration) -> Restoration:
        """Refine a restoration.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures that were restored.
        restoration : `Restoration`
            What the restorer returned; it is not changed.

        Returns
        -------
        refined : `Restoration`
            The same with a better latent image, its loss, and the time that
            this took.
        """
        if not self.config.steps:
            return restoration
        start = time.perf_counter()
        from .decoder import FieldDecoder
        from .surrogate import Surrogate

        surrogate = Surrogate(stack)
        movable = surrogate.coverage() > self.config.minCoverage
        floor = np.float32(self.config.floor * stack.median_sigma / stack.factor**2)
        penalty = np.float32(self.config.penalty) * np.sqrt(surrogate.gradient_variance())
        steps = self.config.steps * stack.factor
        restorer = restoration.repeat

        def take_steps(decoder: FieldDecoder, latent: np.ndarray) -> np.ndarray:
            latent = latent.copy()
            latent[movable] = np.maximum(latent[movable], floor)
            surrogate.minimize(
                decoder,
                latent,
                movable,
                steps=steps,
                steps_per_look=self.config.stepsPerLook,
                delta=self.config.huberDelta,
                max_factor=self.config.maxFactor,
                penalty=penalty,
            )
            return latent

        decoder = FieldDecoder(stack)
        latent = take_steps(decoder, restoration.latent)
        loss = decoder.huber_loss(latent, self.config.huberDelta)
        self.log.info("Loss per good pixel after %d steps of refinement: %.5f.", steps, loss)
        return dataclasses.replace(
            restoration,
            latent=latent,
            loss=loss,
            seconds=restoration.seconds + time.perf_counter() - start,
            repeat=lambda other: take_steps(FieldDecoder(other), restorer(other)),
        )
