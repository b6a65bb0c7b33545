# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""AstroClearNet: fit a network to the exposures that turns them into one
latent image.
"""

from __future__ import annotations

__all__ = ("AstroClearNetConfig", "AstroClearNetTask")

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import astropy.table
import numpy as np

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from .compute import COMPUTE_DEVICES, prepare_backend
from .divergence import describe_extreme, retry_diverged
from .ensemble import member_weights
from .errors import DivergedError, RestorationError
from .exposure_stack import ExposureStack
from .initial_weights import adapt_weights
from .reference_coadd import ReferenceCoadd, weighted_mean
from .restoration import Restoration, make_history

if TYPE_CHECKING:
    from .crops import CropSampler, FieldInput
    from .decoder import FieldDecoder
    from .network import EncoderSpec


class AstroClearNetConfig(pexConfig.Config):
    """Configuration of `AstroClearNetTask`.

    The defaults are a form of the network that can be trained on crops;
    ``config/paper.py`` has every number of the papers.
    """

    # The encoder (section 3.4 of the second paper).
    kernelSizes = pexConfig.ListField[int](
        doc="Sizes of the parallel depthwise convolutions, pixels; odd. The papers give none.",
        default=[1, 3, 5, 7, 9, 11],
        listCheck=lambda sizes: len(sizes) > 0 and len(set(sizes)) == len(sizes),
        itemCheck=lambda size: size > 0 and size % 2 == 1,
    )
    normalizeInput = pexConfig.Field[bool](
        doc="Divide the encoder's input by the local mean brightness (brightnessWindow), so that a source "
        "looks the same whatever its flux. False is the papers' input, here in units of the median sigma.",
        default=True,
    )
    leakiness = pexConfig.RangeField(
        dtype=float,
        doc="Slope below zero of the activation of the depthwise convolutions; 0 is the papers' ReLU.",
        default=0.2,
        min=0.0,
        max=1.0,
    )
    batchNormalization = pexConfig.Field[bool](
        doc="Normalize the depthwise maps as in the papers. A crop's statistics are not the patch's, so this "
        "goes with whole-field epochs (cropSize=0) only.",
        default=False,
    )
    hiddenFilters = pexConfig.ListField[int](
        doc="Filters of the ordinary convolutions before the last pointwise one; empty in the papers.",
        default=[16, 16],
        itemCheck=lambda filters: filters > 0,
    )
    hiddenKernelSizes = pexConfig.ListField[int](
        doc="Kernel sizes of these convolutions, pixels; odd, as many as hiddenFilters.",
        default=[1, 5],
        itemCheck=lambda size: size > 0 and size % 2 == 1,
    )
    brightnessWindow = pexConfig.RangeField(
        dtype=int,
        doc="Width in pixels of the local mean brightness that multiplies the encoder's output; odd, 0 for "
        "none as in the papers.",
        default=9,
        min=0,
    )
    projectedOutput = pexConfig.Field[bool](
        doc="Let pixels that the last ReLU cut at zero keep the gradients that would make them brighter, so "
        "that the training recovers from a latent image that one step made dark. False is the papers' ReLU.",
        default=True,
    )

    # The loss (equations 4 and 5).
    huberDelta = pexConfig.RangeField(
        dtype=float,
        doc="Residual in units of sigma beyond which the loss is linear.",
        default=2.0,
        min=0.0,
        inclusiveMin=False,
    )

    # The optimizer (remark in section 3.3).
    learningRate = pexConfig.RangeField(
        dtype=float, doc="Adam's initial learning rate.", default=0.004, min=0.0, inclusiveMin=False
    )
    learningRateDecay = pexConfig.RangeField(
        dtype=float,
        doc="Factor on the learning rate every learningRateDecaySteps.",
        default=0.8,
        min=0.0,
        max=1.0,
    )
    learningRateDecaySteps = pexConfig.RangeField(
        dtype=int, doc="Steps between two decays of the learning rate.", default=50, min=1
    )
    maxGradientNorm = pexConfig.RangeField(
        dtype=float,
        doc="Norm to which larger gradients are cut: crops with a bright star have gradients hundreds of "
        "times larger than the others. 0 for no limit as in the papers.",
        default=0.3,
        min=0.0,
    )

    divergenceRetryFactor = pexConfig.RangeField(
        dtype=float,
        doc="Factor on the learning rate with which a training that diverges is repeated, once and from "
        "fresh weights; 0 for no second try.",
        default=0.25,
        min=0.0,
        max=1.0,
        inclusiveMax=False,
    )

    # What it is trained on.
    cropSize = pexConfig.RangeField(
        dtype=int,
        doc="Height and width of the random crops, pixels; 0 trains on the whole field in every step as in "
        "the papers. No crop is larger than a third of the patch, so that there is room beside the held-out "
        "ones.",
        default=64,
        min=0,
    )
    batchSize = pexConfig.RangeField(dtype=int, doc="Crops in a step.", default=4, min=1)
    stepsPerEpoch = pexConfig.RangeField(
        dtype=int,
        doc="Steps between two looks at the held-out crops. A whole-field epoch is one step.",
        default=100,
        min=1,
    )
    maxEpochs = pexConfig.RangeField(
        dtype=int,
        doc="Epochs after which training ends at the latest; 0 restores with the weights of an earlier run "
        "(warmStart) as they are.",
        default=20,
        min=0,
    )
    minEpochs = pexConfig.RangeField(
        dtype=int,
        doc="Epochs before the held-out loss is looked at: while the learning rate is large it goes up "
        "and down with the crops.",
        default=5,
        min=0,
    )
    validationFraction = pexConfig.RangeField(
        dtype=float,
        doc="Fraction of the patch held out of the training crops to stop early by, 64 crops at most; 0 "
        "trains for maxEpochs.",
        default=0.1,
        min=0.0,
        max=0.5,
    )
    patience = pexConfig.RangeField(
        dtype=int, doc="Epochs without a better held-out loss after which training stops.", default=3, min=1
    )
    minImprovement = pexConfig.RangeField(
        dtype=float,
        doc="Smallest decrease of the held-out loss per good pixel that counts as better.",
        default=1e-4,
        min=0.0,
    )
    minGoodFraction = pexConfig.RangeField(
        dtype=float,
        doc="Crops with a smaller fraction of good pixels are drawn again.",
        default=0.3,
        min=0.0,
        max=1.0,
    )

    # What it starts from.
    numSeeds = pexConfig.RangeField(
        dtype=int,
        doc="Trainings, from the seeds seed, seed + 1 and so on, whose mean is the restored image; what they "
        "disagree about is added to its variance. Time grows in proportion, memory hardly.",
        default=1,
        min=1,
        max=1000,
    )
    warmStartRate = pexConfig.RangeField(
        dtype=float,
        doc="Adam's initial learning rate if most of the weights come from an earlier run.",
        default=0.004,
        min=0.0,
        inclusiveMin=False,
    )
    warmStartMinEpochs = pexConfig.RangeField(
        dtype=int,
        doc="The same as minEpochs if most of the weights come from an earlier run.",
        default=1,
        min=0,
    )

    # How it runs.
    seed = pexConfig.RangeField(
        dtype=int, doc="Seed of the initial weights and of the crops.", default=42, min=0, max=2**31 - 1
    )
    tileSize = pexConfig.RangeField(
        dtype=int,
        doc="Height and width of the tiles of the last pass, pixels: bounds its memory.",
        default=256,
        min=32,
    )
    computeDevice = pexConfig.ChoiceField[str](
        doc="Where to compute.", default="auto", allowed=dict(COMPUTE_DEVICES), optional=False
    )
    progressInterval = pexConfig.RangeField(
        dtype=float, doc="Seconds between two progress messages.", default=5.0, min=0.0
    )

    def validate(self) -> None:
        """Check what no single field can.

        Raises
        ------
        lsst.pex.config.FieldValidationError
            Raised if fields contradict each other.
        """
        super().validate()
        if len(self.hiddenFilters) != len(self.hiddenKernelSizes):
            self._refuse("hiddenKernelSizes", "must have as many entries as hiddenFilters")
        if self.brightnessWindow and self.brightnessWindow % 2 == 0:
            self._refuse("brightnessWindow", "must be odd, or 0")
        if self.normalizeInput and not self.brightnessWindow:
            self._refuse("normalizeInput", "needs a brightnessWindow")
        if self.batchNormalization and self.cropSize:
            self._refuse("batchNormalization", "needs whole-field epochs: set cropSize=0")
        if self.validationFraction and not self.cropSize:
            self._refuse("validationFraction", "whole-field epochs hold nothing out: set it to 0")

    def _refuse(self, field: str, reason: str) -> None:
        raise pexConfig.FieldValidationError(self._fields[field], self, reason)

    def encoder_spec(self, factor: int = 1) -> EncoderSpec:
        """Return the encoder's layers.

        Parameters
        ----------
        factor : `int`, optional
            Latent pixels along each axis in a pixel of the exposures.

        Returns
        -------
        spec : `EncoderSpec`
            The layers that the fields describe.
        """
        from .network import EncoderSpec

        return EncoderSpec(
            kernel_sizes=tuple(self.kernelSizes),
            normalize_input=self.normalizeInput,
            leakiness=self.leakiness,
            batch_normalization=self.batchNormalization,
            hidden_filters=tuple(self.hiddenFilters),
            hidden_sizes=tuple(self.hiddenKernelSizes),
            brightness_window=self.brightnessWindow,
            projected_output=self.projectedOutput,
            factor=factor,
        )


class _Fit(NamedTuple):
    """A trained network and how it was trained; see `Restoration`."""

    encoder: Any
    history: astropy.table.Table
    converged: bool
    warm_start: float
    initial_loss: float


class AstroClearNetTask(pipeBase.Task):
    """Restore a stack of exposures with a network fitted to nothing else."""

    ConfigClass = AstroClearNetConfig
    _DefaultName: ClassVar[str] = "astroClearNet"
    config: AstroClearNetConfig

    @property
    def num_members(self) -> int:
        """How many restorations are to be averaged (`int`)."""
        return self.config.numSeeds

    def run(
        self,
        stack: ExposureStack,
        reference: ReferenceCoadd,
        *,
        n_threads: int = 1,
        member: int = 0,
        initial_weights: Mapping[str, np.ndarray] | None = None,
        guides: np.ndarray | None = None,
    ) -> Restoration:
        """Fit the network and restore the patch.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures.
        reference : `ReferenceCoadd`
            Coadd of the same exposures.  The mean with its weights stands in
            where an exposure has no good pixel in the encoder's input.
        n_threads : `int`, optional
            CPU threads to use.
        member : `int`, optional
            Which of ``numSeeds`` trainings to run, counted from 0.
        initial_weights : `~collections.abc.Mapping` [`str`, `numpy.ndarray`] \
                , optional
            ``Restoration.weights`` of an earlier run to start from, as far as
            they fit (`adapt_weights`).  A training that they do not have, the
            second one of a run with one, starts afresh.
        guides : `numpy.ndarray`, optional
            Restored images of the patch in other bands that the network sees
            besides the exposures, see `FieldInput`.

        Returns
        -------
        restoration : `Restoration`
            The latent image and how it was found.

        Raises
        ------
        RestorationError
            Raised if a GPU is asked for and there is none, or if nothing is
            to be trained and weights are missing.
        DivergedError
            Raised if the training diverges, also when it is repeated with a
            smaller learning rate.
        """
        start = time.perf_counter()
        seed = self.config.seed + member
        device = prepare_backend(self.config.computeDevice, n_threads, seed)
        from .crops import FieldInput
        from .decoder import FieldDecoder

        spec = self.config.encoder_spec(stack.factor)
        weights = reference.weights
        field = FieldInput(stack, weighted_mean(stack, weights), spec.margin, guides=guides)
        scale = field.scale
        decoder = FieldDecoder(stack)
        initial = member_weights(initial_weights or {}, member)

        def fit(factor: float) -> _Fit:
            # Weights of an earlier run may be why a training diverged.
            start = initial if factor == 1.0 else {}
            return self._fit(field, decoder, spec, seed, start, device, factor=factor)

        fitted, n_retries = retry_diverged(fit, self.config.divergenceRetryFactor, self.log)
        encoder, history, converged = fitted.encoder, fitted.history, fitted.converged

        def repeat(other: ExposureStack) -> np.ndarray:
            # It outlives this function: it must not hold the stack.
            fill = weighted_mean(other, weights)
            return self._restore(encoder, FieldInput(other, fill, spec.margin, scale, guides))

        latent = self._restore(encoder, field)
        loss = decoder.huber_loss(latent, self.config.huberDelta)
        # A network that died returns a constant image; the loss tells.
        dark = decoder.huber_loss(np.zeros_like(latent), self.config.huberDelta)
        self.log.info("Loss per good pixel: %.5f (%.5f without any light).", loss, dark)
        if loss > dark:
            self.log.warning("The restored image describes the exposures worse than an empty one does.")
            converged = False
        return Restoration(
            latent=latent,
            padding=stack.padding * stack.factor,
            converged=converged,
            history=history,
            weights={v.path: np.asarray(v) for v in encoder.variables},
            steps=int(history["step"][-1]),
            n_retries=n_retries,
            loss=loss,
            device=device,
            seconds=time.perf_counter() - start,
            repeat=repeat,
            warm_start=fitted.warm_start,
            initial_loss=fitted.initial_loss,
        )

    def _fit(
        self,
        field: FieldInput,
        decoder: FieldDecoder,
        spec: EncoderSpec,
        seed: int,
        initial_weights: Mapping[str, np.ndarray],
        device: str,
        *,
        factor: float,
    ) -> _Fit:
        """Build a network and train it, with ``factor`` on the learning
        rate.
        """
        from .network import build_encoder

        stack = field.stack
        encoder = build_encoder(stack.n_exposures, spec, seed, len(field.guides))
        self.log.info(
            "Fitting %d weights to %d exposures of %dx%d pixels on %s.",
            encoder.count_params(),
            stack.n_exposures,
            *stack.shape,
            device,
        )
        warm = self._load(encoder, initial_weights)
        initial_loss = np.nan
        if warm:
            self._set_statistics(encoder, field)
            initial_loss = decoder.huber_loss(self._restore(encoder, field), self.config.huberDelta)
            self.log.info("Loss per good pixel before the first step: %.5f.", initial_loss)
        if self.config.maxEpochs:
            history, converged = self._train(encoder, field, seed, warm > 0.5, factor=factor)
            self._set_statistics(encoder, field)
        elif warm < 1.0:
            raise RestorationError(
                f"maxEpochs=0 needs all weights of an earlier run: {1.0 - warm:.0%} of them are missing or "
                "do not fit. Set warmStart=True and give the collection with the "
                "restored_coadd_initial_weights of the same patch and exposures, or train."
            )
        else:
            history, converged = make_history([(0, initial_loss, np.nan, np.nan, 0.0)]), False
        return _Fit(encoder, history, converged, warm, initial_loss)

    def _load(self, encoder: Any, weights: Mapping[str, np.ndarray]) -> float:
        """Let an encoder start from the weights of an earlier run; return the
        fraction of its weights that were set.
        """
        if not weights:
            return 0.0
        shapes = {v.path: tuple(v.shape) for v in encoder.variables}
        adapted = adapt_weights(weights, shapes)
        for variable in encoder.variables:
            if variable.path in adapted:
                variable.assign(adapted[variable.path])
        total = sum(math.prod(shape) for shape in shapes.values())
        taken = sum(value.size for value in adapted.values())
        changed = [name for name in adapted if weights[name].shape != shapes[name]]
        afresh = [name for name in shapes if name not in adapted]
        self.log.info(
            "Starting from %d of %d weights of an earlier run%s%s.",
            taken,
            total,
            f", fitted to another number of exposures: {', '.join(changed)}" if changed else "",
            f"; without any, or of another shape there: {', '.join(afresh)}" if afresh else "",
        )
        return taken / total

    def _set_statistics(self, encoder: Any, field: FieldInput) -> None:
        """Let batch normalization use the statistics of the whole patch."""
        from .network import set_field_statistics

        tiles = (tile for _, _, tile in field.tiles(self.config.tileSize))
        set_field_statistics(encoder, self.config.encoder_spec(), tiles)

    def _sampler(self, field: FieldInput, seed: int) -> CropSampler:
        from .crops import CropSampler

        height, width = field.stack.shape
        size = self.config.cropSize
        return CropSampler(
            field,
            crop_shape=(min(size, height // 3), min(size, width // 3)) if size else (height, width),
            batch_size=self.config.batchSize if size else 1,
            validation_fraction=self.config.validationFraction,
            min_good_fraction=self.config.minGoodFraction if size else 0.0,
            seed=seed,
        )

    def _train(
        self, encoder: Any, field: FieldInput, seed: int, warm: bool, *, factor: float
    ) -> tuple[astropy.table.Table, bool]:
        """Fit the encoder's weights, with ``factor`` on the learning rate;
        return the history and whether the held-out loss stopped falling.
        """
        import keras

        from .network import MaskedHuber, build_trainer
        from .fitting import History, fit

        sampler = self._sampler(field, seed)
        steps = self.config.stepsPerEpoch if self.config.cropSize else 1
        trainer = build_trainer(
            encoder,
            field.stack.n_exposures,
            sampler.context_shape,
            sampler.kernels_shape,
            len(field.guides),
        )
        first_rate = factor * (self.config.warmStartRate if warm else self.config.learningRate)
        rate = keras.optimizers.schedules.ExponentialDecay(
            first_rate,
            self.config.learningRateDecaySteps,
            self.config.learningRateDecay,
            staircase=True,
        )
        # Keras compiles with XLA what it can: all of it with JAX, nothing with a deterministic TensorFlow.
        trainer.compile(
            optimizer=keras.optimizers.Adam(rate, global_clipnorm=self.config.maxGradientNorm or None),
            loss=MaskedHuber(self.config.huberDelta),
        )
        held_out = sampler.validation_batches()
        history = History(
            self.log,
            max_steps=steps * self.config.maxEpochs,
            pixels_per_step=sampler.pixels_per_step,
            interval=self.config.progressInterval,
        )
        callbacks = [history, keras.callbacks.TerminateOnNaN(), *self._watch(encoder, field)]
        stopping = keras.callbacks.EarlyStopping(
            monitor="val_loss",
            min_delta=self.config.minImprovement,
            patience=self.config.patience,
            start_from_epoch=self.config.warmStartMinEpochs if warm else self.config.minEpochs,
            restore_best_weights=True,
        )
        if held_out:
            callbacks.append(stopping)
        fit(
            trainer,
            sampler.training_batch,
            held_out,
            steps=steps,
            epochs=self.config.maxEpochs,
            callbacks=callbacks,
        )
        table = history.table()
        loss = table["loss"][-1]
        if not (np.isfinite(loss) and all(np.isfinite(np.asarray(v)).all() for v in encoder.variables)):
            raise DivergedError(
                f"The loss is {loss} after {table['step'][-1]} steps with a learning rate of {first_rate:g}: "
                f"the training diverged. Set a smaller learningRate, or mask pixels that should not be "
                f"fitted: {describe_extreme(field.stack)}."
            )
        return table, bool(stopping.stopped_epoch)

    def _watch(self, encoder: Any, field: FieldInput) -> list[Any]:
        """Return Keras callbacks of a subclass that wants to look on."""
        return []

    def _restore(self, encoder: Any, field: FieldInput) -> np.ndarray:
        """Run the encoder over the patch, tile by tile (equation 6)."""
        latent = np.empty(field.stack.latent_shape, dtype=np.float32)
        factor = field.stack.factor
        for *place, tile in field.tiles(self.config.tileSize):
            rows, cols = (slice(factor * pixels.start, factor * pixels.stop) for pixels in place)
            latent[rows, cols] = np.asarray(encoder(tile, training=False))[0, :, :, 0]
        latent *= np.float32(field.scale)
        return latent
