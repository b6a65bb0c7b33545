# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Crops of simulated observations, and the loss that is minimized on them.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("EARLY_WEIGHT", "Crops", "SkyLoss", "build_trainer")

from typing import Any

import keras
import numpy as np
import scipy.ndimage
from keras import ops

from ..restoration.network_input import NO_DATA_NOISE, frame, turned
from ..restoration.sky_network import Unrolled

# Coefficients of the variance that weights the squared error: with the noise n
# and the local brightness b of the start, v[0] n**2 + v[1] b + (v[2] b)**2.
_VARIANCE = (0.3, 0.2, 0.05)
_BRIGHTNESS_WINDOW = 5

# Weighted squared error of the start below which a crop has less weight.
_EASY = 0.05

# Weight of the likelihood of the stated error, relative to the image's error.
_ERROR_WEIGHT = 0.02

EARLY_WEIGHT = 0.5
"""Weight in the loss of the passes before the last one."""


class Crops(keras.utils.PyDataset):
    """Random crops of samples, rotated and mirrored.

    Parameters
    ----------
    planes, kernels : `numpy.ndarray`
        From `write_samples`.
    size : `int`
        Height and width of a crop, pixels, including half of a kernel on each
        side.
    batch : `int`
        Number of crops in a batch.
    number : `int`
        Number of batches in an epoch.
    seed : `tuple` [`int`, ...]
        Seed of the crops.  Each batch has its own stream of random numbers, so
        that a resumed training has the same batches.
    """

    def __init__(
        self,
        planes: np.ndarray,
        kernels: np.ndarray,
        *,
        size: int,
        batch: int,
        number: int,
        seed: tuple[int, ...],
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self._planes, self._kernels = planes, kernels
        self._size, self._batch, self._number, self._seed = size, batch, number, seed

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        rng = np.random.default_rng((*self._seed, index))
        size = self._size
        planes: list[np.ndarray] = []
        kernels: list[np.ndarray] = []
        for number in rng.integers(len(self._planes), size=self._batch):
            row, column = (rng.integers(extent - size + 1) for extent in self._planes.shape[2:])
            crop = self._planes[number, :, row : row + size, column : column + size]
            turns, mirrored = int(rng.integers(4)), bool(rng.random() < 0.5)
            for images, many in ((planes, crop), (kernels, self._kernels[number])):
                images.append(turned(many, turns, mirrored))
        stacked = np.moveaxis(np.array(planes), 1, -1)
        inputs, truth = stacked[..., :4], stacked[..., 4:]
        reach = self._kernels.shape[-1] // 2
        border = frame(size, reach)
        # Sources in the frame contribute flux, but it has no data.
        noise = inputs[..., 2]
        noise[:, border] = NO_DATA_NOISE
        start = inputs[..., 1]
        brightness = scipy.ndimage.uniform_filter(start, (0, _BRIGHTNESS_WINDOW, _BRIGHTNESS_WINDOW))
        variance = _VARIANCE[0] * noise**2 + _VARIANCE[1] * brightness + (_VARIANCE[2] * brightness) ** 2
        weight = np.where(border, 0.0, 1.0 / variance)
        weight /= weight.sum(axis=(1, 2), keepdims=True)
        easy = _EASY + (weight * (start - truth[..., 0]) ** 2).sum(axis=(1, 2), keepdims=True)
        target = np.stack([truth[..., 0], weight, np.broadcast_to(easy, weight.shape)], axis=-1)
        return (
            {"planes": inputs.astype(np.float32), "kernels": np.array(kernels, np.float32)},
            target.astype(np.float32),
        )


class SkyLoss(keras.losses.Loss):
    """The loss of the network.

    Notes
    -----
    The sum over passes of the square root of a crop's weighted squared error,
    relative to that of the start, plus the negative log-likelihood of the
    network's error estimate.  Without the normalization by the start, crowded
    crops with their large errors would dominate the gradient.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each crop."""
        truth, weight, easy = (y_true[..., k] for k in range(3))
        total: Any = 0.0
        passes = y_pred.shape[-1] // 2
        for k in range(passes):
            image, stated = y_pred[..., 2 * k], y_pred[..., 2 * k + 1]
            squared = (image - truth) ** 2
            error = ops.sum(weight * squared, axis=(1, 2)) / easy[:, 0, 0]
            pull = ops.stop_gradient(squared) / stated**2
            inside = ops.cast(weight > 0.0, stated.dtype)
            likelihood = ops.sum(inside * (ops.log(stated) + 0.5 * ops.minimum(pull, 100.0)), axis=(1, 2))
            likelihood /= ops.sum(inside, axis=(1, 2))
            total += (1.0 if k == passes - 1 else EARLY_WEIGHT) * (
                ops.sqrt(error + 1e-6) + _ERROR_WEIGHT * likelihood
            )
        return total


def build_trainer(network: keras.Model, size: int, kernel_size: int, passes: int) -> keras.Model:
    """Make a model that can be fitted, from the network and the operations
    between its passes.

    Parameters
    ----------
    network : `keras.Model`
        From `build_network`.
    size : `int`
        Height and width of the crops, pixels.
    kernel_size : `int`
        Height and width of their kernels, pixels.
    passes : `int`
        Number of passes of the network.

    Returns
    -------
    trainer : `keras.Model`
        Model whose inputs are those of `Crops`.
    """
    planes = keras.Input((size, size, 4), name="planes")
    kernels = keras.Input((2, kernel_size, kernel_size), name="kernels")
    images = Unrolled(network, passes, name="unrolled")(planes, kernels)
    return keras.Model({"planes": planes, "kernels": kernels}, images, name="trainer")
