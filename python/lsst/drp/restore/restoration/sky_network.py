# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The network that knows skies: what it is made of, and what it sees.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("ALIGNMENT", "MARGIN", "Unrolled", "build_network")

from typing import Any

import keras
from keras import layers, ops

from .convolution import Blur

ALIGNMENT = 4
"""Pixels that the network's coarsest level averages along each axis: the size
of its input is a multiple of it.
"""

MARGIN = 32
"""Pixels around its output that the network sees at most; a multiple of
`ALIGNMENT`.
"""

_LEAKINESS = 0.1

# Smallest error that is stated, in units of the noise and of the brightness.
_LEAST_ERROR = (0.02, 0.002)


def build_network(widths: tuple[int, int, int] = (16, 32, 48)) -> keras.Model:
    """Build the network: a small U-Net.

    Parameters
    ----------
    widths : `tuple` [`int`, `int`, `int`], optional
        Channels at full, half and quarter resolution.

    Returns
    -------
    network : `keras.Model`
        Maps ``(batch, height, width, 4)`` to ``(batch, height, width, 2)``.
        Input: the image so far at the target resolution, what the exposures
        have beyond it at the target resolution (Wiener-filtered), the same
        as the exposures' PSFs see it (matched filter), and the noise.  Output:
        the next image, non-negative, and the standard deviation of its error.

    Notes
    -----
    There are no biases and no normalization, and every activation is
    homogeneous, so that an input that is ``a`` times as large has an output
    that is ``a`` times as large: the result does not depend on the unit, and
    what was learned at one flux holds at all.
    """

    def block(x: Any, width: int, times: int, name: str) -> Any:
        for k in range(times):
            x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"{name}_{k}")(x)
            x = layers.LeakyReLU(_LEAKINESS, name=f"{name}_{k}_activation")(x)
        return x

    inputs = keras.Input((None, None, 4), name="inputs")
    full = block(inputs, widths[0], 2, "full_down")
    half = block(layers.AveragePooling2D(2, name="to_half")(full), widths[1], 2, "half_down")
    quarter = block(layers.AveragePooling2D(2, name="to_quarter")(half), widths[2], 3, "quarter")
    up = layers.UpSampling2D(2, name="from_quarter")(quarter)
    half = block(layers.Concatenate(name="join_half")([up, half]), widths[1], 2, "half_up")
    up = layers.UpSampling2D(2, name="from_half")(half)
    full = block(layers.Concatenate(name="join_full")([up, full]), widths[0], 2, "full_up")
    # It begins as the identity.
    correction = layers.Conv2D(1, 1, use_bias=False, kernel_initializer="zeros", name="correction")(full)
    error = layers.Conv2D(1, 1, use_bias=False, name="error")(full)
    return keras.Model(inputs, _Outputs(name="outputs")([inputs, correction, error]), name="sky_network")


class _Outputs(layers.Layer):
    """The next image and its error, from the inputs, the correction and what
    the network says of its error.
    """

    def call(self, inputs: Any) -> Any:
        """Return both as channels of one tensor."""
        seen, correction, error = inputs
        image = ops.relu(seen[..., 0:1] + correction)
        least = _LEAST_ERROR[0] * seen[..., 3:4] + _LEAST_ERROR[1] * image
        return ops.concatenate([image, ops.abs(error) + least], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Shape of the result of `call`."""
        return (*input_shape[0][:-1], 2)


class Unrolled(layers.Layer):
    """Several passes of one network with what the exposures say of the image
    in between, for crops with one PSF each.

    Parameters
    ----------
    network : `keras.Model`
        From `build_network`.
    passes : `int`
        How many.
    **kwargs
        Passed to `keras.layers.Layer`.
    """

    def __init__(self, network: keras.Model, passes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = network
        self._passes = passes

    def call(self, planes: Any, kernels: Any) -> Any:
        """Restore crops.

        Parameters
        ----------
        planes : tensor
            The first four of `Sample.planes` on the latent image's pixels,
            ``(batch, height + k - 1, width + k - 1, 4)``.
        kernels : tensor
            `Sample.kernels`, ``(batch, 2, k, k)``.

        Returns
        -------
        images : tensor
            Image and error of each pass, shape ``(batch, height + k - 1, width
            + k - 1, 2 * passes)``.
        """
        reach = kernels.shape[-1] // 2
        inside = slice(reach, planes.shape[1] - reach), slice(reach, planes.shape[2] - reach)
        coadd, image, noise, valid = (planes[..., k] for k in range(4))
        coadd, valid = (plane[:, inside[0], inside[1]] for plane in (coadd, valid))
        size = coadd.shape[1:]
        blur = Blur(kernels[:, 0:1], *size)
        # The adjoint correlates: turned around, it convolves.
        deconvolution = Blur(kernels[:, 1:2, ::-1, ::-1], *size)
        results = []
        for _ in range(self._passes):
            residual = valid[:, None] * (coadd[:, None] - blur.forward(image))
            seen = ops.stack([image, deconvolution.adjoint(residual), blur.adjoint(residual), noise], axis=-1)
            results.append(self.network(seen))
            image = results[-1][..., 0]
        return ops.concatenate(results, axis=-1)

    def compute_output_shape(self, planes_shape: Any, kernels_shape: Any) -> tuple:
        """Shape of the result of `call`."""
        return (*planes_shape[:-1], 2 * self._passes)
