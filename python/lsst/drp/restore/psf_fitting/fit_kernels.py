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
from typing import ClassVar

import numpy as np

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from ..errors import RestorationError
from ..restoration.divergence import retry_diverged
from ..restoration.seeds import Seeds
from ..stack.exposure_stack import ExposureStack
from ..stack.kernel_shape import fwhm, gaussian_kernel
from ..stack.reference_coadd import ReferenceCoadd, weighted_mean
from ..stack.stellar_locus import stellar
from .cell_variation import join_variation, split_variation
from .kernel_fit import KernelFit
from .point_sources import PointSources, find_point_sources
from .star_kernels import StarFit, fit_star_kernels
from .star_stamps import StarStamps

# Sources that are examined for each star that is wanted: most of them may be galaxies.
_CANDIDATES_PER_STAR = 4

# Stars whose widths on an exposure are its first estimate of the seeing.
_SEEING_STARS = 15

# Smallest number of stars in a square of cells to fit it by itself: fewer are less than the variation.
_MIN_GROUP_STARS = 5


class KernelNetworkConfig(pexConfig.Config):
    """Configuration of the network that is fitted together with the kernels
    (``fitKernels.method='network'``).
    """

    stepsPerEpoch = pexConfig.RangeField(
        dtype=int,
        doc="Steps of the optimizer until the held-out loss is computed and the stars are placed again; "
        "fewer for a quick look.",
        default=100,
        min=1,
    )
    maxEpochs = pexConfig.RangeField(
        dtype=int,
        doc="Epochs after which training ends at the latest; it ends before when the held-out loss stops "
        "falling.",
        default=20,
        min=1,
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
        "one each, ordered by instrument and visit. 0 is measured from the exposure's stars; state it where "
        "there are none.",
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
            "paper), after 'stars'.",
        },
        optional=False,
    )
    minStarSnr = pexConfig.RangeField(
        dtype=float,
        doc="Smallest signal-to-noise ratio on the mean of the exposures of the stars to use. Lower it where "
        "stars are few.",
        default=15.0,
        min=5.0,
    )
    maxStars = pexConfig.RangeField(
        dtype=int,
        doc="Largest number of stars to use, the brightest; the time is proportional to it.",
        default=100,
        min=1,
    )
    cellsPerGroup = pexConfig.RangeField(
        dtype=int,
        doc="Fit kernels to each square of this many cells on a side that has 5 stars; 0 fits one kernel (or "
        "one correction of the given kernels) to the patch. For fields with many stars whose PSF varies by "
        "more than a few percent. Only with the method 'stars'.",
        default=0,
        min=0,
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
        """Check that groups of cells are fitted to stars.

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
    In blind deconvolution the likelihood alone does not determine the width of
    the kernels: a kernel that is too sharp, with a latent image that is blurred
    in return, describes the exposures as well.  (A latent image that is too
    sharp does not: it has to be non-negative.)  Points break this degeneracy.
    Isolated stars are found on the mean of the exposures, by the width that
    they have in common; their latent image is one point each.  Sources that
    turn out broader than the kernels are no stars and are dropped.
    """

    ConfigClass = FitKernelsConfig
    _DefaultName: ClassVar[str] = "fitKernels"
    config: FitKernelsConfig

    def run(self, stack: ExposureStack, reference: ReferenceCoadd, *, seeds: Seeds) -> KernelFit | None:
        """Fit the kernels.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures without outliers.  They are not changed.
        reference : `ReferenceCoadd`
            Coadd of the same exposures.
        seeds : `Seeds`
            Seeds of ``method="network"``.

        Returns
        -------
        fit : `KernelFit` or `None`
            The fitted kernels; `None` if those of the stack are to be used.

        Raises
        ------
        RestorationError
            Raised if there is no star to measure the seeing on and the
            configuration states none, or if the training diverges.
        """
        if self.config.mode == "given":
            return None
        begin = time.perf_counter()
        candidates = find_point_sources(
            stack,
            reference,
            min_snr=self.config.minStarSnr,
            max_count=_CANDIDATES_PER_STAR * self.config.maxStars,
        )
        stars = self._stars_among(candidates)
        cell_kernels = self._start(stack, stars)
        totals = cell_kernels.sum(axis=(-2, -1), dtype=np.float64)
        start, variation = split_variation(cell_kernels)
        if not len(stars):
            self.log.warning(
                "No isolated star with a signal-to-noise ratio of %g: the kernels stay as they are. State "
                "initialFwhm, or lower minStarSnr.",
                self.config.minStarSnr,
            )
            return self._summarize(stack, start, cell_kernels, None, stars, time.perf_counter() - begin)
        fit = fit_star_kernels(StarStamps.cut(stack, stars, variation), start)
        stars, kernels, stamps = stars[fit.is_point], fit.kernels, fit.stamps
        if self.config.method == "network":
            kernels, stamps = self._fit_network(stack, reference, variation, stars, fit, seeds)
        cell_kernels = self._join(kernels, variation, totals, fit)
        if self.config.cellsPerGroup:
            self._fit_groups(stack, candidates, cell_kernels, totals)
        fit = dataclasses.replace(fit, stamps=stamps)
        return self._summarize(stack, start, cell_kernels, fit, stars, time.perf_counter() - begin)

    def _stars_among(self, sources: PointSources) -> PointSources:
        """Select the sources that are stars."""
        return sources[np.flatnonzero(stellar(sources.width))[: self.config.maxStars]]

    def _start(self, stack: ExposureStack, stars: PointSources) -> np.ndarray:
        """Return the kernels of cells to start from."""
        if self.config.mode == "refined":
            return np.maximum(stack.kernels, 0.0)
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
        kernels, has_kernel = np.zeros_like(stack.kernels), stack.has_kernel
        for t in range(stack.n_exposures):
            width = widths[t] or self._measure_seeing(stack, stars, t)
            kernels[t][has_kernel[t]] = gaussian_kernel(width, stack.kernel_size)
        return kernels

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

    def _fit_network(
        self,
        stack: ExposureStack,
        reference: ReferenceCoadd,
        variation: np.ndarray,
        stars: PointSources,
        fit: StarFit,
        seeds: Seeds,
    ) -> tuple[np.ndarray, StarStamps]:
        """Fit the mean kernels together with a network."""
        config = self.config.network
        fill = weighted_mean(stack, reference.weights)

        def train(factor: float) -> tuple[np.ndarray, StarStamps]:
            from .network_kernels import fit_network_kernels

            return fit_network_kernels(
                stack,
                fill,
                variation,
                stars,
                fit,
                steps_per_epoch=config.stepsPerEpoch,
                max_epochs=config.maxEpochs,
                seed=seeds.number("kernel fit"),
                log=self.log,
                rate_factor=factor,
            )

        result, _ = retry_diverged(train, self.log)
        return result

    def _join(
        self, kernels: np.ndarray, variation: np.ndarray, totals: np.ndarray, fit: StarFit
    ) -> np.ndarray:
        """Return the kernels of cells: fitted mean kernels with the given
        variation and sums.  Gaussians have their whole flux inside of the
        kernel; the fitted kernels get the sum of the profile that fits best.
        """
        if self.config.mode == "gaussian":
            totals = totals * fit.fraction[:, np.newaxis, np.newaxis]
        return join_variation(kernels, variation, totals, fit.shift if self.config.keepShifts else None)

    def _fit_groups(
        self, stack: ExposureStack, candidates: PointSources, cell_kernels: np.ndarray, totals: np.ndarray
    ) -> None:
        """Fit the kernels of squares of cells that have enough stars; replace
        them in ``cell_kernels``.
        """
        size, count = self.config.cellsPerGroup, 0
        rows, columns = (
            np.rint(place).astype(int) // extent
            for place, extent in zip((candidates.y, candidates.x), stack.cell_shape, strict=True)
        )
        for i in range(0, cell_kernels.shape[1], size):
            for j in range(0, cell_kernels.shape[2], size):
                inside = (rows >= i) & (rows < i + size) & (columns >= j) & (columns < j + size)
                stars = self._stars_among(candidates[inside])
                if len(stars) < _MIN_GROUP_STARS:
                    continue
                cells = (slice(None), slice(i, i + size), slice(j, j + size))
                mean, variation = split_variation(cell_kernels[cells])
                everywhere = np.ones_like(cell_kernels)
                everywhere[cells] = variation
                fit = fit_star_kernels(StarStamps.cut(stack, stars, everywhere), mean)
                cell_kernels[cells] = self._join(fit.kernels, variation, totals[cells], fit)
                count += 1
        self.log.info("Fitted %d groups of %dx%d cells by themselves.", count, size, size)

    def _summarize(
        self,
        stack: ExposureStack,
        start: np.ndarray,
        cell_kernels: np.ndarray,
        fit: StarFit | None,
        stars: PointSources,
        seconds: float,
    ) -> KernelFit:
        """Describe the result, also in the log and the metadata; ``fit`` is
        `None` if there are no stars.
        """
        n = stack.n_exposures
        kernels, _ = split_variation(cell_kernels)
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
            kernels=kernels,
            cell_kernels=cell_kernels,
            start_fwhm=np.array([fwhm(kernel) for kernel in start]),
            fwhm=np.array([fwhm(kernel) for kernel in kernels]),
            snr=snr,
            shift=shift,
            stars=places,
            method="none" if fit is None else self.config.method,
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
