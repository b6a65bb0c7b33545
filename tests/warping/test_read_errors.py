# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the distinction of damaged files and other failures."""

from __future__ import annotations

import errno
import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydantic
import pytest
from handles import ServerError, formatter_error
from visit_images import make_image

from lsst.daf.butler import FileIntegrityError
from lsst.drp.restore.errors import DamagedInputError, InputError
from lsst.drp.restore.warping.read_errors import is_software_error, reading
from lsst.images import VisitImage
from lsst.images.serialization import ArchiveReadError, read_archive, write_archive


class FitsError(Exception):
    """What lsst.afw raises for an error of cfitsio."""

    __module__ = "lsst.afw.fits"


def test_nothing_happens_without_an_error() -> None:
    with reading("visit 1"):
        value = 3
    assert value == 3


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileIntegrityError("Size of file /data/x.fits (1) is not 2"), "does not have the size"),
        (formatter_error(OSError("Empty or corrupt FITS file")), "OSError: Empty or corrupt FITS file"),
        (formatter_error(gzip.BadGzipFile("CRC check failed"), "gzip"), "BadGzipFile: CRC check failed"),
        (formatter_error(KeyError("JSONADDR")), "KeyError: 'JSONADDR'"),
        (formatter_error(ArchiveReadError("no tree"), "lsst.images._mask"), "ArchiveReadError: no tree"),
        (formatter_error(FitsError("cfitsio error: uncompress"), "lsst.obs.base"), "FitsError: cfitsio"),
    ],
)
def test_damaged_file(error: Exception, reason: str) -> None:
    with pytest.raises(DamagedInputError, match=reason) as info, reading("visit 1"):
        raise error
    # The path is in the cause only.
    assert "/data" not in str(info.value)
    assert info.value.__cause__ is error


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of the file of a visit image."""
    path = tmp_path_factory.mktemp("stored") / "image.fits"
    rng = np.random.default_rng(1)
    write_archive(
        make_image(image=rng.normal(size=(70, 80)), variance=rng.uniform(1, 2, (70, 80))), str(path)
    )
    return path.read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:1000],
        lambda data: b"",
        lambda data: bytes(2880) + data[2880:],
        lambda data: data[: len(data) // 3] + bytes(6000) + data[len(data) // 3 + 6000 :],
        lambda data: data[:-9000] + np.random.default_rng(2).bytes(9000),
    ],
    ids=["cut", "cut in header", "empty", "no header", "zeros", "random tail"],
)
def test_damaged_bytes(damage: Callable[[bytes], bytes], stored: bytes, tmp_path: Path) -> None:
    """By the real decoders, whatever they raise."""
    path = tmp_path / "damaged.fits"
    path.write_bytes(damage(stored))

    def read() -> None:
        try:
            image = read_archive(str(path), cls=VisitImage)
            assert image.image.array.shape == (70, 80)
        except Exception as err:
            raise ValueError("Failure from formatter") from err

    with pytest.raises(DamagedInputError, match="its file cannot be decoded"), reading("visit 1"):
        read()


class Record(pydantic.BaseModel):
    """Anything that a conversion makes."""

    day: int


def conversion_error() -> ValueError:
    """Return the error of a conversion that uses pydantic."""
    try:
        try:
            Record(day="never")  # type: ignore[arg-type]
        except pydantic.ValidationError as err:
            raise ValueError("Failure from formatter") from err
    except ValueError as err:
        return err


@pytest.mark.parametrize(
    "error",
    [
        formatter_error(TypeError("read() takes 2 arguments"), "lsst.obs.base.formatters.fitsExposure"),
        formatter_error(
            RuntimeError("Legacy mask plane 'CLIPPED' is not remapped, but 9 pixels have this bit set."),
            "lsst.images._mask",
        ),
        formatter_error(ValueError("Exposure does not have a Detector."), "lsst.images._visit_image"),
        formatter_error(ValueError("Exposure file does not have a Psf."), "lsst.images._visit_image"),
        formatter_error(TypeError("unsupported operand: NoneType and int"), "lsst.images._masked_image"),
        formatter_error(FitsError("could not open the named file (/data/x.fits)"), "lsst.obs.base"),
        conversion_error(),
    ],
    ids=str,
)
def test_errors_of_software_and_conversion_are_no_damage(error: Exception) -> None:
    with pytest.raises(ValueError, match="Failure from formatter") as info, reading("visit 1"):
        raise error
    assert info.value is error
    assert "While reading visit 1." in info.value.__notes__


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TypeError("no"), True),
        (ImportError("No module named 'galsim'"), True),
        (PermissionError(errno.EACCES, "denied"), True),
        (RuntimeError("Unable to cast Python instance of type ImageF to Image<double>"), True),
        (RuntimeError("no stars to interpolate"), False),
        (ValueError("ellipticity of 2"), False),
    ],
)
def test_software_errors_of_psf_models(error: Exception, expected: bool) -> None:
    assert is_software_error(error) == expected


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no such file"),
        formatter_error(PermissionError(errno.EACCES, "denied")),
        formatter_error(OSError(errno.EIO, "input/output error")),
        formatter_error(ConnectionResetError("gone")),
        formatter_error(TimeoutError("gone")),
        formatter_error(MemoryError()),
        formatter_error(ImportError("No module named 'piff'")),
        formatter_error(ServerError("SlowDown"), "botocore"),
        ValueError("not of a formatter"),
        KeyError("not of a formatter"),
    ],
)
def test_other_failures_pass_with_a_note(error: Exception) -> None:
    with pytest.raises(type(error)) as info, reading("visit 1"):
        raise error
    assert info.value is error
    assert "While reading visit 1." in info.value.__notes__


@pytest.mark.parametrize("error", [DamagedInputError("its file is empty"), InputError("no unit")])
def test_errors_that_say_it_already_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as info, reading("visit 1"):
        raise error
    assert info.value is error
    assert not hasattr(error, "__notes__")
