# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A network with a decoder whose kernels are weights, too (appendix A of the
second paper).

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = (
    "MARGIN",
    "BlindCrops",
    "BlindDecoder",
    "Centered",
    "PlacePoints",
    "ProjectedReLU",
    "build_blind_trainer",
    "build_crop_encoder",
)

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from ..restoration.convolution import PsfDecoder
from ..restoration.crops import Crop, CropSampler
from ..restoration.network import crop
from ..stack.subpixel import point_image
from .point_sources import PointSources
from .star_kernels import StarStamps

# Newton steps that center kernels after each step of the optimizer: these change little.
_TILT_STEPS = 2

# The encoder: sizes of its depthwise convolutions and slope of their activation below zero; filters and size
# of the ordinary convolutions that follow; width of the local mean brightness that scales all of it.
_KERNEL_SIZES = (1, 3, 5, 7, 9, 11)
_LEAKINESS = 0.2
_HIDDEN = ((16, 1), (16, 5))
_BRIGHTNESS_WINDOW = 9

_REACH = max(_KERNEL_SIZES) // 2 + sum(size // 2 for _, size in _HIDDEN)
MARGIN = _REACH + _BRIGHTNESS_WINDOW // 2
"""Pixels on each side by which the encoder's output is smaller than its input
(`int`).
"""


def _axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(size) - size // 2).astype(np.float32)
    return axis[:, np.newaxis] + np.zeros_like(axis), np.zeros_like(axis)[:, np.newaxis] + axis


@keras.saving.register_keras_serializable("lsst.drp.restore")
class Centered(keras.constraints.Constraint):
    """Keeps the centroids of kernels on their middle pixels.

    The weights are changes of the kernels' logarithms.  A linear function of
    the pixel coordinates is added to them; see `star_kernels.center`.

    Parameters
    ----------
    logarithm : `numpy.ndarray`
        Logarithms of the kernels whose change is zero, shape ``(n, k, k)``.
    """

    def __init__(self, logarithm: np.ndarray) -> None:
        self._logarithm = np.asarray(logarithm, np.float32)

    def __call__(self, change: Any) -> Any:
        """Return the changes of centered kernels, shape ``(n, k, k)``."""
        y, x = _axes(self._logarithm.shape[-1])
        for _ in range(_TILT_STEPS):
            weight = _softmax(change + self._logarithm)
            mean_y = ops.sum(weight * y, axis=(1, 2), keepdims=True)
            mean_x = ops.sum(weight * x, axis=(1, 2), keepdims=True)
            dy, dx = y - mean_y, x - mean_x
            yy = ops.sum(weight * dy * dy, axis=(1, 2), keepdims=True)
            xx = ops.sum(weight * dx * dx, axis=(1, 2), keepdims=True)
            xy = ops.sum(weight * dy * dx, axis=(1, 2), keepdims=True)
            norm = ops.maximum(yy * xx - xy * xy, 1e-12)
            change = change - ((xx * mean_y - xy * mean_x) * y + (yy * mean_x - xy * mean_y) * x) / norm
        return change

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"logarithm": self._logarithm.tolist()}


def _softmax(logarithm: Any) -> Any:
    """Return kernels with sum 1, shape ``(n, k, k)``."""
    values = ops.exp(logarithm - ops.max(logarithm, axis=(1, 2), keepdims=True))
    return values / ops.sum(values, axis=(1, 2), keepdims=True)


class BlindDecoder(PsfDecoder):
    """The decoder with kernels that are fitted: non-negative, with sum 1, and
    centered.

    Parameters
    ----------
    start : `numpy.ndarray`
        Kernels to start from, shape ``(n, k, k)``, positive.
    strength : `float`
        Weight of ``change**2 / 2``, summed over all kernels' pixels, in the
        loss; 0 for none.  The change is that of the logarithm.
    **kwargs
        Passed to `keras.layers.Layer`.
    """

    def __init__(self, start: np.ndarray, strength: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._logarithm = np.log(np.asarray(start, np.float32))
        self._strength = strength

    def build(self, latent_shape: tuple, kernels_shape: tuple, points_shape: tuple | None = None) -> None:
        """Make the weights."""
        self.change = self.add_weight(
            name="change",
            shape=self._logarithm.shape,
            initializer="zeros",
            constraint=Centered(self._logarithm),
        )
        self.built = True

    def mean_kernels(self) -> Any:
        """Return the kernels, shape ``(n, k, k)``."""
        return _softmax(self.change + self._logarithm)

    def call(self, latent: Any, kernels: Any, points: Any = None) -> Any:
        """Blur latent images.

        Parameters
        ----------
        latent : tensor
            Shape ``(batch, height + k - 1, width + k - 1, 1)``.
        kernels : tensor
            Factor by which the kernels of a cell differ from the exposure's
            mean kernels, shape ``(batch, cells_y, cells_x, n, k, k)``; zero
            where the exposure has none.
        points : tensor, optional
            Stars to add to the latent image, same shape.  If there are any,
            the kernels learn from their images only.

        Returns
        -------
        exposures : tensor
            Shape ``(batch, n, height, width)``.
        """
        if self._strength:
            self.add_loss(0.5 * self._strength * ops.sum(ops.square(self.change)))
        fitted = kernels * self.mean_kernels()
        if points is None:
            return super().call(latent, fitted)
        return super().call(latent, ops.stop_gradient(fitted)) + super().call(points, fitted)

    def compute_output_shape(
        self, latent_shape: tuple, kernels_shape: tuple, points_shape: tuple | None = None
    ) -> tuple:
        """Shape of the result of `call`."""
        return super().compute_output_shape(latent_shape, kernels_shape)


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


class ProjectedReLU(layers.Layer):
    """A ReLU that the training can climb back from.

    Forwards it is the ReLU.  Backwards, a pixel at zero keeps the part of its
    gradient that would make it brighter, as in a projected gradient: with the
    plain ReLU, a latent image that one large step made dark everywhere would
    stay dark.
    """

    def call(self, inputs: Any) -> Any:
        """Return ``max(inputs, 0)``."""
        return _project(inputs)


def build_crop_encoder(n_exposures: int, seed: int) -> keras.Model:
    """Build an encoder that can be trained on crops.

    It differs from AstroClearNet's (`network.build_encoder`): the input is
    divided by the local mean brightness and the output multiplied by it, so
    that a source looks the same whatever its flux, instead of batch
    normalization, whose statistics on crops are not those of the patch.

    Parameters
    ----------
    n_exposures : `int`
        Number of exposures: the channels of the input.
    seed : `int`
        Seed of the Glorot uniform initial weights.

    Returns
    -------
    encoder : `keras.Model`
        Maps ``(batch, height + 2*MARGIN, width + 2*MARGIN, n)``, in units of
        the patch's median sigma, to the latent image ``(batch, height, width,
        1)`` in the same units, non-negative.
    """
    init = keras.initializers.GlorotUniform
    seeds = iter(np.random.SeedSequence(seed).generate_state(len(_KERNEL_SIZES) + len(_HIDDEN) + 1))
    exposures = keras.Input((None, None, n_exposures), name="exposures")
    brightness = LocalBrightness(_BRIGHTNESS_WINDOW, name="brightness")(exposures)
    inputs = crop(exposures, _BRIGHTNESS_WINDOW // 2) / brightness
    largest = max(_KERNEL_SIZES)
    maps = []
    for size in _KERNEL_SIZES:
        branch = layers.DepthwiseConv2D(
            size, depthwise_initializer=init(int(next(seeds))), name=f"depthwise_{size}"
        )(crop(inputs, (largest - size) // 2))
        maps.append(layers.LeakyReLU(_LEAKINESS, name=f"maps_{size}")(branch))
    features = layers.Concatenate(name="concatenate")(maps)
    for i, (filters, size) in enumerate(_HIDDEN):
        features = layers.Conv2D(
            filters, size, activation="relu", kernel_initializer=init(int(next(seeds))), name=f"hidden_{i}"
        )(features)
    latent = layers.Conv2D(1, 1, kernel_initializer=init(int(next(seeds))), name="pointwise")(features)
    latent = layers.Multiply(name="scale")([latent, crop(brightness, _REACH)])
    return keras.Model(exposures, ProjectedReLU(name="latent")(latent), name="encoder")


def build_blind_trainer(
    encoder: keras.Model,
    decoder: BlindDecoder,
    n_exposures: int,
    context_shape: tuple[int, int],
    kernels_shape: tuple[int, ...],
    *,
    anchored: bool,
) -> keras.Model:
    """Join encoder and decoder to a model that can be fitted (equation 8).

    Parameters
    ----------
    encoder : `keras.Model`
        From `build_crop_encoder`.
    decoder : `BlindDecoder`
        The decoder.
    n_exposures, context_shape, kernels_shape
        As for `build_trainer`.
    anchored : `bool`
        Whether the latent image of stars is held at points.

    Returns
    -------
    trainer : `keras.Model`
        Takes what `BlindCrops` makes, and returns the predicted exposures in
        units of each pixel's sigma, ``(batch, n, height, width)``.

    Notes
    -----
    Not anchored, this is equation 8: a broader latent image with sharper
    kernels describes the exposures as well, and a network, whose images are
    never as sharp as stars are, makes the kernels collapse.

    Anchored, the latent image is not the encoder's where ``open`` is zero but
    ``points``: stars, which are points however wide the kernels are.  The
    kernels learn from the stars' images, with the encoder's image of
    everything else beside them.
    """
    exposures = keras.Input((*context_shape, n_exposures), name="exposures")
    variation = keras.Input(kernels_shape, name="kernels")
    latent = encoder(exposures)
    inputs = {"exposures": exposures, "kernels": variation}
    if anchored:
        inputs["open"] = keras.Input(latent.shape[1:], name="open")
        inputs["points"] = keras.Input(latent.shape[1:], name="points")
        latent = layers.Multiply(name="elsewhere")([latent, inputs["open"]])
        predicted = decoder(latent, variation, inputs["points"])
    else:
        predicted = decoder(latent, variation)
    inputs["inverse_sigma"] = keras.Input(predicted.shape[1:], name="inverse_sigma")
    scaled = layers.Multiply(name="scaled")([predicted, inputs["inverse_sigma"]])
    return keras.Model(inputs, scaled, name="blind_astroclearnet")


class BlindCrops(CropSampler):
    """Draws crops with the stars that are in them.

    Parameters
    ----------
    field, **kwargs
        As for `CropSampler`; the kernels of the field's stack are the
        variation between cells.
    points : `numpy.ndarray` or `None`
        Image of the stars on the latent image's grid, nJy, shape ``(height +
        k - 1, width + k - 1)``.  It may be changed between batches.
    is_open : `numpy.ndarray` or `None`
        `bool`, same shape: where the latent image is the encoder's.
    """

    def __init__(
        self, field: Any, *, points: np.ndarray | None, is_open: np.ndarray | None, **kwargs: Any
    ) -> None:
        super().__init__(field, **kwargs)
        self._points = points
        self._is_open = is_open

    def batch(self, crops: list[Crop]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Cut crops; see `CropSampler.batch`."""
        inputs, target, weight = super().batch(crops)
        if self._points is None or self._is_open is None:
            return inputs, target, weight
        border = 2 * self._field.stack.padding
        windows = [(slice(c.y, c.y + c.height + border), slice(c.x, c.x + c.width + border)) for c in crops]
        scale = np.float32(self._field.scale)
        inputs["points"] = np.stack([self._points[w] for w in windows])[..., np.newaxis] / scale
        inputs["open"] = np.stack([self._is_open[w] for w in windows])[..., np.newaxis].astype(np.float32)
        return inputs, target, weight


class PlacePoints:
    """Draws the stars into the latent image, again whenever the kernels have
    changed.

    Parameters
    ----------
    stars : `PointSources`
        The stars.
    stamps : `StarStamps`
        Their stamps; fluxes and positions are changed in place.
    image : `numpy.ndarray`
        Where to draw them, on the latent image's grid, nJy.
    padding : `int`
        Width of the latent image's border, pixels.
    delta : `float`
        Residual in units of sigma beyond which the loss is linear.
    """

    def __init__(
        self, stars: PointSources, stamps: StarStamps, image: np.ndarray, padding: int, delta: float
    ) -> None:
        self._origin = np.rint(stars.y) + padding, np.rint(stars.x) + padding
        self._stamps = stamps
        self._image = image
        self._delta = delta

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        return self._origin[0] + self._stamps.dy, self._origin[1] + self._stamps.dx

    def draw(self) -> None:
        """Draw the stars."""
        self._image[:] = point_image(*self._places(), self._stamps.flux, self._image.shape)

    def is_far(self, radius: float) -> np.ndarray:
        """Return which pixels are further than a radius from all stars
        (`numpy.ndarray` of `bool`).
        """
        result = np.ones(self._image.shape, bool)
        reach = int(np.ceil(radius)) + 1
        for y, x in zip(*self._places(), strict=True):
            rows, columns = (
                slice(max(round(v) - reach, 0), round(v) + reach + 1) for v in (float(y), float(x))
            )
            grid = np.ogrid[rows, columns]
            inside = result[rows, columns]
            inside &= (np.hypot(grid[0] - y, grid[1] - x) > radius)[: inside.shape[0], : inside.shape[1]]
        return result

    def callback(self, decoder: BlindDecoder) -> keras.callbacks.Callback:
        """Return what draws them after each epoch (`keras.callbacks.Callback`).

        Parameters
        ----------
        decoder : `BlindDecoder`
            Where the kernels are.
        """

        def draw(epoch: int, logs: Any) -> None:
            kernels = ops.convert_to_numpy(decoder.mean_kernels()).astype(np.float64)
            self._stamps.place(kernels, np.ones(len(kernels)), self._delta)
            self.draw()

        return keras.callbacks.LambdaCallback(on_epoch_end=draw)
