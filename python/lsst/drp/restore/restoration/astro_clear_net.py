# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""AstroClearNet: restore the sky at a stated resolution with a network that
was trained on simulated skies, and bring it back to the exposures.
"""

from __future__ import annotations

__all__ = ("AstroClearNetConfig", "AstroClearNetTask")

import dataclasses
import time
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.ndimage

import lsst.pex.config as pexConfig

from ..stack.exposure_stack import ExposureStack
from ..stack.kernel_shape import FWHM_PER_SIGMA
from .backend import Backend
from .consistency import HUBER_DELTA, ConsistencyTask
from .network_input import PASSES
from .network_weights import describe_weights, read_weights
from .restoration import (
    BandImage,
    FittedRestorer,
    Restoration,
    Restorer,
    RestorerConfig,
    StartingPoint,
    make_history,
)
from .seeds import Seeds
from .target_psf import TARGET_FWHM, convolution_kernels

if TYPE_CHECKING:
    from .trained_network import TrainedNetwork


class AstroClearNetConfig(RestorerConfig):
    """Configuration of `AstroClearNetTask`."""

    consistency: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=ConsistencyTask, doc="Brings the network's image back to the exposures."
    )
    tileSize = pexConfig.RangeField(
        dtype=int,
        doc="Height and width of the tiles of a pass, pixels: bounds its memory. The result does not depend "
        "on it.",
        default=512,
        min=64,
    )
    weightsFile = pexConfig.Field[str](
        doc="File of the network's weights (`write_weights`), for example fine-tuned on patches of a survey "
        "(`fine_tune`). None for the weights that the package ships.",
        default=None,
        optional=True,
    )
    fineTuneSteps = pexConfig.RangeField(
        dtype=int,
        doc="Steps for which the weights are trained further on the patch, without any truth: some of the "
        "exposures predict the others. At least 4 exposures are needed. 0 uses the weights as they are.",
        default=0,
        min=0,
    )
    fineTuneRate = pexConfig.RangeField(
        dtype=float,
        doc="Largest learning rate of these steps.",
        default=1e-4,
        min=0.0,
        inclusiveMin=False,
    )

    @property
    def fits_weights(self) -> bool:
        """Whether the restorer fits weights to each patch (`bool`)."""
        return self.fineTuneSteps > 0


class FittedNetwork(FittedRestorer):
    """The network, the kernels and the other bands of a patch.

    Parameters
    ----------
    network : `TrainedNetwork`
        The network.
    consistency : `ConsistencyTask`
        Corrects its image.
    tile_size : `int`
        Height and width of the network's tiles, pixels.
    matched : `ExposureStack`
        The white-noise coadd of the patch.
    target_fwhm : `float`
        FWHM of the PSF that the image gets, latent pixels.
    other_bands : `tuple` [`BandImage`, ...]
        Restored images of deeper bands.
    n_threads : `int`
        CPU threads to use.
    """

    def __init__(
        self,
        network: TrainedNetwork,
        consistency: ConsistencyTask,
        *,
        tile_size: int,
        matched: ExposureStack,
        target_fwhm: float,
        other_bands: tuple[BandImage, ...],
        n_threads: int,
    ) -> None:
        self._network = network
        self._consistency = consistency
        self._tile_size = tile_size
        self._matched = matched
        # The network has one resolution; coarser ones are made from it.
        self._blur = np.sqrt(max(target_fwhm**2 - TARGET_FWHM**2, 0.0)) / FWHM_PER_SIGMA
        # Colors of a smoothed image would not be those of the network's image.
        self._other_bands = () if self._blur else other_bands
        self._n_threads = n_threads

    def restore(self, exposures: ExposureStack) -> np.ndarray:
        """Restore a white-noise coadd.

        Parameters
        ----------
        exposures : `ExposureStack`
            The white-noise coadd of the patch with other pixels.

        Returns
        -------
        latent : `numpy.ndarray`
            The latent image at the target resolution, nJy.
        """
        from .first_estimate import first_estimate

        coadd = dataclasses.replace(self._matched, image=exposures.image)
        predicted, error = self.predict(coadd, first_estimate(coadd, n_threads=self._n_threads))
        return self.correct(at_network_resolution(coadd), predicted, error)

    def predict(self, coadd: ExposureStack, latent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run the network.

        Parameters
        ----------
        coadd : `ExposureStack`
            White-noise coadd.
        latent : `numpy.ndarray`
            First estimate, nJy.

        Returns
        -------
        predicted, error : `numpy.ndarray`
            Its image at `TARGET_FWHM`, and the standard deviation of the error
            of this image, nJy.
        """
        from .shared_structure import share_structure

        predicted, error = self._network.apply(
            coadd,
            _smooth(latent, TARGET_FWHM / FWHM_PER_SIGMA),
            tile_size=self._tile_size,
            n_threads=self._n_threads,
        )
        if self._other_bands:
            model = at_network_resolution(coadd)
            predicted, error = share_structure(
                predicted, error, model, self._other_bands, n_threads=self._n_threads
            )
        return predicted, error

    def correct(self, model: ExposureStack, predicted: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Bring the network's image back to the exposures, and to the target
        resolution.

        Parameters
        ----------
        model : `ExposureStack`
            Exposures, with kernels from `TARGET_FWHM` to their PSFs.
        predicted, error : `numpy.ndarray`
            From `predict`.

        Returns
        -------
        latent : `numpy.ndarray`
            The latent image, nJy.
        """
        latent = self._consistency.run(model, predicted, error, n_threads=self._n_threads)
        return _smooth(latent, self._blur)


class AstroClearNetTask(Restorer):
    """Restore a stack of exposures with a trained network.

    Notes
    -----
    The input of the network is the white-noise coadd of the exposures, a
    sufficient statistic of all of them (B. Zackay and E. O. Ofek 2017),
    whatever their number: its residual from the first estimate, at the target
    resolution and at the coadd's own.  Its output is an image and the error of
    this image, with which the exposures correct it (`ConsistencyTask`).
    """

    ConfigClass = AstroClearNetConfig
    _DefaultName: ClassVar[str] = "astroClearNet"
    config: AstroClearNetConfig
    consistency: ConsistencyTask

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.makeSubtask("consistency")

    def run(
        self, stack: ExposureStack, start: StartingPoint, *, backend: Backend, seeds: Seeds
    ) -> Restoration:
        """Restore a patch; see `Restorer.run`.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures.
        start : `StartingPoint`
            First estimate and white-noise coadd; the target's FWHM is at least
            `TARGET_FWHM`.
        backend : `Backend`
            Device and threads.
        seeds : `Seeds`
            Seeds of the fine-tuning.

        Returns
        -------
        restoration : `Restoration`
            The latent image at the target resolution.

        Raises
        ------
        DivergedError
            Raised if fine-tuning diverges.
        """
        began = time.perf_counter()
        from .likelihood import Likelihood
        from .trained_network import load_network

        tuned = self._fine_tune(stack, seeds)
        fitted = FittedNetwork(
            load_network(self.config.weightsFile) if tuned is None else tuned,
            self.consistency,
            tile_size=self.config.tileSize,
            matched=start.matched,
            target_fwhm=start.target_fwhm,
            other_bands=tuple(start.other_bands),
            n_threads=backend.n_threads,
        )
        sharp = at_network_resolution(stack)
        predicted, error = fitted.predict(start.matched, start.latent)
        latent = fitted.correct(sharp, predicted, error)

        final = sharp if start.target_fwhm <= TARGET_FWHM else at_resolution(stack, start.target_fwhm)
        gradients = self.consistency.config.gradients
        rows = []
        for step, model, image in (
            (0, stack, start.latent),
            (PASSES, sharp, predicted),
            (PASSES + gradients, final, latent),
        ):
            loss = Likelihood(model, HUBER_DELTA, n_threads=backend.n_threads).huber_loss(image)
            rows.append((step, loss, np.nan, np.nan, time.perf_counter() - began))
        self.log.info(
            "Loss per good pixel: %.5f of the first estimate, %.5f of the network, %.5f after consistency.",
            *(row[1] for row in rows),
        )
        return Restoration(
            latent=latent,
            padding=stack.padding * stack.oversampling,
            converged=rows[2][1] <= rows[1][1],
            history=make_history(rows),
            weights={} if tuned is None else tuned.weights,
            steps=rows[-1][0],
            loss=rows[-1][1],
            device=backend.device,
            seconds=time.perf_counter() - began,
            fitted=fitted,
            model=at_resolution(start.matched, start.target_fwhm),
            kernels=final.kernels,
            target_fwhm=start.target_fwhm,
            error=error,
            network={
                **describe_weights(self.config.weightsFile),
                "fine_tuning_steps": 0 if tuned is None else self.config.fineTuneSteps,
            },
        )

    def _fine_tune(self, stack: ExposureStack, seeds: Seeds) -> TrainedNetwork | None:
        """Train the weights further on the patch, if this is asked for and
        possible.
        """
        if not self.config.fineTuneSteps:
            return None
        from .fine_tuning import MIN_EXPOSURES, MIN_SIZE, fine_tune

        if stack.n_exposures < MIN_EXPOSURES or min(stack.shape) < MIN_SIZE:
            self.log.warning(
                "The network is not fine-tuned: that needs %d exposures of %dx%d pixels, and there are %d of "
                "%dx%d.",
                *(MIN_EXPOSURES, MIN_SIZE, MIN_SIZE),
                *(stack.n_exposures, *stack.shape),
            )
            return None
        network, history = fine_tune(
            [stack],
            read_weights(self.config.weightsFile),
            steps=self.config.fineTuneSteps,
            rate=self.config.fineTuneRate,
            seed=seeds.number("fine-tuning"),
            log=self.log,
        )
        self.log.info(
            "Fine-tuned the network: loss per good pixel of the exposures that it did not see from %.5f to "
            "%.5f in %d steps, %.0f s.",
            *(history["loss"][0], history["loss"][-1], self.config.fineTuneSteps, history["seconds"][-1]),
        )
        return network


def at_resolution(stack: ExposureStack, fwhm: float) -> ExposureStack:
    """Replace the kernels of exposures by those from an image with a Gaussian
    PSF.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.
    fwhm : `float`
        FWHM of the Gaussian, latent pixels.

    Returns
    -------
    model : `ExposureStack`
        The same pixels with other kernels (`convolution_kernels`).
    """
    return dataclasses.replace(stack, kernels=convolution_kernels(stack.kernels, fwhm / stack.oversampling))


def at_network_resolution(stack: ExposureStack) -> ExposureStack:
    """Replace the kernels of exposures by those from the network's image; see
    `at_resolution`.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.

    Returns
    -------
    model : `ExposureStack`
        The same pixels with other kernels.
    """
    return at_resolution(stack, TARGET_FWHM)


def _smooth(image: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve with a Gaussian; outside of the image there is nothing."""
    return scipy.ndimage.gaussian_filter(image, sigma, mode="constant", truncate=6.0) if sigma else image
