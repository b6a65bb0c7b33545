# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""One input dataset of a stack behind a deferred handle."""

from __future__ import annotations

__all__ = ("HandleInput",)

import abc
from collections.abc import Collection
from typing import Any

from ..errors import InputError
from .read_errors import reading


class HandleInput(abc.ABC):
    """One input dataset of a stack behind a deferred handle.

    Its `str` names it in messages.

    Parameters
    ----------
    handle : `lsst.daf.butler.DeferredDatasetHandle`
        Handle of the dataset; or anything with its ``dataId`` and ``get``.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    @abc.abstractmethod
    def __str__(self) -> str: ...

    @property
    def instrument(self) -> str:
        """Name of the instrument (`str`)."""
        return str(self._handle.dataId["instrument"])

    @property
    def visit(self) -> int:
        """ID of the visit (`int`)."""
        return int(self._handle.dataId["visit"])

    @property
    @abc.abstractmethod
    def detector(self) -> int:
        """ID of the detector (`int`)."""

    @property
    def physical_filter(self) -> str:
        """Full name of the filter (`str`)."""
        return str(self._data_id_value("physical_filter", "unknown"))

    @property
    def day_obs(self) -> int:
        """Observing night as YYYYMMDD, 0 if not known (`int`)."""
        return int(self._data_id_value("day_obs", 0))

    def _data_id_value(self, dimension: str, default: Any = None) -> Any:
        try:
            return self._handle.dataId[dimension]
        except KeyError:
            return default

    def _read_dataset(self, **selection: Any) -> Any:
        """Read the dataset, or a part of it; a damaged file raises
        `DamagedInputError`.
        """
        with reading(self):
            return self._handle.get(**selection)

    def close(self) -> None:  # noqa: B027
        """Release the memory of an image that was read as a whole."""

    def _check_planes(self, wanted: Collection[str], present: Collection[str]) -> None:
        """Check that no mask plane is missing."""
        if missing := sorted(set(wanted) - set(present)):
            raise InputError(
                f"{self} has no mask plane {', '.join(missing)}, without which bad pixels would pass as good "
                f"ones; its planes are {', '.join(sorted(present))}. Write the dataset again with it, or "
                "remove the name from the configuration field badMaskPlanes.",
                dataset=str(self),
                missing=", ".join(missing),
            )
