# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Consistency of a predicted image with the exposures: they have the last
word.
"""

from __future__ import annotations

__all__ = ("ConsistencyConfig", "ConsistencyTask")

import numpy as np

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from ..stack.exposure_stack import ExposureStack


class ConsistencyConfig(pexConfig.Config):
    """Configuration of `ConsistencyTask`."""

    gradients = pexConfig.RangeField(
        dtype=int,
        doc="Times that the gradient of all exposures is computed; 0 leaves the network's image as it is.",
        default=3,
        min=0,
    )
    iterations = pexConfig.RangeField(
        dtype=int,
        doc="Iterations on a single-exposure surrogate between two of these gradients.",
        default=12,
        min=1,
    )
    priorScale = pexConfig.RangeField(
        dtype=float,
        doc="Standard deviation of the prior in units of the error that the network states. Larger values "
        "trust the exposures more: more noise, less bias.",
        default=0.4,
        min=0.0,
        inclusiveMin=False,
    )
    priorDelta = pexConfig.RangeField(
        dtype=float,
        doc="Correction in units of that standard deviation beyond which the prior is linear: where the "
        "network is wrong by more than it says, the exposures win.",
        default=2.0,
        min=0.0,
        inclusiveMin=False,
    )
    huberDelta = pexConfig.RangeField(
        dtype=float,
        doc="Residual in units of sigma beyond which the loss is linear.",
        default=2.0,
        min=0.0,
        inclusiveMin=False,
    )


class ConsistencyTask(pipeBase.Task):
    """Bring a predicted image back to the exposures.

    Notes
    -----
    The result minimizes

    ``sum_t m[t] H((y[t] - h[t] * x) / sigma[t]) + sum H((x - p) / s)``

    over ``x >= 0``, with Huber's functions ``H`` (equations 4 and 5), the
    predicted image ``p``, the standard deviation ``s`` of its error, and the
    kernels ``h`` from the resolution of the image to that of the exposures.
    Where the exposures are certain they decide, elsewhere the prediction.
    """

    ConfigClass = ConsistencyConfig
    _DefaultName = "consistency"
    config: ConsistencyConfig

    def run(self, stack: ExposureStack, predicted: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Correct an image.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures, with kernels from the resolution of the image to
            their own (`convolution_kernels`).
        predicted : `numpy.ndarray`
            Non-negative latent image ``p``, nJy, shape of the stack's latent
            image.
        error : `numpy.ndarray`
            Standard deviation ``s`` of its error, nJy, positive, same shape.

        Returns
        -------
        latent : `numpy.ndarray`
            The corrected image, nJy, non-negative, same shape.

        Notes
        -----
        Between two gradients of all exposures, steps are taken on a single
        exposure with the same second derivative (`Surrogate`), by FISTA (Beck
        and Teboulle 2009) with a diagonal majorizer as the step size.
        """
        from .likelihood import Likelihood
        from .surrogate import Surrogate

        if not self.config.gradients:
            return predicted
        likelihood = Likelihood(stack, self.config.huberDelta)
        surrogate = Surrogate(stack, signed=True)
        sigma = np.float32(self.config.priorScale) * error
        latent = predicted
        for _ in range(self.config.gradients):
            gradient, weight = likelihood.gradient(latent)
            # Weights of the robust prior at the image so far, as those of the exposures.
            size = np.abs(latent - predicted) / sigma
            precision = np.minimum(1.0, self.config.priorDelta / np.maximum(size, 1e-6)) / sigma**2
            gradient += precision * (latent - predicted)
            latent = surrogate.minimize_quadratic(
                latent, gradient, weight, precision, iterations=self.config.iterations
            )
        return latent
