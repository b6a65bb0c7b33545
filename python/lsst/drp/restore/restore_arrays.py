# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restoration of one's own arrays: NumPy in, NumPy out, no Butler."""

from __future__ import annotations

__all__ = ("ImageWithPsf", "RestoredArrays", "restore", "stack_arrays")

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import lsst.pipe.base as pipeBase

from .errors import InputError
from .outputs.coadds import MIN_COVERAGE
from .restore_coadd import RestoreCoaddConfig, RestoreCoaddTask
from .stack.exposure_stack import ExposureStack
from .stack.oversampling import split_pixels
from .stack.reference_coadd import constrained_pixels

if TYPE_CHECKING:
    import astropy.table
    import numpy.typing as npt

_LOG = logging.getLogger(__name__)

# Noise per pixel, in the user's unit, between which 32-bit floats hold fluxes, variances and all that is
# calculated from them.  Below and above, the restoration has a unit of its own.
_SMALLEST_SIGMA, _LARGEST_SIGMA = 1e-4, 1e4

# Sums that a kernel may have: it is the fraction of the flux inside, give or take rounding errors.
_KERNEL_SUMS = 0.5, 1.01

# Offset of a kernel from its middle, pixels, that is worth a message.
_KERNEL_OFFSET = 0.5


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ImageWithPsf:
    """An image with its variance and its PSF.

    Parameters
    ----------
    image : `numpy.ndarray`
        Flux per pixel of this image, in the unit of the exposures, shape
        ``(height, width)``; NaN where no exposure says anything about it.
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
    """What `restore` returns: the restored image, to look at, with its
    variance and effective PSF, and the two images below.

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
        The image to measure on: linear in the exposures, with unbiased fluxes,
        white noise and a PSF that is known, on the exposures' pixels.
    inexact_psf : `numpy.ndarray`
        `bool`, shape of ``measurable.image``: `True` where so many pixels are
        missing that light which the restored image lacks has another PSF than
        stated.
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


def restore(
    image: npt.ArrayLike,
    variance: npt.ArrayLike,
    mask: npt.ArrayLike | None,
    psf: npt.ArrayLike,
    *,
    config: RestoreCoaddConfig | Mapping[str, Any] | None = None,
    cell_size: int | None = None,
    normalize_psf: bool = False,
    correlation: npt.ArrayLike = 1.0,
    names: Sequence[str] | None = None,
    seed: int | None = None,
    num_threads: int = 1,
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
    mask : array_like or `None`
        Same shape, `bool`: `True` where a pixel is **bad** (cosmic ray,
        saturated, dead, outside of the detector).  `None` if there are none
        but those above.
    psf : array_like
        PSF kernels, shape ``(n, k, k)``: images of a point source in the
        middle of the middle pixel, ``k`` odd and at most 25
        (``config.buildStack.kernelSize``); or ``(n, cells_y, cells_x, k, k)``
        where the PSF varies over the field, which is then divided into so
        many cells.  A kernel's sum is the fraction of the flux inside of it:
        sums outside of 0.5 to 1.01 are refused, as nobody could tell what
        fluxes would mean, unless ``normalize_psf`` is set.  Smaller kernels
        are padded with zeros.  A kernel of nothing but zeros or NaN says that
        the exposure has no PSF in the cell: its pixels there are bad.
    config : `RestoreCoaddConfig` or `~collections.abc.Mapping`, optional
        The configuration; or the values of some of its fields by name, as
        ``{"targetFwhm": 2.5}``.  What has to do with the Butler, with
        warps and with patch geometries has no effect.
    cell_size : `int`, optional
        Height and width of a cell, pixels: PSFs, weights and what is stated
        about the results are constant in a cell.  By default cells are the
        largest that divide the field evenly, up to ``config.cellSize`` (150),
        or those of ``psf``.
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

    Returns
    -------
    restored : `RestoredArrays`
        The restored image and what is known about it, cut to the size of the
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
    what is done about bad pixels go to the logger ``lsst`` of `logging`;
    messages call the unit nJy, whatever it is.
    """
    config = _make_config(config, seed)
    stack, used, scale = stack_arrays(
        image,
        variance,
        mask,
        psf,
        kernel_size=config.buildStack.value.kernelSize,
        max_cell_size=config.cellSize,
        cell_size=cell_size,
        normalize_psf=normalize_psf,
        correlation=correlation,
        names=names,
    )
    n, height, width = np.shape(image)
    stack = dataclasses.replace(stack, oversampling=config.superResolution)
    result = RestoreCoaddTask(config=config).restore(stack, n_threads=num_threads)
    return _cut(result, stack, config.fewExposures, (n, height, width), used, scale)


def stack_arrays(
    image: npt.ArrayLike,
    variance: npt.ArrayLike,
    mask: npt.ArrayLike | None,
    psf: npt.ArrayLike,
    *,
    kernel_size: int = 25,
    max_cell_size: int = 150,
    cell_size: int | None = None,
    normalize_psf: bool = False,
    correlation: npt.ArrayLike = 1.0,
    names: Sequence[str] | None = None,
) -> tuple[ExposureStack, np.ndarray, float]:
    """Check arrays and make a stack of them.

    Parameters
    ----------
    image, variance, mask, psf, cell_size, normalize_psf, correlation, names
        See `restore`.
    kernel_size : `int`, optional
        Height and width of the stack's kernels, odd, pixels.
    max_cell_size : `int`, optional
        Largest height and width of a cell if ``cell_size`` is not given,
        pixels.

    Returns
    -------
    stack : `ExposureStack`
        Copies of the arrays, filled up with bad pixels to whole cells.
    used : `numpy.ndarray`
        Indices of the exposures in it: those with a good pixel.
    scale : `float`
        The user's unit in units of the stack's, a power of two.

    Raises
    ------
    InputError
        Raised if the arrays do not fit together, or nothing is left.
    """
    image, variance = _numbers(image, "image"), _numbers(variance, "variance")
    if image.ndim != 3:
        raise InputError(
            f"The exposures have shape {image.shape}; expected (n, height, width)"
            + (": image[np.newaxis] makes a single one such a stack." if image.ndim == 2 else ".")
        )
    n, height, width = image.shape
    if not n:
        raise InputError("There are no exposures: the first axis of 'image' is empty.")
    if min(height, width) < kernel_size:
        raise InputError(
            f"The exposures have {height}x{width} pixels, and must not be smaller than a PSF kernel, "
            f"{kernel_size}x{kernel_size}."
        )
    if variance.shape != image.shape:
        raise InputError(
            f"'variance' has shape {variance.shape} and 'image' {image.shape}. "
            "np.broadcast_to(variance, image.shape) makes one value serve many pixels."
        )
    bad = _bool_mask(mask, image.shape)
    labels = _labels(names, n)
    kernels = _kernels(_numbers(psf, "psf"), labels, kernel_size, normalize_psf)
    power = _numbers(correlation, "correlation")
    if power.shape not in ((), (n,)) or not (np.isfinite(power) & (power > 0)).all():
        raise InputError(f"'correlation' must be a positive number, or one for each of {n} exposures.")

    cells, cell_shape = _choose_cells((height, width), kernels.shape[1:3], cell_size, max_cell_size)
    shape = (n, cells[0] * cell_shape[0], cells[1] * cell_shape[1])
    kernels = np.broadcast_to(kernels, (n, *cells, kernel_size, kernel_size))
    good = np.zeros(shape, bool)
    used = []
    for t, label in enumerate(labels):
        has_kernel = kernels[t].any(axis=(2, 3))
        good[t, :height, :width] = _good_pixels(image[t], variance[t], bad[t], label)
        good[t].reshape(cells[0], cell_shape[0], cells[1], cell_shape[1])[:] &= has_kernel[:, None, :, None]
        if good[t].any():
            used.append(t)
        else:
            _LOG.warning("%s has no good pixel where it has a PSF: it is left out.", label)
    if not used:
        raise InputError(
            "No exposure has a good pixel: all are masked (in 'mask', True is a bad pixel), not finite, "
            f"without positive variance, or without PSF: {', '.join(labels)}."
        )
    if len(used) < n:
        good = good[used]

    # What was masked is not good.
    image, variance = np.ma.getdata(image), np.ma.getdata(variance)
    scale = _scale(variance, good, used)
    planes = np.zeros(good.shape, np.float32)
    variances = np.full(good.shape, np.inf, np.float32)
    for plane, level, pixels, t in zip(planes, variances, good, used, strict=True):
        inside = pixels[:height, :width]
        plane[pixels] = image[t][inside].astype(np.float64) * scale
        level[pixels] = variance[t][inside].astype(np.float64) * scale**2
    stack = ExposureStack(
        image=planes,
        variance=variances,
        good=good,
        kernels=np.array(kernels[used], np.float32),
        correlation=np.broadcast_to(power, (*cells, n)).T[used].swapaxes(1, 2).astype(np.float32),
        cell_shape=cell_shape,
        names=tuple(labels[t] for t in used),
    )
    return stack, np.array(used), scale


def _make_config(
    config: RestoreCoaddConfig | Mapping[str, Any] | None, seed: int | None
) -> RestoreCoaddConfig:
    """Return a checked configuration that is nobody else's."""
    result: Any = config.copy() if isinstance(config, RestoreCoaddConfig) else RestoreCoaddConfig()
    if isinstance(config, Mapping):
        for name, value in config.items():
            *path, field = name.split(".")
            try:
                setattr(functools.reduce(getattr, path, result), field, value)
            except AttributeError as error:
                raise InputError(f"The configuration has no field {name!r}: {error}") from error
    if seed is not None:
        for subtask in (result.restorer, result.measurable, result.characterize):
            # ImageMM has nothing random.
            if hasattr(subtask, "seed"):
                subtask.seed = seed
    result.validate()
    return result


def _numbers(array: npt.ArrayLike, name: str) -> np.ndarray:
    """Return an array of real numbers."""
    result = np.asanyarray(array)
    if not (np.issubdtype(result.dtype, np.floating) or np.issubdtype(result.dtype, np.integer)):
        raise InputError(f"'{name}' must be an array of real numbers, not of {result.dtype}.")
    return result


def _bool_mask(mask: npt.ArrayLike | None, shape: tuple[int, ...]) -> np.ndarray:
    """Return the mask of bad pixels."""
    if mask is None:
        return np.broadcast_to(np.False_, shape)
    result = np.asarray(mask)
    if result.dtype != bool:
        raise InputError(
            f"'mask' must be bool (True: a bad pixel), not {result.dtype}. Of a bit mask, choose the bits: "
            "(mask & bits) != 0."
        )
    if result.shape != shape:
        raise InputError(f"'mask' has shape {result.shape} and 'image' {shape}.")
    return result


def _labels(names: Sequence[str] | None, n: int) -> tuple[str, ...]:
    """Return a label for each exposure."""
    if names is None:
        return tuple(f"exposure {t}" for t in range(n))
    if isinstance(names, str) or len(names) != n:
        raise InputError(f"'names' must be a label for each of {n} exposures.")
    return tuple(map(str, names))


def _good_pixels(image: np.ndarray, variance: np.ndarray, bad: np.ndarray, label: str) -> np.ndarray:
    """Tell which pixels of an exposure can be used; log what of the others the
    mask does not show.
    """
    masked = bad | np.ma.getmaskarray(image) | np.ma.getmaskarray(variance)
    image, variance = np.ma.getdata(image), np.ma.getdata(variance)
    known = np.isfinite(image)
    certain = np.isfinite(variance) & (variance > 0)
    for name, pixels in (
        ("are not finite", ~known & ~masked),
        ("have a variance that is not finite or not positive", ~certain & ~masked),
    ):
        if count := np.count_nonzero(pixels):
            _LOG.info("%s: %d pixels %s. They count as bad.", label, count, name)
    good = ~masked & known & certain
    if 0 < np.count_nonzero(good) < good.size / 2:
        _LOG.warning("%s has only %.0f%% good pixels (in 'mask', True is bad).", label, 100 * good.mean())
    return good


def _kernels(psf: np.ndarray, labels: tuple[str, ...], size: int, normalize: bool) -> np.ndarray:
    """Check PSF kernels and pad them; return shape ``(n, cells_y, cells_x,
    size, size)``.
    """
    if psf.ndim == 3:
        psf = psf[:, np.newaxis, np.newaxis]
    n, k = len(labels), psf.shape[-1]
    if psf.ndim != 5 or psf.shape[0] != n or psf.shape[3] != k or not psf.size:
        raise InputError(
            f"'psf' has shape {psf.shape}; expected ({n}, k, k), or ({n}, cells_y, cells_x, k, k) for a PSF "
            "that varies over the field."
        )
    if k % 2 == 0:
        raise InputError(
            f"PSF kernels of {k}x{k} pixels have no middle pixel. Draw them at an odd size, with the source "
            "in the middle of the middle pixel: a row and a column more or less would shift every source by "
            "half a pixel."
        )
    if k > size:
        raise InputError(
            f"PSF kernels of {k}x{k} pixels are larger than {size}x{size}. Cut their middle out, "
            f"psf[..., {(k - size) // 2}:{(k + size) // 2}, {(k - size) // 2}:{(k + size) // 2}], and leave "
            "their sum as it then is (the flux inside); or set the configuration's buildStack.kernelSize to "
            f"{k}: time grows with it."
        )
    psf = np.ma.filled(psf.astype(np.float64), np.nan)
    # Neither zeros nor NaN are a PSF.
    missing = ~np.nan_to_num(psf, nan=0.0).any(axis=(3, 4))
    psf[missing] = 0.0
    for t, i, j in np.argwhere(~missing):
        where = labels[t] if psf.shape[1:3] == (1, 1) else f"{labels[t]}, cell ({i}, {j})"
        psf[t, i, j] = _check_kernel(psf[t, i, j], where, normalize)
    for t in np.flatnonzero(~missing.all(axis=(1, 2))):
        offset = np.hypot(*_centroid(psf[t].sum(axis=(0, 1))))
        if offset > _KERNEL_OFFSET:
            _LOG.warning(
                "%s: the PSF is %.1f pixels off the middle of its kernel; so are the restored sources.",
                labels[t],
                offset,
            )
    border = (size - k) // 2
    return np.pad(psf, ((0, 0),) * 3 + ((border, border),) * 2)


def _check_kernel(kernel: np.ndarray, where: str, normalize: bool) -> np.ndarray:
    """Return a kernel as it is used."""
    if not np.isfinite(kernel).all():
        raise InputError(f"{where}: the PSF kernel has pixels that are not finite.")
    total = kernel.sum()
    if normalize and total > 0.0:
        kernel = kernel / total
    elif not _KERNEL_SUMS[0] <= total <= _KERNEL_SUMS[1]:
        raise InputError(
            f"{where}: the PSF kernel has a sum of {total:.4g}. It must be the fraction of a source's flux "
            "that falls inside, at most 1: divide the kernel by the flux of the source that it is an image "
            "of, or set normalize_psf=True to divide by the sum."
        )
    quarter = len(kernel) // 4
    middle = kernel[quarter : len(kernel) - quarter, quarter : len(kernel) - quarter]
    if middle.mean() < kernel.mean():
        raise InputError(
            f"{where}: the PSF kernel is darker in its middle than at its edge. Is it ordered for a Fourier "
            "transform (np.fft.fftshift undoes that), or not centered?"
        )
    return kernel


def _centroid(kernel: np.ndarray) -> tuple[float, float]:
    """Return the centroid of a kernel's bright pixels relative to its middle,
    y and x, pixels.
    """
    bright = np.where(kernel > 0.1 * kernel.max(), kernel, 0.0)
    offset = np.arange(len(kernel)) - len(kernel) // 2
    total = bright.sum()
    return float(bright.sum(axis=1) @ offset / total), float(bright.sum(axis=0) @ offset / total)


def _choose_cells(
    shape: tuple[int, int], given: tuple[int, ...], cell_size: int | None, max_cell_size: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the number of cells along y and x and their height and width;
    ``given`` is the number of them that the kernels have.
    """
    if cell_size is not None and (cell_size != int(cell_size) or cell_size < 1):
        raise InputError(f"'cell_size' must be a positive number of pixels, not {cell_size}.")
    number, sizes = [], []
    varies = given != (1, 1)
    for extent, cells in zip(shape, given, strict=True):
        if cell_size is not None:
            size = int(cell_size)
            count = -(-extent // size)
        else:
            count = cells if varies else -(-extent // max_cell_size)
            # The evenest division needs the fewest pixels beyond the edge.
            size = -(-extent // count)
        if varies and (count != cells or (cells - 1) * size >= extent):
            raise InputError(
                f"The kernels have {given[0]}x{given[1]} cells, which do not cover {shape[0]}x{shape[1]} "
                + (f"pixels with cell_size={cell_size}." if cell_size else "pixels evenly: set cell_size.")
            )
        number.append(count)
        sizes.append(size)
    return (number[0], number[1]), (sizes[0], sizes[1])


def _scale(variance: np.ndarray, good: np.ndarray, used: Sequence[int]) -> float:
    """Return what to multiply pixels with: 1 in any ordinary unit, else a
    power of two, which changes no digit, that makes the noise about 1.
    """
    height, width = variance.shape[1:]
    medians = [np.median(variance[t][pixels[:height, :width]]) for t, pixels in zip(used, good, strict=True)]
    sigma = float(np.sqrt(np.median(medians)))
    if _SMALLEST_SIGMA <= sigma <= _LARGEST_SIGMA:
        return 1.0
    return float(2.0 ** -np.rint(np.log2(sigma)))


def _cut(
    result: pipeBase.Struct,
    stack: ExposureStack,
    few_exposures: int,
    shape: tuple[int, int, int],
    used: np.ndarray,
    scale: float,
) -> RestoredArrays:
    """Cut what `RestoreCoaddTask.restore` returned to the exposures' shape,
    in their unit.
    """
    n, height, width = shape
    factor = stack.oversampling
    patch = slice(height), slice(width)
    fine = slice(height * factor), slice(width * factor)
    reference, character, measurable = result.reference, result.character, result.measurable
    constrained = constrained_pixels(stack, reference)

    def planes(
        image: np.ndarray, variance: np.ndarray, known: np.ndarray, pixels: tuple[slice, slice]
    ) -> dict[str, np.ndarray]:
        nan = np.where(known, np.float32(0), np.float32(np.nan))[pixels]
        image, variance = image[pixels] + nan, variance[pixels] + nan
        if scale != 1.0:
            image, variance = image / np.float64(scale), variance / np.float64(scale) ** 2
        return {"image": image, "variance": variance}

    def flag(pixels: np.ndarray) -> np.ndarray:
        return split_pixels(pixels[patch], factor)

    clipped = np.zeros(shape, bool)
    clipped[used] = reference.clipped[:, :height, :width]
    cells = stack.cell_shape
    return RestoredArrays(
        **planes(result.restoration.image, character.variance, split_pixels(constrained, factor), fine),
        psf=character.kernels,
        cell_shape=(cells[0] * factor, cells[1] * factor),
        no_data=flag(reference.n_exposures == 0),
        few_exposures=flag(reference.n_exposures < few_exposures),
        inconsistent=flag(character.inconsistent),
        measurable=ImageWithPsf(
            **planes(measurable.image, measurable.variance, constrained, patch),
            psf=measurable.kernels,
            cell_shape=cells,
        ),
        inexact_psf=(measurable.coverage < MIN_COVERAGE)[patch],
        reference=ImageWithPsf(
            **planes(reference.image, reference.variance, reference.n_exposures > 0, patch),
            psf=reference.kernels,
            cell_shape=cells,
        ),
        clipped=clipped,
        history=result.restoration.history,
        loss=result.restoration.loss,
        converged=result.restoration.converged,
        used=used,
    )
