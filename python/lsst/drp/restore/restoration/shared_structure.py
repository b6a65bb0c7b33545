# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Structure in common to several bands: where deeper bands have light, and how
it is distributed there.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("share_structure",)

from collections.abc import Sequence

import numpy as np
import scipy.ndimage

from ..stack.exposure_stack import ExposureStack
from .forward_model import ForwardModel
from .restoration import BandImage

# Width (sigma, pixels of the exposures) of the window in which a color is
# measured.
_WINDOW = 2.0

# Scatter of colors around the field's typical one, as a fraction of it.
_COLOR_SCATTER = 0.6

# Signal-to-noise ratio of a window whose color counts for the typical one.
_MIN_SIGNAL = 5.0

# Scatter of colors within a source, as a fraction of its brightness.
_GRADIENT = 0.15

# Smallest error of the prediction from another band, in units of the network's
# own: there are sources in this band alone.
_LEAST_ERROR = 0.5


def share_structure(
    image: np.ndarray,
    error: np.ndarray,
    model: ExposureStack,
    other_bands: Sequence[BandImage],
    *,
    n_threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Combine a network's image with predictions from deeper bands.

    Parameters
    ----------
    image, error : `numpy.ndarray`
        The network's image of this band, nJy, non-negative, and the standard
        deviation of its error.
    model : `ExposureStack`
        White-noise coadd of this band with kernels from the image's
        resolution.
    other_bands : `~collections.abc.Sequence` [`BandImage`]
        Restored images of other bands at the same resolution.
    n_threads : `int`, optional
        CPU threads to use.

    Returns
    -------
    image, error : `numpy.ndarray`
        The mean of the images weighted by their inverse variance, and its
        error, `numpy.float32`, same shapes.

    Notes
    -----
    A band predicts another one up to the colors of the sources.  The color
    ``c`` is fitted in a window around each pixel: the coadd ``M`` of this band
    against the image ``d`` of the other band convolved with this band's PSF ``h``, with a prior
    around the typical color of the field,

    ``c = (sum w M (h*d) + k c0) / (sum w (h*d)^2 + k)``.

    The prediction is ``c d``.
    """
    forward_model = ForwardModel(model, n_threads=n_threads)
    weight = np.where(model.good[0], 1.0 / model.variance[0], 0.0)
    total, norm = image / error**2, 1.0 / error**2
    for other in other_bands:
        if other.error is None:
            continue
        seen = forward_model.forward(other.latent)[0]
        power = _window(weight * seen**2)
        product = _window(weight * seen * model.image[0])
        certain = power > _typical_power(power, product)
        if not certain.any():
            continue
        typical = float(np.median(product[certain] / power[certain]))
        if not typical > 0.0:
            continue
        prior = (_COLOR_SCATTER * typical) ** -2
        color = np.maximum((product + prior * typical) / (power + prior), 0.0)
        variance = 1.0 / (power + prior)
        color, variance = (_on_latent(plane, model) for plane in (color, variance))
        predicted = color * other.latent
        uncertainty = variance * other.latent**2 + (color * other.error) ** 2 + (_GRADIENT * predicted) ** 2
        uncertainty = np.maximum(uncertainty, (_LEAST_ERROR * error) ** 2)
        total += predicted / uncertainty
        norm += 1.0 / uncertainty
    return (total / norm).astype(np.float32), (norm**-0.5).astype(np.float32)


def _typical_power(power: np.ndarray, product: np.ndarray) -> float:
    """Return the power from which a color is certain enough to count."""
    # With c of order 1 in any unit, the signal-to-noise ratio is c sqrt(power).
    scale = float(np.sum(product) / max(float(np.sum(power)), np.finfo(float).tiny))
    return (_MIN_SIGNAL / scale) ** 2 if scale > 0.0 else np.inf


def _window(values: np.ndarray) -> np.ndarray:
    """Sum over a Gaussian window with a height of 1."""
    area = 2.0 * np.pi * _WINDOW**2
    return area * scipy.ndimage.gaussian_filter(values, _WINDOW, mode="constant")


def _on_latent(plane: np.ndarray, model: ExposureStack) -> np.ndarray:
    """Bring a plane on the exposures' pixels to those of the latent image."""
    fine = plane.repeat(model.oversampling, axis=0).repeat(model.oversampling, axis=1)
    return np.pad(fine, model.padding * model.oversampling, mode="edge")
