# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""From arrays to a stack of exposures: checks, padding, cells."""

from __future__ import annotations

__all__ = ("StackedArrays", "stack_arrays")

import dataclasses
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .exposure_stack import ExposureStack

if TYPE_CHECKING:
    import numpy.typing as npt

_LOG = logging.getLogger(__name__)

# Noise per pixel, in the user's unit, between which 32-bit floats hold fluxes, variances and all that is
# calculated from them.  Below and above, the restoration has a unit of its own.
_SMALLEST_SIGMA, _LARGEST_SIGMA = 1e-4, 1e4

# Sums that a kernel may have: it is the fraction of the flux inside, give or take rounding errors.
_KERNEL_SUMS = 0.5, 1.01

# Offset of a kernel from its middle, pixels, that is reported.
_KERNEL_OFFSET = 0.5


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StackedArrays:
    """A stack of exposures that were arrays.

    Parameters
    ----------
    stack : `ExposureStack`
        Copies of the arrays, filled up with bad pixels to whole cells.
    used : `numpy.ndarray`
        Indices of the exposures in it: those with a good pixel.
    scale : `float`
        The unit of the arrays in units of the stack's, a power of two.
    shape : `tuple` [`int`, `int`, `int`]
        Shape of the arrays, ``(n, height, width)``.
    """

    stack: ExposureStack
    used: np.ndarray
    scale: float
    shape: tuple[int, int, int]


def stack_arrays(
    image: npt.ArrayLike,
    variance: npt.ArrayLike,
    psf: npt.ArrayLike,
    mask: npt.ArrayLike | None = None,
    *,
    unit: str = "nJy",
    kernel_size: int = 25,
    max_cell_size: int = 150,
    cell_size: int | None = None,
    normalize_psf: bool = False,
    correlation: npt.ArrayLike = 1.0,
    names: Sequence[str] | None = None,
    oversampling: int = 1,
) -> StackedArrays:
    """Check arrays and make a stack of them.

    Parameters
    ----------
    image, variance, psf, mask, cell_size, normalize_psf, correlation, names
        See `~lsst.drp.restore.restore`.
    unit : `str`, optional
        Name of the unit of ``image``, for messages.
    kernel_size : `int`, optional
        Height and width of the stack's kernels, odd, pixels.
    max_cell_size : `int`, optional
        Largest height and width of a cell if ``cell_size`` is not given,
        pixels.
    oversampling : `int`, optional
        Pixels of the latent image along each axis in a pixel of the exposures.

    Returns
    -------
    stacked : `StackedArrays`
        The stack.

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

    # Masked elements are not good.
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
        oversampling=oversampling,
        unit=unit if scale == 1.0 else f"{1.0 / scale:.4g} {unit}",
    )
    return StackedArrays(stack=stack, used=np.array(used), scale=scale, shape=(n, height, width))


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
    """Tell which pixels of an exposure can be used; log the bad ones that
    the mask does not have.
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
            f"their sum as it then is (the flux inside); or set kernel_size={k}: time grows with it."
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
    """Return the factor on pixels: 1 in any ordinary unit, else a
    power of two, which changes no digit, that makes the noise about 1.
    """
    height, width = variance.shape[1:]
    medians = [np.median(variance[t][pixels[:height, :width]]) for t, pixels in zip(used, good, strict=True)]
    sigma = float(np.sqrt(np.median(medians)))
    if _SMALLEST_SIGMA <= sigma <= _LARGEST_SIGMA:
        return 1.0
    return float(2.0 ** -np.rint(np.log2(sigma)))
