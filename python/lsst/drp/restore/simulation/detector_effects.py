# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Effects of the detector in a simulated exposure: saturation with bleed trails,
cosmic rays, dead columns and hot pixels.
"""

from __future__ import annotations

__all__ = ("CosmicRays", "add_defects", "bleed")

import dataclasses

import numpy as np

from .camera import SimulatedCamera, SimulatedVisit
from .config import SimulationConfig, Stream

# Mean length of a cosmic ray's track, pixels; median charge per pixel of its
# length, electrons, and scatter of its natural logarithm.
_TRACK_LENGTH = 8.0
_TRACK_CHARGE = 1500
_TRACK_SCATTER = 0.5

# Mean charge of a hot pixel, as a fraction of the full well.
_HOT_CHARGE = 0.1


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class CosmicRays:
    """The cosmic rays in an exposure of one detector.

    Parameters
    ----------
    electrons : `numpy.ndarray`
        Their charge, electrons, `numpy.float64`, shape ``(height, width)``.
    masked, unmasked : `numpy.ndarray`
        Pixels hit by those that go into the mask, and pixels hit by others
        only, `bool`, same shape.
    n_masked, n_unmasked : `int`
        Number of cosmic rays that go into the mask, and of the others.
    """

    electrons: np.ndarray
    masked: np.ndarray
    unmasked: np.ndarray
    n_masked: int
    n_unmasked: int

    @classmethod
    def draw(cls, config: SimulationConfig, rng: np.random.Generator, shape: tuple[int, int]) -> CosmicRays:
        """Draw the tracks of cosmic rays at random.

        Parameters
        ----------
        config : `SimulationConfig`
            Options; see ``cosmic_rays`` and ``unmasked_cosmic_rays``.
        rng : `numpy.random.Generator`
            Random numbers.
        shape : `tuple` [`int`, `int`]
            Height and width of the detector.

        Returns
        -------
        rays : `CosmicRays`
            The cosmic rays.

        Notes
        -----
        A track is straight; its length is exponentially distributed with a
        mean of 8 pixels, so that many tracks are points.
        """
        electrons = np.zeros(shape)
        hit = {True: np.zeros(shape, dtype=bool), False: np.zeros(shape, dtype=bool)}
        n = int(rng.poisson(config.cosmic_rays * electrons.size / 1e6))
        in_mask = rng.random(n) >= config.unmasked_cosmic_rays
        for known in in_mask:
            length = rng.exponential(_TRACK_LENGTH)
            angle = rng.uniform(0, np.pi)
            charge = _TRACK_CHARGE * rng.lognormal(0.0, _TRACK_SCATTER) * max(length, 1.0)
            steps = np.linspace(-0.5, 0.5, int(np.ceil(4 * length)) + 1) * length
            x = rng.uniform(0, shape[1]) - 0.5 + steps * np.cos(angle)
            y = rng.uniform(0, shape[0]) - 0.5 + steps * np.sin(angle)
            column, row = np.rint(x).astype(int), np.rint(y).astype(int)
            inside = (column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0])
            row, column = row[inside], column[inside]
            np.add.at(electrons, (row, column), charge / len(steps))
            hit[bool(known)][row, column] = True
        return cls(
            electrons=electrons,
            masked=hit[True],
            unmasked=hit[False] & ~hit[True],
            n_masked=int(in_mask.sum()),
            n_unmasked=int(n - in_mask.sum()),
        )


def bleed(electrons: np.ndarray, full_well: float) -> tuple[np.ndarray, np.ndarray]:
    """Move charge beyond the full well along the columns.

    Parameters
    ----------
    electrons : `numpy.ndarray`
        Charge collected in each pixel, electrons, shape ``(height, width)``.
    full_well : `float`
        Charge that a pixel can hold, electrons.

    Returns
    -------
    held : `numpy.ndarray`
        Charge in each pixel afterwards, same shape.
    saturated : `numpy.ndarray`
        Pixels that are full or received charge from others, `bool`, same
        shape.
    """
    held = np.minimum(electrons, full_well)
    saturated = electrons >= full_well
    for column in np.flatnonzero(saturated.any(axis=0)):
        excess = electrons[:, column] - held[:, column]
        # Half of the excess of a pixel moves up and half down the column into
        # pixels that are not full; at the edges it leaves the detector.
        for rows in (range(len(excess)), range(len(excess) - 1, -1, -1)):
            moving = 0.0
            for row in rows:
                room = full_well - held[row, column]
                if moving > 0:
                    saturated[row, column] = True
                taken = min(room, moving)
                held[row, column] += taken
                moving += 0.5 * excess[row] - taken
    return held, saturated


def add_defects(
    camera: SimulatedCamera, visit: SimulatedVisit, detector: int, image: np.ndarray
) -> np.ndarray:
    """Add the dead columns and hot pixels of a detector to an image in place.

    Parameters
    ----------
    camera : `SimulatedCamera`
        The camera.
    visit : `SimulatedVisit`
        The visit.
    detector : `int`
        ID of the detector.
    image : `numpy.ndarray`
        Sky-subtracted image, nJy, shape ``(height, width)``; changed in place.

    Returns
    -------
    bad : `numpy.ndarray`
        The defective pixels, `bool`, same shape; the same in all visits.
    """
    config = camera.config
    rng = config.generator(Stream.DETECTOR, detector, 2)
    bad = np.zeros(image.shape, dtype=bool)
    for _ in range(rng.poisson(config.bad_columns)):
        column = rng.integers(image.shape[1])
        # Dead from a random row to the end that is read out last.
        row = rng.integers(image.shape[0])
        bad[row:, column] = True
        image[row:, column] = -visit.sky_level
    n = rng.poisson(config.hot_pixels * image.size / 1e6)
    rows, columns = rng.integers(image.shape[0], size=n), rng.integers(image.shape[1], size=n)
    bad[rows, columns] = True
    image[rows, columns] += rng.exponential(_HOT_CHARGE * config.full_well, n) / visit.gain
    return bad
