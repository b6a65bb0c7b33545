# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restoration of NumPy arrays, without a Butler."""

from __future__ import annotations

__all__ = ("METHODS", "ImageWithPsf", "RestoredArrays", "restore")

import dataclasses
import functools
import importlib.resources
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .outputs.pixel_flags import flag_pixels
from .outputs.plot_restoration import plot_comparison, typical_exposure
from .outputs.restored_stack import RestoredStack
from .restore_stack import RestoreStackConfig, RestoreStackTask
from .stack.from_arrays import StackedArrays, stack_arrays
from .stack.oversampling import bin_pixels

if TYPE_CHECKING:
    import astropy.table
    import astropy.units as u
    import numpy.typing as npt
    from matplotlib.figure import Figure

METHODS = {"astroClearNet": None, "imageMM": "imageMM.py", "publishedNet": "paper.py"}
"""Methods by name, and the file of the package's folder ``config`` that chooses
each (`dict` [`str`, `str` or `None`]).
"""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ImageWithPsf:
    """An image with its variance and its PSF.

    Parameters
    ----------
    image : `numpy.ndarray`
        Flux per pixel of this image, in the unit of the exposures, shape
        ``(height, width)``; NaN where no exposure constrains it.
    variance : `numpy.ndarray`
        Its variance, that unit squared, same shape.
    psf : `numpy.ndarray`
        Its PSF by cell, shape ``(cells_y, cells_x, k, k)``, in pixels of this
        image, centered on the middle pixel and normalized to the total flux of
        a source: the sum is the fraction inside of the stamp.  Zero in cells
        where it is not known.
    cell_shape : `tuple` [`int`, `int`]
        Height and width of a cell, pixels of this image; the first one starts
        at pixel ``(0, 0)``, and the last ones may reach over the edge.
    """

    image: np.ndarray
    variance: np.ndarray
    psf: np.ndarray
    cell_shape: tuple[int, int]

    def psf_at(self, y: float, x: float) -> np.ndarray:
        """Return the PSF at a place.

        Parameters
        ----------
        y, x : `float`
            Pixel of this image, that of the first one's center being 0, 0.

        Returns
        -------
        psf : `numpy.ndarray`
            PSF of the cell there, shape ``(k, k)``.

        Raises
        ------
        IndexError
            Raised if it is outside of the image.
        """
        row, column = round(y), round(x)
        height, width = self.image.shape
        if not (0 <= row < height and 0 <= column < width):
            raise IndexError(f"y={y}, x={x} is outside of an image of {height}x{width} pixels.")
        return self.psf[row // self.cell_shape[0], column // self.cell_shape[1]]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RestoredArrays(ImageWithPsf):
    """The result of `restore`: the restored image with its variance and its
    PSF, the image for photometry, and a coadd to compare with.

    Parameters
    ----------
    no_data : `numpy.ndarray`
        `bool`, shape of ``image``: `True` where no exposure has a good pixel.
        The restored image has a value there as far as a good pixel is within
        reach of a PSF.
    few_exposures : `numpy.ndarray`
        Same shape: `True` where fewer exposures than ``config.fewExposures``
        have a good pixel.
    inconsistent : `numpy.ndarray`
        Same shape: `True` where the exposures contradict the restored image:
        something varies or moves, is not masked, or its PSF is another one.
    measurable : `ImageWithPsf`
        The image for photometry: linear in the exposures, with unbiased fluxes,
        white noise and a known PSF, on the exposures' pixels.
    inexact_psf : `numpy.ndarray`
        `bool`, shape of ``measurable.image``: `True` where the stated PSF of
        ``measurable`` is wrong because many pixels are missing.
    reference : `ImageWithPsf`
        Weighted and clipped mean of the exposures, to compare with.  Its
        variance is that of single pixels, as the exposures' is.
    clipped : `numpy.ndarray`
        `bool`, shape ``(n, height, width)`` for all exposures that were given:
        good pixels that were left out as outliers.
    history : `astropy.table.Table`
        How the loss fell, see `make_history`.
    loss : `float`
        Mean Huber loss per good pixel of the restored image, dimensionless:
        0.46 where nothing but noise is left (``huberDelta=2``).
    converged : `bool`
        Whether the training ended because its loss no longer fell.
    used : `numpy.ndarray`
        Indices of the exposures that were used.
    exposure : `numpy.ndarray`
        The exposure of median seeing, shape ``(height, width)``; NaN where it
        has no good pixel.
    unit : `str`
        Unit of the images.
    """

    no_data: np.ndarray
    few_exposures: np.ndarray
    inconsistent: np.ndarray
    measurable: ImageWithPsf
    inexact_psf: np.ndarray
    reference: ImageWithPsf
    clipped: np.ndarray
    history: astropy.table.Table
    loss: float
    converged: bool
    used: np.ndarray
    exposure: np.ndarray
    unit: str

    def plot(self, title: str = "") -> Figure:
        """Plot an exposure, the reference coadd, the restored image and their
        difference.

        Parameters
        ----------
        title : `str`, optional
            Title of the figure.

        Returns
        -------
        figure : `matplotlib.figure.Figure`
            The figure of `plot_comparison`.  A restored image with smaller
            pixels is binned to those of the exposures.
        """
        oversampling = -(-self.image.shape[0] // self.reference.image.shape[0])
        return plot_comparison(
            self.exposure,
            self.reference.image,
            bin_pixels(self.image, oversampling),
            title=title,
            exposure_label="Exposure of median seeing",
            unit=self.unit,
        )


def restore(
    image: npt.ArrayLike,
    variance: npt.ArrayLike,
    psf: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    *,
    unit: str | u.UnitBase = "flux units",
    method: str = "astroClearNet",
    config: RestoreStackConfig | Mapping[str, Any] | None = None,
    cell_size: int | None = None,
    normalize_psf: bool = False,
    correlation: npt.ArrayLike = 1.0,
    names: Sequence[str] | None = None,
    seed: int | None = None,
    num_threads: int = 1,
    kernel_size: int = 25,
) -> RestoredArrays:
    """Restore exposures that are arrays.

    Parameters
    ----------
    image : array_like
        Exposures on one pixel grid, sky-subtracted, shape ``(n, height,
        width)``, any size from that of a PSF kernel on, in any linear unit of
        flux per pixel (nJy, adu, electrons, ...) that is the same for all:
        results have the same unit.  Pixels that are not finite, or masked in a
        masked array, are bad.  Nothing is changed in place.
    variance : array_like
        Their variance, that unit squared, same shape.  Pixels whose variance
        is not finite or not positive are bad.
    psf : array_like
        PSF kernels, shape ``(n, k, k)``: images of a point source in the
        middle of the middle pixel, ``k`` odd and at most ``kernel_size``; or
        ``(n, cells_y, cells_x, k, k)`` where the PSF varies over the field,
        which is then divided into so many cells.  The sum of a kernel is the
        fraction of the flux inside of it: sums outside of 0.5 to 1.01 are
        refused, as fluxes would not be defined, unless ``normalize_psf`` is
        set.  Smaller kernels are padded with zeros.  Where a kernel is zero or
        NaN everywhere, the exposure has no PSF: its pixels there are bad.
    mask : array_like, optional
        Same shape, `bool`: `True` where a pixel is **bad** (cosmic ray,
        saturated, dead, outside of the detector).  By default there are
        none but those above.
    unit : `str` or `astropy.units.Unit`, optional
        Unit of ``image``, for messages and figures: ``"nJy"``, ``"adu"``.
    method : `str`, optional
        ``"astroClearNet"``, the trained network; ``"imageMM"``, majorize-minimize
        steps; or ``"publishedNet"``, the papers' network, fitted to these
        exposures alone.
    config : `RestoreStackConfig` or `~collections.abc.Mapping`, optional
        Configuration; or the values of some of its fields by name, as
        ``{"targetFwhm": 2.5}``, which are set after those of the method.
    cell_size : `int`, optional
        Height and width of a cell, pixels: PSFs and weights are constant in a
        cell.  By default cells are the
        largest that divide the field evenly, up to 150 pixels, or those of
        ``psf``.
    normalize_psf : `bool`, optional
        Divide each kernel by its sum.  Fluxes are then those inside of a
        kernel.
    correlation : array_like, optional
        Power of the noise at low spatial frequencies in units of ``variance``,
        for all exposures or for each: 1 if pixels are independent, about 1.3
        to 2 after interpolation onto the grid.  See `ExposureStack`.
    names : `~collections.abc.Sequence` [`str`], optional
        A label for each exposure, for messages.
    seed : `int`, optional
        Seed of all random numbers, instead of those of the configuration.
        The same seed, exposures and number of threads give the same result to
        the bit on the same machine.
    num_threads : `int`, optional
        CPU threads to use.
    kernel_size : `int`, optional
        Height and width of the kernels that are used, odd, pixels.  More than
        25 take longer.

    Returns
    -------
    restored : `RestoredArrays`
        The restored image, its uncertainty and its PSF, cut to the size of the
        exposures.  Arrays are `numpy.float32`, or `numpy.float64` in units in
        which the noise is below 1e-4 or above 1e4.

    Raises
    ------
    InputError
        Raised, before anything is calculated, if shapes or types do not fit
        together, kernels are none, or no exposure has a good pixel.
    RestorationError
        Raised if the training fails.
    lsst.pex.config.FieldValidationError
        Raised if the configuration is wrong.

    Notes
    -----
    Exposures without a good pixel are left out, with a warning.  Progress and
    the treatment of bad pixels are reported to the logger ``lsst`` of `logging`.
    """
    config = _make_config(method, config, seed)
    stacked = stack_arrays(
        image,
        variance,
        psf,
        mask,
        unit=str(unit),
        kernel_size=kernel_size,
        cell_size=cell_size,
        normalize_psf=normalize_psf,
        correlation=correlation,
        names=names,
        oversampling=config.superResolution,
    )
    restored = RestoreStackTask(config=config).restore(stacked.stack, n_threads=num_threads)
    return _cut(restored, stacked, config.fewExposures, str(unit))


def _make_config(
    method: str, config: RestoreStackConfig | Mapping[str, Any] | None, seed: int | None
) -> RestoreStackConfig:
    """Return a checked copy of the configuration."""
    if method not in METHODS:
        raise InputError(f"There is no method {method!r}: choose one of {', '.join(METHODS)}.")
    result: Any = RestoreStackConfig()
    if (file := METHODS[method]) is not None:
        folder = importlib.resources.files(__package__).joinpath("config")
        with importlib.resources.as_file(folder.joinpath(file)) as path:
            result.load(str(path))
    if isinstance(config, RestoreStackConfig):
        if method != "astroClearNet":
            raise InputError("Give a configuration, or the name of a method; not both.")
        result = config.copy()
    elif config is not None:
        for name, value in config.items():
            *path_to, field = name.split(".")
            try:
                setattr(functools.reduce(getattr, path_to, result), field, value)
            except AttributeError as error:
                raise InputError(f"The configuration has no field {name!r}: {error}") from error
    if seed is not None:
        result.seed = seed
    result.validate()
    return result


def _cut(restored: RestoredStack, stacked: StackedArrays, few_exposures: int, unit: str) -> RestoredArrays:
    """Cut results to the shape of the exposures, in their unit."""
    stack, reference, measurable = restored.stack, restored.reference, restored.measurable
    characterization, restoration = restored.characterization, restored.restoration
    _, height, width = stacked.shape
    factor = stack.oversampling
    patch = slice(height), slice(width)
    fine = slice(height * factor), slice(width * factor)
    flags = flag_pixels(restored, few_exposures=few_exposures)
    fine_flags = flags.refined(factor)

    def rescaled(plane: np.ndarray, power: int = 1) -> np.ndarray:
        return plane if stacked.scale == 1.0 else plane / np.float64(stacked.scale) ** power

    shown = typical_exposure(stack)
    clipped = np.zeros(stacked.shape, bool)
    clipped[stacked.used] = reference.clipped[:, :height, :width]
    cells = stack.cell_shape
    return RestoredArrays(
        image=rescaled(fine_flags.blank(restoration.image)[fine]),
        variance=rescaled(fine_flags.blank(characterization.variance)[fine], 2),
        psf=characterization.kernels,
        cell_shape=(cells[0] * factor, cells[1] * factor),
        no_data=fine_flags.no_data[fine],
        few_exposures=fine_flags.few_exposures[fine],
        inconsistent=fine_flags.inconsistent[fine],
        measurable=ImageWithPsf(
            image=rescaled(flags.blank(measurable.image)[patch]),
            variance=rescaled(flags.blank(measurable.variance)[patch], 2),
            psf=measurable.kernels,
            cell_shape=cells,
        ),
        inexact_psf=flags.inexact_psf[patch],
        reference=ImageWithPsf(
            image=rescaled(reference.image[patch]),
            variance=rescaled(reference.variance[patch], 2),
            psf=reference.kernels,
            cell_shape=cells,
        ),
        clipped=clipped,
        history=restoration.history,
        loss=restoration.loss,
        converged=restoration.converged,
        used=stacked.used,
        exposure=rescaled(np.where(stack.good[shown], stack.image[shown], np.float32(np.nan))[patch]),
        unit=unit,
    )
