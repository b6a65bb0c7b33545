# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Telling damaged input files from other reasons why a read fails."""

from __future__ import annotations

__all__ = ("reading",)

from collections.abc import Iterator
from contextlib import contextmanager

import lsst.pipe.base as pipeBase
from lsst.daf.butler import FileIntegrityError

from ..errors import DamagedInputError, describe_error, find_cause, find_environment_error

# Where the errors come from that are raised when a file has other bytes than it should have.  What comes from
# elsewhere, the client of an object store for example, is no fault of the file.
_DECODERS = frozenset(
    {"astropy", "binascii", "builtins", "gzip", "json", "lsst", "pydantic_core", "starlink", "struct", "zlib"}
)


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
        Raised if the file is there and can be read, but not decoded: the
        survey has lost an image.  All other errors (no file, no permission,
        no network, no memory, no software) pass, with a note of what was
        read: they tell of the place where the patch is restored, not of the
        image, and the patch must wait until they are mended.
    """
    try:
        yield
    except (DamagedInputError, pipeBase.AlgorithmError):
        raise
    except FileIntegrityError as err:
        raise DamagedInputError("its file has not the size with which it was written") from err
    except Exception as err:
        # The datastore raises a ValueError from whatever a formatter raised.
        cause = find_cause(err)
        is_decoder = type(cause).__module__.partition(".")[0] in _DECODERS
        is_wrapped = isinstance(err, ValueError) and cause is not err
        if not (is_wrapped and is_decoder) or find_environment_error(err) is not None:
            err.add_note(f"While reading {label}.")
            raise
        raise DamagedInputError(f"its file cannot be decoded ({describe_error(cause)})") from err
