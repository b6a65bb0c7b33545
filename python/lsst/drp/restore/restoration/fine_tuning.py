# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fine-tuning of the trained network on exposures, without any truth.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("MIN_EXPOSURES", "MIN_SIZE", "fine_tune", "split_exposures")

import dataclasses
from collections.abc import Sequence
from typing import Any

import astropy.table
import keras
import numpy as np
import scipy.ndimage
from keras import ops

from lsst.utils.logging import LsstLogAdapter

from ..errors import DivergedError, RestorationError
from ..stack.exposure_stack import ExposureStack
from ..stack.kernel_shape import FWHM_PER_SIGMA
from ..stack.reference_coadd import reference_coadd
from .convolution import Blur
from .first_estimate import first_estimate
from .fitting import Batch, History, fit
from .measurable import MeasurableConfig, MeasurableTask, matched_stack
from .network import MaskedHuber
from .network_input import NO_DATA_NOISE, PASSES, frame, turned
from .seeds import Seeds
from .sky_network import ALIGNMENT, Unrolled, build_network
from .target_psf import TARGET_FWHM, convolution_kernels, deconvolution_kernels
from .trained_network import TrainedNetwork, noise_map

MIN_EXPOSURES = 4
"""Exposures that are needed: two in each half."""

MIN_SIZE = 64
"""Height and width that a patch must have, pixels."""

# Random halves of each patch; each half predicts the other one.
_SPLITS = 2

# Height and width of the part of a patch that is used at most, pixels.
_REGION = 512

_CROP = 128
_BATCH = 4

# Pixels beyond a crop's frame that do not count: the network has little
# information on the sky in the frame, and the PSF brings it there.
_EDGE = 8

# Residual in units of sigma beyond which the loss is linear.
_HUBER_DELTA = 2.0

_MAX_GRADIENT_NORM = 1.0

# Weight of the change of the stated error's logarithm, squared.
_ERROR_WEIGHT = 3.0

# Steps from one row of the history to the next, at most.
_EPOCH = 25


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Split:
    """Input of the network from some of the exposures, and its target from the
    others.

    Parameters
    ----------
    planes : `numpy.ndarray`
        Input planes of the network from the first ones, as in `Unrolled`, in units of
        their sky's noise, `numpy.float32`, shape ``(4, height + k - 1, width +
        k - 1)``.
    coadd : `numpy.ndarray`
        White-noise coadd of the others, same unit, shape ``(height, width)``.
    sigma : `numpy.ndarray`
        Its standard deviation, same unit and shape; infinite where there are
        no data.
    kernels : `numpy.ndarray`
        By cell, the two of `Unrolled` and that from the target resolution to
        the PSF of the others' coadd, shape ``(cells_y, cells_x, 3, k, k)``.
    cell_shape : `tuple` [`int`, `int`]
        Height and width of a cell, pixels.
    """

    planes: np.ndarray
    coadd: np.ndarray
    sigma: np.ndarray
    kernels: np.ndarray
    cell_shape: tuple[int, int]


def split_exposures(stack: ExposureStack, rng: np.random.Generator) -> list[Split]:
    """Divide exposures into two random halves, and let each be predicted from
    the other.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures, without outliers.  Of a large patch a random part is
        used.
    rng : `numpy.random.Generator`
        Random numbers.

    Returns
    -------
    splits : `list` [`Split`]
        Two, one for each direction; none if a half has no data there.
    """
    cells = [
        _draw_cells(*extents, rng) for extents in zip(stack.kernels.shape[1:3], stack.cell_shape, strict=True)
    ]
    order = rng.permutation(stack.n_exposures)
    half = stack.n_exposures // 2
    halves = [_part(stack, np.sort(members), cells) for members in (order[:half], order[half:])]
    if not all(part.good.any() for part in halves):
        return []
    coadds, latents = zip(*(_coadd(part) for part in halves), strict=True)
    sigma = TARGET_FWHM / FWHM_PER_SIGMA
    starts = [
        scipy.ndimage.gaussian_filter(latent, sigma, mode="constant", truncate=6.0) for latent in latents
    ]
    return [_split(coadds[k], starts[k], coadds[1 - k]) for k in range(2)]


def fine_tune(
    stacks: Sequence[ExposureStack],
    weights: Sequence[np.ndarray],
    *,
    passes: int = PASSES,
    steps: int,
    rate: float,
    seed: int,
    log: LsstLogAdapter,
) -> tuple[TrainedNetwork, astropy.table.Table]:
    """Train a network further on exposures.

    Parameters
    ----------
    stacks : `~collections.abc.Sequence` [`ExposureStack`]
        Exposures of one patch or several, without outliers; each at least
        `MIN_EXPOSURES` of at least `MIN_SIZE` pixels.  The latent image has
        their pixels, whatever their ``oversampling``.
    weights : `~collections.abc.Sequence` [`numpy.ndarray`]
        The network's weights, for example those of `read_weights`.
    passes : `int`, optional
        Passes of the network.
    steps : `int`
        Steps of the optimizer.
    rate : `float`
        Largest learning rate of Adam: it rises in the first tenth of the
        steps, and falls to zero.
    seed : `int`
        Seed of the halves and of the crops.
    log : `lsst.utils.logging.LsstLogAdapter`
        Where progress goes.

    Returns
    -------
    network : `TrainedNetwork`
        A network of its own, fine-tuned.
    history : `astropy.table.Table`
        How the loss fell; see `make_history`.

    Raises
    ------
    RestorationError
        Raised if there are no data to train on.
    DivergedError
        Raised if the training diverges.

    Notes
    -----
    The loss is that of equation 4, with the network's image ``x_A`` of one half
    of the exposures and the white-noise coadd ``M_B`` of the other half, a
    sufficient statistic of them: ``sum H((M_B - h_B * x_A) / sigma_B)``, with
    the kernel ``h_B`` from the target resolution to the coadd's PSF.  The noise
    of one half is independent of that of the other, so that the best prediction
    is the sky as far as the PSFs pass it, not the noise (Noise2Noise, J.
    Lehtinen et al. 2018).  Crops have one PSF, that of the cell in their
    middle.

    The error that the network states is not trained: it is held at that of the
    given weights.
    """
    rng = np.random.default_rng(seed)
    splits = [
        split
        for stack in stacks
        for _ in range(_SPLITS)
        for split in split_exposures(dataclasses.replace(stack, oversampling=1), rng)
    ]
    if not splits:
        raise RestorationError(
            "No part that was drawn of the patches has data in both halves of its exposures."
        )
    size = min(_CROP, *(extent for split in splits for extent in split.planes.shape[1:]))
    size -= size % ALIGNMENT
    crops = _Crops(splits, size, rng)
    network, given = build_network(), build_network()
    for one in (network, given):
        one.set_weights(list(weights))
    trainer = _build_trainer(network, given, size, splits[0].kernels.shape[-1], passes)
    # Adam's first steps are as long as the rate, however small the gradient.
    warm_up = steps // 10
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warm_up else rate,
        steps - warm_up,
        warmup_target=rate if warm_up else None,
        warmup_steps=warm_up,
    )
    optimizer = keras.optimizers.Adam(schedule, global_clipnorm=_MAX_GRADIENT_NORM)
    trainer.compile(optimizer=optimizer, loss=MaskedHuber(_HUBER_DELTA))
    history = History(log, max_steps=steps, pixels_per_step=_BATCH * size**2, interval=30.0)
    epoch = next(number for number in range(min(_EPOCH, steps), 0, -1) if steps % number == 0)
    fit(
        trainer,
        crops.draw,
        [],
        steps=epoch,
        epochs=steps // epoch,
        callbacks=[history, keras.callbacks.TerminateOnNaN()],
    )
    table = history.table()
    if not all(np.isfinite(array).all() for array in network.get_weights()):
        raise DivergedError(
            f"Fine-tuning with a learning rate of {rate:g} diverged. Set a smaller fineTuneRate."
        )
    return TrainedNetwork(network), table


class _Crops:
    """Random crops of splits, turned and mirrored."""

    def __init__(self, splits: Sequence[Split], size: int, rng: np.random.Generator) -> None:
        self._splits, self._size, self._rng = splits, size, rng

    def draw(self) -> Batch:
        """Return a batch."""
        columns: list[tuple[np.ndarray, ...]] = [self._crop() for _ in range(_BATCH)]
        planes, kernels, sigma, coadd, good = (
            np.array(column, np.float32) for column in zip(*columns, strict=True)
        )
        inputs = {"planes": np.moveaxis(planes, 1, -1), "kernels": kernels, "sigma": sigma}
        return inputs, coadd / sigma, good

    def _crop(self) -> tuple[np.ndarray, ...]:
        """Draw one crop."""
        rng, size = self._rng, self._size
        split = self._splits[int(rng.integers(len(self._splits)))]
        reach = split.kernels.shape[-1] // 2
        row, column = (rng.integers(extent - size + 1) for extent in split.planes.shape[1:])
        planes = split.planes[:, row : row + size, column : column + size].copy()
        # Light from the frame is seen, but there are no data on it.
        planes[2] = np.where(frame(size, reach), np.float32(NO_DATA_NOISE), planes[2])
        inside = size - 2 * reach
        part = slice(row, row + inside), slice(column, column + inside)
        cell = [(at.start + inside // 2) // extent for at, extent in zip(part, split.cell_shape, strict=True)]
        kernels = split.kernels[cell[0], cell[1]]
        good = np.isfinite(split.sigma[part]) & ~frame(inside, _EDGE) & kernels.any(axis=(1, 2)).all()
        sigma = np.where(good, split.sigma[part], np.float32(1.0))
        coadd = np.where(good, split.coadd[part], np.float32(0.0))
        turns, mirrored = int(rng.integers(4)), bool(rng.random() < 0.5)
        return tuple(
            turned(images, turns, mirrored)
            for images in (planes, kernels, sigma[np.newaxis], coadd[np.newaxis], good[np.newaxis])
        )


class _Prediction(keras.layers.Layer):
    """Predicts the coadd of one half from the image of the other half, in units
    of its noise.
    """

    def call(self, images: Any, kernels: Any, sigma: Any) -> Any:
        """Blur the last pass's image."""
        return Blur(kernels[:, 2:3], *sigma.shape[2:]).forward(images[..., -2]) / sigma

    def compute_output_shape(self, images_shape: Any, kernels_shape: Any, sigma_shape: Any) -> tuple:
        """Shape of the result of `call`."""
        return tuple(sigma_shape)


class _HoldError(keras.layers.Layer):
    """Adds the change of the stated error to the loss; passes on the image."""

    def call(self, images: Any, given: Any) -> Any:
        """Compare the last pass's error with that of the given weights."""
        change = ops.log(images[..., -1] / ops.stop_gradient(given[..., -1]))
        self.add_loss(_ERROR_WEIGHT * ops.mean(change**2))
        return images

    def compute_output_shape(self, images_shape: Any, given_shape: Any) -> tuple:
        """Shape of the result of `call`."""
        return tuple(images_shape)


def _build_trainer(
    network: keras.Model, given: keras.Model, size: int, kernel_size: int, passes: int
) -> keras.Model:
    """Join the network and the forward model of its target to a model that can be
    fitted.
    """
    inside = size - kernel_size + 1
    planes = keras.Input((size, size, 4), name="planes")
    kernels = keras.Input((3, kernel_size, kernel_size), name="kernels")
    sigma = keras.Input((1, inside, inside), name="sigma")
    given.trainable = False
    images = Unrolled(network, passes, name="unrolled")(planes, kernels)
    before = Unrolled(given, passes, name="given", trainable=False)(planes, kernels)
    images = _HoldError(name="hold_error")(images, before)
    predicted = _Prediction(name="prediction")(images, kernels, sigma)
    return keras.Model({"planes": planes, "kernels": kernels, "sigma": sigma}, predicted, name="fine_tuning")


def _draw_cells(number: int, extent: int, rng: np.random.Generator) -> slice:
    """Draw consecutive cells along an axis that are not too many pixels."""
    used = min(number, max(1, _REGION // extent))
    first = int(rng.integers(number - used + 1))
    return slice(first, first + used)


def _part(stack: ExposureStack, members: np.ndarray, cells: Sequence[slice]) -> ExposureStack:
    """Copy some exposures of some cells."""
    rows, columns = (
        slice(part.start * extent, part.stop * extent)
        for part, extent in zip(cells, stack.cell_shape, strict=True)
    )
    return ExposureStack(
        image=np.stack([stack.image[t, rows, columns] for t in members]),
        variance=np.stack([stack.variance[t, rows, columns] for t in members]),
        good=np.stack([stack.good[t, rows, columns] for t in members]),
        kernels=stack.kernels[members][:, cells[0], cells[1]],
        correlation=stack.correlation[members][:, cells[0], cells[1]],
        cell_shape=stack.cell_shape,
        names=tuple(stack.names[t] for t in members),
    )


def _coadd(stack: ExposureStack) -> tuple[ExposureStack, np.ndarray]:
    """Make the white-noise coadd and the first estimate of exposures, as
    `RestoreStackTask` does.
    """
    reference = reference_coadd(stack)
    stack = stack.without(reference.clipped)
    latent = first_estimate(stack)
    config = MeasurableConfig()
    config.numNoiseRealizations = 0
    measurable = MeasurableTask(config=config).run(stack, reference, latent, target_fwhm=0.0, seeds=Seeds(0))
    return matched_stack(stack, measurable), latent


def _split(seen: ExposureStack, start: np.ndarray, others: ExposureStack) -> Split:
    """Let the others be predicted from what is seen."""
    unit = np.float32(seen.median_sigma)
    pad = seen.padding
    coadd, valid = (np.pad(image[0].astype(np.float32), pad) for image in (seen.image, seen.good))
    kernels = [
        convolution_kernels(seen.kernels[0]),
        deconvolution_kernels(seen.kernels[0]),
        convolution_kernels(others.kernels[0]),
    ]
    return Split(
        planes=np.stack([coadd / unit, start / unit, noise_map(seen, unit), valid]),
        coadd=others.image[0] / unit,
        sigma=np.sqrt(others.variance[0]) / unit,
        kernels=np.stack(kernels, axis=2),
        cell_shape=seen.cell_shape,
    )
