# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A GPU for each process."""

from __future__ import annotations

__all__ = ("claim_gpu", "cuda_gpus")

import ctypes
import fcntl
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

WAITING_TIME = 3600.0
"""Seconds to wait for a GPU (`float`): longer than a patch takes on one, so that
processes that share GPUs take turns; a process that holds one for longer is
stuck, or is another program's.
"""

# Seconds between two attempts.
_POLLING_TIME = 1.0

_LOG = logging.getLogger(__name__)

_claimed: dict[str, int] = {}
"""Descriptors of locked files by GPU.  Nothing closes them: the operating
system does when the process ends, however it ends.
"""


def claim_gpu(names: Sequence[str], time_limit: float = WAITING_TIME) -> int:
    """Take one of several GPUs for this process until it ends.

    Processes of the same user that use this function, with the same directory
    for temporary files, never have the same GPU.  If others have all of them,
    this waits until one ends: a patch takes minutes on a GPU, hours elsewhere.

    Parameters
    ----------
    names : `~collections.abc.Sequence` [`str`]
        Names of the GPUs, the same in all processes.
    time_limit : `float`, optional
        Time to wait at most, s.

    Returns
    -------
    index : `int`
        Index of the GPU in ``names``: the one that this process has already,
        else the first free one.

    Raises
    ------
    TimeoutError
        Raised if no GPU becomes free within the time limit; another attempt
        may have one.
    """
    begin, waiting = time.monotonic(), False
    while True:
        for index, name in enumerate(names):
            if name in _claimed:
                return index
        for index, name in enumerate(names):
            descriptor = _try_lock(_lock_file(name))
            if descriptor is not None:
                _claimed[name] = descriptor
                return index
        files = ", ".join(str(_lock_file(name)) for name in names)
        remaining = begin + time_limit - time.monotonic()
        if remaining <= 0.0:
            raise TimeoutError(
                f"No GPU became free within {time_limit:g} s: other processes of this user have all "
                f"{len(names)} of them. Their process IDs are in {files}. End those that are stuck, run no "
                "more processes at a time than there are GPUs, or set computeDevice='cpu'."
            )
        if not waiting:
            _LOG.info(
                "Waiting for a GPU for %g s at most: other processes of this user have all of them (their "
                "process IDs are in %s). computeDevice='cpu' restores on the CPU.",
                time_limit,
                files,
            )
            waiting = True
        time.sleep(min(_POLLING_TIME, remaining))


def _lock_file(name: str) -> Path:
    return Path(tempfile.gettempdir(), f"lsst.drp.restore-{os.getuid()}-{name.replace('/', '_')}.lock")


def _try_lock(path: Path) -> int | None:
    """Return the descriptor of the locked file, `None` if another process has
    it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def cuda_gpus() -> list[str]:
    """Return the identifiers of the GPUs that CUDA shows to this process.

    Unlike their numbers, which ``CUDA_VISIBLE_DEVICES`` and batch systems
    change, the identifiers are the same in all processes.

    Returns
    -------
    names : `list` [`str`]
        UUIDs by CUDA's number of the GPU; empty without CUDA.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    names = []
    for number in range(count.value):
        device, identifier = ctypes.c_int(), ctypes.create_string_buffer(16)
        if cuda.cuDeviceGet(ctypes.byref(device), number) != 0:
            return []
        if cuda.cuDeviceGetUuid_v2(identifier, device) != 0:
            return []
        names.append(str(uuid.UUID(bytes=identifier.raw)))
    return names
