# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Shifts of images, and point sources, by fractions of a pixel.

There are two interpolations.  Well-sampled images (PSFs, restored sources) are
shifted by the phases of their Fourier transforms, which is exact: `shift`,
`kernel_phases` and, for an image and its derivatives, `phase_ramp`.  A point is
not well sampled; it is drawn as a Lanczos kernel, a sinc in a sinc window,
which is compact: `point_stamp` and `point_image`.  `shift_matrix` has the same
weights as `point_image`, so that a star that is fitted by it can be drawn as
such a point, and is a matrix, so that its adjoint is known.

The weights of `lanczos` are normalized in two ways.  `point_stamp` divides by
their sum in the stamp.  `point_image` and `shift_matrix` divide by the sum over
the whole window, so that what leaves the image does not change the rest.
Pixels of exposures are resampled with a window of 3 lobes (`warping.lanczos`),
which spreads a cosmic ray and an edge over fewer pixels; points have 5, since
they are to be convolved with a PSF and nothing else.
"""

from __future__ import annotations

__all__ = ("kernel_phases", "lanczos", "phase_ramp", "point_image", "point_stamp", "shift", "shift_matrix")

import numpy as np
import scipy.fft

# Lobes of the windowed sinc that a point is drawn as.
_LOBES = 5


def lanczos(distance: np.ndarray, lobes: int) -> np.ndarray:
    """Evaluate the Lanczos kernel.

    Parameters
    ----------
    distance : `numpy.ndarray`
        Distance from its center, pixels.
    lobes : `int`
        Half width of its window, pixels.

    Returns
    -------
    weight : `numpy.ndarray`
        ``sinc(d) sinc(d / lobes)`` inside of the window, else zero; same
        shape.
    """
    return np.where(np.abs(distance) < lobes, np.sinc(distance) * np.sinc(distance / lobes), 0.0)


def phase_ramp(dy: np.ndarray, dx: np.ndarray, grid: int) -> np.ndarray:
    """Compute the factors on a Fourier transform that shift its image.

    Parameters
    ----------
    dy, dx : `numpy.ndarray`
        Shifts towards larger indices, pixels, shape ``(n,)``.
    grid : `int`
        Height and width of the image.

    Returns
    -------
    ramp : `numpy.ndarray`
        Factors on the result of `scipy.fft.rfft2`, shape ``(n, grid, grid // 2
        + 1)``.
    """
    dy, dx = (np.asarray(offset)[:, np.newaxis, np.newaxis] for offset in (dy, dx))
    fy, fx = scipy.fft.fftfreq(grid)[:, np.newaxis], scipy.fft.rfftfreq(grid)
    return np.exp(-2j * np.pi * (dy * fy + dx * fx))


def shift(stamps: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Shift well-sampled images.

    Parameters
    ----------
    stamps : `numpy.ndarray`
        Images, zero outside of the stamp, shape ``(n, k, k)``.
    offsets : `numpy.ndarray`
        Shifts in y and x towards larger indices, pixels, at most a quarter of
        the stamp, shape ``(n, 2)``.

    Returns
    -------
    shifted : `numpy.ndarray`
        Same shape.
    """
    size, grid = stamps.shape[-1], _grid(stamps.shape[-1])
    transfer = scipy.fft.rfft2(stamps, s=(grid, grid)) * phase_ramp(offsets[:, 0], offsets[:, 1], grid)
    return scipy.fft.irfft2(transfer, s=(grid, grid))[:, :size, :size]


def kernel_phases(kernels: np.ndarray, factor: int) -> np.ndarray:
    """Draw PSF kernels for point sources off the middle of a pixel.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        Kernels for sources in the middle of a pixel, shape ``(..., k, k)``.
        They are images of point sources, averages over pixels included, and
        well sampled.
    factor : `int`
        Parts that a pixel is divided into along each axis.

    Returns
    -------
    phases : `numpy.ndarray`
        The kernels for sources in the middle of each of the parts, shape
        ``(..., factor**2, k, k)``, rows of parts first, same type.

    Notes
    -----
    The kernels for all parts of a pixel are the kernel on the finer grid,
    sorted: an image on that grid, convolved with it and averaged over pixels,
    is the sum over the parts of each part's image convolved with its own
    kernel.  Unlike in `shift`, all kernels get the same offsets, which are a
    grid, and there are thousands: their phases are products of two of one
    axis, in single precision.
    """
    size, grid = kernels.shape[-1], _grid(kernels.shape[-1])
    offset = (np.arange(factor) - (factor - 1) / 2) / factor
    down = np.exp(-2j * np.pi * offset[:, np.newaxis] * scipy.fft.fftfreq(grid))
    right = np.exp(-2j * np.pi * offset[:, np.newaxis] * scipy.fft.rfftfreq(grid))
    phase = down[:, np.newaxis, :, np.newaxis] * right[:, np.newaxis, :]
    transfer = scipy.fft.rfft2(kernels.astype(np.float32), s=(grid, grid))
    result = np.empty((*kernels.shape[:-2], factor**2, size, size), kernels.dtype)
    for part, ramp in enumerate(phase.reshape(factor**2, grid, -1).astype(np.complex64)):
        shifted = scipy.fft.irfft2(transfer * ramp, s=(grid, grid))
        result[..., part, :, :] = shifted[..., :size, :size]
    return result


def _grid(size: int) -> int:
    """Return the size of a grid that half a stamp does not wrap around on."""
    return scipy.fft.next_fast_len(size + size // 2, real=True)


def shift_matrix(offset: np.ndarray, size: int) -> np.ndarray:
    """Return the matrices that shift images along one axis.

    Parameters
    ----------
    offset : `numpy.ndarray`
        Shifts towards larger indices, pixels, any shape.
    size : `int`
        Length of the axis.

    Returns
    -------
    matrices : `numpy.ndarray`
        Shape ``offset.shape + (size, size)``: an image's rows are shifted by
        multiplication from the left.  Interpolation is by a Lanczos kernel of
        5 lobes; the image is zero outside.
    """
    offset = np.asarray(offset, np.float64)[..., np.newaxis]
    # The weight of input pixel j in output pixel i depends on i - j only.
    weight = lanczos(np.arange(1 - size, size) - offset, _LOBES) / _window_sum(offset)
    index = np.arange(size)
    return weight[..., index[:, np.newaxis] - index + size - 1]


def point_image(y: np.ndarray, x: np.ndarray, flux: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Draw points between pixels: their convolution with a PSF kernel is the
    image of stars.

    Parameters
    ----------
    y, x : `numpy.ndarray`
        Positions, pixels of the image, shape ``(s,)``.
    flux : `numpy.ndarray`
        Fluxes, shape ``(s,)``.
    shape : `tuple` [`int`, `int`]
        Height and width of the image.

    Returns
    -------
    image : `numpy.ndarray`
        `numpy.float32`, of that shape.  A point extends over 5 pixels on each
        side and has the negative lobes of band-limited interpolation.
    """
    image = np.zeros(shape, np.float64)
    reach = np.arange(-_LOBES, _LOBES + 1)
    for row, column, total in zip(y, x, flux, strict=True):
        rows, columns = round(float(row)) + reach, round(float(column)) + reach
        in_y = lanczos(rows - row, _LOBES) / _window_sum(np.asarray(row))
        in_x = lanczos(columns - column, _LOBES) / _window_sum(np.asarray(column))
        inside_y, inside_x = (rows >= 0) & (rows < shape[0]), (columns >= 0) & (columns < shape[1])
        stamp = total * np.outer(in_y[inside_y], in_x[inside_x])
        image[np.ix_(rows[inside_y], columns[inside_x])] += stamp
    return image.astype(np.float32)


def _window_sum(offset: np.ndarray) -> np.ndarray:
    """Return the sum of the interpolation weights, nearly 1."""
    fraction = np.asarray(offset, np.float64)[..., np.newaxis] % 1.0
    return lanczos(np.arange(-_LOBES, _LOBES + 2) - fraction, _LOBES).sum(axis=-1)


def point_stamp(offset: np.ndarray, size: int) -> np.ndarray:
    """Draw a point source near the middle of a stamp.

    Parameters
    ----------
    offset : `numpy.ndarray`
        Its distance from the middle in y and x, pixels, shape ``(2,)``.
    size : `int`
        Height and width of the stamp, odd, pixels.

    Returns
    -------
    stamp : `numpy.ndarray`
        Lanczos kernel of 5 lobes with sum 1, shape ``(size, size)``: its
        convolution with a well-sampled PSF is that PSF, shifted.
    """
    distance = np.arange(size) - size // 2 - np.asarray(offset)[:, np.newaxis]
    taps = lanczos(distance, _LOBES)
    taps /= taps.sum(axis=1, keepdims=True)
    return np.outer(taps[0], taps[1])
