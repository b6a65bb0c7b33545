# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Blind restoration: PSF kernels that are fitted to the exposures (appendix A
of the second paper).
"""

from __future__ import annotations

__all__ = ("FitKernelsConfig", "FitKernelsTask", "KernelNetworkConfig")

import dataclasses
import time
from typing import Any, ClassVar

import numpy as np

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from ..errors import DivergedError, RestorationError
from ..restoration.backend import Backend
from ..restoration.divergence import retry_diverged
from ..restoration.seeds import Seeds
from ..stack.exposure_stack import ExposureStack
from ..stack.kernel_shape import fwhm, gaussian_kernel
from ..stack.reference_coadd import ReferenceCoadd, weighted_mean
from .kernel_fit import KernelFit
from .point_sources import PointSources, find_point_sources, stellar
from .star_kernels import StarFit, StarStamps, center, fit_star_kernels, move

# So many more sources are looked at, most of which may be galaxies.
_CANDIDATES_PER_STAR = 4

# The given kernels tell how the PSF varies over the patch where they are brighter than this fraction of their
# peak, and at most by this factor.
_VARIATION_FLOOR = 1e-3
_MAX_VARIATION = 2.0

# The network's kernels are fitted as logarithms: no pixel starts below this fraction of the peak.
_FLOOR = 1e-5

# The encoder leaves this radius around a star, pixels, to the point.
_POINT_RADIUS = 5.0

# Norm to which larger gradients of the network are cut: crops with a bright star have gradients hundreds of
# times larger than the others.
_MAX_GRADIENT_NORM = 0.3

# Smallest decrease of the held-out loss per good pixel that counts as better.
_MIN_IMPROVEMENT = 1e-4

# Crops with a smaller fraction of good pixels are drawn again.
_MIN_GOOD_FRACTION = 0.3

# Stars whose widths on an exposure are its first estimate of the seeing.
_SEEING_STARS = 15


class KernelNetworkConfig(pexConfig.Config):
    """Configuration of the network that is fitted together with the kernels
    (``fitKernels.method='network'``).
    """

    huberDelta = pexConfig.RangeField(
        dtype=float,
        doc="Residual in units of sigma beyond which the loss is linear.",
        default=2.0,
        min=0.0,
        inclusiveMin=False,
    )
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
    divergenceRetryFactor = pexConfig.RangeField(
        dtype=float,
        doc="Factor on the learning rate with which a training that diverges is repeated, once and from "
        "fresh weights; 0 for no retry.",
        default=0.25,
        min=0.0,
        max=1.0,
        inclusiveMax=False,
    )
    cropSize = pexConfig.RangeField(
        dtype=int,
        doc="Height and width of the random crops, pixels; 0 trains on the whole field in every step as in "
        "the papers, and holds nothing out. No crop is larger than a third of the patch, so that there is "
        "room for the held-out ones.",
        default=64,
        min=0,
    )
    batchSize = pexConfig.RangeField(dtype=int, doc="Crops in a step.", default=4, min=1)
    stepsPerEpoch = pexConfig.RangeField(
        dtype=int,
        doc="Steps after which the held-out loss is computed. A whole-field epoch is one step.",
        default=100,
        min=1,
    )
    maxEpochs = pexConfig.RangeField(
        dtype=int, doc="Epochs after which training ends at the latest.", default=20, min=1
    )
    minEpochs = pexConfig.RangeField(
        dtype=int,
        doc="Epochs before the held-out loss counts: while the learning rate is large it goes up and down "
        "with the crops.",
        default=8,
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
    progressInterval = pexConfig.RangeField(
        dtype=float, doc="Seconds between two progress messages.", default=5.0, min=0.0
    )


class FitKernelsConfig(pexConfig.Config):
    """Configuration of `FitKernelsTask`."""

    mode = pexConfig.ChoiceField[str](
        doc="Where the PSF kernels come from.",
        default="given",
        allowed={
            "given": "The PSF models of the exposures, as they are.",
            "refined": "Fitted, starting from the models; how the PSF varies over the patch is kept.",
            "gaussian": "Fitted, starting from Gaussians: the models are not used.",
        },
        optional=False,
    )
    initialFwhm = pexConfig.ListField[float](
        doc="Full width at half maximum of these Gaussians, pixels of the patch: one for all exposures, or "
        "one each, ordered by instrument and visit. 0 is measured from the exposure's stars.",
        default=[0.0],
        listCheck=lambda widths: len(widths) > 0,
        itemCheck=lambda width: width >= 0.0,
    )
    method = pexConfig.ChoiceField[str](
        doc="How the kernels are fitted.",
        default="stars",
        allowed={
            "stars": "To isolated stars, in turns with the stars' fluxes and positions.",
            "network": "To all pixels, together with the weights of a network (equation 8 of the second "
            "paper), after 'stars' if there are any.",
        },
        optional=False,
    )
    anchor = pexConfig.Field[bool](
        doc="Hold the latent image of isolated stars at points in the method 'network'. Without it (as in "
        "the papers) nothing tells wide kernels from a blurred latent image.",
        default=True,
    )
    minStarSnr = pexConfig.RangeField(
        dtype=float,
        doc="Smallest signal-to-noise ratio on the mean of the exposures of the stars to use.",
        default=15.0,
        min=5.0,
    )
    maxStars = pexConfig.RangeField(dtype=int, doc="Largest number of stars to use.", default=100, min=1)
    rounds = pexConfig.RangeField(
        dtype=int, doc="How often stars and kernels are fitted in turns.", default=4, min=2
    )
    huberDelta = pexConfig.RangeField(
        dtype=float,
        doc="Residual in units of sigma beyond which the loss is linear.",
        default=2.0,
        min=0.0,
        inclusiveMin=False,
    )
    freedom = pexConfig.RangeField(
        dtype=float,
        doc="How far a kernel's pixels may be from the Moffat profile that fits best where the exposures "
        "tell nothing: standard deviation as a fraction of the profile.",
        default=0.2,
        min=0.0,
    )
    cellsPerGroup = pexConfig.RangeField(
        dtype=int,
        doc="Fit kernels to each square of this many cells on a side that has stars; 0 fits one kernel (or "
        "one correction of the given kernels) to the patch. Only with the method 'stars'.",
        default=0,
        min=0,
    )
    minGroupStars = pexConfig.RangeField(
        dtype=int, doc="Smallest number of stars in such a square to fit it by itself.", default=5, min=1
    )
    keepShifts = pexConfig.Field[bool](
        doc="Let the kernels of an exposure be off center by its astrometric error, which registers the "
        "exposures to their common mean. By default all kernels are centered.",
        default=False,
    )
    network: pexConfig.ConfigField = pexConfig.ConfigField(
        dtype=KernelNetworkConfig, doc="Training of the method 'network'."
    )

    def validate(self) -> None:
        """Check what no single field can.

        Raises
        ------
        lsst.pex.config.FieldValidationError
            Raised if fields contradict each other.
        """
        super().validate()
        if self.cellsPerGroup and self.method != "stars":
            raise pexConfig.FieldValidationError(
                FitKernelsConfig.cellsPerGroup, self, "needs the method 'stars'"
            )


class FitKernelsTask(pipeBase.Task):
    """Fit the PSF kernels of a stack of exposures.

    Notes
    -----
    Blind deconvolution by the likelihood alone does not know how wide the
    kernels are: a kernel that is too sharp, with a latent image that is blurred
    in return, describes the exposures as well.  (A latent image that is too
    sharp does not: it has to be non-negative.)  What breaks this are points.
    Isolated stars are found on the mean of the exposures, by the width that
    they have in common; their latent image is one point each, and what is
    broader than the kernels turns out not to be a star and is dropped.
    """

    ConfigClass = FitKernelsConfig
    _DefaultName: ClassVar[str] = "fitKernels"
    config: FitKernelsConfig

    def run(
        self, stack: ExposureStack, reference: ReferenceCoadd, *, backend: Backend, seeds: Seeds
    ) -> KernelFit | None:
        """Fit the kernels.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures without outliers.
        reference : `ReferenceCoadd`
            Coadd of the same exposures.
        backend : `Backend`
            Device and threads.
        seeds : `Seeds`
            Seeds of the method 'network'.

        Returns
        -------
        fit : `KernelFit` or `None`
            What was found; `None` if the kernels are to stay as they are.

        Raises
        ------
        RestorationError
            Raised if there is no star to measure the seeing on and the
            configuration states none, or if the training diverges.
        """
        if self.config.mode == "given":
            return None
        begin = time.perf_counter()
        stack = dataclasses.replace(stack, kernels=stack.kernels.copy())
        candidates = find_point_sources(
            stack,
            reference,
            min_snr=self.config.minStarSnr,
            max_count=_CANDIDATES_PER_STAR * self.config.maxStars,
        )
        stars = candidates[np.flatnonzero(stellar(candidates.width))[: self.config.maxStars]]
        self._start(stack, stars)
        totals = stack.kernels.sum(axis=(-2, -1), dtype=np.float64)
        mean, variation = split_variation(stack.kernels)
        method = self.config.method if len(stars) or self.config.method == "network" else "none"
        fit: StarFit | None = None
        kernels = mean
        if len(stars):
            fit = self._fit_stars(StarStamps.cut(stack, stars, variation), mean)
            stars, kernels = stars[fit.is_point], fit.kernels
        else:
            self.log.warning(
                "No isolated star with a signal-to-noise ratio of %g: %s.",
                self.config.minStarSnr,
                "nothing holds the width of the kernels"
                if method == "network"
                else "the kernels stay as they are",
            )
        if method == "network":
            anchored = fit if self.config.anchor else None
            start = kernels if self.config.anchor else mean
            kernels, _ = retry_diverged(
                lambda factor: self._train(
                    stack, reference, start, variation, anchored, stars, seeds, factor
                ),
                self.config.network.divergenceRetryFactor,
                self.log,
            )
        if method != "none":
            stack.kernels[:] = self._render(kernels, variation, totals, fit)
            if self.config.cellsPerGroup:
                self._fit_groups(stack, candidates, totals)
        return self._summarize(stack, mean, fit, stars, method, time.perf_counter() - begin)

    def _start(self, stack: ExposureStack, stars: PointSources) -> None:
        """Give the stack the kernels to start from."""
        if self.config.mode == "refined":
            np.maximum(stack.kernels, 0.0, out=stack.kernels)
            return
        widths = np.array(self.config.initialFwhm, np.float64)
        if len(widths) not in (1, stack.n_exposures):
            raise RestorationError(
                f"initialFwhm has {len(widths)} values for {stack.n_exposures} exposures "
                f"({', '.join(stack.names)}). State one value for all, or one for each."
            )
        widths = np.broadcast_to(widths, stack.n_exposures).copy()
        if not widths.all() and not len(stars):
            raise RestorationError(
                "The seeing of the exposures cannot be measured: there is no isolated star with a "
                f"signal-to-noise ratio of {self.config.minStarSnr:g} on the patch. State initialFwhm, or "
                "lower minStarSnr."
            )
        has_kernel = stack.has_kernel
        for t in range(stack.n_exposures):
            width = widths[t] or self._measure_seeing(stack, stars, t)
            stack.kernels[t][has_kernel[t]] = gaussian_kernel(width, stack.kernel_size)

    def _measure_seeing(self, stack: ExposureStack, stars: PointSources, t: int) -> float:
        """Return the width of an exposure's stars, or of those of the mean
        where it shows none, pixels.
        """
        half, widths = min(8, stack.kernel_size // 2), []
        for y, x in zip(stars.y[:_SEEING_STARS], stars.x[:_SEEING_STARS], strict=True):
            row, column = round(float(y)), round(float(x))
            window = (slice(row - half, row + half + 1), slice(column - half, column + half + 1))
            core = (slice(half - 2, half + 3),) * 2
            if stack.good[t][window][core].all():
                widths.append(fwhm(stack.masked_image(*window)[t]))
        measured = np.nanmedian(widths) if np.isfinite(widths).any() else np.median(stars.width)
        return float(np.clip(measured, 1.0, stack.kernel_size / 2))

    def _fit_stars(self, stamps: StarStamps, start: np.ndarray) -> StarFit:
        return fit_star_kernels(
            stamps,
            start,
            rounds=self.config.rounds,
            delta=self.config.huberDelta,
            freedom=self.config.freedom,
        )

    def _render(
        self, kernels: np.ndarray, variation: np.ndarray, totals: np.ndarray, fit: StarFit | None
    ) -> np.ndarray:
        """Return the kernels of cells: fitted mean kernels with the given
        variation and the sums that they had.  Gaussians miss nothing; what
        takes their place gets the sum of the profile that fits best.
        """
        fitted = center(kernels[:, np.newaxis, np.newaxis] * variation)
        if self.config.keepShifts and fit is not None:
            for t, shift in enumerate(fit.shift):
                fitted[t] = move(fitted[t], shift)
        if self.config.mode == "gaussian" and fit is not None:
            totals = totals * fit.fraction[:, np.newaxis, np.newaxis]
        sums = fitted.sum(axis=(-2, -1))
        factor = np.divide(totals, sums, out=np.zeros_like(sums), where=sums > 0.0)
        return (fitted * factor[..., np.newaxis, np.newaxis]).astype(np.float32)

    def _fit_groups(self, stack: ExposureStack, candidates: PointSources, totals: np.ndarray) -> None:
        """Fit the kernels of squares of cells that have enough stars."""
        size, count = self.config.cellsPerGroup, 0
        rows, columns = (
            np.rint(place).astype(int) // extent
            for place, extent in zip((candidates.y, candidates.x), stack.cell_shape, strict=True)
        )
        for i in range(0, stack.kernels.shape[1], size):
            for j in range(0, stack.kernels.shape[2], size):
                inside = (rows >= i) & (rows < i + size) & (columns >= j) & (columns < j + size)
                stars = candidates[inside]
                stars = stars[np.flatnonzero(stellar(stars.width))[: self.config.maxStars]]
                if len(stars) < self.config.minGroupStars:
                    continue
                cells = (slice(None), slice(i, i + size), slice(j, j + size))
                mean, variation = split_variation(stack.kernels[cells])
                everywhere = np.ones_like(stack.kernels)
                everywhere[cells] = variation
                fit = self._fit_stars(StarStamps.cut(stack, stars, everywhere), mean)
                stack.kernels[cells] = self._render(fit.kernels, variation, totals[cells], fit)
                count += 1
        self.log.info("Fitted %d groups of %dx%d cells by themselves.", count, size, size)

    def _train(
        self,
        stack: ExposureStack,
        reference: ReferenceCoadd,
        start: np.ndarray,
        variation: np.ndarray,
        fit: StarFit | None,
        stars: PointSources,
        seeds: Seeds,
        factor: float,
    ) -> np.ndarray:
        """Fit the kernels together with a network (equation 8), with
        ``factor`` on the learning rate; return them, shape ``(n, k, k)``.
        """
        config = self.config.network
        seed = seeds.number("kernel fit")
        import keras

        from ..restoration.crops import NetworkInput
        from ..restoration.fitting import History
        from ..restoration.fitting import fit as train
        from ..restoration.network import MaskedHuber
        from .blind_network import (
            MARGIN,
            BlindCrops,
            BlindDecoder,
            PlacePoints,
            build_blind_trainer,
            build_crop_encoder,
        )

        encoder = build_crop_encoder(stack.n_exposures, seed)
        field = NetworkInput(
            dataclasses.replace(stack, kernels=variation),
            weighted_mean(stack, reference.weights),
            MARGIN,
        )
        place = None
        if fit is not None:
            shape = [extent + 2 * stack.padding for extent in stack.shape]
            points = np.zeros(shape, np.float32)
            place = PlacePoints(stars, fit.stamps, points, stack.padding, self.config.huberDelta)
            place.draw()
        whole = not config.cropSize
        size = [min(config.cropSize, extent // 3) for extent in stack.shape]
        sampler = BlindCrops(
            field,
            points=None if place is None else points,
            is_open=None if place is None else place.is_far(_POINT_RADIUS),
            crop_shape=stack.shape if whole else (size[0], size[1]),
            batch_size=1 if whole else config.batchSize,
            validation_fraction=0.0 if whole else config.validationFraction,
            min_good_fraction=0.0 if whole else _MIN_GOOD_FRACTION,
            seed=seed,
        )
        start = np.maximum(start, _FLOOR * start.max(axis=(1, 2), keepdims=True))
        # The prior of the method 'stars', in the units of the loss, which is a mean over good pixels.
        strength = 0.0
        if fit is not None and self.config.freedom:
            strength = 1.0 / (self.config.freedom**2 * np.count_nonzero(stack.good))
        decoder = BlindDecoder(start / start.sum(axis=(1, 2), keepdims=True), strength, name="decoder")
        trainer = build_blind_trainer(
            encoder,
            decoder,
            stack.n_exposures,
            sampler.context_shape,
            sampler.kernels_shape,
            anchored=place is not None,
        )
        rate = keras.optimizers.schedules.ExponentialDecay(
            factor * config.learningRate,
            config.learningRateDecaySteps,
            config.learningRateDecay,
            staircase=True,
        )
        trainer.compile(
            optimizer=keras.optimizers.Adam(rate, global_clipnorm=_MAX_GRADIENT_NORM),
            loss=MaskedHuber(config.huberDelta),
        )
        steps = 1 if whole else config.stepsPerEpoch
        held_out = sampler.validation_batches()
        history = History(
            self.log,
            max_steps=steps * config.maxEpochs,
            pixels_per_step=sampler.pixels_per_step,
            interval=config.progressInterval,
        )
        callbacks: list[Any] = [history, keras.callbacks.TerminateOnNaN()]
        if place is not None:
            callbacks.append(place.callback(decoder))
        if held_out:
            callbacks.append(
                keras.callbacks.EarlyStopping(
                    monitor="val_loss",
                    min_delta=_MIN_IMPROVEMENT,
                    patience=config.patience,
                    start_from_epoch=config.minEpochs,
                    restore_best_weights=True,
                )
            )
        train(
            trainer,
            sampler.training_batch,
            held_out,
            steps=steps,
            epochs=config.maxEpochs,
            callbacks=callbacks,
        )
        kernels = np.asarray(decoder.mean_kernels(), np.float64)
        if not np.isfinite(kernels).all():
            raise DivergedError(
                "The fit of the kernels diverged. Try a smaller fitKernels.network.learningRate."
            )
        return kernels

    def _summarize(
        self,
        stack: ExposureStack,
        start: np.ndarray,
        fit: StarFit | None,
        stars: PointSources,
        method: str,
        seconds: float,
    ) -> KernelFit:
        """Describe the result, also in the log and the metadata."""
        n = stack.n_exposures
        kernels, _ = split_variation(stack.kernels)
        places = np.zeros((0, 3))
        snr, shift = np.zeros(n), np.zeros((n, 2))
        if fit is not None:
            stamps = fit.stamps
            y, x = np.rint(stars.y) + stamps.dy, np.rint(stars.x) + stamps.dx
            places = np.column_stack([y, x, stamps.flux])
            signal = stamps.flux[:, np.newaxis, np.newaxis, np.newaxis] * stamps.predict(fit.kernels)
            snr = np.sqrt((stamps.weight * signal**2).sum(axis=(0, 2, 3)))
            shift = fit.shift
        result = KernelFit(
            start=start,
            cell_kernels=stack.kernels,
            kernels=kernels,
            start_fwhm=np.array([fwhm(kernel) for kernel in start]),
            fwhm=np.array([fwhm(kernel) for kernel in kernels]),
            snr=snr,
            shift=shift,
            stars=places,
            method=method,
            seconds=seconds,
        )
        self.metadata["n_stars"] = len(places)
        self.metadata["fwhm_start"] = result.start_fwhm.tolist()
        self.metadata["fwhm_fitted"] = result.fwhm.tolist()
        self.log.info(
            "Fitted kernels to %d stars: %s.",
            len(places),
            ", ".join(
                f"{name} {before:.2f} -> {after:.2f} pixels"
                for name, before, after in zip(stack.names, result.start_fwhm, result.fwhm, strict=True)
            ),
        )
        return result


def split_variation(kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split kernels into a mean by exposure and how they vary over the patch.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        Non-negative kernels, shape ``(n, cells_y, cells_x, k, k)``; zero where
        an exposure has none.

    Returns
    -------
    mean : `numpy.ndarray`
        Mean over the cells that have one, with sum 1, `numpy.float64`, shape
        ``(n, k, k)``.
    variation : `numpy.ndarray`
        Factor that takes the mean, times the kernel's sum, to each kernel,
        shape of ``kernels``, `numpy.float32`: at most 2 and at least 1/2, 1
        where the mean is less than a thousandth of its peak, and zero in
        cells without a kernel.
    """
    totals = kernels.sum(axis=(-2, -1), dtype=np.float64)
    present = totals > 0.0
    unit = np.divide(
        kernels,
        totals[..., np.newaxis, np.newaxis],
        out=np.zeros(kernels.shape, np.float32),
        where=present[..., np.newaxis, np.newaxis],
    )
    count = np.maximum(present.sum(axis=(1, 2)), 1)
    mean = unit.sum(axis=(1, 2), dtype=np.float64) / count[:, np.newaxis, np.newaxis]
    bright = mean > _VARIATION_FLOOR * mean.max(axis=(1, 2), keepdims=True)
    safe = np.where(bright, mean, 1.0)[:, np.newaxis, np.newaxis]
    variation = np.where(bright[:, np.newaxis, np.newaxis], unit / safe, 1.0)
    variation = np.clip(variation, 1.0 / _MAX_VARIATION, _MAX_VARIATION).astype(np.float32)
    variation[~present] = 0.0
    return mean, variation
