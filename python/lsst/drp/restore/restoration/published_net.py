# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""AstroClearNet as published: a network fitted to the exposures of a patch
that turns them into one latent image (arXiv:2302.02030, arXiv:2504.06463).
"""

from __future__ import annotations

__all__ = (
    "LEARNING_RATE",
    "LEARNING_RATE_DECAY",
    "LEARNING_RATE_DECAY_STEPS",
    "PublishedNetConfig",
    "PublishedNetTask",
)

import time
from typing import TYPE_CHECKING, Any, ClassVar

import astropy.table
import numpy as np

import lsst.pex.config as pexConfig

from ..errors import DivergedError
from ..stack.exposure_stack import ExposureStack
from ..stack.oversampling import bin_pixels
from ..stack.reference_coadd import weighted_mean
from .backend import Backend
from .divergence import RETRY_FACTOR, describe_extreme, retry_diverged
from .restoration import FittedRestorer, Restoration, Restorer, RestorerConfig, StartingPoint
from .seeds import Seeds

if TYPE_CHECKING:
    from .crops import NetworkInput


# Adam's learning rate and its decay (remark in section 3.3 of the second paper).
LEARNING_RATE = 0.002
"""Adam's initial learning rate (`float`)."""

LEARNING_RATE_DECAY = 0.95
"""Factor on the learning rate every `LEARNING_RATE_DECAY_STEPS` steps
(`float`).
"""

LEARNING_RATE_DECAY_STEPS = 1000
"""Steps between two decays of the learning rate (`int`)."""


class PublishedNetConfig(RestorerConfig):
    """Configuration of `PublishedNetTask`; the defaults are the papers'."""

    @property
    def fits_weights(self) -> bool:
        """Whether the restorer fits weights to each patch (`bool`)."""
        return True

    # Section 3.4 of the second paper: parallel depthwise convolutions, ReLU,
    # batch normalization, concatenation, a pointwise convolution, ReLU.
    kernelSizes = pexConfig.ListField[int](
        doc="Sizes of the parallel depthwise convolutions, pixels; odd and different. The papers give none; "
        "fewer or smaller ones make the network faster and its image less sharp.",
        default=[1, 3, 5, 7, 9, 11],
        listCheck=lambda sizes: len(sizes) > 0 and len(set(sizes)) == len(sizes),
        itemCheck=lambda size: size > 0 and size % 2 == 1,
    )

    # The loss (equations 4 and 5).
    huberDelta = pexConfig.RangeField(
        dtype=float,
        doc="Residual in units of sigma beyond which the loss is linear. The papers give none; a smaller one "
        "gives less weight to artifacts that no mask has.",
        default=1.0,
        min=0.0,
        inclusiveMin=False,
    )

    maxEpochs = pexConfig.RangeField(
        dtype=int,
        doc="Epochs, each one step on the whole patch. More make bright stars sharper.",
        default=450,
        min=1,
    )

    # How it runs.
    tileSize = pexConfig.RangeField(
        dtype=int,
        doc="Height and width of the tiles of the last pass, pixels: a smaller one takes less memory and "
        "gives the same image.",
        default=256,
        min=32,
    )


class PublishedNetTask(Restorer):
    """Restore a stack of exposures with a network that is fitted to them
    alone.
    """

    ConfigClass = PublishedNetConfig
    _DefaultName: ClassVar[str] = "publishedNet"
    config: PublishedNetConfig

    def run(
        self, stack: ExposureStack, start: StartingPoint, *, backend: Backend, seeds: Seeds
    ) -> Restoration:
        """Fit the network and restore a patch; see `Restorer.run`.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures.
        start : `StartingPoint`
            The mean with its weights replaces bad pixels in the encoder's
            input, and the images of other bands are additional
            channels of this input, see `NetworkInput`.
        backend : `Backend`
            Device and threads.
        seeds : `Seeds`
            Seeds of the initial weights.

        Returns
        -------
        restoration : `Restoration`
            The latent image and how it was found.

        Raises
        ------
        DivergedError
            Raised if the training diverges, and again when it is repeated with
            a smaller learning rate.
        """
        began = time.perf_counter()
        from .crops import NetworkInput
        from .likelihood import Likelihood
        from .network import encoder_margin

        margin = encoder_margin(self.config.kernelSizes)
        other_bands = None
        if start.other_bands:
            # In pixels of the exposures, and in units of their own noise.
            other_bands = np.stack(
                [
                    bin_pixels(other.latent, stack.oversampling) / np.float32(other.noise)
                    for other in start.other_bands
                ]
            )
        field = NetworkInput(stack, weighted_mean(stack, start.weights), margin, other_bands=other_bands)
        seed = seeds.number("published network")
        (encoder, history), n_retries = retry_diverged(
            lambda factor: self._fit(field, backend.device, seed, factor), self.log, RETRY_FACTOR
        )
        fitted = FittedEncoder(
            encoder,
            weights=start.weights,
            margin=margin,
            scale=field.scale,
            other_bands=other_bands,
            tile_size=self.config.tileSize,
        )
        latent = fitted.apply(field)
        likelihood = Likelihood(stack, self.config.huberDelta, n_threads=backend.n_threads)
        loss = likelihood.huber_loss(latent)
        # A network whose ReLUs are all inactive returns a constant image.
        empty = likelihood.huber_loss(np.zeros_like(latent))
        self.log.info("Loss per good pixel: %.5f (%.5f of an empty image).", loss, empty)
        if loss > empty:
            self.log.warning("The restored image describes the exposures worse than an empty one does.")
        return Restoration(
            latent=latent,
            padding=stack.padding * stack.oversampling,
            # The number of epochs is fixed, not where the loss stops falling.
            converged=False,
            history=history,
            weights={v.path: np.asarray(v) for v in encoder.variables},
            steps=int(history["step"][-1]),
            n_retries=n_retries,
            loss=loss,
            device=backend.device,
            seconds=time.perf_counter() - began,
            fitted=fitted,
            model=stack,
            kernels=stack.kernels,
        )

    def _fit(
        self, field: NetworkInput, device: str, seed: int, factor: float
    ) -> tuple[Any, astropy.table.Table]:
        """Build a network and train it, with ``factor`` on the learning rate;
        return the encoder and the history.
        """
        from .crops import CropSampler
        from .fitting import LearningRate, optimize
        from .network import build_encoder, build_trainer, set_field_statistics

        stack = field.stack
        encoder = build_encoder(
            stack.n_exposures,
            self.config.kernelSizes,
            seed,
            n_other_bands=len(field.other_bands),
            oversampling=stack.oversampling,
        )
        self.log.info(
            "Fitting %d weights to %d exposures of %dx%d pixels on %s.",
            encoder.count_params(),
            stack.n_exposures,
            *stack.shape,
            device,
        )
        # One "crop", the whole patch.
        sampler = CropSampler(
            field,
            crop_shape=stack.shape,
            batch_size=1,
            validation_fraction=0.0,
            min_good_fraction=0.0,
            seed=seed,
        )
        trainer = build_trainer(
            encoder, stack.n_exposures, sampler.context_shape, sampler.kernels_shape, len(field.other_bands)
        )
        rate = LearningRate(
            initial=factor * LEARNING_RATE,
            decay=LEARNING_RATE_DECAY,
            interval=LEARNING_RATE_DECAY_STEPS,
        )
        history = optimize(
            trainer,
            sampler.training_batch,
            delta=self.config.huberDelta,
            rate=rate,
            steps=1,
            epochs=self.config.maxEpochs,
            pixels_per_step=sampler.pixels_per_step,
            log=self.log,
        )
        loss = history["loss"][-1]
        if not (np.isfinite(loss) and all(np.isfinite(np.asarray(v)).all() for v in encoder.variables)):
            raise DivergedError(
                f"The training diverged: the loss is {loss} after {history['step'][-1]} steps with a "
                f"learning rate of {rate.initial:g}. Mask pixels that should not be fitted: "
                f"{describe_extreme(field.stack)}."
            )
        tiles = (tile for _, _, tile in field.tiles(self.config.tileSize))
        set_field_statistics(encoder, self.config.kernelSizes, tiles)
        return encoder, history


class FittedEncoder(FittedRestorer):
    """The encoder of a patch.

    Parameters
    ----------
    encoder : `keras.Model`
        The encoder.
    weights : `numpy.ndarray`
        Weights of the mean that replaces missing pixels, by cell.
    margin : `int`
        Border of the encoder's input, pixels.
    scale : `float`
        Unit of the encoder's input and output, nJy.
    other_bands : `numpy.ndarray` or `None`
        Restored images of deeper bands, additional channels of the input.
    tile_size : `int`
        Height and width of a tile, pixels.
    """

    def __init__(
        self,
        encoder: Any,
        *,
        weights: np.ndarray,
        margin: int,
        scale: float,
        other_bands: np.ndarray | None,
        tile_size: int,
    ) -> None:
        self._encoder = encoder
        self._weights = weights
        self._margin = margin
        self._scale = scale
        self._other_bands = other_bands
        self._tile_size = tile_size

    def restore(self, exposures: ExposureStack) -> np.ndarray:
        """Run the encoder on other pixels; see `FittedRestorer.restore`.

        Parameters
        ----------
        exposures : `ExposureStack`
            The exposures with other pixels.

        Returns
        -------
        latent : `numpy.ndarray`
            The latent image, nJy.
        """
        from .crops import NetworkInput

        fill = weighted_mean(exposures, self._weights)
        return self.apply(NetworkInput(exposures, fill, self._margin, self._scale, self._other_bands))

    def apply(self, field: NetworkInput) -> np.ndarray:
        """Run the encoder over the patch, tile by tile (equation 6).

        Parameters
        ----------
        field : `NetworkInput`
            Its input.

        Returns
        -------
        latent : `numpy.ndarray`
            The latent image, nJy.
        """
        from keras import ops

        latent = np.empty(field.stack.latent_shape, dtype=np.float32)
        factor = field.stack.oversampling
        for *place, tile in field.tiles(self._tile_size):
            rows, cols = (slice(factor * pixels.start, factor * pixels.stop) for pixels in place)
            latent[rows, cols] = ops.convert_to_numpy(self._encoder(tile, training=False))[0, :, :, 0]
        latent *= np.float32(field.scale)
        return latent
