# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A network with a decoder whose kernels are weights, too (appendix A of the
second paper): its layers, its crops, and the points that stars are in it.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = (
    "MARGIN",
    "BlindCrops",
    "BlindDecoder",
    "Centered",
    "PointsOfStars",
    "ProjectedReLU",
    "build_blind_trainer",
    "build_crop_encoder",
)

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from ..restoration.convolution import PsfDecoder
from ..restoration.crops import Crop, CropSampler, NetworkInput
from ..restoration.network import crop
from ..stack.subpixel import point_image
from .point_sources import PointSources
from .star_kernels import place_stars
from .star_stamps import StarStamps

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
    the pixel coordinates is added to them; see `cell_variation.center`.

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
        loss.  The change is that of the logarithm.
    **kwargs
        Passed to `keras.layers.Layer`.
    """

    def __init__(self, start: np.ndarray, strength: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._logarithm = np.log(np.asarray(start, np.float32))
        self._strength = strength

    def build(self, latent_shape: tuple, kernels_shape: tuple, points_shape: tuple) -> None:
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

    def call(self, latent: Any, kernels: Any, points: Any) -> Any:  # type: ignore[override]
        """Blur latent images.

        Parameters
        ----------
        latent : tensor
            Shape ``(batch, height + k - 1, width + k - 1, 1)``.
        kernels : tensor
            Factor by which the kernels of a cell differ from the exposure's
            mean kernels, shape ``(batch, cells_y, cells_x, n, k, k)``; zero
            where the exposure has none.
        points : tensor
            Stars to add to the latent image, shape of ``latent``.  The kernels
            are fitted to their images only.

        Returns
        -------
        exposures : tensor
            Shape ``(batch, n, height, width)``.
        """
        self.add_loss(0.5 * self._strength * ops.sum(ops.square(self.change)))
        fitted = kernels * self.mean_kernels()
        return super().call(latent, ops.stop_gradient(fitted)) + super().call(points, fitted)

    def compute_output_shape(  # type: ignore[override]
        self, latent_shape: tuple, kernels_shape: tuple, points_shape: tuple
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
    """A ReLU with a projected gradient.

    Its values are those of the ReLU.  The gradient of a pixel at zero keeps the
    part that would make it brighter: with the plain ReLU, a latent image that
    one large step set to zero everywhere would stay zero.
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

    Returns
    -------
    trainer : `keras.Model`
        Takes what `BlindCrops` makes, and returns the predicted exposures in
        units of each pixel's sigma, ``(batch, n, height, width)``.

    Notes
    -----
    By equation 8 alone a broader latent image with sharper kernels describes
    the exposures as well, and a network, whose images are never as sharp as
    stars are, makes the kernels collapse.  Here the latent image is not the
    encoder's where ``open`` is zero but ``points``: stars, which are points
    however wide the kernels are.  The kernels are fitted to the stars' images,
    with the encoder's image of everything else in addition.
    """
    exposures = keras.Input((*context_shape, n_exposures), name="exposures")
    variation = keras.Input(kernels_shape, name="kernels")
    latent = encoder(exposures)
    inputs = {
        "exposures": exposures,
        "kernels": variation,
        "open": keras.Input(latent.shape[1:], name="open"),
        "points": keras.Input(latent.shape[1:], name="points"),
    }
    latent = layers.Multiply(name="elsewhere")([latent, inputs["open"]])
    predicted = decoder(latent, variation, inputs["points"])
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
    points : `numpy.ndarray`
        Image of the stars on the latent image's grid, nJy, shape ``(height +
        k - 1, width + k - 1)``.  It may be changed between batches.
    is_open : `numpy.ndarray`
        `bool`, same shape: where the latent image is the encoder's.
    """

    def __init__(
        self, field: NetworkInput, *, points: np.ndarray, is_open: np.ndarray, **kwargs: Any
    ) -> None:
        super().__init__(field, **kwargs)
        self._points = points
        self._is_open = is_open

    def batch(self, crops: list[Crop]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Cut crops; see `CropSampler.batch`."""
        inputs, target, weight = super().batch(crops)
        border = 2 * self._field.stack.padding
        windows = [(slice(c.y, c.y + c.height + border), slice(c.x, c.x + c.width + border)) for c in crops]
        scale = np.float32(self._field.scale)
        inputs["points"] = np.stack([self._points[w] for w in windows])[..., np.newaxis] / scale
        inputs["open"] = np.stack([self._is_open[w] for w in windows])[..., np.newaxis].astype(np.float32)
        return inputs, target, weight


class PointsOfStars:
    """The image of the stars as points, drawn again whenever the kernels have
    changed.

    Parameters
    ----------
    stars : `PointSources`
        The stars.
    stamps : `StarStamps`
        Their stamps, with fluxes and positions to start from.
    shape : `tuple` [`int`, `int`]
        Height and width of the latent image.
    padding : `int`
        Width of its border, pixels.

    Attributes
    ----------
    stamps : `StarStamps`
        The stamps with the fluxes and positions that were fitted last.
    image : `numpy.ndarray`
        The points, nJy, `numpy.float32`, shape of the latent image; its pixels
        are replaced by `fit`.
    """

    def __init__(self, stars: PointSources, stamps: StarStamps, shape: tuple[int, int], padding: int) -> None:
        self._origin = np.rint(stars.y) + padding, np.rint(stars.x) + padding
        self.stamps = stamps
        self.image = np.zeros(shape, np.float32)
        self._draw()

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        return self._origin[0] + self.stamps.dy, self._origin[1] + self.stamps.dx

    def _draw(self) -> None:
        self.image[:] = point_image(*self._places(), self.stamps.flux, self.image.shape)

    def fit(self, kernels: np.ndarray) -> None:
        """Fit fluxes and positions again, and draw the points there.

        Parameters
        ----------
        kernels : `numpy.ndarray`
            The exposures' mean kernels, shape ``(n, k, k)``.
        """
        self.stamps = place_stars(self.stamps, kernels, np.ones(len(kernels)))
        self._draw()

    def is_far(self, radius: float) -> np.ndarray:
        """Find the pixels beyond a radius from all stars.

        Parameters
        ----------
        radius : `float`
            The radius, pixels.

        Returns
        -------
        is_far : `numpy.ndarray`
            `bool`, shape of the latent image.
        """
        result = np.ones(self.image.shape, bool)
        reach = int(np.ceil(radius)) + 1
        for y, x in zip(*self._places(), strict=True):
            rows, columns = (
                slice(max(round(v) - reach, 0), round(v) + reach + 1) for v in (float(y), float(x))
            )
            grid = np.ogrid[rows, columns]
            inside = result[rows, columns]
            inside &= (np.hypot(grid[0] - y, grid[1] - x) > radius)[: inside.shape[0], : inside.shape[1]]
        return result
