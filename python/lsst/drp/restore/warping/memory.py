# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Whether the pixels of the exposures are kept in memory or in files."""

from __future__ import annotations

__all__ = ("MemoryEstimate",)

import dataclasses

from ..errors import RestorationError

# Memory of a restoration, bytes, as `make bench-scale` measured it: that of any
# patch, ...
_BASE = 1.5e9
# ... that of each pixel of the restored image, ...
_PER_PIXEL = 330
# ... and that of each pixel of an exposure that is kept in memory: image,
# variance and mask (9 bytes), the image without its background and the mask
# without outliers (5), one more image for predictions (4), temporaries.
_PER_EXPOSURE_PIXEL = 25


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Memory that the restoration of a patch takes.

    Parameters
    ----------
    n_exposures : `int`
        Number of exposures, those of other bands included.
    n_pixels : `int`
        Number of pixels of the patch.
    oversampling : `int`, optional
        Pixels of the restored image along each axis in a pixel of the patch.
    """

    n_exposures: int
    n_pixels: int
    oversampling: int = 1

    @property
    def streamed(self) -> float:
        """Memory, GiB, with the exposures' pixels in temporary files
        (`float`).
        """
        return (_BASE + _PER_PIXEL * self.oversampling**2 * self.n_pixels) / 2**30

    @property
    def in_memory(self) -> float:
        """Memory, GiB, with the exposures' pixels in memory (`float`)."""
        return self.streamed + _PER_EXPOSURE_PIXEL * self.n_exposures * self.n_pixels / 2**30

    def needs_files(self, max_memory: float, patch: str) -> bool:
        """Decide whether the exposures' pixels are kept in temporary files.

        Parameters
        ----------
        max_memory : `float`
            Memory that the restoration may take, GiB.
        patch : `str`
            Name of the patch, for messages.

        Returns
        -------
        needs_files : `bool`
            Whether they do not fit into memory.

        Raises
        ------
        RestorationError
            Raised if the patch does not fit into memory either way.
        """
        if self.streamed > max_memory:
            raise RestorationError(
                f"The restoration of {patch} takes about {self.streamed:.1f} GiB of memory without the "
                f"pixels of its exposures, more than maxMemory={max_memory}. Increase maxMemory, or make "
                "smaller patches."
            )
        return self.in_memory > max_memory
