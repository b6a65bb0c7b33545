# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The masked Huber likelihood of a latent image (equations 4 and 5), its
derivatives, and the weight that the exposures give to each latent pixel.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("Likelihood", "coverage", "huber", "second_derivative")

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from ..stack.exposure_stack import ExposureStack
from .forward_model import ForwardModel


def huber(size: Any, delta: float) -> Any:
    """Compute the Huber loss (equation 5).

    Parameters
    ----------
    size : tensor or `numpy.ndarray`
        Absolute residuals in units of sigma.
    delta : `float`
        Residual beyond which the loss is linear.

    Returns
    -------
    loss : tensor
        ``size**2 / 2`` up to ``delta``, ``delta * (size - delta / 2)`` beyond;
        shape of ``size``.
    """
    # PyTorch's tensors cannot be subtracted from arrays.
    size = ops.convert_to_tensor(size)
    clipped = ops.minimum(size, delta)
    return clipped * (size - 0.5 * clipped)


class Likelihood:
    """The Huber loss of the exposures of a stack as a function of the latent
    image.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.  Pixels that are not good have no loss.
    delta : `float`
        Residual in units of sigma beyond which the loss is linear.
    model : `ForwardModel`, optional
        Their forward model, by default that of the stack's kernels.
    n_threads : `int`, optional
        CPU threads of this one.
    """

    def __init__(
        self, stack: ExposureStack, delta: float, model: ForwardModel | None = None, *, n_threads: int = 1
    ) -> None:
        self._stack = stack
        self._delta = delta
        self._model = ForwardModel(stack, n_threads=n_threads) if model is None else model

    def huber_loss(self, latent: np.ndarray) -> float:
        """Compute the mean loss per good pixel of the patch.

        Parameters
        ----------
        latent : `numpy.ndarray`
            Shape ``(r*(height + k - 1), r*(width + k - 1))``, nJy.

        Returns
        -------
        loss : `float`
            Dimensionless.
        """
        total = 0.0
        stack = self._stack
        for rows, cols, piece in self._model.predictions(latent):
            residual = stack.masked_image(rows, cols) - piece
            size = np.abs(residual) / np.sqrt(stack.masked_variance(rows, cols))
            loss = ops.convert_to_numpy(huber(size, self._delta))
            total += float(np.sum(loss, dtype=np.float64))
        return total / int(np.count_nonzero(stack.good))

    def back_project(self, latent: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Apply the adjoint of the forward model to the exposures and to their
        prediction, weighted as the Huber loss weights them.

        Parameters
        ----------
        latent : `numpy.ndarray`
            Shape ``(r*(height + k - 1), r*(width + k - 1))``, nJy.

        Returns
        -------
        observed, predicted : `numpy.ndarray`
            ``sum_t f[t]^T (w y)[t]`` and ``sum_t f[t]^T (w (f*x))[t]`` with
            ``w = m / v * min(1, delta / |r|)``, ``r`` being the residual in
            units of sigma, nJy**-1; shape of ``latent``.  Their difference is
            minus the gradient of the loss.
        loss : `float`
            Mean Huber loss per good pixel of ``latent``, dimensionless.
        """
        (observed, predicted), losses = self._model.forward_adjoint(
            latent, self._load, _back_projection(self._delta), number=2
        )
        total = sum(float(loss) for _, _, loss in losses)
        return observed, predicted, total / int(np.count_nonzero(self._stack.good))

    def gradient(self, latent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Differentiate the loss, summed over the good pixels.

        Parameters
        ----------
        latent : `numpy.ndarray`
            Shape ``(r*(height + k - 1), r*(width + k - 1))``, nJy.

        Returns
        -------
        gradient : `numpy.ndarray`
            ``sum_t f[t]^T (w (f*x - y))[t]`` with ``w = m / v * min(1, delta /
            |r|)``, ``r`` being the residual in units of sigma, nJy**-1; shape
            of ``latent``.
        weight : `numpy.ndarray`
            ``sum_t w[t]``, nJy**-2, shape ``(1, height, width)``.
        """
        (gradient,), weights = self._model.forward_adjoint(latent, self._load, _gradient(self._delta))
        weight = np.empty((1, *self._stack.shape), np.float32)
        for rows, columns, values in weights:
            weight[0, rows, columns] = values
        return gradient, weight

    def _load(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels of a cell and the inverse of their standard
        deviation, both zero where they are not good.
        """
        inverse = self._stack.masked_variance(rows, columns)
        np.sqrt(inverse, out=inverse)
        return self._stack.masked_image(rows, columns), np.divide(1.0, inverse, out=inverse)


@functools.cache
def _gradient(delta: float) -> Callable[..., tuple[tuple[Any], Any]]:
    """Make the function that turns a prediction into the residuals whose
    adjoint is the gradient, and the sum of the weights.
    """

    def differentiate(model: Any, image: Any, root: Any) -> tuple[tuple[Any], Any]:
        size = (model - image) * root
        clipped = ops.clip(size, -delta, delta)
        weight = ops.where(size == 0.0, 1.0, clipped / size) * (root * root)
        return (clipped * root,), ops.sum(weight, axis=1)

    return differentiate


@functools.cache
def _back_projection(delta: float) -> Callable[..., tuple[tuple[Any, Any], Any]]:
    """Make the function that turns a prediction into weighted exposures, the
    weighted prediction, and the loss of each cell.
    """

    def weigh(model: Any, image: Any, root: Any) -> tuple[tuple[Any, Any], Any]:
        size = ops.abs(image - model) * root
        weight = root * root * ops.minimum(size, delta) / ops.maximum(size, 1e-12)
        return (weight * image, weight * model), ops.sum(huber(size, delta), axis=(1, 2, 3))

    return weigh


def _multiply(model: Any, weight: Any) -> tuple[tuple[Any], None]:
    return (model * weight,), None


def second_derivative(model: ForwardModel, weight: np.ndarray, latent: np.ndarray) -> np.ndarray:
    """Multiply a latent image by the second derivative of half of chi squared.

    Parameters
    ----------
    model : `ForwardModel`
        The forward model ``f``.
    weight : `numpy.ndarray`
        Inverse variance, zero for bad pixels, nJy**-2, shape ``(n, height,
        width)``.
    latent : `numpy.ndarray`
        Shape ``(r*(height + k - 1), r*(width + k - 1))``.

    Returns
    -------
    product : `numpy.ndarray`
        ``sum_t f[t]^T (w[t] (f*x)[t])``, shape of ``latent``.
    """
    (product,), _ = model.forward_adjoint(latent, lambda rows, cols: (weight[:, rows, cols],), _multiply)
    return product


def coverage(
    stack: ExposureStack,
    model: ForwardModel,
    weight: np.ndarray | Callable[[slice, slice], np.ndarray] | None = None,
) -> np.ndarray:
    """Compute the weight that the exposures give to each latent pixel.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.
    model : `ForwardModel`
        Their forward model, or that of a surrogate.
    weight : `numpy.ndarray` or `~collections.abc.Callable`, optional
        ``w`` below, see `ForwardModel.adjoint`; by default ``m / v`` of the
        stack.

    Returns
    -------
    coverage : `numpy.ndarray`
        ``sum_t f[t]^T w[t]`` as a fraction of its median over the pixels with
        data, shape of the latent image.
    """
    if weight is None:

        def inverse_variance(rows: slice, columns: slice) -> np.ndarray:
            return 1.0 / stack.masked_variance(rows, columns)

        weight = inverse_variance
    result = model.adjoint(weight)
    return result / np.median(result[stack.latent_patch][stack.latent_seen])
