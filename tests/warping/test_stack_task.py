# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of what both stackers share: which inputs are dropped, how many must
be left, and where the pixels are kept.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import tracemalloc
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
import visit_images
import warps
from handles import ServerError, StoredHandle, WarpHandle, formatter_error
from skies import make_geometry
from visit_images import SHAPE, build, gaussian, make_image, mosaic

from lsst.drp.restore import BuildStackConfig, BuildStackTask, PatchGeometry, StackWarpsConfig, StackWarpsTask
from lsst.drp.restore.errors import InputError, RestorationError
from lsst.drp.restore.warping.memory import MemoryEstimate
from lsst.drp.restore.warping.stack_input import StackedInputs
from lsst.pex.config import FieldValidationError
from lsst.pipe.base import NoWorkFound

# -- inputs that are dropped


def test_visit_with_few_good_pixels_is_dropped(caplog):
    corner = make_image(2, 5, center=(-50.0, -45.0))
    with caplog.at_level(logging.WARNING, "lsst"):
        result = build(make_image(1), corner, make_image(3), minGoodFraction=0.02)
    assert result.stack.names == ("Cam visit 1", "Cam visit 3")
    assert result.dropped[0][0] == "Cam visit 2 detector 5"
    assert "less than minGoodFraction=0.02" in result.dropped[0][1]
    # What it had is gone.
    assert np.array_equal(result.stack.good[0], result.stack.good[1])
    assert np.array_equal(result.stack.kernels[0], result.stack.kernels[1])
    assert build(make_image(1), corner, minGoodFraction=0.001).stack.n_exposures == 2


@pytest.mark.parametrize(
    "error",
    [
        formatter_error(PermissionError(errno.EACCES, "denied")),
        formatter_error(ServerError("SlowDown"), "botocore"),
        formatter_error(ValueError("Exposure does not have a Detector."), "lsst.images._visit_image"),
    ],
)
def test_failures_of_machine_and_software_do_not_drop_an_image(error):
    """Another try may read it: the quantum fails, and says what it read."""
    broken = make_image(2)
    for component in ("psf", "image and all", "unit"):
        handle = StoredHandle(broken, broken={component: error})
        with pytest.raises(type(error)) as info:
            build(make_image(1), handle, make_image(3))
        assert "While reading Cam visit 2 detector 1." in info.value.__notes__


@pytest.mark.parametrize("component", ["sky_projection", "unit", "psf", "image and all"])
def test_damaged_image_is_dropped(component, caplog):
    handle = StoredHandle(make_image(2), broken={component: formatter_error(KeyError("ZTILE1"))})
    with caplog.at_level(logging.WARNING, "lsst"):
        result = build(make_image(1), handle, make_image(3))
    assert result.stack.names == ("Cam visit 1", "Cam visit 3")
    assert result.dropped == [("Cam visit 2 detector 1", "its file cannot be decoded (KeyError: 'ZTILE1')")]
    assert result.metadata["n_visit_images_damaged"] == 1
    # The log names the file.
    assert "from file:///data/x.fits" in caplog.text


# -- how many


def test_no_image_and_one_visit_are_no_work():
    with pytest.raises(
        NoWorkFound, match="0 usable visits on patch 3 of tract 0 in band i, fewer than minExposures=2"
    ):
        build()
    handles = [StoredHandle(image) for image in mosaic(1)]
    with pytest.raises(NoWorkFound, match="1 usable visits"):
        build(*handles)
    assert not any(handle.reads for handle in handles)
    assert build(make_image(1), minExposures=1).stack.n_exposures == 1


def test_too_few_usable_visits_is_no_work_with_the_reasons():
    images = [
        make_image(1),
        make_image(2, psf=gaussian(6.0, stamp_size=81)),
        make_image(3, mask={"BAD": np.ones(SHAPE, bool)}),
        make_image(4, center=(400.0, 0.0)),
    ]
    with pytest.raises(NoWorkFound) as info:
        build(*images)
    text = str(info.value)
    assert "1 usable visits" in text
    assert "Cam visit 2 detector 1: its PSF kernel of 25x25 pixels misses" in text
    assert "Cam visit 3 detector 1: none of its" in text
    assert "Cam visit 4 detector 1: it has no pixel on the patch" in text


def test_too_few_visits_because_of_damage_is_a_failure():
    """No work would count as done."""
    damaged = StoredHandle(make_image(2), broken={"psf": formatter_error(KeyError("ZTILE1"))})
    with pytest.raises(InputError, match="1 usable.*but 1 others are damaged.*skip-existing") as info:
        build(make_image(1), damaged)
    assert "Cam visit 2 detector 1: its file cannot be decoded" in str(info.value)
    # Repaired, they would still be too few.
    with pytest.raises(NoWorkFound):
        build(make_image(1), damaged, minExposures=3)


def test_images_beside_the_patch_are_ignored(caplog):
    """Regions of a repository are bounds, so that this is no defect; such an
    image may even lack what others must have.
    """
    beside = make_image(3, center=(150.0, 35.0), unit=u.adu)
    touching = make_image(4, center=(-57.8, 35.0))
    with caplog.at_level(logging.WARNING, "lsst"):
        result = build(make_image(1), make_image(2), beside, touching)
    assert result.stack.n_exposures == 2
    assert result.dropped == []
    assert not caplog.records
    assert result.metadata["n_visit_images_outside"] == 2


@pytest.mark.parametrize("config_class", [BuildStackConfig, StackWarpsConfig])
def test_even_kernel_size_is_refused(config_class: type[BuildStackConfig | StackWarpsConfig]) -> None:
    config = config_class()
    config.kernelSize = 24
    with pytest.raises(FieldValidationError, match="must be odd, not 24"):
        config.validate()


# -- memory


def stack_images(n: int, **config: Any) -> StackedInputs:
    """Stack visit images."""
    handles = [StoredHandle(make_image(visit, angle=0.1 * visit)) for visit in range(1, n + 1)]
    return BuildStackTask(config=BuildStackConfig(**config)).run(handles, visit_images.GEOMETRY, "i")


def stack_warps(n: int, **config: Any) -> StackedInputs:
    """Stack warps."""
    handles = [WarpHandle(warps.make_warp(seed=visit), visit) for visit in range(1, n + 1)]
    return StackWarpsTask(config=StackWarpsConfig(**config)).run(handles, warps.GEOMETRY, "i")


STACKERS = pytest.mark.parametrize(
    ("stacker", "geometry"),
    [(stack_images, visit_images.GEOMETRY), (stack_warps, warps.GEOMETRY)],
    ids=["visit images", "warps"],
)


def least_memory(geometry: PatchGeometry) -> float:
    """Return the memory, GiB, that a patch takes without its exposures."""
    return MemoryEstimate(n_exposures=0, n_pixels=geometry.outer_bbox.area).streamed


def is_in_file(array: np.ndarray) -> bool:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


@STACKERS
def test_pixels_that_do_not_fit_into_memory_are_kept_in_files(
    stacker: Any, geometry: PatchGeometry, caplog: pytest.LogCaptureFixture
) -> None:
    """The values are the same to the bit."""
    in_memory = stacker(3)
    with caplog.at_level(logging.INFO, logger="lsst"):
        on_disk = stacker(3, maxMemory=least_memory(geometry) + 1e-5)
    assert any("pixels of 3 visits in temporary files" in message for message in caplog.messages)
    for name in ("image", "variance", "good"):
        assert not is_in_file(getattr(in_memory.stack, name))
        assert is_in_file(getattr(on_disk.stack, name))
    for name in ("image", "variance", "good", "kernels", "correlation"):
        np.testing.assert_array_equal(getattr(on_disk.stack, name), getattr(in_memory.stack, name))
    np.testing.assert_array_equal(on_disk.seeing, in_memory.seeing)


@STACKERS
def test_patch_that_does_not_fit_at_all_is_refused(stacker: Any, geometry: PatchGeometry) -> None:
    with pytest.raises(RestorationError, match=r"maxMemory=1.0. Increase maxMemory, or make smaller patches"):
        stacker(2, maxMemory=1.0)


@STACKERS
def test_full_disk_is_an_error_with_the_remedy(
    stacker: Any, geometry: PatchGeometry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_room(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("os.posix_fallocate", no_room)
    with pytest.raises(
        RestorationError,
        match=f"patch 3 of tract 0.*No space left.*{tmp_path}.*Set TMPDIR.*increase maxMemory",
    ) as info:
        stacker(2, maxMemory=least_memory(geometry) + 1e-5)
    assert isinstance(info.value.__cause__, OSError)
    assert list(tmp_path.iterdir()) == []


def test_other_bands_and_finer_pixels_take_memory_too() -> None:
    geometry = visit_images.GEOMETRY
    handles = [StoredHandle(make_image(visit)) for visit in (1, 2)]
    task = BuildStackTask(config=BuildStackConfig(maxMemory=least_memory(geometry) + 1e-3))

    def in_file(**others: int) -> bool:
        return is_in_file(task.run(handles, geometry, "i", **others).stack.image)

    # An exposure is 0.0003 GiB, twice as fine an image 0.013 GiB.
    assert not in_file()
    assert in_file(n_other_exposures=1)
    with pytest.raises(RestorationError, match="Increase maxMemory"):
        in_file(oversampling=2)


def test_warps_are_stacked_in_the_memory_of_one() -> None:
    """With the pixels in files, memory hardly grows with the number of warps,
    and the stacker takes less than the restoration of the patch.
    """
    geometry = make_geometry(cells=(4, 4), cell_size=100)
    n_pixels = geometry.outer_bbox.area

    class UnreadWarp(WarpHandle):
        def get(self) -> Any:
            return warps.make_warp(geometry=geometry, seed=self.dataId["visit"])

    peaks = []
    for n in (2, 6):
        task = StackWarpsTask(config=StackWarpsConfig(maxMemory=least_memory(geometry) + 1e-3))
        tracemalloc.start()
        try:
            stacked = task.run([UnreadWarp(None, visit) for visit in range(n)], geometry, "i")
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert is_in_file(stacked.stack.image)
    assert peaks[1] - peaks[0] < 4 * 1.0 * n_pixels
    streamed = MemoryEstimate(n_exposures=6, n_pixels=n_pixels).streamed
    nothing = MemoryEstimate(n_exposures=6, n_pixels=0).streamed
    assert max(peaks) < (streamed - nothing) * 2**30
