# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exceptions, whose messages have the remedy, and tools to describe others."""

from __future__ import annotations

__all__ = (
    "DamagedInputError",
    "DivergedError",
    "InputError",
    "RestorationError",
    "describe_error",
    "find_cause",
    "find_environment_error",
)

import gzip
from typing import Any

import lsst.pipe.base as pipeBase


class RestorationError(pipeBase.AlgorithmError):
    """A patch cannot be restored, and trying again would not help.

    Unlike `lsst.pipe.base.UnprocessableDataError` it counts as a failure of
    the quantum: somebody has to change a configuration or a dataset.

    Parameters
    ----------
    message : `str`
        The problem, the dataset, and the remedy.
    **metadata
        Scalars for the task's metadata.
    """

    def __init__(self, message: str, **metadata: Any) -> None:
        super().__init__(message)
        self._metadata = metadata

    @property
    def metadata(self) -> dict[str, Any]:
        """Scalars that describe the failure (`dict`)."""
        return self._metadata


class InputError(RestorationError):
    """An input dataset is wrong, or the configuration does not fit it."""


class DivergedError(RestorationError):
    """A training, or steps from its result, led to values that are not
    finite.
    """


class DamagedInputError(Exception):
    """One input is damaged, and the patch may be restored without it: its
    file cannot be decoded, or its PSF model fails.

    The message has the problem, without the name of the input.
    """


def describe_error(err: BaseException) -> str:
    """Return an exception's type and the first line of its message.

    Parameters
    ----------
    err : `BaseException`
        Any exception.

    Returns
    -------
    text : `str`
        Text for a message of one line.
    """
    lines = str(err).strip().splitlines()
    return f"{type(err).__name__}: {lines[0]}" if lines else type(err).__name__


def find_cause(err: BaseException) -> BaseException:
    """Return the error that an error was raised from, or from which that was.

    Parameters
    ----------
    err : `BaseException`
        Any exception.

    Returns
    -------
    cause : `BaseException`
        The first of the chain; ``err`` itself if it is alone.
    """
    while err.__cause__ is not None:
        err = err.__cause__
    return err


def find_environment_error(err: BaseException) -> BaseException | None:
    """Return the error of the machine, not of the data, that is behind an
    error.

    Parameters
    ----------
    err : `BaseException`
        Any exception.

    Returns
    -------
    cause : `BaseException` or `None`
        The error, or the one it was raised from or while handling, that is of
        the operating system or the network, or lack of memory or software;
        `None` if there is none.
    """
    link: BaseException | None = err
    while link is not None:
        # Astropy raises a bare OSError for a file that is not a FITS file.
        is_content = type(link) is OSError or isinstance(link, gzip.BadGzipFile)
        is_system = isinstance(link, OSError) and not (is_content and link.errno is None)
        if is_system or isinstance(link, MemoryError | ImportError):
            return link
        link = link.__cause__ or link.__context__
    return None
