# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A first estimate of the latent image, by majorize-minimize steps from an
image that is constant but for saturated stars.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("first_estimate",)

import numpy as np

from ..stack.exposure_stack import ExposureStack
from ..stack.reference_coadd import naive_mean
from ..stack.saturated_stars import find_saturated_stars
from .likelihood import Likelihood
from .network_input import MAX_FACTOR, PENALTY, STEPS, starting_image
from .surrogate import Surrogate

# Steps from one gradient of all exposures to the next.
_STEPS_PER_GRADIENT = 10

# Residual in units of sigma beyond which the loss is linear.
_HUBER_DELTA = 2.0

# Pixels that the exposures see with less than this fraction of the median
# weight stay zero: nothing constrains them.
_MIN_COVERAGE = 0.01


def first_estimate(
    stack: ExposureStack, *, steps: int = STEPS, penalty: float = PENALTY, n_threads: int = 1
) -> np.ndarray:
    """Restore a stack of exposures in a few steps, without a network.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.
    steps : `int`, optional
        Steps to take, times the oversampling of the latent image, as finer
        structure takes longer.
    penalty : `float`, optional
        L1 penalty, see `network_input.PENALTY`.
    n_threads : `int`, optional
        CPU threads to use.

    Returns
    -------
    latent : `numpy.ndarray`
        The estimate, flux per latent pixel, nJy, non-negative,
        `numpy.float32`, shape of the stack's latent image.

    Notes
    -----
    The network is trained on estimates made with the defaults.  They stand in
    for missing pixels of the image for photometry, and the network starts from
    them.  On their own they are collections of points: with pixels as the
    resolution and an L1 penalty, smooth galaxies become grainy.
    """
    surrogate = Surrogate(stack, n_threads=n_threads)
    movable = surrogate.coverage() > _MIN_COVERAGE
    latent = starting_image(
        stack.latent_shape,
        find_saturated_stars(
            naive_mean(stack), stack.good.any(axis=0), _mean_kernel(stack), stack.median_sigma
        ),
        stack.median_sigma,
        stack.padding,
        stack.oversampling,
    )
    latent[~movable] = 0.0
    surrogate.minimize(
        Likelihood(stack, _HUBER_DELTA, n_threads=n_threads),
        latent,
        movable,
        steps=steps * stack.oversampling,
        steps_per_gradient=_STEPS_PER_GRADIENT,
        max_factor=MAX_FACTOR,
        penalty=np.float32(penalty) * np.sqrt(surrogate.gradient_variance()),
    )
    return latent


def _mean_kernel(stack: ExposureStack) -> np.ndarray:
    """Return the mean of all kernels, shape ``(k, k)``."""
    return stack.kernels[stack.has_kernel].mean(axis=0)
