# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Handles of datasets in memory, and their errors, as the Butler has them."""

from __future__ import annotations

from typing import Any

from lsst.daf.butler import StorageClassFactory
from lsst.images import VisitImage


class StoredHandle:
    """A visit image stored as such: components and cutouts can be read.

    Parameters
    ----------
    image : `lsst.images.VisitImage`
        The image.
    broken : `dict` [`str`, `Exception`]
        Components whose reads fail.
    """

    def __init__(self, image: VisitImage, broken: dict[str, Exception] | None = None) -> None:
        frame = image.sky_projection.pixel_frame
        self.dataId: dict[str, Any] = {
            "instrument": frame.instrument,
            "visit": frame.visit,
            "detector": frame.detector,
            "physical_filter": image.physical_filter,
            "day_obs": 20240301,
        }
        self.image = image
        self.broken = broken or {}
        self.reads: list[str] = []

    def get(self, *, component: str | None = None, parameters: dict[str, Any] | None = None) -> Any:
        storage_class = StorageClassFactory().getStorageClass("VisitImage")
        storage_class.validateParameters(parameters)
        name = component or "image and all"
        self.reads.append(name)
        if name in self.broken:
            raise self.broken[name]
        result = getattr(self.image, component) if component else self.image
        if parameters:
            assert component in (None, "mask"), component
            result = result[parameters["bbox"]]
        return result


class ConvertedHandle:
    """A visit image stored as an afw ExposureF, which the Butler converts on
    a read of the whole image.

    Parameters
    ----------
    image : `lsst.images.VisitImage`
        The image.
    """

    def __init__(self, image: VisitImage) -> None:
        self.dataId = StoredHandle(image).dataId
        self.image = image
        self.reads: list[str] = []

    def get(self, *, component: str | None = None, parameters: dict[str, Any] | None = None) -> Any:
        assert component is None, f"{component} would be a read of the whole image"
        if parameters is None or "exposure_record" not in parameters:
            raise TypeError("from_legacy() missing 1 required argument: 'exposure_record'")
        # A bounding box is silently ignored.
        self.reads.append("image and all")
        return self.image


class WarpHandle:
    """A warp in memory, which is read whole.

    Parameters
    ----------
    warp
        The warp.
    visit : `int`
        ID of the visit.
    """

    def __init__(self, warp: Any, visit: int = 1) -> None:
        self.dataId: dict[str, Any] = {
            "instrument": "Cam",
            "visit": visit,
            "physical_filter": "Cam-i",
            "day_obs": 20240301,
        }
        self.warp = warp

    def get(self) -> Any:
        return self.warp


def formatter_error(error: Exception, raised_in: str = "astropy.io.fits.header") -> ValueError:
    """Return an error as a datastore raises it for one of a formatter, which
    was raised by code in a module of the given name.
    """
    try:
        try:
            exec("raise error", {"__name__": raised_in, "error": error})
        except Exception as err:
            raise ValueError(f"Failure from formatter for dataset from file:///data/x.fits: {err}") from err
    except ValueError as err:
        return err


class ServerError(Exception):
    """Error of an object store's client, which is not known here."""

    __module__ = "botocore.exceptions"
