# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pieces of an exposure stack as input of a network: crops to train on and
tiles to restore.
"""

from __future__ import annotations

__all__ = ("Crop", "CropSampler", "NetworkInput")

import dataclasses
from collections.abc import Iterator

import numpy as np

from ..stack.exposure_stack import ExposureStack
from ..stack.subpixel import kernel_phases

# Draws after which a crop with too few good pixels is accepted.
_MAX_DRAWS = 100

# Held-out crops at most: their mean loss is precise enough, and neither time
# nor memory of the training may grow with the patch.
_MAX_HELD_OUT = 64


@dataclasses.dataclass(frozen=True)
class Crop:
    """A rectangle of a patch.

    Parameters
    ----------
    y, x : `int`
        First row and column, pixels of the patch.
    height, width : `int`
        Size, pixels.
    """

    y: int
    x: int
    height: int
    width: int

    @property
    def pixels(self) -> tuple[slice, slice, slice]:
        """The crop in an array of shape ``(n, height, width)``."""
        return slice(None), slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


class NetworkInput:
    """The encoder's input: exposures without holes, in units of the patch's
    noise.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.
    fill : `numpy.ndarray`
        Image of the patch, nJy, shape ``(height, width)``, that replaces the
        pixels of an exposure that are not good; where it is not finite itself,
        zero, the sky's level, does.
    margin : `int`
        Pixels around its output that the encoder depends on.
    scale : `float`, optional
        Unit of the encoder's input, nJy; by default the median sigma of the
        stack's good pixels.
    other_bands : `numpy.ndarray`, optional
        Images of the same sky in other bands, in units of their own noise,
        shape ``(g, height + 2*padding, width + 2*padding)``: the last channels
        of the encoder's input, after the exposures.

    Notes
    -----
    The encoder adds up the exposures with fixed weights.  A hole left at zero
    would make the latent image fainter there by that exposure's share, so it is
    filled with the mean of the other exposures.
    """

    def __init__(
        self,
        stack: ExposureStack,
        fill: np.ndarray,
        margin: int,
        scale: float | None = None,
        other_bands: np.ndarray | None = None,
    ) -> None:
        self.stack = stack
        self.margin = margin
        self.fill = np.where(np.isfinite(fill), fill, 0.0).astype(np.float32)
        self.scale = stack.median_sigma if scale is None else scale
        shape = tuple(extent + 2 * stack.padding for extent in stack.shape)
        self.other_bands = np.empty((0, *shape), np.float32) if other_bands is None else other_bands
        if self.other_bands.shape[1:] != shape:
            raise ValueError(
                f"Images of other bands have shape {self.other_bands.shape}; expected "
                f"(g, {shape[0]}, {shape[1]})."
            )

    def context(self, crop: Crop) -> np.ndarray:
        """Cut out the encoder's input for the latent image of a crop.

        Parameters
        ----------
        crop : `Crop`
            Pixels of the exposures that the latent image has to predict.

        Returns
        -------
        exposures : `numpy.ndarray`
            In units of `scale`, and the images of other bands in their own, shape ``(height +
            2*reach, width + 2*reach, n + g)`` where ``reach`` is the stack's
            padding plus the encoder's margin.  Zero outside of the patch.
        """
        reach = self.stack.padding + self.margin
        y0, y1 = crop.y - reach, crop.y + crop.height + reach
        x0, x1 = crop.x - reach, crop.x + crop.width + reach
        # A narrow tile of the border may be outside of the patch.
        rows, cols = (
            slice(*np.clip(ends, 0, extent))
            for ends, extent in zip(((y0, y1), (x0, x1)), self.stack.shape, strict=True)
        )
        n, padding = self.stack.n_exposures, self.stack.padding
        result = np.zeros((y1 - y0, x1 - x0, n + len(self.other_bands)), dtype=np.float32)
        seen = np.where(
            self.stack.good[:, rows, cols], self.stack.image[:, rows, cols], self.fill[rows, cols]
        )
        result[rows.start - y0 : rows.stop - y0, cols.start - x0 : cols.stop - x0, :n] = np.moveaxis(
            seen / np.float32(self.scale), 0, -1
        )
        if len(self.other_bands):
            # They begin one padding before the patch does.
            rows, cols = (
                slice(*np.clip((start + padding, stop + padding), 0, extent))
                for start, stop, extent in zip((y0, x0), (y1, x1), self.other_bands.shape[1:], strict=True)
            )
            y0, x0 = y0 + padding, x0 + padding
            result[rows.start - y0 : rows.stop - y0, cols.start - x0 : cols.stop - x0, n:] = np.moveaxis(
                self.other_bands[:, rows, cols], 0, -1
            )
        return result

    def tiles(self, size: int) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Cut the latent image into tiles.

        Parameters
        ----------
        size : `int`
            Largest height and width of a tile, pixels.

        Yields
        ------
        rows, cols : `slice`
            The tile's place in the latent image, which has ``padding`` more
            pixels than the patch on each side; in pixels of the patch.
        exposures : `numpy.ndarray`
            The encoder's input for it, shape ``(1, height + 2*margin, width +
            2*margin, n)``.
        """
        padding = self.stack.padding
        height, width = (extent + 2 * padding for extent in self.stack.shape)
        for y in range(0, height, size):
            for x in range(0, width, size):
                rows, cols = slice(y, min(y + size, height)), slice(x, min(x + size, width))
                # A tile of the latent image is the latent image of a crop
                # that is smaller by the padding on each side.
                crop = Crop(y, x, rows.stop - y - 2 * padding, cols.stop - x - 2 * padding)
                yield rows, cols, self.context(crop)[None]
            self.stack.release()


class CropSampler:
    """Draws the crops that the network is trained and validated on.

    Parameters
    ----------
    field : `NetworkInput`
        The exposures to cut from.
    crop_shape : `tuple` [`int`, `int`]
        Height and width of a crop, pixels; the patch's own for whole-field
        epochs, in which every cell keeps its kernels.
    batch_size : `int`
        Crops in a batch.
    validation_fraction : `float`
        Fraction of the patch's area that is held out of the training crops, 64
        crops at most.
    min_good_fraction : `float`
        Crops with a smaller fraction of good pixels are drawn again.
    seed : `int`
        Seed of all draws.

    Raises
    ------
    ValueError
        Raised if the crops are larger than the patch, or no place for
        training is left next to the held-out crops.
    """

    def __init__(
        self,
        field: NetworkInput,
        *,
        crop_shape: tuple[int, int],
        batch_size: int,
        validation_fraction: float,
        min_good_fraction: float,
        seed: int,
    ) -> None:
        height, width = field.stack.shape
        if crop_shape[0] > height or crop_shape[1] > width:
            raise ValueError(f"Crops of {crop_shape} pixels do not fit into a patch of {height}x{width}.")
        self._field = field
        self._crop_shape = crop_shape
        self._whole_field = crop_shape == field.stack.shape
        self._batch_size = batch_size
        self._min_good_fraction = min_good_fraction
        self._rng = np.random.default_rng(seed)
        self.validation_crops = self._hold_out(validation_fraction)
        self._allowed = self._allowed_origins()
        if not self._allowed.any():
            raise ValueError(
                f"No crop of {crop_shape} pixels fits next to the {len(self.validation_crops)} held-out "
                "ones; make the crops or the held-out fraction smaller."
            )

    @property
    def kernels_shape(self) -> tuple[int, ...]:
        """Shape of a crop's kernels (`tuple` [`int`, ...]); see `batch`."""
        stack = self._field.stack
        grid = stack.kernels.shape[1:3] if self._whole_field else (1, 1)
        parts = (stack.oversampling**2,) if stack.oversampling > 1 else ()
        return (*grid, stack.n_exposures, *parts, stack.kernel_size, stack.kernel_size)

    @property
    def context_shape(self) -> tuple[int, int]:
        """Height and width of the encoder's input (`tuple` [`int`, `int`])."""
        reach = 2 * (self._field.stack.padding + self._field.margin)
        return self._crop_shape[0] + reach, self._crop_shape[1] + reach

    @property
    def pixels_per_step(self) -> int:
        """Exposure pixels in a training batch (`int`)."""
        return self._batch_size * self._field.stack.n_exposures * self._crop_shape[0] * self._crop_shape[1]

    def draw(self) -> Crop:
        """Draw a training crop.

        Returns
        -------
        crop : `Crop`
            A crop that overlaps no held-out one.
        """
        height, width = self._crop_shape
        for _ in range(_MAX_DRAWS):
            while True:
                y, x = (int(self._rng.integers(extent)) for extent in self._allowed.shape)
                if self._allowed[y, x]:
                    break
            crop = Crop(y, x, height, width)
            if self._field.stack.good[crop.pixels].mean() >= self._min_good_fraction:
                break
        return crop

    def batch(self, crops: list[Crop]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Cut crops out of the stack.

        Parameters
        ----------
        crops : `list` [`Crop`]
            Crops of the sampler's shape.

        Returns
        -------
        inputs : `dict` [`str`, `numpy.ndarray`]
            ``exposures`` ``(b, context_y, context_x, n)`` in units of the
            patch's median sigma; ``kernels`` ``(b, cells_y, cells_x, n, k,
            k)``, or ``(b, cells_y, cells_x, n, r**2, k, k)`` with ``r``
            latent pixels in a pixel; ``inverse_sigma`` ``(b, n, height, width)``, the patch's
            median sigma over each pixel's own, zero where not good.
        target : `numpy.ndarray`
            ``y / sigma`` of equation 4, shape ``(b, n, height, width)``.
        weight : `numpy.ndarray`
            The mask ``m``, same shape, `numpy.float32`.
        """
        field, stack = self._field, self._field.stack
        image, variance, good, kernels = [], [], [], []
        for crop in crops:
            image.append(stack.masked_image(*crop.pixels[1:]))
            variance.append(stack.masked_variance(*crop.pixels[1:]))
            if self._whole_field:
                good.append(stack.good[crop.pixels])
                kernels.append(np.moveaxis(stack.kernels, 0, 2))
            else:
                # The kernels of the cell at the crop's center serve all of
                # it; an exposure that has none there stays out.
                i = (crop.y + crop.height // 2) // stack.cell_shape[0]
                j = (crop.x + crop.width // 2) // stack.cell_shape[1]
                of_cell = stack.kernels[:, i, j]
                good.append(stack.good[crop.pixels] & of_cell.any(axis=(1, 2))[:, None, None])
                kernels.append(of_cell[None, None])
        weight = np.stack(good).astype(np.float32)
        # Variance is infinite where a pixel is not good, hence zero here.
        inverse_sigma = weight / np.sqrt(np.stack(variance))
        inputs = {
            "exposures": np.stack([field.context(crop) for crop in crops]),
            "kernels": self._parts(np.stack(kernels)),
            "inverse_sigma": inverse_sigma * np.float32(field.scale),
        }
        return inputs, np.stack(image) * inverse_sigma, weight

    def _parts(self, kernels: np.ndarray) -> np.ndarray:
        factor = self._field.stack.oversampling
        return kernel_phases(kernels, factor) if factor > 1 else kernels

    def training_batch(self) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Draw a batch to train on; see `batch`."""
        batch = self.batch([self.draw() for _ in range(self._batch_size)])
        self._field.stack.release()
        return batch

    def validation_batches(self) -> list[tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]]:
        """Cut the held-out crops; see `batch`."""
        crops = self.validation_crops
        return [self.batch(crops[i : i + self._batch_size]) for i in range(0, len(crops), self._batch_size)]

    def _hold_out(self, fraction: float) -> list[Crop]:
        """Choose the held-out crops among those of a regular grid."""
        if not fraction:
            return []
        height, width = self._crop_shape
        grid = [
            Crop(y, x, height, width)
            for y in range(0, self._field.stack.shape[0] - height + 1, height)
            for x in range(0, self._field.stack.shape[1] - width + 1, width)
        ]
        usable = [c for c in grid if self._field.stack.good[c.pixels].mean() >= self._min_good_fraction]
        usable = usable or grid
        count = min(max(1, round(fraction * len(grid))), _MAX_HELD_OUT)
        chosen = self._rng.choice(len(usable), size=min(count, len(usable)), replace=False)
        return [usable[i] for i in sorted(chosen)]

    def _allowed_origins(self) -> np.ndarray:
        """Where a training crop may start: not over a held-out one."""
        height, width = self._crop_shape
        allowed = np.ones(
            (self._field.stack.shape[0] - height + 1, self._field.stack.shape[1] - width + 1), dtype=bool
        )
        for crop in self.validation_crops:
            allowed[
                max(crop.y - height + 1, 0) : crop.y + height, max(crop.x - width + 1, 0) : crop.x + width
            ] = False
        return allowed
