# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Detection of sources at a given rate of false ones."""

from __future__ import annotations

__all__ = ("Detections", "detect", "match_sources", "pairs_split")

import dataclasses

import numpy as np
from scipy.spatial import cKDTree

_MATCH_RADIUS = 2.5  # between a detection and the source that it is, pixels
_FALSE_RADIUS = 5.0  # a detection further from all sources is false, pixels
_THRESHOLDS = np.geomspace(1e4, 0.01, 255)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Detections:
    """What is detected at the lowest threshold with few enough false ones.

    Parameters
    ----------
    positions : `numpy.ndarray`
        Positions x, y, shape ``(n, 2)``.
    threshold : `float`
        Threshold, in units of the noise that was given.
    n_false : `int`
        Number of false detections.
    """

    positions: np.ndarray
    threshold: float
    n_false: int


def detect(
    image: np.ndarray,
    sigma: np.ndarray,
    kernel: np.ndarray | None,
    real: np.ndarray,
    allowed: np.ndarray,
    max_false: int,
    min_area: int = 3,
) -> Detections:
    """Detect sources with sep at a given number of false detections.

    Parameters
    ----------
    image, sigma : `numpy.ndarray`
        Image and its noise, shape ``(height, width)``.
    kernel : `numpy.ndarray` or `None`
        Matched filter, if any.
    real : `numpy.ndarray`
        Positions x, y of the sources, shape ``(m, 2)``.
    allowed : `numpy.ndarray`
        `bool`, shape ``(height, width)``: where detections count.
    max_false : `int`
        Largest number of detections that are not within 5 pixels of a source.
    min_area : `int`, optional
        Smallest number of pixels of a detection, and of each part of a blend.

    Returns
    -------
    detections : `Detections`
        Those at the lowest threshold with no more false ones than the limit.
    """
    import sep

    missing = ~(np.isfinite(image) & np.isfinite(sigma) & (sigma > 0))
    pixels = np.ascontiguousarray(np.where(missing, 0, image), dtype=np.float32)
    noise = np.ascontiguousarray(np.where(missing, np.nanmedian(sigma), sigma), dtype=np.float32)
    tree = cKDTree(real) if len(real) else None

    def extract(threshold: float) -> Detections | None:
        try:
            found = sep.extract(
                pixels,
                threshold,
                err=noise,
                mask=missing,
                minarea=min_area,
                filter_kernel=None if kernel is None else np.ascontiguousarray(kernel, dtype=np.float32),
                filter_type="matched",
                deblend_nthresh=32,
                deblend_cont=0.005,
                clean=False,
            )
        except Exception:  # What sep raises when so much is found that its buffers are full.
            return None
        row = np.clip(np.rint(found["y"]).astype(int), 0, allowed.shape[0] - 1)
        column = np.clip(np.rint(found["x"]).astype(int), 0, allowed.shape[1] - 1)
        positions = np.stack([found["x"], found["y"]], axis=1)[allowed[row, column]]
        distance = tree.query(positions)[0] if tree is not None else np.full(len(positions), np.inf)
        n_false = int(np.count_nonzero(distance > _FALSE_RADIUS))
        return Detections(positions=positions, threshold=threshold, n_false=n_false)

    # The number of false ones grows as the threshold falls: bisect.
    best = Detections(positions=np.empty((0, 2)), threshold=float(_THRESHOLDS[0]), n_false=0)
    low, high = 0, len(_THRESHOLDS)
    while low < high:
        middle = (low + high) // 2
        found = extract(float(_THRESHOLDS[middle]))
        if found is None or found.n_false > max_false:
            high = middle
        else:
            low, best = middle + 1, found
    return best


def match_sources(sources: np.ndarray, detections: np.ndarray, radius: float = _MATCH_RADIUS) -> np.ndarray:
    """Tell which sources have a detection nearby.

    Parameters
    ----------
    sources, detections : `numpy.ndarray`
        Positions x, y, shapes ``(m, 2)`` and ``(n, 2)``.
    radius : `float`, optional
        Largest distance, pixels.

    Returns
    -------
    found : `numpy.ndarray`
        `bool`, shape ``(m,)``.
    """
    if not len(detections) or not len(sources):
        return np.zeros(len(sources), dtype=bool)
    distance, _ = cKDTree(detections).query(sources)
    return distance <= radius


def pairs_split(pairs: np.ndarray, detections: np.ndarray) -> np.ndarray:
    """Tell which pairs are detected as two.

    Parameters
    ----------
    pairs : `numpy.ndarray`
        Positions x, y of the two stars of each pair, shape ``(n, 2, 2)``.
    detections : `numpy.ndarray`
        Positions x, y of the detections, shape ``(m, 2)``.

    Returns
    -------
    split : `numpy.ndarray`
        `bool`, shape ``(n,)``: each star has a detection of its own within
        half of their distance.
    """
    split = np.zeros(len(pairs), dtype=bool)
    if not len(detections):
        return split
    for n, (first, second) in enumerate(pairs):
        limit = 0.5 * np.linalg.norm(first - second)
        near = [np.flatnonzero(np.linalg.norm(detections - star, axis=1) < limit) for star in (first, second)]
        split[n] = len(near[0]) > 0 and len(near[1]) > 0
    return split
