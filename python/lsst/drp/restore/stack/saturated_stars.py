# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Positions and fluxes of stars whose cores are saturated in all exposures,
from their wings.
"""

from __future__ import annotations

__all__ = ("find_saturated_stars",)

import numpy as np
import scipy.ndimage

# Smallest number of missing pixels that can be a saturated core.
_MIN_CORE = 4

# Smallest brightness at its rim, in units of the noise.
_MIN_BRIGHTNESS = 50.0

# Pixels around the core that are fitted, and their relative errors.
_RIM = 3
_RELATIVE_ERROR = 0.05

# Positions to try, pixels from the middle of the core.
_SEARCH = np.arange(-3.0, 3.01, 0.25)


def find_saturated_stars(image: np.ndarray, good: np.ndarray, kernel: np.ndarray, noise: float) -> np.ndarray:
    """Fit the PSF to the rims of the holes in bright sources.

    Parameters
    ----------
    image : `numpy.ndarray`
        Mean of the exposures, shape ``(height, width)``.
    good : `numpy.ndarray`
        `bool`, same shape: where there are data.
    kernel : `numpy.ndarray`
        PSF of the mean, shape ``(k, k)``.
    noise : `float`
        Standard deviation of the sky's noise.

    Returns
    -------
    stars : `numpy.ndarray`
        Row, column and flux of each star, shape ``(n, 3)``; rows and columns
        are pixels.

    Notes
    -----
    Holes at the edge of the image are left out: part of their rim is missing.
    """
    half = len(kernel) // 2
    # Beyond the stamp there is no profile to fit.
    padded = np.pad(kernel.astype(np.float64), half)
    labels, _ = scipy.ndimage.label(~good, structure=np.ones((3, 3)))
    stars = []
    for number, place in enumerate(scipy.ndimage.find_objects(labels), start=1):
        if any(part.start == 0 or part.stop == size for part, size in zip(place, good.shape, strict=True)):
            continue
        grown = tuple(slice(max(0, part.start - _RIM), part.stop + _RIM) for part in place)
        hole = labels[grown] == number
        rim = scipy.ndimage.binary_dilation(hole, np.ones((3, 3)), iterations=_RIM) & good[grown]
        if np.count_nonzero(hole) < _MIN_CORE or not rim.any():
            continue
        values = image[grown][rim].astype(np.float64)
        if values.max() < _MIN_BRIGHTNESS * noise:
            continue
        rows, columns = np.nonzero(rim)
        weight = 1.0 / (noise**2 + (_RELATIVE_ERROR * values) ** 2)
        # The rim of a bleed trail is much fainter than that of the star.
        share = np.maximum(values, 0.0) ** 2
        middle = np.array([rows, columns]) @ share / share.sum()
        best = (np.inf, 0.0, 0.0, 0.0)
        for down in _SEARCH:
            for right in _SEARCH:
                row, column = middle[0] + down, middle[1] + right
                profile = scipy.ndimage.map_coordinates(
                    padded, [rows - row + 2 * half, columns - column + 2 * half], order=1
                )
                norm = (weight * profile**2).sum()
                if norm <= 0.0:
                    continue
                flux = (weight * profile * values).sum() / norm
                chi2 = (weight * (values - flux * profile) ** 2).sum()
                best = min(best, (chi2, row, column, flux))
        if best[3] > 0.0:
            stars.append((grown[0].start + best[1], grown[1].start + best[2], best[3]))
    return np.array(stars).reshape(-1, 3)
