# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Damaged input files versus other causes of failed reads."""

from __future__ import annotations

__all__ = ("is_software_error", "reading")

from collections.abc import Iterator
from contextlib import contextmanager

import lsst.pipe.base as pipeBase
from lsst.daf.butler import FileIntegrityError
from lsst.images.serialization import ArchiveReadError

from ..errors import DamagedInputError, describe_error, find_cause, find_environment_error

# Modules that decode the bytes of a file.  Of all others, a formatter or a
# conversion for example, errors say nothing about them.
_DECODERS = (
    "astropy.io.fits",
    "gzip",
    "json",
    "lsst.images._transforms._ast",
    "lsst.images.fits",
    "lsst.images.json",
    "lsst.images.ndf",
    "lsst.images.serialization",
    "zlib",
)

# These check values for the module that calls them.
_VALIDATORS = ("pydantic",)

_SOFTWARE_ERRORS = (AssertionError, AttributeError, ImportError, NameError, NotImplementedError, TypeError)


@contextmanager
def reading(label: object) -> Iterator[None]:
    """Return a context for the reads of an input dataset.

    Parameters
    ----------
    label : `object`
        Names the dataset, by its `str`.

    Raises
    ------
    DamagedInputError
        Raised if the file exists and can be read, but not decoded: the image
        is lost.  All other errors (no file, no permission, no network, no
        memory, no software, a conversion that fails) pass, with a note that
        names the dataset: their cause is the machine or the software, not the
        image, and the patch has to wait until it is removed.
    """
    try:
        yield
    except (DamagedInputError, pipeBase.AlgorithmError):
        raise
    except FileIntegrityError as err:
        raise DamagedInputError("its file does not have the size with which it was written") from err
    except Exception as err:
        # The datastore raises a ValueError from whatever a formatter raised.
        cause = find_cause(err)
        is_wrapped = isinstance(err, ValueError) and cause is not err
        if not (is_wrapped and _is_of_decoder(cause)) or find_environment_error(err) is not None:
            err.add_note(f"While reading {label}.")
            raise
        raise DamagedInputError(f"its file cannot be decoded ({describe_error(cause)})") from err


def is_software_error(err: BaseException) -> bool:
    """Return whether an error of a PSF model is one of software, not of the
    model's data.

    Parameters
    ----------
    err : `BaseException`
        The error.

    Returns
    -------
    is_software : `bool`
        Whether no other data would have prevented it: missing packages, wrong
        types, and pixels that lsst.afw cannot cast.
    """
    # pybind11 has no class of its own for the last.
    is_cast = type(err) is RuntimeError and "Unable to cast Python instance" in str(err)
    return is_cast or isinstance(err, _SOFTWARE_ERRORS) or find_environment_error(err) is not None


def _is_of_decoder(err: BaseException) -> bool:
    """Return whether an error was raised while bytes were decoded."""
    if isinstance(err, ArchiveReadError):
        return True
    kind = type(err)
    if kind.__module__.startswith("lsst.afw.fits") and kind.__name__ == "FitsError":
        # Of cfitsio, which says so where it could not open the file at all.
        return "could not open" not in str(err)
    origin, traceback = "", err.__traceback__
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "")
        if not _is_in(module, _VALIDATORS):
            origin = module
        traceback = traceback.tb_next
    return _is_in(origin, _DECODERS)


def _is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)
