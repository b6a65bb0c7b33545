# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restorers: their input and their result."""

from __future__ import annotations

__all__ = (
    "FittedRestorer",
    "BandImage",
    "Restoration",
    "Restorer",
    "RestorerConfig",
    "StartingPoint",
    "make_history",
)

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import astropy.table
import numpy as np

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from ..stack.exposure_stack import ExposureStack
from .backend import COMPUTE_DEVICES, Backend
from .seeds import Seeds


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class BandImage:
    """A restored image of the same sky in another band.

    Parameters
    ----------
    latent : `numpy.ndarray`
        Its latent image, nJy per latent pixel.
    error : `numpy.ndarray` or `None`
        Standard deviation of its error as a network states it, nJy, same
        shape.
    noise : `float`
        Median standard deviation of the pixels of its exposures, nJy.
    """

    latent: np.ndarray
    error: np.ndarray | None
    noise: float


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StartingPoint:
    """Input of a restorer, in addition to the exposures.

    Parameters
    ----------
    latent : `numpy.ndarray`
        The first estimate, an image of points (`first_estimate`), nJy per
        latent pixel, shape of the stack's latent image.
    matched : `ExposureStack`
        The white-noise coadd of the exposures (`matched_stack`).
    weights : `numpy.ndarray`
        Weights of the exposures in a mean, by cell, nJy**-2, shape ``(n,
        cells_y, cells_x)``, see `ReferenceCoadd`.
    target_fwhm : `float`
        FWHM of the Gaussian PSF that the restored image is to have, latent
        pixels.
    other_bands : `~collections.abc.Sequence` [`BandImage`], optional
        Restored images of the deeper bands.
    """

    latent: np.ndarray
    matched: ExposureStack
    weights: np.ndarray
    target_fwhm: float
    other_bands: Sequence[BandImage] = ()


class FittedRestorer(abc.ABC):
    """A restorer whose parameters have been fitted to a patch."""

    @abc.abstractmethod
    def restore(self, exposures: ExposureStack) -> np.ndarray:
        """Restore other pixels; nothing is fitted again.

        Parameters
        ----------
        exposures : `ExposureStack`
            ``Restoration.model`` with other pixels: with other noise, or with
            added sources, to measure the response of the restoration to
            noise and sources.

        Returns
        -------
        latent : `numpy.ndarray`
            The latent image, nJy, shape of ``Restoration.latent``.
        """


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Restoration:
    """A latent image and how it was found.

    Parameters
    ----------
    latent : `numpy.ndarray`
        The latent image ``x``, nJy per latent pixel, non-negative,
        `numpy.float32`, shape ``(height + 2*padding, width + 2*padding)``: the
        patch and a border of ``padding`` pixels (half of a PSF kernel) on each
        side.
    padding : `int`
        Width of that border, latent pixels.
    converged : `bool`
        Whether the loss stopped falling before the restorer ran out of steps.
    history : `astropy.table.Table`
        How the loss fell; see `make_history`.
    weights : `dict` [`str`, `numpy.ndarray`]
        The weights of the network fitted to the patch by name; empty without
        one.
    steps : `int`
        Optimizer steps taken.
    loss : `float`
        Mean Huber loss per good pixel of the whole patch (equation 4),
        dimensionless.
    device : `str`
        The device the training ran on, for example ``CPU`` or ``GPU``.
    seconds : `float`
        Wall time of the restoration, s.
    fitted : `FittedRestorer`
        The restorer, as fitted to the patch.
    model : `ExposureStack`
        Input of ``fitted``, with kernels from the latent image to its PSFs:
        the exposures, or their white-noise coadd.
    kernels : `numpy.ndarray`
        Kernels from the latent image to the PSFs of the exposures that were
        restored, shape of their kernels; these kernels themselves if the
        latent image is one of points.
    target_fwhm : `float`
        FWHM of the Gaussian that is the latent image's PSF, latent pixels; 0
        if it is an image of points.
    error : `numpy.ndarray` or `None`
        Standard deviation of the latent image's error as a network states it,
        nJy, shape of ``latent``.
    n_retries : `int`
        Trainings that diverged and were repeated with a smaller learning rate.
    network : `dict`
        Facts about the trained network that was used, see
        `describe_computation`; empty without one.
    """

    latent: np.ndarray
    padding: int
    converged: bool
    history: astropy.table.Table
    weights: dict[str, np.ndarray]
    steps: int
    loss: float
    device: str
    seconds: float
    fitted: FittedRestorer
    model: ExposureStack
    kernels: np.ndarray
    target_fwhm: float = 0.0
    error: np.ndarray | None = None
    n_retries: int = 0
    network: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def image(self) -> np.ndarray:
        """The latent image on the patch itself, nJy, shape ``(height,
        width)`` (`numpy.ndarray`).
        """
        height, width = self.latent.shape
        return self.latent[self.padding : height - self.padding, self.padding : width - self.padding]


class RestorerConfig(pexConfig.Config):
    """Configuration of a `Restorer`."""

    computeDevice = pexConfig.ChoiceField[str](
        doc="Where to compute.", default="auto", allowed=dict(COMPUTE_DEVICES), optional=False
    )

    @property
    def fits_weights(self) -> bool:
        """Whether the restorer fits weights to each patch (`bool`)."""
        return False


class Restorer(pipeBase.Task):
    """Restores the latent image of a stack of exposures."""

    ConfigClass = RestorerConfig
    _DefaultName: ClassVar[str] = "restorer"
    config: RestorerConfig

    def run(
        self, stack: ExposureStack, start: StartingPoint, *, backend: Backend, seeds: Seeds
    ) -> Restoration:
        """Restore a patch.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures: background subtracted, outliers not good.
        start : `StartingPoint`
            First estimate, white-noise coadd, target resolution, other bands.
        backend : `Backend`
            Device and threads, from `prepare_backend`.
        seeds : `Seeds`
            Seeds of random numbers.

        Returns
        -------
        restoration : `Restoration`
            The latent image and how it was found.

        Raises
        ------
        DivergedError
            Raised if a training diverges.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define run().")


def make_history(rows: Sequence[tuple[int, float, float, float, float]]) -> astropy.table.Table:
    """Make the dataset ``restored_coadd_training``.

    Parameters
    ----------
    rows : `~collections.abc.Sequence` [`tuple`]
        ``step``; ``loss`` and ``validation_loss`` per good pixel,
        dimensionless; ``learning_rate``; ``seconds`` since the start.

    Returns
    -------
    history : `astropy.table.Table`
        The rows; NaN where a restorer has no such value.
    """
    return astropy.table.Table(
        rows=rows,
        names=("step", "loss", "validation_loss", "learning_rate", "seconds"),
        dtype=(np.int64, np.float64, np.float64, np.float64, np.float64),
        descriptions=(
            "Optimizer steps taken.",
            "Mean loss per good pixel of the batches since the last row.",
            "Mean loss per good pixel of the held-out crops.",
            "Learning rate of the next step.",
            "Seconds since the start of the training.",
        ),
        units={"seconds": "s"},
    )
