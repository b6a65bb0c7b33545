# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The trained network, applied to a patch.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("TrainedNetwork", "load_network", "noise_map")

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
from keras import ops

from ..stack.exposure_stack import ExposureStack
from .compiled import compiled
from .forward_model import ForwardModel
from .network_input import NO_DATA_NOISE, PASSES
from .network_weights import read_weights
from .sky_network import ALIGNMENT, MARGIN, build_network
from .target_psf import TARGET_FWHM, convolution_kernels, deconvolution_kernels


def load_network(path: str | None = None) -> TrainedNetwork:
    """Return the trained network.

    Parameters
    ----------
    path : `str`, optional
        File of its weights (`write_weights`); by default those that the
        package ships.

    Returns
    -------
    network : `TrainedNetwork`
        One for the whole process: its weights must not be changed.
    """
    return _load(path)


@functools.cache
def _load(path: str | None) -> TrainedNetwork:
    network = build_network()
    network.set_weights(read_weights(path))
    return TrainedNetwork(network)


class TrainedNetwork:
    """A network for patches of any size.

    Parameters
    ----------
    network : `keras.Model`
        From `build_network`.
    """

    def __init__(self, network: keras.Model) -> None:
        self._network = network
        self._run = compiled(functools.partial(network, training=False))

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """Copies of the weights by name, in the order that `write_weights`
        takes (`dict` [`str`, `numpy.ndarray`]).
        """
        return {v.path: np.array(ops.convert_to_numpy(v)) for v in self._network.weights}

    def apply(
        self,
        matched: ExposureStack,
        start: np.ndarray,
        *,
        tile_size: int,
        passes: int = PASSES,
        n_threads: int = 1,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Restore a patch.

        Parameters
        ----------
        matched : `ExposureStack`
            The white-noise coadd (`matched_stack`).
        start : `numpy.ndarray`
            First estimate at the target resolution, nJy, shape of the latent
            image.
        tile_size : `int`
            Height and width of a tile, pixels: bounds the memory.
        passes : `int`, optional
            Passes of the network.
        n_threads : `int`, optional
            CPU threads to use.

        Returns
        -------
        image, error : `numpy.ndarray`
            The latent image at the target resolution, non-negative, and the
            standard deviation of its error, nJy, `numpy.float32`, shape of
            ``start``.

        Notes
        -----
        All but the passes themselves is computed for the patch as a whole, and
        tiles overlap by the network's margin: the result does not depend on
        how the patch is cut.
        """
        fwhm = TARGET_FWHM / matched.oversampling
        blur = ForwardModel(
            dataclasses.replace(matched, kernels=convolution_kernels(matched.kernels, fwhm)),
            n_threads=n_threads,
        )
        # The adjoint correlates: turned around, it convolves.
        backwards = deconvolution_kernels(matched.kernels, fwhm)[..., ::-1, ::-1]
        deconvolution = ForwardModel(dataclasses.replace(matched, kernels=backwards), n_threads=n_threads)
        # White noise that a latent pixel would have.
        unit = np.float32(matched.median_sigma / matched.oversampling)
        noise = noise_map(matched, unit)
        parts = np.float32(matched.oversampling**2)
        image, error = start, np.zeros_like(start)
        for _ in range(passes):
            residual = matched.image - np.where(matched.good, blur.forward(image), np.float32(0.0))
            seen = np.stack(
                [
                    image / unit,
                    deconvolution.adjoint(residual) / (parts * unit),
                    blur.adjoint(residual) / (parts * unit),
                    noise,
                ],
                axis=-1,
            )
            image, error = np.moveaxis(self._pass(seen, tile_size, n_threads), -1, 0) * unit
        return image, error

    def _pass(self, seen: np.ndarray, tile_size: int, n_threads: int) -> np.ndarray:
        """Run the network over a patch, ``(height, width, 4)``, tile by tile."""
        height, width = seen.shape[:2]
        size = -(-tile_size // ALIGNMENT) * ALIGNMENT
        # The patch is filled up with zeros to whole pixels of the coarsest level.
        fill = [(0, -extent % ALIGNMENT) for extent in (height, width)]
        seen = np.pad(seen, (*fill, (0, 0)))
        result = np.empty((height, width, 2), np.float32)

        def run(corner: tuple[int, int]) -> tuple[tuple[int, int], np.ndarray]:
            starts = [max(0, first - MARGIN) for first in corner]
            ends = [
                min(extent, first + size + MARGIN)
                for first, extent in zip(corner, seen.shape[:2], strict=True)
            ]
            tile = seen[starts[0] : ends[0], starts[1] : ends[1]]
            output = self._run(ops.convert_to_tensor(tile[np.newaxis]))
            row, column = (first - start for first, start in zip(corner, starts, strict=True))
            return corner, ops.convert_to_numpy(output)[0, row : row + size, column : column + size]

        corners = [(y, x) for y in range(0, height, size) for x in range(0, width, size)]
        with ThreadPoolExecutor(n_threads) as pool:
            for (y, x), piece in pool.map(run, corners):
                part = result[y : y + size, x : x + size]
                part[...] = piece[: part.shape[0], : part.shape[1]]
        return result


def noise_map(matched: ExposureStack, unit: np.float32) -> np.ndarray:
    """Compute the noise in the network's input.

    Parameters
    ----------
    matched : `ExposureStack`
        The white-noise coadd (`matched_stack`).
    unit : `numpy.float32`
        White noise that a latent pixel would have where the sky's is the
        median, nJy.

    Returns
    -------
    noise : `numpy.ndarray`
        Noise of each latent pixel in units of this, `numpy.float32`, shape of
        the latent image.
    """
    sigma = np.sqrt(np.where(matched.good[0], matched.variance[0], np.float32(np.inf)))
    sigma /= unit * np.float32(matched.oversampling)
    noise = np.full(matched.latent_shape, np.float32(NO_DATA_NOISE))
    fine = sigma.repeat(matched.oversampling, axis=0).repeat(matched.oversampling, axis=1)
    noise[matched.latent_patch] = np.minimum(fine, np.float32(NO_DATA_NOISE))
    return noise
