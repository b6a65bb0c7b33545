# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Damaged input files versus other causes of failed reads."""

from __future__ import annotations

__all__ = ("reading",)

from collections.abc import Iterator
from contextlib import contextmanager

import lsst.pipe.base as pipeBase
from lsst.daf.butler import FileIntegrityError

from ..errors import DamagedInputError, describe_error, find_cause, find_environment_error

# Packages whose errors mean that a file has wrong bytes.  Errors of others, the
# client of an object store for example, say nothing about the file.
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
        Raised if the file exists and can be read, but not decoded: the image
        is lost.  All other errors (no file, no permission, no network, no
        memory, no software) pass, with a note that names the dataset: their
        cause is the machine, not the image, and the patch has to wait until
        it is removed.
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
        is_decoder = type(cause).__module__.partition(".")[0] in _DECODERS
        is_wrapped = isinstance(err, ValueError) and cause is not err
        if not (is_wrapped and is_decoder) or find_environment_error(err) is not None:
            err.add_note(f"While reading {label}.")
            raise
        raise DamagedInputError(f"its file cannot be decoded ({describe_error(cause)})") from err
