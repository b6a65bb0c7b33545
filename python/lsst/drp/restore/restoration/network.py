# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""AstroClearNet's encoder and the model that trains it.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("MaskedHuber", "build_encoder", "build_trainer", "crop", "encoder_margin", "set_field_statistics")

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from .convolution import PsfDecoder, interleave
from .likelihood import huber


class Interleave(layers.Layer):
    """Arranges channels that are the parts of pixels into one image."""

    def call(self, inputs: Any) -> Any:
        """Map ``(batch, height, width, r**2)`` to ``(batch, r*height, r*width,
        1)``, each part with its share of the pixel's flux.
        """
        return interleave(inputs / inputs.shape[-1])[..., None]


def crop(tensor: Any, pixels: int) -> Any:
    """Cut pixels off each side of a tensor.

    Parameters
    ----------
    tensor : tensor
        Shape ``(batch, height, width, channels)``.
    pixels : `int`
        Number of pixels.

    Returns
    -------
    inner : tensor
        Shape ``(batch, height - 2*pixels, width - 2*pixels, channels)``.
    """
    return layers.Cropping2D(pixels)(tensor) if pixels else tensor


def encoder_margin(kernel_sizes: Sequence[int]) -> int:
    """Compute by how much the encoder's output is smaller than its input.

    Parameters
    ----------
    kernel_sizes : `~collections.abc.Sequence` [`int`]
        Sizes of the depthwise convolutions, pixels.

    Returns
    -------
    margin : `int`
        Pixels on each side.
    """
    return max(kernel_sizes) // 2


def build_encoder(
    n_exposures: int, kernel_sizes: Sequence[int], seed: int, *, n_other_bands: int = 0, oversampling: int = 1
) -> keras.Model:
    """Build the encoder ``F`` (figure 2 and section 3.4 of the second paper).

    Every convolution is "valid": the output is smaller than the input by
    `encoder_margin` pixels on each side, so that it is the same for every
    tiling.

    Parameters
    ----------
    n_exposures : `int`
        Number of exposures: the channels of the input.
    kernel_sizes : `~collections.abc.Sequence` [`int`]
        Odd sizes of the parallel depthwise convolutions, pixels.
    seed : `int`
        Seed of the Glorot uniform initial weights.
    n_other_bands : `int`, optional
        Number of images of the same sky in other bands that follow the
        exposures.
    oversampling : `int`, optional
        Latent pixels along each axis in a pixel of the exposures.

    Returns
    -------
    encoder : `keras.Model`
        Maps ``(batch, height + 2*margin, width + 2*margin, n + g)``, in units of
        the patch's median sigma, to the latent image ``(batch, r*height,
        r*width, 1)`` in the same units, non-negative.  The maps before normalization
        are the outputs of the layers named ``maps_<size>``.
    """
    init = keras.initializers.GlorotUniform
    seeds = iter(np.random.SeedSequence(seed).generate_state(len(kernel_sizes) + 1))
    exposures = keras.Input((None, None, n_exposures + n_other_bands), name="exposures")
    largest = max(kernel_sizes)
    maps = []
    for size in kernel_sizes:
        branch = layers.DepthwiseConv2D(
            size, depthwise_initializer=init(int(next(seeds))), name=f"depthwise_{size}"
        )(crop(exposures, (largest - size) // 2))
        branch = layers.ReLU(name=f"maps_{size}")(branch)
        maps.append(layers.BatchNormalization(name=f"normalization_{size}")(branch))
    features = layers.Concatenate(name="concatenate")(maps)
    latent = layers.Conv2D(oversampling**2, 1, kernel_initializer=init(int(next(seeds))), name="pointwise")(
        features
    )
    if oversampling > 1:
        latent = Interleave(name="interleave")(latent)
    return keras.Model(exposures, layers.ReLU(name="latent")(latent), name="encoder")


def build_trainer(
    encoder: keras.Model,
    n_exposures: int,
    context_shape: tuple[int, int],
    kernels_shape: tuple[int, ...],
    n_other_bands: int = 0,
) -> keras.Model:
    """Join the encoder and the fixed decoder to a model that can be fitted.

    Parameters
    ----------
    encoder : `keras.Model`
        From `build_encoder`.
    n_exposures : `int`
        Number of exposures.
    context_shape : `tuple` [`int`, `int`]
        Height and width of the encoder's input, pixels.
    kernels_shape : `tuple` [`int`, ...]
        Shape of the PSF kernels, see `PsfDecoder.call`, without the batch.
    n_other_bands : `int`, optional
        Number of images in the encoder's input after the exposures.

    Returns
    -------
    trainer : `keras.Model`
        Takes ``exposures``, ``kernels`` and ``inverse_sigma`` as `CropSampler`
        makes them, and returns the predicted exposures in units of each
        pixel's sigma, ``(batch, n, height, width)``.
    """
    exposures = keras.Input((*context_shape, n_exposures + n_other_bands), name="exposures")
    kernels = keras.Input(kernels_shape, name="kernels")
    predicted = PsfDecoder(name="decoder")(encoder(exposures), kernels)
    inverse_sigma = keras.Input(predicted.shape[1:], name="inverse_sigma")
    scaled = layers.Multiply(name="scaled")([predicted, inverse_sigma])
    return keras.Model(
        {"exposures": exposures, "kernels": kernels, "inverse_sigma": inverse_sigma},
        scaled,
        name="astroclearnet",
    )


class MaskedHuber(keras.losses.Loss):
    """The masked Huber loss (equations 4 and 5), per good pixel.

    The good-pixel mask is the sample weight; the mean is over good pixels, so
    that the value does not depend on how many there are.

    Parameters
    ----------
    delta : `float`
        Scaled residual beyond which the loss is linear.
    **kwargs
        Passed to `keras.losses.Loss`.
    """

    def __init__(self, delta: float, **kwargs: Any) -> None:
        super().__init__(reduction="mean_with_sample_weight", **kwargs)
        self._delta = delta

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of every pixel."""
        return huber(ops.abs(y_true - y_pred), self._delta)


def set_field_statistics(
    encoder: keras.Model, kernel_sizes: Sequence[int], tiles: Iterable[np.ndarray]
) -> None:
    """Give the batch normalization layers the statistics of the whole patch.

    In training they use those of the batch.  The final image must not depend
    on how the patch was cut into tiles, so it is normalized with the mean and
    variance over the whole patch.

    Parameters
    ----------
    encoder : `keras.Model`
        From `build_encoder`; its moving statistics are replaced.
    kernel_sizes : `~collections.abc.Sequence` [`int`]
        Sizes of its depthwise convolutions, pixels.
    tiles : `~collections.abc.Iterable` [`numpy.ndarray`]
        Inputs of the encoder, ``(1, height, width, n)``, whose outputs cover
        the patch once.
    """
    # A model with a list of one output returns no list.
    probe = keras.Model(encoder.input, {f"{k}": encoder.get_layer(f"maps_{k}").output for k in kernel_sizes})
    count = 0
    sums: Any = 0.0
    squares: Any = 0.0
    for tile in tiles:
        outputs = probe(tile, training=False)
        maps = [ops.convert_to_numpy(outputs[f"{k}"])[0].astype(np.float64) for k in kernel_sizes]
        count += maps[0].shape[0] * maps[0].shape[1]
        sums = sums + np.array([m.sum(axis=(0, 1)) for m in maps])
        squares = squares + np.array([(m**2).sum(axis=(0, 1)) for m in maps])
    for k, mean, square in zip(kernel_sizes, sums / count, squares / count, strict=True):
        layer = encoder.get_layer(f"normalization_{k}")
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(np.maximum(square - mean**2, 0.0))
