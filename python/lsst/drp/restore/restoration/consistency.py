# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Consistency of a predicted image with the exposures: they have the last
word.
"""

from __future__ import annotations

__all__ = ("HUBER_DELTA", "ConsistencyConfig", "ConsistencyTask")

import numpy as np

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from ..stack.exposure_stack import ExposureStack

# Iterations on a single-exposure surrogate between two gradients: with more of them, the surrogate's own
# error is fitted.
_ITERATIONS = 12

# Correction in units of the prior's standard deviation beyond which the prior is linear: where the network is
# wrong by more than it states, the exposures win.
_PRIOR_DELTA = 2.0

HUBER_DELTA = 2.0
"""Residual in units of sigma beyond which the loss is linear (`float`)."""


class ConsistencyConfig(pexConfig.Config):
    """Configuration of `ConsistencyTask`."""

    gradients = pexConfig.RangeField(
        dtype=int,
        doc="Exact gradients of all exposures; 0 leaves the network's image as it is. More of them bring it "
        "closer to the exposures and take longer.",
        default=3,
        min=0,
    )
    priorScale = pexConfig.RangeField(
        dtype=float,
        doc="Standard deviation of the prior in units of the error that the network states. Larger values "
        "trust the exposures more: more noise, less bias.",
        default=0.4,
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

    def run(
        self, stack: ExposureStack, predicted: np.ndarray, error: np.ndarray, *, n_threads: int = 1
    ) -> np.ndarray:
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
        n_threads : `int`, optional
            CPU threads to use.

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
        likelihood = Likelihood(stack, HUBER_DELTA, n_threads=n_threads)
        surrogate = Surrogate(stack, signed=True, n_threads=n_threads)
        sigma = np.float32(self.config.priorScale) * error
        latent = predicted
        for _ in range(self.config.gradients):
            gradient, weight = likelihood.gradient(latent)
            # Weights of the robust prior at the image so far, as those of the exposures.
            size = np.abs(latent - predicted) / sigma
            precision = np.minimum(1.0, _PRIOR_DELTA / np.maximum(size, 1e-6)) / sigma**2
            gradient += precision * (latent - predicted)
            latent = surrogate.minimize_quadratic(latent, gradient, weight, precision, iterations=_ITERATIONS)
        return latent
