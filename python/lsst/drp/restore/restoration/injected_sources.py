# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSF of a restored image, from point sources that are added to the exposures."""

from __future__ import annotations

__all__ = ("measure_psf",)

import dataclasses

import numpy as np
import scipy.ndimage
import scipy.spatial

from ..stack.exposure_stack import ExposureStack
from ..stack.subpixel import point_stamp, shift
from .point_signal import typical_depth
from .restoration import Restoration
from .seeds import Seeds

# Smallest depth at which point sources are injected, as a fraction of the
# median.
_MIN_DEPTH = 0.1

# Signal-to-noise ratio of the injected point sources; height and width in pixels of the blocks that each get
# one (twice a kernel's size keeps them apart); and how many are averaged for the PSF of a cell.
_INJECTION_SIGNAL = 50.0
_INJECTION_SPACING = 50
_INJECTIONS_PER_CELL = 9


def measure_psf(
    stack: ExposureStack,
    restoration: Restoration,
    depth: np.ndarray,
    pixels: np.ndarray,
    *,
    seeds: Seeds,
    n_threads: int = 1,
) -> np.ndarray:
    """Measure the response of a restoration to point sources.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures that were restored.
    restoration : `Restoration`
        The restored image, one of points.
    depth : `numpy.ndarray`
        Inverse variance of the flux of a point source (`point_signal`).
    pixels : `numpy.ndarray`
        Buffer of the shape of the exposures; overwritten.
    seeds : `Seeds`
        Seeds of the positions.
    n_threads : `int`, optional
        CPU threads to use.

    Returns
    -------
    kernels : `numpy.ndarray`
        Effective PSF by cell, `numpy.float32`, shape ``(cells_y, cells_x, k,
        k)``; zero where no exposure has a PSF, or no source can be injected.
    """
    from .forward_model import ForwardModel

    kernels = np.zeros(stack.kernels.shape[1:], np.float32)
    places = _choose_places(stack, restoration, depth)
    if not len(places):
        return kernels
    rng = seeds.generator("injected sources")
    offsets = rng.uniform(-0.5, 0.5, size=places.shape)
    pad, size = stack.padding * stack.oversampling, stack.kernel_size
    fluxes = _INJECTION_SIGNAL / np.sqrt(depth[places[:, 0] + pad, places[:, 1] + pad])
    # From the places on the patch to the first pixels of their stamps.
    corners = places + pad - size // 2
    points = np.zeros_like(restoration.latent)
    for (y, x), offset, flux in zip(corners, offsets, fluxes, strict=True):
        points[y : y + size, x : x + size] += flux * point_stamp(offset, size)
    other = dataclasses.replace(stack, image=pixels)
    # It gives back the memory of the pixels that are written.
    for rows, columns, predicted in ForwardModel(other, n_threads=n_threads).predictions(points):
        pixels[:, rows, columns] = np.where(
            stack.good[:, rows, columns], stack.image[:, rows, columns] + predicted, 0.0
        )
    response = restoration.fitted.restore(other) - restoration.latent
    stamps = np.array([response[y : y + size, x : x + size] for y, x in corners])
    stamps = shift(stamps / fluxes[:, np.newaxis, np.newaxis], -offsets)

    number = min(_INJECTIONS_PER_CELL, len(places))
    tree = scipy.spatial.KDTree(places)
    has_kernel = stack.has_kernel.any(axis=0)
    for i, j, rows, columns in stack.cells():
        if has_kernel[i, j]:
            center = [(stack.oversampling * (part.start + part.stop) - 1) / 2 for part in (rows, columns)]
            _, nearest = tree.query(center, k=number)
            kernels[i, j] = stamps[np.atleast_1d(nearest)].mean(axis=0)
    return kernels


def _choose_places(stack: ExposureStack, restoration: Restoration, depth: np.ndarray) -> np.ndarray:
    """Choose the latent pixels, y and x, that get an injected source: the
    quietest place of each block, away from the block's edges.
    """
    spacing, patch = _INJECTION_SPACING * stack.oversampling, stack.latent_patch
    light = scipy.ndimage.gaussian_filter(
        restoration.latent, stack.padding * stack.oversampling / 2, mode="constant"
    )[patch]
    light[depth[patch] < _MIN_DEPTH * typical_depth(depth, stack)] = np.inf
    places = []
    for rows, columns in (
        (slice(y, y + spacing), slice(x, x + spacing))
        for y in range(0, light.shape[0] - spacing // 2, spacing)
        for x in range(0, light.shape[1] - spacing // 2, spacing)
    ):
        block = light[rows, columns]
        # Sources of neighboring blocks are half a block apart at least.
        inner = block[spacing // 4 : 3 * spacing // 4, spacing // 4 : 3 * spacing // 4]
        if inner.size and np.isfinite(inner).any():
            y, x = np.unravel_index(np.argmin(inner), inner.shape)
            places.append((rows.start + spacing // 4 + y, columns.start + spacing // 4 + x))
    return np.array(places, dtype=int).reshape(-1, 2)
