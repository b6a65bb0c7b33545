# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exceptions that tell what is wrong and what to do about it."""

from __future__ import annotations

__all__ = ("DamagedInputError", "DivergedError", "InputError", "RestorationError")

from typing import Any

import lsst.pipe.base as pipeBase


class RestorationError(pipeBase.AlgorithmError):
    """A patch cannot be restored, and trying again would not help.

    Unlike `lsst.pipe.base.UnprocessableDataError` it counts as a failure of
    the quantum: somebody has to change a configuration or a dataset.

    Parameters
    ----------
    message : `str`
        What is wrong, with which dataset, and the remedy.
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
    """An input dataset, or the configuration's idea of it, is wrong."""


class DivergedError(RestorationError):
    """A training, or steps from its result, led to values that are not
    finite.
    """


class DamagedInputError(Exception):
    """One input is damaged, and the patch may be restored without it: its
    file cannot be decoded, or its PSF model fails.

    The message says what is wrong, without the name of the input.
    """
