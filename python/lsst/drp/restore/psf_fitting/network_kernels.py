# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSF kernels fitted to all pixels, together with a network (equation 8 of the
second paper), with isolated stars as points.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("BATCH_SIZE", "CROP_SIZE", "fit_network_kernels")

import dataclasses

import keras
import numpy as np

from lsst.utils.logging import LsstLogAdapter

from ..errors import DivergedError
from ..restoration.crops import NetworkInput
from ..restoration.divergence import describe_extreme
from ..restoration.fitting import LearningRate, optimize
from ..stack.exposure_stack import ExposureStack
from .blind_network import (
    MARGIN,
    BlindCrops,
    BlindDecoder,
    PointsOfStars,
    build_blind_trainer,
    build_crop_encoder,
)
from .point_sources import PointSources
from .star_kernels import HUBER_DELTA, KERNEL_FREEDOM, StarFit
from .star_stamps import StarStamps

CROP_SIZE = 64
"""Height and width of the random crops, pixels (`int`): several kernels wide.
No crop is larger than a third of the patch, so that there is room for the
held-out ones.
"""

BATCH_SIZE = 4
"""Crops in a step of the optimizer (`int`)."""

# Adam's learning rate, as tried on simulated fields: large at first and small within some hundred steps.
_RATE = LearningRate(initial=0.004, decay=0.8, interval=50)

# Norm to which larger gradients of the network are cut: crops with a bright star have gradients hundreds of
# times larger than the others.
_MAX_GRADIENT_NORM = 0.3

# Fraction of the patch that is held out of the training crops to stop early by.
_VALIDATION_FRACTION = 0.1

# Crops with a smaller fraction of good pixels are drawn again.
_MIN_GOOD_FRACTION = 0.3

# Training stops after so many epochs in which the held-out loss per good pixel does not fall by this much.
# The first epochs do not count: while the learning rate is large the loss goes up and down with the crops.
_PATIENCE = 3
_MIN_IMPROVEMENT = 1e-4
_MIN_EPOCHS = 8

# Kernels are fitted as logarithms: no pixel starts below this fraction of the peak.
_FLOOR = 1e-5

# The encoder leaves this radius around a star, pixels, to the point.
_POINT_RADIUS = 5.0


def fit_network_kernels(
    stack: ExposureStack,
    fill: np.ndarray,
    variation: np.ndarray,
    stars: PointSources,
    fit: StarFit,
    *,
    steps_per_epoch: int,
    max_epochs: int,
    seed: int,
    log: LsstLogAdapter,
    rate_factor: float = 1.0,
) -> tuple[np.ndarray, StarStamps]:
    """Fit kernels and the weights of a network to the exposures.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures without outliers; their kernels are not used.
    fill : `numpy.ndarray`
        Image of the patch, nJy, shape ``(height, width)``, see `NetworkInput`.
    variation : `numpy.ndarray`
        Variation of the kernels over the patch (`split_variation`), shape
        ``(n, cells_y, cells_x, k, k)``.
    stars : `PointSources`
        The stars that ``fit`` used.
    fit : `StarFit`
        Kernels, fluxes and positions to start from.
    steps_per_epoch : `int`
        Steps after which the held-out loss is computed and the points are
        drawn again.
    max_epochs : `int`
        Epochs after which training ends at the latest.
    seed : `int`
        Seed of the initial weights and of the crops.
    log : `lsst.utils.logging.LsstLogAdapter`
        Logger of the progress.
    rate_factor : `float`, optional
        Factor on the learning rate.

    Returns
    -------
    kernels : `numpy.ndarray`
        The exposures' mean kernels, `numpy.float64`, shape ``(n, k, k)``.
    stamps : `StarStamps`
        The stars with the fluxes and positions found.

    Raises
    ------
    DivergedError
        Raised if the kernels become infinite or NaN.
    """
    encoder = build_crop_encoder(stack.n_exposures, seed)
    field = NetworkInput(dataclasses.replace(stack, kernels=variation), fill, MARGIN)
    height, width = (extent + 2 * stack.padding for extent in stack.shape)
    points = PointsOfStars(stars, fit.stamps, (height, width), stack.padding)
    sampler = BlindCrops(
        field,
        points=points.image,
        is_open=points.is_far(_POINT_RADIUS),
        crop_shape=(min(CROP_SIZE, stack.shape[0] // 3), min(CROP_SIZE, stack.shape[1] // 3)),
        batch_size=BATCH_SIZE,
        validation_fraction=_VALIDATION_FRACTION,
        min_good_fraction=_MIN_GOOD_FRACTION,
        seed=seed,
    )
    start = np.maximum(fit.kernels, _FLOOR * fit.kernels.max(axis=(1, 2), keepdims=True))
    # The prior of the fit to stars, in the units of the loss, which is a mean over good pixels.
    strength = 1.0 / (KERNEL_FREEDOM**2 * np.count_nonzero(stack.good))
    decoder = BlindDecoder(start / start.sum(axis=(1, 2), keepdims=True), strength, name="decoder")
    trainer = build_blind_trainer(
        encoder, decoder, stack.n_exposures, sampler.context_shape, sampler.kernels_shape
    )

    def kernels() -> np.ndarray:
        return keras.ops.convert_to_numpy(decoder.mean_kernels()).astype(np.float64)

    callbacks: list[keras.callbacks.Callback] = [
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: points.fit(kernels())),
        keras.callbacks.EarlyStopping(
            monitor="val_loss",
            min_delta=_MIN_IMPROVEMENT,
            patience=_PATIENCE,
            start_from_epoch=_MIN_EPOCHS,
            restore_best_weights=True,
        ),
    ]
    optimize(
        trainer,
        sampler.training_batch,
        sampler.validation_batches(),
        delta=HUBER_DELTA,
        rate=_RATE.scaled(rate_factor),
        max_gradient_norm=_MAX_GRADIENT_NORM,
        steps=steps_per_epoch,
        epochs=max_epochs,
        pixels_per_step=sampler.pixels_per_step,
        log=log,
        callbacks=callbacks,
    )
    result = kernels()
    if not np.isfinite(result).all():
        raise DivergedError(
            f"The fit of the kernels with a learning rate of {_RATE.scaled(rate_factor).initial:g} diverged. "
            "Set fitKernels.method='stars', or mask pixels that should not be fitted: "
            f"{describe_extreme(stack)}."
        )
    return result, points.stamps
