# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Large arrays in a temporary file instead of memory."""

from __future__ import annotations

__all__ = ("empty_like", "release", "scratch_array")

import math
import mmap
import os
import tempfile

import numpy as np
from numpy.typing import DTypeLike

from ..errors import RestorationError


def scratch_array(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Make an array whose memory is a temporary file.

    Parameters
    ----------
    shape : `tuple` [`int`, ...]
        Shape.
    dtype : `numpy.dtype`
        Type of its elements.

    Returns
    -------
    array : `numpy.ndarray`
        Zeros.  The file is in the directory for temporary files (``TMPDIR``),
        has no name, and is gone when nothing refers to the array any more, or
        the process ends, however it ends.

    Raises
    ------
    RestorationError
        Raised if the disk is too small.
    """
    size = max(1, math.prod(shape) * np.dtype(dtype).itemsize)
    directory = tempfile.gettempdir()
    with tempfile.TemporaryFile(dir=directory) as file:
        try:
            # All of it now: without room a write to the array would kill the process.
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as err:
            raise RestorationError(
                f"No temporary file of {size / 2**30:.1f} GiB for the exposures' pixels in {directory} "
                f"({err.strerror}): set TMPDIR to a directory on a larger disk, or a larger maxMemory."
            ) from err
        memory = mmap.mmap(file.fileno(), size)
    return np.ndarray(shape, dtype, buffer=memory)


def empty_like(array: np.ndarray) -> np.ndarray:
    """Make an array like another: in a file of its own if that one is in a
    file.

    Parameters
    ----------
    array : `numpy.ndarray`
        The other.

    Returns
    -------
    array : `numpy.ndarray`
        Same shape and type, any values.
    """
    if _mapping(array) is None:
        return np.empty_like(array)
    return scratch_array(array.shape, array.dtype)


def release(*arrays: np.ndarray) -> None:
    """Give the memory of arrays back that are in files; their values stay
    there.  Nothing happens to others.

    Parameters
    ----------
    *arrays : `numpy.ndarray`
        Arrays, or parts of them.
    """
    for array in arrays:
        memory = _mapping(array)
        if memory is not None:
            memory.madvise(mmap.MADV_DONTNEED)


def _mapping(array: np.ndarray) -> mmap.mmap | None:
    """Return the file that an array, or what it is a view of, is in."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None
