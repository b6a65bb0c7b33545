# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The networks: AstroClearNet's encoder and the model that trains it.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("EncoderSpec", "MaskedHuber", "Positive", "build_encoder", "build_trainer", "set_field_statistics")

import dataclasses
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from .decoder import PsfDecoder, interleave


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """The shape of an encoder.

    Parameters
    ----------
    kernel_sizes : `tuple` [`int`, ...]
        Odd sizes of the parallel depthwise convolutions, pixels.
    normalize_input : `bool`
        Divide the input by the local mean brightness.
    leakiness : `float`
        Slope of the depthwise convolutions' activation below zero; 0 is the
        papers' ReLU.
    batch_normalization : `bool`
        Normalize the depthwise maps as in the papers.
    hidden_filters, hidden_sizes : `tuple` [`int`, ...]
        Filters and odd kernel sizes of ordinary convolutions between the
        depthwise maps and the last pointwise one.
    brightness_window : `int`
        Odd width in pixels of the local mean brightness that multiplies the
        output; 0 for none.
    projected_output : `bool`
        End in `Positive` instead of the papers' ReLU.
    factor : `int`, optional
        Latent pixels along each axis in a pixel of the exposures.
    """

    kernel_sizes: tuple[int, ...]
    normalize_input: bool
    leakiness: float
    batch_normalization: bool
    hidden_filters: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    brightness_window: int
    projected_output: bool
    factor: int = 1

    @property
    def margin(self) -> int:
        """Pixels on each side of the input by which the output is smaller
        (`int`).
        """
        reach = max(self.kernel_sizes) // 2 + sum(size // 2 for size in self.hidden_sizes)
        return reach + self.brightness_window // 2


class LocalBrightness(layers.Layer):
    """The mean of all exposures in a square window, plus one.

    Parameters
    ----------
    window : `int`
        Odd width of the window, pixels.
    **kwargs
        Passed to `keras.layers.Layer`.
    """

    def __init__(self, window: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._window = window

    def call(self, inputs: Any) -> Any:
        """Map ``(batch, height, width, n)`` to ``(batch, height - window + 1,
        width - window + 1, 1)``.
        """
        mean = ops.relu(ops.mean(inputs, axis=-1, keepdims=True))
        return ops.average_pool(mean, self._window, strides=1, padding="valid") + 1.0

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "window": self._window}


@ops.custom_gradient
def _project(values: Any) -> tuple[Any, Any]:
    """Cut values at zero; below it, keep the gradients that lead upwards."""

    def gradient(*args: Any, upstream: Any = None) -> Any:
        upstream = args[0] if upstream is None else upstream
        leads_up = ops.logical_or(values > 0, upstream < 0)
        return upstream * ops.cast(leads_up, upstream.dtype)

    return ops.relu(values), gradient


class Positive(layers.Layer):
    """A ReLU that the training can climb back from.

    Forwards it is the ReLU.  Backwards, a pixel at zero keeps the part of its
    gradient that would make it brighter, as in a projected gradient: with the
    plain ReLU, a latent image that one large step made dark everywhere would
    stay dark.
    """

    def call(self, inputs: Any) -> Any:
        """Return ``max(inputs, 0)``."""
        return _project(inputs)


class Interleave(layers.Layer):
    """Makes one image of channels that are the parts of pixels."""

    def call(self, inputs: Any) -> Any:
        """Map ``(batch, height, width, r**2)`` to ``(batch, r*height, r*width,
        1)``, each part with its share of the pixel's flux.
        """
        return interleave(inputs / inputs.shape[-1])[..., None]


def _crop(tensor: Any, pixels: int) -> Any:
    """Cut pixels off each side of ``(batch, height, width, channels)``."""
    return layers.Cropping2D(pixels)(tensor) if pixels else tensor


def build_encoder(n_exposures: int, spec: EncoderSpec, seed: int, n_guides: int = 0) -> keras.Model:
    """Build the encoder ``F`` (figure 2 and section 3.4 of the second paper).

    Every convolution is "valid": the output is smaller than the input by
    ``2 * spec.margin`` pixels, so that it is the same for every tiling.

    Parameters
    ----------
    n_exposures : `int`
        Number of exposures: the channels of the input.
    spec : `EncoderSpec`
        The layers.
    seed : `int`
        Seed of the Glorot uniform initial weights.
    n_guides : `int`, optional
        Number of images of the same sky in other bands that follow the
        exposures.  They show the encoder where light is, not how much:
        ``normalize_input`` divides each by its own local mean brightness, and
        the output is scaled by that of the exposures alone.

    Returns
    -------
    encoder : `keras.Model`
        Maps ``(batch, height + 2*margin, width + 2*margin, n + g)``, in units of
        the patch's median sigma, to the latent image ``(batch, r*height,
        r*width, 1)`` in the same units, non-negative.  The maps before normalization
        are the outputs of the layers named ``maps_<size>``.
    """
    init = keras.initializers.GlorotUniform
    seeds = iter(
        np.random.SeedSequence(seed).generate_state(len(spec.kernel_sizes) + len(spec.hidden_sizes) + 1)
    )
    exposures = keras.Input((None, None, n_exposures + n_guides), name="exposures")
    inputs = exposures
    if spec.brightness_window:
        brightness = LocalBrightness(spec.brightness_window, name="brightness")(
            exposures[..., :n_exposures] if n_guides else exposures
        )
        inputs = _crop(exposures, spec.brightness_window // 2)
        if spec.normalize_input:
            # A source then looks the same whatever its flux, and one set of
            # weights serves all of them.
            scales = [
                LocalBrightness(spec.brightness_window, name=f"brightness_{k}")(exposures[..., k : k + 1])
                for k in range(n_exposures, n_exposures + n_guides)
            ]
            inputs = inputs / (
                layers.Concatenate(name="scales")([brightness] * n_exposures + scales)
                if n_guides
                else brightness
            )
    largest = max(spec.kernel_sizes)
    maps = []
    for size in spec.kernel_sizes:
        branch = layers.DepthwiseConv2D(
            size, depthwise_initializer=init(int(next(seeds))), name=f"depthwise_{size}"
        )(_crop(inputs, (largest - size) // 2))
        branch = layers.LeakyReLU(spec.leakiness, name=f"maps_{size}")(branch)
        if spec.batch_normalization:
            branch = layers.BatchNormalization(name=f"normalization_{size}")(branch)
        maps.append(branch)
    features = layers.Concatenate(name="concatenate")(maps)
    for i, (filters, size) in enumerate(zip(spec.hidden_filters, spec.hidden_sizes, strict=True)):
        features = layers.Conv2D(
            filters, size, activation="relu", kernel_initializer=init(int(next(seeds))), name=f"hidden_{i}"
        )(features)
    latent = layers.Conv2D(spec.factor**2, 1, kernel_initializer=init(int(next(seeds))), name="pointwise")(
        features
    )
    if spec.brightness_window:
        reach = largest // 2 + sum(size // 2 for size in spec.hidden_sizes)
        latent = layers.Multiply(name="scale")([latent, _crop(brightness, reach)])
    if spec.factor > 1:
        latent = Interleave(name="interleave")(latent)
    output = Positive(name="latent") if spec.projected_output else layers.ReLU(name="latent")
    return keras.Model(exposures, output(latent), name="encoder")


def build_trainer(
    encoder: keras.Model,
    n_exposures: int,
    context_shape: tuple[int, int],
    kernels_shape: tuple[int, ...],
    n_guides: int = 0,
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
    n_guides : `int`, optional
        Number of images that the encoder sees besides the exposures.

    Returns
    -------
    trainer : `keras.Model`
        Takes ``exposures``, ``kernels`` and ``inverse_sigma`` as `CropSampler`
        makes them, and returns the predicted exposures in units of each
        pixel's sigma, ``(batch, n, height, width)``.
    """
    exposures = keras.Input((*context_shape, n_exposures + n_guides), name="exposures")
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
        size = ops.abs(y_true - y_pred)
        clipped = ops.minimum(size, self._delta)
        return clipped * (size - 0.5 * clipped)


def set_field_statistics(encoder: keras.Model, spec: EncoderSpec, tiles: Iterable[np.ndarray]) -> None:
    """Give the batch normalization layers the statistics of the whole patch.

    In training they use those of the batch.  The final image must not depend
    on how the patch was cut into batches or tiles, so it is normalized with
    the mean and variance over the whole patch.

    Parameters
    ----------
    encoder : `keras.Model`
        From `build_encoder`; its moving statistics are replaced.
    spec : `EncoderSpec`
        The encoder's layers; without batch normalization nothing is done.
    tiles : `~collections.abc.Iterable` [`numpy.ndarray`]
        Inputs of the encoder, ``(1, height, width, n)``, whose outputs cover
        the patch once.
    """
    if not spec.batch_normalization:
        return
    probe = keras.Model(encoder.input, [encoder.get_layer(f"maps_{k}").output for k in spec.kernel_sizes])
    count = 0
    sums: Any = 0.0
    squares: Any = 0.0
    for tile in tiles:
        maps = [ops.convert_to_numpy(m)[0].astype(np.float64) for m in probe(tile, training=False)]
        # The maps reach further than the output by what the hidden layers
        # take away; only pixels that the tile owns are counted.
        reach = spec.margin - max(spec.kernel_sizes) // 2
        maps = [m[reach : m.shape[0] - reach, reach : m.shape[1] - reach] for m in maps]
        count += maps[0].shape[0] * maps[0].shape[1]
        sums = sums + np.array([m.sum(axis=(0, 1)) for m in maps])
        squares = squares + np.array([(m**2).sum(axis=(0, 1)) for m in maps])
    for k, mean, square in zip(spec.kernel_sizes, sums / count, squares / count, strict=True):
        layer = encoder.get_layer(f"normalization_{k}")
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(np.maximum(square - mean**2, 0.0))
