# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What the trained network is shown, in common to its training and its use."""

from __future__ import annotations

__all__ = ("MAX_FACTOR", "NO_DATA_NOISE", "PASSES", "PENALTY", "STEPS", "frame", "starting_image", "turned")

import numpy as np

STEPS = 30
"""Accelerated majorize-minimize steps of the first estimate, on the exposures'
own pixels.
"""

PENALTY = 1.0
"""L1 penalty of the first estimate in units of the standard deviation with
which the exposures measure the flux of a point source: pixels below this
significance go to zero.
"""

MAX_FACTOR = 4.0
"""Largest factor (and its inverse the smallest) by which such a step changes a
pixel.
"""

NO_DATA_NOISE = 10.0
"""Noise that the network is told where there are no data, in units of the
sky's; no pixel has more.
"""

PASSES = 2
"""Passes of the network, with which its training ends: between two of them it
is given the residuals of its image.
"""

# Value of the image that the first estimate starts from, in units of the noise.
_CONSTANT = 0.03

# Standard deviation of the Gaussians that saturated stars start as, pixels:
# steps multiply, and can move a star only where there is some light.
_STAR_SIGMA = 0.6


def starting_image(
    shape: tuple[int, int], stars: np.ndarray, noise: float, padding: int = 0, factor: int = 1
) -> np.ndarray:
    """Make the image that the first estimate starts from.

    Parameters
    ----------
    shape : `tuple` [`int`, `int`]
        Height and width of the image, latent pixels.
    stars : `numpy.ndarray`
        Row, column (pixels of the exposures) and flux of saturated stars,
        shape ``(n, 3)``.  Any image with the right wings describes the
        exposures; one that starts as a star stays a star.
    noise : `float`
        Noise of the sky, per pixel of the exposures.
    padding : `int`, optional
        Border of the latent image, pixels of the exposures.
    factor : `int`, optional
        Latent pixels along each axis in a pixel of the exposures.

    Returns
    -------
    image : `numpy.ndarray`
        Flux per latent pixel, `numpy.float32`.
    """
    image = np.full(shape, _CONSTANT * noise / factor**2, np.float32)
    sigma = _STAR_SIGMA * factor
    rows, columns = (np.arange(extent) for extent in shape)
    for row, column, flux in stars:
        # Centers of pixels are whole numbers, of large and of small ones.
        y, x = ((place + padding + 0.5) * factor - 0.5 for place in (row, column))
        down, right = (
            np.exp(-0.5 * ((steps - center) / sigma) ** 2) for steps, center in ((rows, y), (columns, x))
        )
        image += (flux / (down.sum() * right.sum()) * np.outer(down, right)).astype(np.float32)
    return image


def frame(size: int, width: int) -> np.ndarray:
    """Find the frame of a square image.

    Parameters
    ----------
    size : `int`
        Height and width of the image, pixels.
    width : `int`
        Width of the frame, pixels.

    Returns
    -------
    pixels : `numpy.ndarray`
        `bool`, shape ``(size, size)``: `True` on the frame.
    """
    pixels = np.ones((size, size), bool)
    pixels[width : size - width, width : size - width] = False
    return pixels


def turned(images: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    """Turn images and mirror them.

    Parameters
    ----------
    images : `numpy.ndarray`
        Square images, shape ``(n, size, size)``.
    turns : `int`
        Quarter turns.
    mirrored : `bool`
        Whether to mirror them afterwards.

    Returns
    -------
    images : `numpy.ndarray`
        The same pixels in other places.
    """
    images = np.rot90(images, turns, axes=(1, 2))
    return images[:, :, ::-1] if mirrored else images
