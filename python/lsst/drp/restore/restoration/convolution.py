# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Convolution of latent images with PSF kernels, and its adjoint, on tensors.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("Blur", "Convolution", "PsfDecoder", "interleave")

import dataclasses
import math
from typing import Any

import keras
from keras import ops
from scipy.fft import next_fast_len


def _rfft2(a: Any, shape: tuple[int, int]) -> Any:
    """Real 2-d FFT of the last two axes, zero-padded at their ends."""
    # keras.ops has no 2-d FFT of real arrays, and its complex one takes twice as long.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convolution:
    """Convolution of latent images with PSF kernels, and its adjoint, for images
    and kernels of given sizes.

    Parameters
    ----------
    height, width : `int`
        Size of the blurred images.
    kernel_size : `int`
        Height and width ``k`` of the kernels.
    parts : `int`, optional
        Latent pixels ``r**2`` in a pixel.
    """

    height: int
    width: int
    kernel_size: int
    parts: int = 1

    @property
    def _reach(self) -> int:
        return self.kernel_size - 1

    @property
    def _size(self) -> tuple[int, int]:
        return self.height + self._reach, self.width + self._reach

    @property
    def _grid(self) -> tuple[int, int]:
        # Wrapped-around pixels reach the first k - 1 rows and columns only,
        # and these are not part of the result.
        height, width = self._size
        return next_fast_len(height, real=True), next_fast_len(width, real=True)

    def transfer(self, kernels: Any) -> Any:
        """Fourier-transform kernels.

        Parameters
        ----------
        kernels : tensor
            PSF kernels, shape ``(batch, n, k, k)`` for ``r = 1``; or those for
            the parts of a pixel (`kernel_phases`), ``(batch, n, r**2, k, k)``.

        Returns
        -------
        transfer : tensor
            Complex, shape ``(batch, n, r**2, ...)``.
        """
        return _rfft2(kernels[:, :, None] if len(kernels.shape) == 4 else kernels, self._grid)

    def forward(self, latent: Any, transfer: Any) -> Any:
        """Blur latent images: ``f[t] * x`` of equation 1.

        Parameters
        ----------
        latent : tensor
            Latent images, shape ``(batch, r*(height + k - 1), r*(width + k -
            1))``.
        transfer : tensor
            From `transfer`.

        Returns
        -------
        blurred : tensor
            The part of the convolutions that depends on no pixel outside of
            the latent images, shape ``(batch, n, height, width)``.
        """
        spectrum = _rfft2(_split_parts(latent, self.parts), self._grid)
        product = spectrum[:, None, 0] * transfer[:, :, 0]
        for part in range(1, self.parts):
            product = product + spectrum[:, None, part] * transfer[:, :, part]
        height, width = self._size
        return _irfft2(product, self._grid)[:, :, self._reach : height, self._reach : width]

    def adjoint(self, residual: Any, transfer: Any) -> Any:
        """Apply the adjoint of `forward`, which sums over the exposures.

        Parameters
        ----------
        residual : tensor
            Images on the exposures' pixels, shape ``(batch, n, height,
            width)``.
        transfer : tensor
            From `transfer`.

        Returns
        -------
        latent : tensor
            Shape ``(batch, r*(height + k - 1), r*(width + k - 1))``.
        """
        height, width = self._size
        padded = ops.pad(residual, ((0, 0), (0, 0), (self._reach, 0), (self._reach, 0)))
        spectrum = _rfft2(padded, self._grid)
        parts = [
            _irfft2(ops.sum(spectrum * ops.conj(transfer[:, :, part]), axis=1), self._grid)[
                :, :height, :width
            ]
            for part in range(self.parts)
        ]
        return interleave(ops.stack(parts, axis=-1))


class Blur:
    """Convolution of latent images with PSF kernels, and its adjoint.

    Parameters
    ----------
    kernels : tensor
        PSF kernels, see `Convolution.transfer`.
    height, width : `int`
        Size of the blurred images.
    """

    def __init__(self, kernels: Any, height: int, width: int) -> None:
        parts = kernels.shape[2] if len(kernels.shape) == 5 else 1
        self._convolution = Convolution(
            height=height, width=width, kernel_size=kernels.shape[-1], parts=parts
        )
        self._transfer = self._convolution.transfer(kernels)

    def forward(self, latent: Any) -> Any:
        """Blur latent images, see `Convolution.forward`."""
        return self._convolution.forward(latent, self._transfer)

    def adjoint(self, residual: Any) -> Any:
        """Apply the adjoint of `forward`, see `Convolution.adjoint`."""
        return self._convolution.adjoint(residual, self._transfer)


def interleave(parts: Any) -> Any:
    """Arrange the parts of pixels into one image.

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
    """Invert `interleave`: return the parts, ``(batch, r**2, height, width)``."""
    factor = math.isqrt(number)
    if factor == 1:
        return image[:, None]
    height, width = image.shape[1] // factor, image.shape[2] // factor
    parts = ops.reshape(image, (-1, height, factor, width, factor))
    parts = ops.transpose(parts, (0, 2, 4, 1, 3))
    return ops.reshape(parts, (-1, number, height, width))


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
