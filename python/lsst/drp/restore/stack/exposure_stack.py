# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The plain arrays that every numerical step of the restoration works on."""

from __future__ import annotations

__all__ = ("ExposureStack", "expand_cells")

import dataclasses
from collections.abc import Iterator

import numpy as np

from . import memory_map

# Good pixels from which the median sigma is taken at most.
_MEDIAN_PIXELS = 2**22


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ExposureStack:
    """Co-registered exposures of one patch: ``y``, ``v``, ``m`` and ``f`` of
    the papers (model of equation 1).

    Parameters
    ----------
    image : `numpy.ndarray`
        Sky-subtracted pixels ``y`` on the patch grid, nJy, shape ``(n, height,
        width)``, `numpy.float32`.  Any finite value where a pixel is not
        good: see `masked_image`.
    variance : `numpy.ndarray`
        Variance ``v`` of ``image``, nJy**2, same shape, `numpy.float32`.
        Any positive value where a pixel is not good: see `masked_variance`.
    good : `numpy.ndarray`
        The papers' mask ``m``, same shape, `bool`: `True` where the pixel is a
        valid measurement and its cell has a PSF kernel.
    kernels : `numpy.ndarray`
        PSF kernels ``f`` by exposure and cell, shape ``(n, cells_y, cells_x,
        k, k)`` with ``k`` odd, `numpy.float32`, centered on the middle pixel
        and normalized to the total flux of the PSF model: a kernel's sum is
        the fraction of the flux that falls inside of it.  Zero in cells where
        the exposure has none.
    correlation : `numpy.ndarray`
        Power of the noise at low spatial frequencies in units of ``variance``,
        by exposure and cell, positive, `numpy.float32`, shape ``(n, cells_y,
        cells_x)``: 1 where pixels are independent, and about 1.3 to 2 after
        interpolation, which takes noise from single pixels but not from
        fluxes.  ``variance`` times this is the variance of independent pixels
        that have the same effect on anything as wide as a PSF.  1 where the
        exposure has no good pixel in a cell.
    cell_shape : `tuple` [`int`, `int`]
        Height and width of a cell, pixels.  Cell ``(0, 0)`` starts at pixel
        ``(0, 0)`` and the cells cover the patch exactly.
    names : `tuple` [`str`, ...]
        One label per exposure, for messages.
    oversampling : `int`, optional
        Pixels of the latent image along each axis in a pixel of the exposures.
    unit : `str`, optional
        Name of the unit of ``image``, for messages; all documentation says
        nJy.

    Raises
    ------
    ValueError
        Raised if the shapes do not fit together, or a correlation is not
        positive.
    """

    image: np.ndarray
    variance: np.ndarray
    good: np.ndarray
    kernels: np.ndarray
    correlation: np.ndarray
    cell_shape: tuple[int, int]
    names: tuple[str, ...]
    oversampling: int = 1
    unit: str = "nJy"

    def __post_init__(self) -> None:
        n, height, width = self.image.shape
        if self.variance.shape != self.image.shape or self.good.shape != self.image.shape:
            raise ValueError(
                f"Image, variance and good-pixel mask differ in shape: {self.image.shape}, "
                f"{self.variance.shape}, {self.good.shape}."
            )
        if height % self.cell_shape[0] or width % self.cell_shape[1]:
            raise ValueError(f"Cells of {self.cell_shape} do not tile a patch of {height}x{width} pixels.")
        grid = (n, height // self.cell_shape[0], width // self.cell_shape[1])
        if self.kernels.ndim != 5 or self.kernels.shape[:3] != grid:
            raise ValueError(f"Kernels have shape {self.kernels.shape}; expected {grid} + (k, k).")
        if self.kernels.shape[3] != self.kernels.shape[4] or self.kernels.shape[3] % 2 == 0:
            raise ValueError(f"Kernels must be square with odd size, not {self.kernels.shape[3:]}.")
        if self.correlation.shape != grid:
            raise ValueError(f"Correlations have shape {self.correlation.shape}; expected {grid}.")
        # The comparison is False for NaN.
        if not (self.correlation > 0.0).all():
            raise ValueError("Correlations must be positive.")
        if len(self.names) != n:
            raise ValueError(f"{len(self.names)} names for {n} exposures.")

    @property
    def n_exposures(self) -> int:
        """Number of exposures (`int`)."""
        return self.image.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the patch, pixels (`tuple` [`int`, `int`])."""
        return self.image.shape[1], self.image.shape[2]

    @property
    def kernel_size(self) -> int:
        """Height and width of a PSF kernel, pixels (`int`)."""
        return self.kernels.shape[-1]

    @property
    def padding(self) -> int:
        """Pixels by which the latent image is larger than the patch on each
        side (`int`): it holds flux from just outside of the field.
        """
        return self.kernel_size // 2

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Height and width of the latent image, latent pixels (`tuple`
        [`int`, `int`]).
        """
        height, width = self.shape
        return (height + 2 * self.padding) * self.oversampling, (width + 2 * self.padding) * self.oversampling

    @property
    def latent_patch(self) -> tuple[slice, slice]:
        """The pixels of a latent image that are the patch itself (`tuple`
        [`slice`, `slice`]).
        """
        (height, width), padding = self.latent_shape, self.padding * self.oversampling
        return slice(padding, height - padding), slice(padding, width - padding)

    @property
    def latent_seen(self) -> np.ndarray:
        """Which latent pixels of the patch an exposure sees (`numpy.ndarray`
        of `bool`, shape of `latent_patch`).
        """
        return expand_cells(self.good.any(axis=0), (self.oversampling, self.oversampling))

    @property
    def has_kernel(self) -> np.ndarray:
        """Whether each exposure has a kernel in each cell (`numpy.ndarray` of
        `bool`, shape ``(n, cells_y, cells_x)``).
        """
        return self.kernels.any(axis=(-2, -1))

    @property
    def median_sigma(self) -> float:
        """Median standard deviation of the good pixels, nJy (`float`): of
        every second, third or so row of large stacks.
        """
        step = 1 + self.image.size // _MEDIAN_PIXELS
        # Where no such row has a good pixel, another one has.
        for start in range(step):
            rows = slice(start, None, step)
            variance = self.variance[:, rows][self.good[:, rows]]
            if variance.size:
                return float(np.sqrt(np.median(variance)))
        return np.nan

    def noise_variance(self, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """Return the variance of independent pixels that have the same effect
        on fluxes as the exposures' correlated noise has.

        Parameters
        ----------
        rows, columns : `slice`, optional
            Pixels of the patch.

        Returns
        -------
        variance : `numpy.ndarray`
            ``variance`` times ``correlation``, nJy**2, `numpy.float32`, shape
            ``(n, height, width)`` of these pixels; zero where they are not
            good.
        """
        cell_y = np.arange(self.shape[0])[rows] // self.cell_shape[0]
        cell_x = np.arange(self.shape[1])[columns] // self.cell_shape[1]
        correlation = self.correlation[:, cell_y[:, np.newaxis], cell_x]
        variance = self.variance[:, rows, columns]
        return np.multiply(
            variance, correlation, out=np.zeros_like(variance), where=self.good[:, rows, columns]
        )

    def masked_image(
        self, rows: slice | np.ndarray = slice(None), columns: slice | np.ndarray = slice(None)
    ) -> np.ndarray:
        """Return pixels, zero where they are not good.

        Parameters
        ----------
        rows, columns : `slice` or `numpy.ndarray`, optional
            Pixels of the patch: indices along y and x.

        Returns
        -------
        image : `numpy.ndarray`
            ``image`` there, nJy, shape ``(n, height, width)``, a copy.
        """
        return np.where(self.good[:, rows, columns], self.image[:, rows, columns], np.float32(0.0))

    def masked_variance(
        self, rows: slice | np.ndarray = slice(None), columns: slice | np.ndarray = slice(None)
    ) -> np.ndarray:
        """Return the variance of pixels, infinite where they are not good, so
        that its inverse is the pixel's weight.

        Parameters
        ----------
        rows, columns : `slice` or `numpy.ndarray`, optional
            Pixels of the patch: indices along y and x.

        Returns
        -------
        variance : `numpy.ndarray`
            ``variance`` there, nJy**2, shape ``(n, height, width)``, a copy.
        """
        return np.where(self.good[:, rows, columns], self.variance[:, rows, columns], np.float32(np.inf))

    def without(self, pixels: np.ndarray) -> ExposureStack:
        """Return the same exposures without some of their pixels.

        Parameters
        ----------
        pixels : `numpy.ndarray`
            `bool`, shape ``(n, height, width)``: `True` where a pixel is not
            to be used.

        Returns
        -------
        stack : `ExposureStack`
            A stack with another mask ``good``; all other arrays are shared.
        """
        good = memory_map.empty_like(self.good)
        for t in range(self.n_exposures):
            good[t] = self.good[t] & ~pixels[t]
            memory_map.release(good, pixels)
            self.release()
        return dataclasses.replace(self, good=good)

    def cells(self) -> Iterator[tuple[int, int, slice, slice]]:
        """Iterate over the cells.

        Yields
        ------
        i, j : `int`
            Index of the cell along y and x.
        rows, columns : `slice`
            The cell's pixels in the patch.
        """
        height, width = self.cell_shape
        for i in range(self.kernels.shape[1]):
            for j in range(self.kernels.shape[2]):
                yield i, j, slice(i * height, (i + 1) * height), slice(j * width, (j + 1) * width)
            self.release()

    def planes(self) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Iterate over the exposures.

        Yields
        ------
        t : `int`
            Index of the exposure.
        image, variance, good : `numpy.ndarray`
            Its pixels, shape ``(height, width)``: image and variance as
            `masked_image` and `masked_variance` have them.
        """
        for t in range(self.n_exposures):
            good = self.good[t]
            image = np.where(good, self.image[t], np.float32(0.0))
            yield t, image, np.where(good, self.variance[t], np.float32(np.inf)), good
            self.release()

    def release(self) -> None:
        """Free the memory of pixels that are in a file."""
        memory_map.release(self.image, self.variance, self.good)


def expand_cells(values: np.ndarray, cell_shape: tuple[int, int]) -> np.ndarray:
    """Give every pixel the value of its cell.

    Parameters
    ----------
    values : `numpy.ndarray`
        Values by cell, shape ``(cells_y, cells_x)``.
    cell_shape : `tuple` [`int`, `int`]
        Height and width of a cell, pixels.

    Returns
    -------
    pixels : `numpy.ndarray`
        Shape ``(height, width)`` of the patch.
    """
    return values.repeat(cell_shape[0], axis=0).repeat(cell_shape[1], axis=1)
