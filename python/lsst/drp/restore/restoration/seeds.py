# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Random numbers of a patch, from one seed."""

from __future__ import annotations

__all__ = ("Seeds",)

import dataclasses
import zlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Seeds of independent random numbers.

    Parameters
    ----------
    seed : `int`
        The seed of the configuration.
    patch : `str`, optional
        The data ID: patches have different noise realizations, also where
        their pixel grids are equal.
    """

    seed: int
    patch: str = ""

    def generator(self, purpose: str, index: int = 0) -> np.random.Generator:
        """Make a random number generator.

        Parameters
        ----------
        purpose : `str`
            Use of the numbers: different purposes have independent numbers.
        index : `int`, optional
            Number of the realization.

        Returns
        -------
        generator : `numpy.random.Generator`
            The same one for the same seed, patch, purpose and index.
        """
        return np.random.default_rng(self._entropy(purpose, index))

    def number(self, purpose: str) -> int:
        """Make a seed for a library that takes a number, below 2**31 (`int`).

        Parameters
        ----------
        purpose : `str`
            Use of the seed.
        """
        return int(np.random.SeedSequence(self._entropy(purpose, 0)).generate_state(1)[0] >> 1)

    def _entropy(self, purpose: str, index: int) -> tuple[int, ...]:
        return (self.seed, zlib.crc32(self.patch.encode()), zlib.crc32(purpose.encode()), index)
