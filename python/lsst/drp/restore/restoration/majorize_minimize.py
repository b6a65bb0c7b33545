# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Multiplicative majorize-minimize steps (arXiv:2501.03002).

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("majorize_minimize",)

from collections.abc import Iterator

import numpy as np

from .likelihood import Likelihood


def majorize_minimize(
    likelihood: Likelihood,
    latent: np.ndarray,
    movable: np.ndarray,
    *,
    steps: int,
    max_factor: float,
) -> Iterator[float]:
    """Improve a latent image in place.

    Each step is

    ``x <- x * clip(sum_t f[t]^T (w y)[t] / sum_t f[t]^T (w (f*x))[t],
    1/kappa, kappa)``

    with ``w = m / v * min(1, delta / |r|)`` (`Likelihood.back_project`); a
    negative numerator is cut at zero.  The loss never rises.  Pixels never become negative.

    Parameters
    ----------
    likelihood : `Likelihood`
        Likelihood of the exposures.
    latent : `numpy.ndarray`
        Latent image, nJy, shape ``(height + k - 1, width + k - 1)``.
    movable : `numpy.ndarray`
        `bool`, same shape: the pixels to change.
    steps : `int`
        Number of steps.
    max_factor : `float`
        ``kappa``, the largest factor of one step.

    Yields
    ------
    loss : `float`
        Mean Huber loss per good pixel of the image that the step which has
        been taken started from.
    """
    for _ in range(steps):
        observed, predicted, loss = likelihood.back_project(latent)
        factor = np.divide(
            np.maximum(observed, 0.0), predicted, out=np.ones_like(latent), where=movable & (predicted > 0.0)
        )
        latent *= np.clip(factor, 1.0 / max_factor, max_factor)
        yield loss
