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
        Zeros.  The file is in the directory for temporary files (``TMPDIR``)
        and has no name: it is deleted when nothing refers to the array any
        more, and also if the process is killed.

    Raises
    ------
    OSError
        Raised if there is not enough room on the disk.
    """
    size = max(1, math.prod(shape) * np.dtype(dtype).itemsize)
    directory = tempfile.gettempdir()
    with tempfile.TemporaryFile(dir=directory) as file:
        try:
            # Without room, a later write to the array would kill the process.
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as err:
            raise OSError(
                err.errno,
                f"No room for a temporary file of {size / 2**30:.1f} GiB (TMPDIR sets its directory): "
                f"{err.strerror}",
                directory,
            ) from err
        memory = mmap.mmap(file.fileno(), size)
    return np.ndarray(shape, dtype, buffer=memory)


def empty_like(array: np.ndarray) -> np.ndarray:
    """Make an array like another: in a file of its own if the other one is in
    a file.

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
    """Release the memory of arrays whose values are in files.

    Arrays in memory are left as they are.

    Parameters
    ----------
    *arrays : `numpy.ndarray`
        Arrays, or views of them.
    """
    for array in arrays:
        memory = _mapping(array)
        if memory is not None:
            memory.madvise(mmap.MADV_DONTNEED)


def _mapping(array: np.ndarray) -> mmap.mmap | None:
    """Return the file that has the values of an array, or `None`."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None
