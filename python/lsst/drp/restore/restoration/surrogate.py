# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A single-exposure surrogate of a stack: a step on it takes the time of one
exposure instead of that of all.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("Surrogate",)

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..stack.coadd_filters import coadd_filters
from ..stack.exposure_stack import ExposureStack
from .forward_model import ForwardModel
from .likelihood import Likelihood, coverage, second_derivative

# Pixels of a block of rows (256 KiB for each float32 array).
_BLOCK_PIXELS = 2**16


class Surrogate:
    """A single exposure that constrains the latent image about as all
    exposures together do.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.  Their variance, mask and kernels are used, not their
        pixels.
    signed : `bool`, optional
        Whether the kernel may be negative somewhere: multiplicative steps
        (`minimize`) need one that is not.
    n_threads : `int`, optional
        CPU threads to use.

    Notes
    -----
    The second derivative of half of chi squared is ``sum_t f[t]^T w[t] f[t]``
    with ``w = m / v``.  If ``w[t]`` did not change from pixel to pixel of a
    cell, it would be that of one exposure with the weight ``sum_t w[t]`` and
    the kernel ``g = sqrt(sum_t w[t] |f[t]|^2 / sum_t w[t])`` (in Fourier
    space), the PSF of a coadd with white noise (`coadd_filters`).  Holes in
    single exposures make it an approximation, which is good enough for the inner
    iterations: the exact gradients determine where they converge.
    """

    def __init__(self, stack: ExposureStack, *, signed: bool = False, n_threads: int = 1) -> None:
        grid, size = stack.kernels.shape[1:3], stack.kernel_size
        kernels = np.zeros((1, *grid, size, size), np.float32)
        squares = np.zeros_like(kernels)
        self._weight = np.zeros((1, *stack.shape), np.float32)
        for i, j, rows, columns in stack.cells():
            # Zero where a pixel is not good: its variance is infinite.
            inverse = 1.0 / stack.masked_variance(rows, columns)
            self._weight[0, rows, columns] = inverse.sum(axis=0)
            weights = inverse.mean(axis=(1, 2))
            total = weights.sum()
            if total > 0.0:
                of_cell = stack.kernels[:, i, j]
                kernel = coadd_filters(of_cell, weights)[1]
                kernels[0, i, j] = kernel if signed else np.maximum(kernel, 0.0)
                noise = weights / total * stack.correlation[:, i, j]
                squares[0, i, j] = np.einsum("t,tyx->yx", noise, of_cell**2)
        self._stack = stack
        self.kernels = kernels
        self.model = ForwardModel(stack, kernels=kernels, n_threads=n_threads)
        self._magnitude = self.model
        if signed:
            self._magnitude = ForwardModel(stack, kernels=np.abs(kernels), n_threads=n_threads)
        self._n_threads = n_threads
        self._squares = squares

    def coverage(self) -> np.ndarray:
        """Compute the weight that the exposures give to each latent pixel.

        Returns
        -------
        coverage : `numpy.ndarray`
            ``sum_t f[t]^T w[t]`` as a fraction of its median over the pixels
            with data, shape of the latent image.
        """
        return coverage(self._stack, self.model, self._weight)

    def gradient_variance(self) -> np.ndarray:
        """Compute the variance of the gradient of half of chi squared by noise.

        Returns
        -------
        variance : `numpy.ndarray`
            Variance of the derivative by each latent pixel, nJy**-2, shape of
            the latent image.  It is also the inverse variance of the flux of
            a point source there, as long as pixels are independent.
        """
        phases = ForwardModel(self._stack, kernels=self._squares, n_threads=self._n_threads)
        # Rounding errors of the Fourier transforms can be negative.
        return np.maximum(phases.adjoint(self._weight), np.float32(0.0))

    def minimize(
        self,
        likelihood: Likelihood,
        latent: np.ndarray,
        movable: np.ndarray,
        *,
        steps: int,
        steps_per_gradient: int,
        max_factor: float,
        penalty: np.ndarray | float = 0.0,
    ) -> None:
        """Improve a latent image in place by accelerated majorize-minimize
        steps.

        Parameters
        ----------
        likelihood : `Likelihood`
            Likelihood of the exposures.
        latent : `numpy.ndarray`
            Latent image, nJy, shape ``(height + k - 1, width + k - 1)``,
            non-negative; it stays so.
        movable : `numpy.ndarray`
            `bool`, same shape: the pixels to change.
        steps : `int`
            Number of steps.
        steps_per_gradient : `int`
            Steps after which the gradient of all exposures is computed again.
        max_factor : `float`
            ``kappa``, the largest factor of one step.
        penalty : `numpy.ndarray` or `float`, optional
            ``p``, nJy**-1, shape of ``latent``: the L1 penalty.

        Notes
        -----
        The exposures yield the gradient ``d`` of the Huber loss at the image
        ``z`` and the weights ``w = m / v * min(1, delta / |r|)``.  With ``A = g^T
        (sum_t w[t]) g``, a step to the minimum of ``d (x - z) + (x - z)^T A (x
        - z) / 2 + p x`` is

        ``x <- x * clip((A z - d) / (A x + p), 1/kappa, kappa)``

        with a negative numerator cut at zero.  Where the steps end, ``d = -p``
        or ``x = 0``, whatever ``A`` is.  Each starts from where the last two
        point to, by Nesterov's sequence: 20 of them lead as far as about 100
        plain ones.
        """
        previous = latent.copy()
        penalty = np.broadcast_to(np.asarray(penalty, np.float32), latent.shape)
        for step in range(steps):
            if step % steps_per_gradient == 0:
                constant, weight = likelihood.gradient(latent)
                np.subtract(second_derivative(self.model, weight, latent), constant, out=constant)
                np.maximum(constant, np.float32(0.0), out=constant)
            momentum = np.float32(step / (step + 3))

            def extrapolate(rows: slice, momentum: np.float32 = momentum) -> None:
                now = latent[rows]
                ahead = now + momentum * (now - previous[rows])
                previous[rows] = now
                # It stays positive, and so can change in the steps to come.
                np.maximum(ahead, now / np.float32(max_factor), out=now)

            self._on_rows(extrapolate)
            predicted = second_derivative(self.model, weight, latent)

            def multiply(
                rows: slice, predicted: np.ndarray = predicted, constant: np.ndarray = constant
            ) -> None:
                total = predicted[rows] + penalty[rows]
                factor = np.ones_like(total)
                np.divide(constant[rows], total, out=factor, where=movable[rows] & (total > 0.0))
                latent[rows] *= np.clip(factor, 1.0 / max_factor, max_factor)

            self._on_rows(multiply)

    def minimize_quadratic(
        self,
        latent: np.ndarray,
        gradient: np.ndarray,
        weight: np.ndarray,
        precision: np.ndarray,
        *,
        iterations: int,
    ) -> np.ndarray:
        """Minimize a quadratic function over non-negative images.

        Parameters
        ----------
        latent : `numpy.ndarray`
            Latent image ``z`` to start from, nJy, shape ``(height + k - 1,
            width + k - 1)``.
        gradient : `numpy.ndarray`
            Gradient ``d`` there, nJy**-1, same shape.
        weight : `numpy.ndarray`
            ``w``, nJy**-2, shape ``(1, height, width)``.
        precision : `numpy.ndarray`
            ``q``, nJy**-2, shape of ``latent``.
        iterations : `int`
            Iterations to take.

        Returns
        -------
        latent : `numpy.ndarray`
            Minimum over ``x >= 0`` of ``d (x - z) + (x - z)^T (g^T w g + q) (x -
            z) / 2`` with the surrogate's kernel ``g``, same shape.
        """
        # For any positive c, |A| c / c bounds a matrix A.  Pixels that are to move far need long steps.
        scale = 1.0 / np.sqrt(precision)
        bound = second_derivative(self._magnitude, weight, scale)
        bound /= scale
        bound += precision
        current, previous, change = latent.copy(), latent.copy(), np.empty_like(latent)
        for step in range(iterations):
            momentum = np.float32(step / (step + 3))

            def extrapolate(rows: slice, momentum: np.float32 = momentum) -> None:
                now = current[rows]
                change[rows] = now + momentum * (now - previous[rows]) - latent[rows]
                previous[rows] = now

            self._on_rows(extrapolate)
            curved = second_derivative(self.model, weight, change)

            def descend(rows: slice, curved: np.ndarray = curved) -> None:
                slope = gradient[rows] + curved[rows] + precision[rows] * change[rows]
                step = latent[rows] + change[rows] - slope / bound[rows]
                np.maximum(step, np.float32(0.0), out=current[rows])

            self._on_rows(descend)
        return current

    def _on_rows(self, function: Callable[[slice], None]) -> None:
        """Call a function for blocks of rows of the latent image that fit into
        the processor's cache, in several threads.
        """
        height, width = self._stack.latent_shape
        step = max(1, _BLOCK_PIXELS // width)
        blocks = [slice(row, row + step) for row in range(0, height, step)]
        with ThreadPoolExecutor(self._n_threads) as pool:
            for _ in pool.map(function, blocks):
                pass
