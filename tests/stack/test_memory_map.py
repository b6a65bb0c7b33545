# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of arrays in temporary files."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path

import numpy as np
import pytest
from stacks import star_field

from lsst.drp.restore import RestoreStackConfig, RestoreStackTask
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.memory_map import empty_like, release, scratch_array


def resident(part: str) -> int:
    """Memory of this process, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(part):
            return int(line.split()[1]) * 1024
    raise LookupError(part)


def test_values_stay_when_memory_is_released() -> None:
    array = scratch_array((3, 1000, 1000), np.float32)
    assert not array.any()
    values = np.random.default_rng(1).normal(size=array.shape).astype(np.float32)
    release(array)
    before = resident("VmRSS")
    array[...] = values
    full = resident("VmRSS")
    release(array[1:, 5:])
    released = resident("VmRSS")
    np.testing.assert_array_equal(array, values)
    assert full - before > 0.9 * array.nbytes
    assert released - before < 0.1 * array.nbytes


def test_like_an_array_in_a_file_is_another_one() -> None:
    array = scratch_array((2, 30), np.bool_)
    other = empty_like(array[1:])
    assert other.shape == (1, 30)
    assert other.dtype == bool
    other[...] = True
    assert not array.any()
    release(other)
    assert other.all()


def test_arrays_in_memory_are_left_alone() -> None:
    array = np.ones((2, 3))
    release(array, empty_like(array))
    assert (array == 1).all()


def test_full_disk_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free = os.statvfs(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(OSError, match="No room for a temporary file of .* GiB") as info:
        scratch_array((2, free.f_blocks * free.f_frsize), np.float32)
    assert info.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert info.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def on_disk(stack: ExposureStack) -> ExposureStack:
    arrays = {}
    for name in ("image", "variance", "good"):
        array = getattr(stack, name)
        arrays[name] = scratch_array(array.shape, array.dtype)
        arrays[name][...] = array
    return dataclasses.replace(stack, **arrays)


@pytest.mark.slow
def test_streamed_restoration_is_the_same_to_the_bit() -> None:
    config = RestoreStackConfig()
    config.characterize.numRealizations = 2
    stacks = []
    for _ in range(2):
        stack, _, _ = star_field(n=4, shape=(128, 128), cell_shape=(32, 32), bad_fraction=0.01)
        # A cosmic ray for the clipping to find.
        stack.image[1, 40:42, 50:54] += 300.0
        stacks.append(stack)
    results = []
    for stack in (stacks[0], on_disk(stacks[1])):
        results.append(RestoreStackTask(config=config).restore(stack))
    one, other = results
    assert one.reference.clipped.any()
    for a, b in (
        (one.restoration.latent, other.restoration.latent),
        (one.measurable.image, other.measurable.image),
        (one.measurable.variance, other.measurable.variance),
        (one.characterization.variance, other.characterization.variance),
        (one.characterization.kernels, other.characterization.kernels),
        (one.characterization.inconsistent, other.characterization.inconsistent),
        (one.reference.clipped, other.reference.clipped),
    ):
        np.testing.assert_array_equal(a, b)
