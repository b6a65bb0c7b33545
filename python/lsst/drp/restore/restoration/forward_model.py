# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The forward model of a whole patch, cell by cell, and its adjoint.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("Cells", "ForwardModel")

import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from keras import ops

from ..stack.exposure_stack import ExposureStack
from ..stack.subpixel import kernel_phases
from .compiled import compiled, uses_gpu
from .convolution import Convolution

# Latent pixels of a batch of cells, times the number of exposures.  On a CPU (2 MiB for each float32 array),
# the arrays of one exposure's cells stay in the processor's cache; a GPU needs more to be busy.
_PIXELS_PER_BATCH = 2**19
_PIXELS_PER_BATCH_GPU = 2**25

# Size of the transfer functions that are kept from one pass over the patch to
# the next, in the same unit (4 bytes each).
_PIXELS_KEPT = 2**26

type Cells = list[tuple[int, int, slice, slice]]
"""Cells that are computed together; see `ExposureStack.cells`."""


class ForwardModel:
    """The forward model of a whole patch and its adjoint, cell by cell.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures whose kernels and cells to use.
    kernels : `numpy.ndarray`, optional
        Kernels to use instead, shape ``(n, cells_y, cells_x, k, k)`` with the
        stack's cells and ``k``, but any ``n``.
    oversampling : `int`, optional
        Latent pixels along each axis in a pixel, by default the stack's.
    squared : `bool`, optional
        Whether to take the squares of the kernels, as propagation of noise
        does.
    n_threads : `int`, optional
        CPU threads to use.
    pixels_per_batch : `int`, optional
        Latent pixels of the cells that are computed together, times the number
        of exposures; a batch has one cell at least.  By default as is best for
        the device.

    Notes
    -----
    A pixel of an exposure is predicted with the kernel of its own cell, so
    that the model is a linear operator with an exact adjoint although the
    PSF varies over the patch.
    """

    def __init__(
        self,
        stack: ExposureStack,
        *,
        kernels: np.ndarray | None = None,
        oversampling: int | None = None,
        squared: bool = False,
        n_threads: int = 1,
        pixels_per_batch: int | None = None,
    ) -> None:
        self._stack = stack
        self._n_threads = n_threads
        self._factor = stack.oversampling if oversampling is None else oversampling
        kernels = stack.kernels if kernels is None else kernels
        if self._factor > 1:
            kernels = kernel_phases(kernels, self._factor)
        self._kernels = np.moveaxis(kernels**2 if squared else kernels, 0, 2)
        self._cells = list(stack.cells())
        self._cell_shape = stack.cell_shape
        self._shape = stack.shape
        self._padding = stack.padding
        extent = (self._cell_shape[0] + 2 * self._padding) * (self._cell_shape[1] + 2 * self._padding)
        extent *= self._factor**2
        pixels = extent * self._kernels.shape[2]
        if pixels_per_batch is None:
            pixels_per_batch = _PIXELS_PER_BATCH_GPU if uses_gpu() else _PIXELS_PER_BATCH
        self._cells_per_batch = max(1, pixels_per_batch // pixels)
        self._convolution = Convolution(
            height=self._cell_shape[0],
            width=self._cell_shape[1],
            kernel_size=self._kernels.shape[-1],
            parts=self._factor**2,
        )
        # By the first cell of a batch and their number.
        self._transfers: dict[tuple[tuple[int, int], int], Any] = {}
        self._keeps_transfers = len(self._cells) * pixels <= _PIXELS_KEPT

    def forward(self, latent: np.ndarray) -> np.ndarray:
        """Predict the exposures from a latent image.

        Parameters
        ----------
        latent : `numpy.ndarray`
            Shape ``(r*(height + k - 1), r*(width + k - 1))``.

        Returns
        -------
        exposures : `numpy.ndarray`
            Shape ``(n, height, width)``; zero where an exposure has no
            kernel.
        """
        result = np.empty((self._kernels.shape[2], *self._shape), dtype=np.float32)
        for rows, cols, piece in self.predictions(latent):
            result[:, rows, cols] = piece
        return result

    def predictions(self, latent: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Predict the exposures cell by cell; see `forward`.

        Parameters
        ----------
        latent : `numpy.ndarray`
            Shape ``(r*(height + k - 1), r*(width + k - 1))``.

        Yields
        ------
        rows, cols : `slice`
            The cell's pixels.
        exposures : `numpy.ndarray`
            Their prediction, shape ``(n, cell_height, cell_width)``.
        """
        for cells, pieces in self._map(lambda cells: self._forward(latent, cells)):
            for (_, _, rows, cols), piece in zip(cells, ops.convert_to_numpy(pieces), strict=True):
                yield rows, cols, piece

    def predict(self, latent: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Predict one cell of the exposures; see `forward`.

        Parameters
        ----------
        latent : `numpy.ndarray`
            Shape ``(r*(height + k - 1), r*(width + k - 1))``.
        rows, columns : `slice`
            The cell's pixels.

        Returns
        -------
        exposures : `numpy.ndarray`
            Shape ``(n, cell_height, cell_width)``.
        """
        cell = (rows.start // self._cell_shape[0], columns.start // self._cell_shape[1], rows, columns)
        return ops.convert_to_numpy(self._forward(latent, [cell]))[0]

    def adjoint(self, exposures: np.ndarray | Callable[[slice, slice], np.ndarray]) -> np.ndarray:
        """Apply the adjoint of `forward`.

        Parameters
        ----------
        exposures : `numpy.ndarray` or `~collections.abc.Callable`
            Images of shape ``(n, height, width)``, or a function that returns
            them for the rows and columns of a cell; it is called for one cell
            after the other, in order.

        Returns
        -------
        latent : `numpy.ndarray`
            Shape ``(r*(height + k - 1), r*(width + k - 1))``.
        """
        shape = [self._factor * (extent + 2 * self._padding) for extent in self._shape]
        result = np.zeros(shape, dtype=np.float32)
        cut = exposures if callable(exposures) else lambda rows, cols: exposures[:, rows, cols]

        def load(cells: Cells) -> np.ndarray:
            return np.stack([cut(rows, cols) for _, _, rows, cols in cells])

        adjoint = _compiled_adjoint(self._convolution)

        def spread(cells: Cells, pieces: np.ndarray) -> Any:
            return adjoint(ops.convert_to_tensor(pieces, "float32"), self._transfer(cells))

        for cells, pieces in self._map(spread, load):
            self._add(result, cells, pieces)
        return result

    def forward_adjoint(
        self,
        latent: np.ndarray,
        load: Callable[[slice, slice], Sequence[np.ndarray]],
        between: Callable[..., tuple[Sequence[Any], Any]],
        number: int = 1,
    ) -> tuple[list[np.ndarray], list[tuple[slice, slice, Any]]]:
        """Predict the exposures, compute images from the prediction, and apply
        the adjoint to these, in one pass over the patch.

        Parameters
        ----------
        latent : `numpy.ndarray`
            Shape ``(r*(height + k - 1), r*(width + k - 1))``.
        load : `~collections.abc.Callable`
            Takes the rows and columns of a cell, and returns arrays with the
            first axes ``(n, cell_height, cell_width)``; it is called in several
            threads.
        between : `~collections.abc.Callable`
            Takes the prediction of some cells, a tensor of shape ``(cells, n,
            cell_height, cell_width)``, and the arrays of these cells as
            tensors; returns ``number`` images of the shape of the prediction,
            and a tensor to return with first axis ``cells``, or `None`.  It is
            compiled: the same function must be passed each time.
        number : `int`, optional
            Number of images.

        Returns
        -------
        latents : `list` [`numpy.ndarray`]
            The adjoint of each image, shape of ``latent``.
        others : `list` [`tuple`]
            Rows and columns of each cell, and the second result of ``between``
            for it; empty if that is `None`.
        """
        step = _compiled_step(self._convolution, between)

        def compute(cells: Cells) -> tuple[list[Any], Any]:
            loaded = zip(*(load(rows, columns) for _, _, rows, columns in cells), strict=True)
            arrays = [ops.convert_to_tensor(np.stack(pieces)) for pieces in loaded]
            return step(self._cut(latent, cells), self._transfer(cells), *arrays)

        results = [np.zeros(latent.shape, np.float32) for _ in range(number)]
        others = []
        for cells, (pieces, other) in self._map(compute):
            for result, piece in zip(results, pieces, strict=True):
                self._add(result, cells, piece)
            if other is not None:
                for (_, _, rows, columns), values in zip(cells, ops.convert_to_numpy(other), strict=True):
                    others.append((rows, columns, values))
        return results, others

    def _map(
        self, compute: Callable[..., Any], load: Callable[[Cells], Any] | None = None
    ) -> Iterator[tuple[Cells, Any]]:
        """Compute batches of cells in parallel; yield each with its result, in
        order.

        The result of ``load`` for a batch is the second argument of
        ``compute``; it is called in order.
        """
        with ThreadPoolExecutor(self._n_threads) as pool:
            pending: deque[tuple[Cells, Future[Any]]] = deque()
            for cells in self._batches():
                loaded = () if load is None else (load(cells),)
                pending.append((cells, pool.submit(compute, cells, *loaded)))
                if len(pending) > self._n_threads:
                    cells, future = pending.popleft()
                    yield cells, future.result()
            for cells, future in pending:
                yield cells, future.result()

    def _add(self, latent: np.ndarray, cells: Cells, pieces: Any) -> None:
        """Add the contributions of cells to a latent image."""
        for (_, _, rows, cols), piece in zip(cells, ops.convert_to_numpy(pieces), strict=True):
            latent[self._padded(rows), self._padded(cols)] += piece

    def _batches(self) -> Iterator[Cells]:
        """Iterate over the cells that are computed together."""
        row = 0
        for start in range(0, len(self._cells), self._cells_per_batch):
            cells = self._cells[start : start + self._cells_per_batch]
            if cells[0][0] != row:
                # Not after each batch: adjacent cells share pages of memory.
                self._stack.release()
                row = cells[0][0]
            yield cells
        self._stack.release()

    def _cut(self, latent: np.ndarray, cells: Cells) -> Any:
        """Cut the latent pixels that cells depend on out of a latent image."""
        pieces = np.stack([latent[self._padded(rows), self._padded(cols)] for _, _, rows, cols in cells])
        return ops.convert_to_tensor(pieces, "float32")

    def _forward(self, latent: np.ndarray, cells: Cells) -> Any:
        """Predict cells, a tensor of shape ``(cells, n, cell_height, cell_width)``."""
        return _compiled_forward(self._convolution)(self._cut(latent, cells), self._transfer(cells))

    def _transfer(self, cells: Cells) -> Any:
        """Return the transfer functions of some cells, from the last pass if
        they were kept.
        """
        key = cells[0][:2], len(cells)
        if key in self._transfers:
            return self._transfers[key]
        kernels = ops.convert_to_tensor(np.stack([self._kernels[i, j] for i, j, _, _ in cells]), "float32")
        transfer = _compiled_transfer(self._convolution)(kernels)
        if self._keeps_transfers:
            self._transfers[key] = transfer
        return transfer

    def _padded(self, pixels: slice) -> slice:
        # Latent pixels start one padding before those of the exposures.
        return slice(pixels.start * self._factor, (pixels.stop + 2 * self._padding) * self._factor)


@functools.cache
def _compiled_transfer(convolution: Convolution) -> Callable[..., Any]:
    return compiled(convolution.transfer)


@functools.cache
def _compiled_forward(convolution: Convolution) -> Callable[..., Any]:
    return compiled(convolution.forward)


@functools.cache
def _compiled_adjoint(convolution: Convolution) -> Callable[..., Any]:
    return compiled(convolution.adjoint)


@functools.cache
def _compiled_step(convolution: Convolution, between: Callable[..., Any]) -> Callable[..., Any]:
    """Compile the forward model, a function between, and the adjoint."""

    def step(latent: Any, transfer: Any, *arrays: Any) -> tuple[list[Any], Any]:
        images, other = between(convolution.forward(latent, transfer), *arrays)
        return [convolution.adjoint(image, transfer) for image in images], other

    return compiled(step)
