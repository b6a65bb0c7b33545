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
import lsst.pipe.base as pipeBase

from ..errors import DivergedError
from ..stack.exposure_stack import ExposureStack
from ..stack.oversampling import bin_pixels
from ..stack.reference_coadd import ReferenceCoadd, weighted_mean
from .backend import COMPUTE_DEVICES, prepare_backend
from .divergence import RETRY_FACTOR, describe_extreme, retry_diverged
from .restoration import Restoration, StartingPoint

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


class PublishedNetConfig(pexConfig.Config):
    """Configuration of `PublishedNetTask`; the defaults are the papers'."""

    fits_weights: ClassVar[bool] = True
    """Whether the restorer fits weights to each patch."""

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
    seed = pexConfig.RangeField(
        dtype=int,
        doc="Seed of the initial weights. Change it to see how much of the image depends on it.",
        default=42,
        min=0,
        max=2**31 - 1,
    )
    tileSize = pexConfig.RangeField(
        dtype=int,
        doc="Height and width of the tiles of the last pass, pixels: a smaller one takes less memory and "
        "gives the same image.",
        default=256,
        min=32,
    )
    computeDevice = pexConfig.ChoiceField[str](
        doc="Where to compute.", default="auto", allowed=dict(COMPUTE_DEVICES), optional=False
    )


class PublishedNetTask(pipeBase.Task):
    """Restore a stack of exposures with a network that is fitted to them
    alone.
    """

    ConfigClass = PublishedNetConfig
    _DefaultName: ClassVar[str] = "publishedNet"
    config: PublishedNetConfig

    def run(
        self,
        stack: ExposureStack,
        reference: ReferenceCoadd,
        *,
        start: StartingPoint | None = None,
        n_threads: int = 1,
    ) -> Restoration:
        """Fit the network and restore the patch.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures.
        reference : `ReferenceCoadd`
            Coadd of the same exposures.  The mean with its weights stands in
            where an exposure has no good pixel in the encoder's input.
        start : `StartingPoint`, optional
            Its guides are additional channels of the network's input, see
            `NetworkInput`; the rest is not used.
        n_threads : `int`, optional
            CPU threads to use.

        Returns
        -------
        restoration : `Restoration`
            The latent image and how it was found.

        Raises
        ------
        RestorationError
            Raised if a GPU is asked for and there is none.
        DivergedError
            Raised if the training diverges, and again when it is repeated with
            a smaller learning rate.
        """
        began = time.perf_counter()
        device = prepare_backend(self.config.computeDevice, n_threads, self.config.seed)
        from .crops import NetworkInput
        from .likelihood import Likelihood
        from .network import encoder_margin

        weights = reference.weights
        margin = encoder_margin(self.config.kernelSizes)
        guides = None
        if start is not None and start.guides:
            # In pixels of the exposures, and in units of their own noise.
            guides = np.stack(
                [
                    bin_pixels(guide.latent, stack.oversampling) / np.float32(guide.noise)
                    for guide in start.guides
                ]
            )
        field = NetworkInput(stack, weighted_mean(stack, weights), margin, guides=guides)
        scale = field.scale
        likelihood = Likelihood(stack, self.config.huberDelta)

        (encoder, history), n_retries = retry_diverged(
            lambda factor: self._fit(field, device, factor), self.log, RETRY_FACTOR
        )

        def repeat(other: ExposureStack) -> np.ndarray:
            # It outlives this function: it must not hold the stack.
            fill = weighted_mean(other, weights)
            return self._restore(encoder, NetworkInput(other, fill, margin, scale, guides))

        latent = self._restore(encoder, field)
        loss = likelihood.huber_loss(latent)
        # A network whose units are all zero returns a constant image, which the loss shows.
        dark = likelihood.huber_loss(np.zeros_like(latent))
        self.log.info("Loss per good pixel: %.5f (%.5f of an empty image).", loss, dark)
        if loss > dark:
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
            device=device,
            seconds=time.perf_counter() - began,
            repeat=repeat,
            model=stack,
            kernels=stack.kernels,
        )

    def _fit(self, field: NetworkInput, device: str, factor: float) -> tuple[Any, astropy.table.Table]:
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
            self.config.seed,
            n_guides=len(field.guides),
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
            seed=self.config.seed,
        )
        trainer = build_trainer(
            encoder, stack.n_exposures, sampler.context_shape, sampler.kernels_shape, len(field.guides)
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

    def _restore(self, encoder: Any, field: NetworkInput) -> np.ndarray:
        """Run the encoder over the patch, tile by tile (equation 6)."""
        latent = np.empty(field.stack.latent_shape, dtype=np.float32)
        factor = field.stack.oversampling
        for *place, tile in field.tiles(self.config.tileSize):
            rows, cols = (slice(factor * pixels.start, factor * pixels.stop) for pixels in place)
            latent[rows, cols] = np.asarray(encoder(tile, training=False))[0, :, :, 0]
        latent *= np.float32(field.scale)
        return latent
