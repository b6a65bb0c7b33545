# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Signal-to-noise ratio of point sources in all exposures together."""

from __future__ import annotations

__all__ = ("point_signal", "typical_depth")

import numpy as np

from ..stack.exposure_stack import ExposureStack


def point_signal(stack: ExposureStack, n_threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Measure a point source at each latent pixel.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.
    n_threads : `int`, optional
        CPU threads to use.

    Returns
    -------
    signal : `numpy.ndarray`
        Signal-to-noise ratio of a point source in all exposures together, shape
        of the latent image; zero where hardly any exposure sees one.
    depth : `numpy.ndarray`
        Inverse variance of its flux, nJy**-2, same shape.
    """
    from .forward_model import ForwardModel

    def inverse(rows: slice, columns: slice) -> np.ndarray:
        variance = stack.noise_variance(rows, columns)
        return np.divide(1.0, variance, out=np.zeros_like(variance), where=variance > 0.0)

    def weighted(rows: slice, columns: slice) -> np.ndarray:
        return inverse(rows, columns) * stack.image[:, rows, columns]

    # Rounding errors of the Fourier transforms can be negative.
    squares = ForwardModel(stack, squared=True, n_threads=n_threads)
    depth = np.maximum(squares.adjoint(inverse), 0.0)
    flux = ForwardModel(stack, n_threads=n_threads).adjoint(weighted)
    deep = depth > 1e-3 * typical_depth(depth, stack)
    return np.divide(flux, np.sqrt(depth), out=np.zeros_like(flux), where=deep), depth


def typical_depth(depth: np.ndarray, stack: ExposureStack) -> float:
    """Compute the median depth.

    Parameters
    ----------
    depth : `numpy.ndarray`
        From `point_signal`.
    stack : `ExposureStack`
        The exposures.

    Returns
    -------
    median : `float`
        Median over the pixels that an exposure sees, nJy**-2.
    """
    return float(np.median(depth[stack.latent_patch][stack.latent_seen]))
