# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Latent pixels smaller than those of the exposures."""

from __future__ import annotations

__all__ = ("bin_pixels", "split_pixels")

import numpy as np

from .exposure_stack import expand_cells


def bin_pixels(image: np.ndarray, factor: int) -> np.ndarray:
    """Add up the parts of each pixel.

    Parameters
    ----------
    image : `numpy.ndarray`
        Flux by part of a pixel, shape ``(height*factor, width*factor)``.
    factor : `int`
        Parts along each axis.

    Returns
    -------
    binned : `numpy.ndarray`
        Flux by pixel, shape ``(height, width)``.
    """
    height, width = image.shape[0] // factor, image.shape[1] // factor
    return image.reshape(height, factor, width, factor).sum(axis=(1, 3))


def split_pixels(image: np.ndarray, factor: int) -> np.ndarray:
    """Give every part of a pixel the pixel's value.

    Parameters
    ----------
    image : `numpy.ndarray`
        Shape ``(height, width)``.
    factor : `int`
        Parts along each axis.

    Returns
    -------
    split : `numpy.ndarray`
        Shape ``(height*factor, width*factor)``.
    """
    return image if factor == 1 else expand_cells(image, (factor, factor))
