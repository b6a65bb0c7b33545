# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What a restorer returns."""

from __future__ import annotations

__all__ = ("Restoration",)

import dataclasses

import astropy.table
import numpy as np


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Restoration:
    """A latent image and how it was found.

    Parameters
    ----------
    latent : `numpy.ndarray`
        The latent image ``x``, nJy per pixel, non-negative, `numpy.float32`,
        shape ``(height + 2*padding, width + 2*padding)``: the patch and a
        border of ``padding`` pixels (half of a PSF kernel) on each side.
    padding : `int`
        Width of that border, pixels.
    converged : `bool`
        Whether the loss on held-out crops stopped falling before the training
        ran out of steps.
    history : `astropy.table.Table`
        One row per logged interval of the training: ``step``, ``loss``,
        ``validation_loss`` (mean Huber loss per good pixel, dimensionless),
        ``learning_rate``, ``seconds`` since the start.
    weights : `dict` [`str`, `numpy.ndarray`]
        The fitted weights of the network by name.
    steps : `int`
        Optimizer steps taken.
    loss : `float`
        Mean Huber loss per good pixel of the whole patch (equation 4),
        dimensionless.
    device : `str`
        The device the training ran on, for example ``CPU`` or ``GPU``.
    seconds : `float`
        Wall time of the restoration, s.
    """

    latent: np.ndarray
    padding: int
    converged: bool
    history: astropy.table.Table
    weights: dict[str, np.ndarray]
    steps: int
    loss: float
    device: str
    seconds: float

    @property
    def image(self) -> np.ndarray:
        """The latent image on the patch itself, nJy, shape ``(height,
        width)`` (`numpy.ndarray`).
        """
        height, width = self.latent.shape
        return self.latent[self.padding : height - self.padding, self.padding : width - self.padding]
