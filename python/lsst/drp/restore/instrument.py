# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The instrument of exposures that have no obs package."""

from __future__ import annotations

__all__ = ("ExternalInstrument",)

from typing import NoReturn

from lsst.daf.butler import DataId, Registry
from lsst.pipe.base import Instrument


class ExternalInstrument(Instrument):
    """A camera whose processed exposures are ingested or simulated.

    The instrument's record in a repository has the path of this class,
    whatever the name of the instrument is; the middleware instantiates it.
    Detectors and filters are registered together with exposures.

    Parameters
    ----------
    collection_prefix : `str`, optional
        Prefix for collection names instead of the instrument's name.
    """

    VISIT_MAX = 10**15
    """Upper limit of visit IDs, exclusive (`int`)."""

    DETECTOR_MAX = 1000
    """Upper limit of detector IDs, exclusive (`int`)."""

    @classmethod
    def getName(cls) -> str:
        """Return the default name.

        Returns
        -------
        name : `str`
            Name of the instrument dimension.
        """
        return "External"

    def register(self, registry: Registry, *, update: bool = False) -> None:
        """Insert the instrument's record.

        Parameters
        ----------
        registry : `lsst.daf.butler.Registry`
            Registry to modify.
        update : `bool`, optional
            Whether to replace an existing record that differs.
        """
        record = self.make_record(self.getName())
        with registry.transaction():
            registry.syncDimensionData("instrument", record, update=update)

    @classmethod
    def make_record(cls, name: str) -> dict[str, str | int]:
        """Return the fields of an instrument's dimension record.

        Parameters
        ----------
        name : `str`
            Name of the instrument.

        Returns
        -------
        record : `dict`
            Fields of the ``instrument`` dimension.
        """
        return {
            "name": name,
            "class_name": f"{cls.__module__}.{cls.__qualname__}",
            "visit_max": cls.VISIT_MAX,
            "exposure_max": cls.VISIT_MAX,
            "detector_max": cls.DETECTOR_MAX,
        }

    def getRawFormatter(self, dataId: DataId) -> NoReturn:  # noqa: N803
        """Raise, because this instrument has no raws.

        Parameters
        ----------
        dataId : `lsst.daf.butler.DataId`
            Data ID of the raw file.

        Raises
        ------
        NotImplementedError
            Always raised.
        """
        raise NotImplementedError("An external instrument has no raw exposures, only processed ones.")
