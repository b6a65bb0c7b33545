# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The forward model: convolution of the latent image with the PSF kernels,
its adjoint, and both over a whole patch of cells.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("Blur", "ForwardModel", "PsfDecoder", "interleave")

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from keras import ops
from scipy.fft import next_fast_len

from ..stack.exposure_stack import ExposureStack
from ..stack.oversampling import kernel_phases

# Latent pixels that one call on a batch of cells may hold for every exposure:
# bounds the memory of a pass over a patch (16 MiB for each float32 array).
_PIXELS_PER_CALL = 2**22

# The same for the transfer functions that are kept from one pass over the
# patch to the next (4 bytes each).
_PIXELS_KEPT = 2**26


def _rfft2(a: Any, shape: tuple[int, int]) -> Any:
    """Real 2-d FFT of the last two axes, zero-padded at their ends."""
    # keras.ops has no 2-d FFT of real arrays, and its complex one costs twice.
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.signal.rfft2d(a, fft_length=shape)
    if keras.backend.backend() == "torch":
        import torch

        return torch.fft.rfft2(a, s=shape)
    import jax.numpy as jnp

    return jnp.fft.rfft2(a, s=shape)


def _irfft2(a: Any, shape: tuple[int, int]) -> Any:
    """Inverse of `_rfft2`."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.signal.irfft2d(a, fft_length=shape)
    if keras.backend.backend() == "torch":
        import torch

        return torch.fft.irfft2(a, s=shape)
    import jax.numpy as jnp

    return jnp.fft.irfft2(a, s=shape)


class Blur:
    """Convolution of latent images with PSF kernels, and its adjoint.

    Parameters
    ----------
    kernels : tensor
        PSF kernels, shape ``(batch, n, k, k)`` for ``r = 1``; or those for
        the parts of a pixel (`kernel_phases`), ``(batch, n, r**2, k, k)``.
    height, width : `int`
        Size of the blurred images.
    """

    def __init__(self, kernels: Any, height: int, width: int) -> None:
        kernels = kernels[:, :, None] if len(kernels.shape) == 4 else kernels
        self._reach = kernels.shape[-1] - 1
        self._parts = kernels.shape[2]
        self._size = (height + self._reach, width + self._reach)
        # Wrapped-around pixels reach the first k - 1 rows and columns only,
        # and these are not part of the result.
        self._grid = tuple(next_fast_len(extent, real=True) for extent in self._size)
        self._transfer = _rfft2(kernels, self._grid)

    def forward(self, latent: Any) -> Any:
        """Blur latent images: ``f[t] * x`` of equation 1.

        Parameters
        ----------
        latent : tensor
            Latent images, shape ``(batch, r*(height + k - 1), r*(width + k -
            1))``.

        Returns
        -------
        blurred : tensor
            The part of the convolutions that depends on no pixel outside of
            the latent images, shape ``(batch, n, height, width)``.
        """
        spectrum = _rfft2(_split_parts(latent, self._parts), self._grid)
        product = spectrum[:, None, 0] * self._transfer[:, :, 0]
        for part in range(1, self._parts):
            product = product + spectrum[:, None, part] * self._transfer[:, :, part]
        height, width = self._size
        return _irfft2(product, self._grid)[:, :, self._reach : height, self._reach : width]

    def adjoint(self, residual: Any) -> Any:
        """Apply the adjoint of `forward`, which sums over the exposures.

        Parameters
        ----------
        residual : tensor
            Images on the exposures' pixels, shape ``(batch, n, height,
            width)``.

        Returns
        -------
        latent : tensor
            Shape ``(batch, r*(height + k - 1), r*(width + k - 1))``.
        """
        height, width = self._size
        padded = ops.pad(residual, ((0, 0), (0, 0), (self._reach, 0), (self._reach, 0)))
        spectrum = _rfft2(padded, self._grid)
        parts = [
            _irfft2(ops.sum(spectrum * ops.conj(self._transfer[:, :, part]), axis=1), self._grid)[
                :, :height, :width
            ]
            for part in range(self._parts)
        ]
        return interleave(ops.stack(parts, axis=-1))


def interleave(parts: Any) -> Any:
    """Put the parts of pixels side by side.

    Parameters
    ----------
    parts : tensor
        Shape ``(batch, height, width, r**2)``, rows of parts first.

    Returns
    -------
    image : tensor
        Shape ``(batch, r*height, r*width)``.
    """
    factor = math.isqrt(parts.shape[-1])
    if factor == 1:
        return parts[..., 0]
    shape = ops.shape(parts)
    parts = ops.reshape(parts, (-1, shape[1], shape[2], factor, factor))
    parts = ops.transpose(parts, (0, 1, 3, 2, 4))
    return ops.reshape(parts, (-1, shape[1] * factor, shape[2] * factor))


def _split_parts(image: Any, number: int) -> Any:
    """Turn `interleave` around: ``(batch, r**2, height, width)``."""
    factor = math.isqrt(number)
    if factor == 1:
        return image[:, None]
    height, width = image.shape[1] // factor, image.shape[2] // factor
    parts = ops.reshape(image, (-1, height, factor, width, factor))
    parts = ops.transpose(parts, (0, 2, 4, 1, 3))
    return ops.reshape(parts, (-1, number, height, width))


Cells = list[tuple[int, int, slice, slice]]
"""Cells that are computed together; see `ExposureStack.cells`."""


class PsfDecoder(keras.layers.Layer):
    """The fixed decoder of the network (figure 2 of the second paper): the
    latent image convolved with the PSF kernels of its cells.

    Parameters
    ----------
    **kwargs
        Passed to `keras.layers.Layer`.
    """

    def call(self, latent: Any, kernels: Any) -> Any:
        """Blur latent images whose every cell has kernels of its own.

        Parameters
        ----------
        latent : tensor
            Shape ``(batch, r*(height + k - 1), r*(width + k - 1), 1)``.
        kernels : tensor
            Shape ``(batch, cells_y, cells_x, n, k, k)`` for ``r = 1``, else
            ``(batch, cells_y, cells_x, n, r**2, k, k)``; the cells divide
            height and width evenly.

        Returns
        -------
        exposures : tensor
            Shape ``(batch, n, height, width)``.
        """
        cells_y, cells_x, n = kernels.shape[1:4]
        k, r = kernels.shape[-1], _factor(kernels.shape)
        image = latent[..., 0]
        height = (image.shape[1] // r - k + 1) // cells_y
        width = (image.shape[2] // r - k + 1) // cells_x
        size = r * (height + k - 1), r * (width + k - 1)
        corners = [(r * height * i, r * width * j) for i in range(cells_y) for j in range(cells_x)]
        pieces = [image[:, y : y + size[0], x : x + size[1]] for y, x in corners]
        stacked = ops.reshape(ops.stack(pieces, axis=1), (-1, *size))
        blurred = Blur(ops.reshape(kernels, (-1, *kernels.shape[3:])), height, width).forward(stacked)
        blurred = ops.reshape(blurred, (-1, cells_y, cells_x, n, height, width))
        blurred = ops.transpose(blurred, (0, 3, 1, 4, 2, 5))
        return ops.reshape(blurred, (-1, n, cells_y * height, cells_x * width))

    def compute_output_shape(self, latent_shape: tuple, kernels_shape: tuple) -> tuple:
        """Shape of the result of `call`."""
        k, r = kernels_shape[-1], _factor(kernels_shape)
        return (latent_shape[0], kernels_shape[3], latent_shape[1] // r - k + 1, latent_shape[2] // r - k + 1)


def _factor(kernels_shape: tuple) -> int:
    """Return ``r`` of kernels ``(batch, cells_y, cells_x, n, [r**2,] k, k)``."""
    return math.isqrt(kernels_shape[4]) if len(kernels_shape) == 7 else 1


class ForwardModel:
    """The forward model of a whole patch and its adjoint, cell by cell.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures whose kernels and cells to use.
    kernels : `numpy.ndarray`, optional
        Kernels to use instead, shape ``(n, cells_y, cells_x, k, k)`` with the
        stack's cells and ``k``, but any ``n``.
    oversampling : `int`, optional
        Latent pixels along each axis in a pixel, by default the stack's.
    squared : `bool`, optional
        Whether to take the squares of the kernels, as propagation of noise
        does.
    n_threads : `int`, optional
        CPU threads to use.

    Notes
    -----
    A pixel of an exposure is predicted with the kernel of its own cell, so
    that the model is a linear operator with an exact adjoint although the
    PSF varies over the patch.
    """

    def __init__(
        self,
        stack: ExposureStack,
        *,
        kernels: np.ndarray | None = None,
        oversampling: int | None = None,
        squared: bool = False,
        n_threads: int = 1,
    ) -> None:
        self._stack = stack
        self._n_threads = n_threads
        self._factor = stack.oversampling if oversampling is None else oversampling
        kernels = stack.kernels if kernels is None else kernels
        if self._factor > 1:
            kernels = kernel_phases(kernels, self._factor)
        self._kernels = np.moveaxis(kernels**2 if squared else kernels, 0, 2)
        self._cells = list(stack.cells())
        self._cell_shape = stack.cell_shape
        self._shape = stack.shape
        self._padding = stack.padding
        extent = (self._cell_shape[0] + 2 * self._padding) * (self._cell_shape[1] + 2 * self._padding)
        extent *= self._factor**2
        pixels = extent * self._kernels.shape[2]
        self._batch = max(1, _PIXELS_PER_CALL // pixels)
        # By the first cell of a batch and their number.
        self._blurs: dict[tuple[tuple[int, int], int], Blur] = {}
        self._keeps = len(self._cells) * pixels <= _PIXELS_KEPT

    def forward(self, latent: np.ndarray) -> np.ndarray:
        """Predict the exposures from a latent image.

        Parameters
        ----------
        latent : `numpy.ndarray`
            Shape ``(r*(height + k - 1), r*(width + k - 1))``.

        Returns
        -------
        exposures : `numpy.ndarray`
            Shape ``(n, height, width)``; zero where an exposure has no
            kernel.
        """
        result = np.empty((self._kernels.shape[2], *self._shape), dtype=np.float32)
        for rows, cols, piece in self.predictions(latent):
            result[:, rows, cols] = piece
        return result

    def predictions(self, latent: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Predict the exposures cell by cell; see `forward`.

        Parameters
        ----------
        latent : `numpy.ndarray`
            Shape ``(r*(height + k - 1), r*(width + k - 1))``.

        Yields
        ------
        rows, cols : `slice`
            The cell's pixels.
        exposures : `numpy.ndarray`
            Their prediction, shape ``(n, cell_height, cell_width)``.
        """
        for cells, pieces in self._map(lambda cells: self._blur(cells).forward(self._cut(latent, cells))):
            for (_, _, rows, cols), piece in zip(cells, ops.convert_to_numpy(pieces), strict=True):
                yield rows, cols, piece

    def predict(self, latent: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Predict one cell of the exposures; see `forward`.

        Parameters
        ----------
        latent : `numpy.ndarray`
            Shape ``(r*(height + k - 1), r*(width + k - 1))``.
        rows, columns : `slice`
            The cell's pixels.

        Returns
        -------
        exposures : `numpy.ndarray`
            Shape ``(n, cell_height, cell_width)``.
        """
        cell = (rows.start // self._cell_shape[0], columns.start // self._cell_shape[1], rows, columns)
        blurred = self._blur([cell]).forward(self._cut(latent, [cell]))
        return ops.convert_to_numpy(blurred)[0]

    def adjoint(self, exposures: np.ndarray | Callable[[slice, slice], np.ndarray]) -> np.ndarray:
        """Apply the adjoint of `forward`.

        Parameters
        ----------
        exposures : `numpy.ndarray` or `~collections.abc.Callable`
            Images of shape ``(n, height, width)``, or a function that returns
            them for the rows and columns of a cell.

        Returns
        -------
        latent : `numpy.ndarray`
            Shape ``(r*(height + k - 1), r*(width + k - 1))``.
        """
        shape = [self._factor * (extent + 2 * self._padding) for extent in self._shape]
        result = np.zeros(shape, dtype=np.float32)
        cut = exposures if callable(exposures) else lambda rows, cols: exposures[:, rows, cols]

        def load(cells: Cells) -> np.ndarray:
            return np.stack([cut(rows, cols) for _, _, rows, cols in cells])

        def spread(cells: Cells, pieces: np.ndarray) -> Any:
            return self._blur(cells).adjoint(ops.convert_to_tensor(pieces, "float32"))

        # What is random in the exposures is drawn in order.
        for cells, pieces in self._map(spread, load):
            self._add(result, cells, pieces)
        return result

    def back_project(self, latent: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Take the exposures and their prediction back to the latent image,
        weighted as the Huber loss weights them.

        Parameters
        ----------
        latent : `numpy.ndarray`
            Shape ``(r*(height + k - 1), r*(width + k - 1))``, nJy.
        delta : `float`
            Residual in units of sigma beyond which the loss is linear.

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
        stack, total = self._stack, 0.0

        def project(cells: Cells) -> tuple[Any, Any, float]:
            blur = self._blur(cells)
            model = blur.forward(self._cut(latent, cells))
            image = np.stack([stack.masked_image(rows, cols) for _, _, rows, cols in cells])
            weight = 1.0 / np.stack([stack.masked_variance(rows, cols) for _, _, rows, cols in cells])
            size = ops.abs(image - model) * np.sqrt(weight)
            clipped = ops.minimum(size, delta)
            loss = float(ops.sum(clipped * (size - 0.5 * clipped)))
            weight = weight * clipped / ops.maximum(size, 1e-12)
            return blur.adjoint(weight * image), blur.adjoint(weight * model), loss

        observed, predicted = np.zeros((2, *latent.shape), dtype=np.float32)
        for cells, (of_image, of_model, loss) in self._map(project):
            self._add(observed, cells, of_image)
            self._add(predicted, cells, of_model)
            total += loss
        return observed, predicted, total / int(np.count_nonzero(stack.good))

    def gradient(self, latent: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
        """Differentiate the Huber loss, summed over the good pixels.

        Parameters
        ----------
        latent : `numpy.ndarray`
            Shape ``(r*(height + k - 1), r*(width + k - 1))``, nJy.
        delta : `float`
            Residual in units of sigma beyond which the loss is linear.

        Returns
        -------
        gradient : `numpy.ndarray`
            ``sum_t f[t]^T (w (f*x - y))[t]`` with ``w = m / v * min(1, delta /
            |r|)``, ``r`` being the residual in units of sigma, nJy**-1; shape
            of ``latent``.
        weight : `numpy.ndarray`
            ``sum_t w[t]``, nJy**-2, shape ``(1, height, width)``.
        """
        stack = self._stack

        def differentiate(cells: Cells) -> tuple[Any, Any]:
            blur = self._blur(cells)
            model = blur.forward(self._cut(latent, cells))
            image = np.stack([stack.masked_image(rows, cols) for _, _, rows, cols in cells])
            root = np.stack([stack.masked_variance(rows, cols) for _, _, rows, cols in cells])
            np.sqrt(root, out=root)
            # Zero where a pixel is not good: its variance is infinite.
            np.divide(1.0, root, out=root)
            size = (model - image) * root
            clipped = ops.clip(size, -delta, delta)
            weight = ops.where(size == 0.0, 1.0, clipped / size) * (root * root)
            return blur.adjoint(clipped * root), ops.sum(weight, axis=1)

        gradient = np.zeros(latent.shape, np.float32)
        weights = np.empty((1, *self._shape), np.float32)
        for cells, (of_latent, of_pixels) in self._map(differentiate):
            self._add(gradient, cells, of_latent)
            for (_, _, rows, cols), piece in zip(cells, ops.convert_to_numpy(of_pixels), strict=True):
                weights[0, rows, cols] = piece
        return gradient, weights

    def second_derivative(self, weight: np.ndarray, latent: np.ndarray) -> np.ndarray:
        """Multiply a latent image by the second derivative of half of chi
        squared.

        Parameters
        ----------
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

        def multiply(cells: Cells) -> Any:
            blur = self._blur(cells)
            pieces = np.stack([weight[:, rows, cols] for _, _, rows, cols in cells])
            return blur.adjoint(blur.forward(self._cut(latent, cells)) * pieces)

        result = np.zeros(latent.shape, np.float32)
        for cells, pieces in self._map(multiply):
            self._add(result, cells, pieces)
        return result

    def huber_loss(self, latent: np.ndarray, delta: float) -> float:
        """Mean Huber loss per good pixel of the patch (equations 4 and 5).

        Parameters
        ----------
        latent : `numpy.ndarray`
            Shape ``(r*(height + k - 1), r*(width + k - 1))``, nJy.
        delta : `float`
            Residual in units of sigma beyond which the loss is linear.

        Returns
        -------
        loss : `float`
            Dimensionless.
        """
        total = 0.0
        stack = self._stack
        for rows, cols, piece in self.predictions(latent):
            # Variance is infinite where a pixel is not good: no loss there.
            size = np.abs(stack.masked_image(rows, cols) - piece) / np.sqrt(stack.masked_variance(rows, cols))
            clipped = np.minimum(size, delta)
            total += float(np.sum(clipped * (size - 0.5 * clipped), dtype=np.float64))
        return total / int(np.count_nonzero(stack.good))

    def _map(
        self, compute: Callable[..., Any], load: Callable[[Cells], Any] | None = None
    ) -> Iterator[tuple[Cells, Any]]:
        """Compute batches of cells side by side, in as many threads as
        asked for; yield each with its result, in order.

        What ``load`` returns for a batch is the second argument of
        ``compute``; it is called in order.
        """
        with ThreadPoolExecutor(self._n_threads) as pool:
            pending: deque[tuple[Cells, Future[Any]]] = deque()
            for cells in self._batches():
                loaded = () if load is None else (load(cells),)
                pending.append((cells, pool.submit(compute, cells, *loaded)))
                if len(pending) > self._n_threads:
                    cells, future = pending.popleft()
                    yield cells, future.result()
            for cells, future in pending:
                yield cells, future.result()

    def _add(self, latent: np.ndarray, cells: Cells, pieces: Any) -> None:
        """Add what cells give to a latent image."""
        for (_, _, rows, cols), piece in zip(cells, ops.convert_to_numpy(pieces), strict=True):
            latent[self._padded(rows), self._padded(cols)] += piece

    def _batches(self) -> Iterator[Cells]:
        """Iterate over the cells that are computed together."""
        row = 0
        for start in range(0, len(self._cells), self._batch):
            cells = self._cells[start : start + self._batch]
            if cells[0][0] != row:
                # Not after each batch: cells beside each other share pages of memory.
                self._stack.release()
                row = cells[0][0]
            yield cells
        self._stack.release()

    def _cut(self, latent: np.ndarray, cells: Cells) -> Any:
        """Cut what cells are predicted from out of a latent image."""
        pieces = np.stack([latent[self._padded(rows), self._padded(cols)] for _, _, rows, cols in cells])
        return ops.convert_to_tensor(pieces, "float32")

    def _blur(self, cells: Cells) -> Blur:
        """Return the operator of some cells, from the last pass if it was
        kept.
        """
        key = cells[0][:2], len(cells)
        if key in self._blurs:
            return self._blurs[key]
        kernels = ops.convert_to_tensor(np.stack([self._kernels[i, j] for i, j, _, _ in cells]), "float32")
        blur = Blur(kernels, *self._cell_shape)
        if self._keeps:
            self._blurs[key] = blur
        return blur

    def _padded(self, pixels: slice) -> slice:
        # Latent pixels start one padding before those of the exposures.
        return slice(pixels.start * self._factor, (pixels.stop + 2 * self._padding) * self._factor)
