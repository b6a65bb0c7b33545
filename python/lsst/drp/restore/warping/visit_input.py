# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Reading of one visit image, however its repository stores it."""

from __future__ import annotations

__all__ = ("NOISE_CORRELATION", "VisitInput", "noise_correlation", "scale_to_njy")

from typing import Any

import astropy.units as u
import numpy as np

from lsst.daf.butler import DataCoordinate, DimensionRecord
from lsst.images import Box, VisitImage

from ..errors import DamagedInputError, InputError, describe_error, find_cause, find_environment_error
from .handle_input import HandleInput
from .legacy import visit_image_from_afw

NOISE_CORRELATION = "noise_correlation"
"""Entry of a visit image's metadata: power of the noise at low spatial
frequencies in units of the variance of a pixel (`str`).
"""


class VisitInput(HandleInput):
    """One visit image behind a deferred handle.

    A dataset stored as a `~lsst.images.VisitImage` is read by component, and
    of its pixels only those that are asked for.  One stored as an afw
    ``ExposureF`` is converted by the Butler on a read of the whole image,
    even for a component, and a bounding box is ignored: it is read once, and
    its parts are cut out here.  If the Butler cannot convert it, for example
    because of its mask planes, it is read as it is and converted here.

    Parameters
    ----------
    handle : `lsst.daf.butler.DeferredDatasetHandle`
        Handle of the dataset; or anything with its ``dataId`` and ``get``.
    """

    def __init__(self, handle: Any) -> None:
        super().__init__(handle)
        self._image: VisitImage | None = None
        self._is_open = False

    def __str__(self) -> str:
        return f"{self.instrument} visit {self.visit} detector {self.detector}"

    @property
    def detector(self) -> int:
        """ID of the detector (`int`)."""
        return int(self._handle.dataId["detector"])

    @property
    def physical_filter(self) -> str:
        """Full name of the filter (`str`)."""
        name = self._data_id_value("physical_filter")
        return str(name if name is not None else self.get("obs_info").physical_filter)

    @property
    def day_obs(self) -> int:
        """Observing night as YYYYMMDD, 0 if not known (`int`)."""
        day = self._data_id_value("day_obs")
        if day is None:
            day = self.get("obs_info").observing_day
        return int(day) if day is not None else 0

    @property
    def is_whole(self) -> bool:
        """Whether every read is one of the whole image (`bool`).  If so, the
        first access reads it.
        """
        if not self._is_open:
            self._open()
        return self._image is not None

    def _open(self) -> None:
        # Only the conversion from an ExposureF takes this parameter; a stored
        # VisitImage refuses it before it reads anything.
        try:
            self._image = self._read_dataset(parameters={"exposure_record": self._exposure_record()})
        except KeyError as err:
            if "exposure_record" not in str(err):
                raise
        except DamagedInputError:
            raise
        except Exception as err:
            # The Butler cannot convert the storage class, or cannot import
            # the formatter.
            is_missing = isinstance(find_environment_error(err), ImportError)
            if is_missing or (isinstance(err, ValueError) and "storage class" in str(err)):
                raise InputError(
                    f"{self} cannot be read as a VisitImage here ({err}). If it is an afw ExposureF, run "
                    "where lsst.afw is installed, in the full Science Pipelines, or bring the exposure into "
                    "a repository of visit images with 'butler ingest-exposures'.",
                    dataset=str(self),
                ) from err
            if find_environment_error(err) is not None:
                raise
            self._image = self._convert(err)
        self._is_open = True

    def _exposure_record(self) -> DimensionRecord | None:
        """Return the record of the exposure: that of its visit, which in all
        cameras is one exposure of the same ID; `None` without records.
        """
        data_id = self._handle.dataId
        if not isinstance(data_id, DataCoordinate) or not data_id.hasRecords():
            return None
        visit = data_id.records["visit"]
        if visit is None or visit.timespan is None:
            return None
        names = ("instrument", "id", "physical_filter", "day_obs", "seq_num", "exposure_time", "timespan")
        return data_id.universe["exposure"].RecordClass(
            obs_id=visit.name,
            **{name: getattr(visit, name) for name in (*names, "azimuth", "zenith_angle")},
        )

    def _convert(self, reason: Exception) -> VisitImage:
        """Convert an exposure that the Butler does not convert, or not wholly;
        the error says why.
        """
        try:
            exposure = self._read_dataset(storageClass="ExposureF")
        except DamagedInputError:
            raise
        except Exception:
            # It was not the conversion.
            raise reason from None
        try:
            return visit_image_from_afw(exposure, self._exposure_record())
        except Exception as err:
            raise InputError(
                f"{self} cannot be converted to a VisitImage ({describe_error(err)}; by the Butler: "
                f"{describe_error(find_cause(reason))}). Write the dataset again with all that a calibrated "
                "exposure has, or leave the visit out of the data query.",
                dataset=str(self),
            ) from err

    def close(self) -> None:
        """Release the memory of an image that was read as a whole."""
        self._image = None
        self._is_open = False

    def get(self, component: str) -> Any:
        """Read a component.

        Parameters
        ----------
        component : `str`
            Name of a component of visit images, for example ``psf``.

        Returns
        -------
        value
            The component.

        Raises
        ------
        DamagedInputError
            Raised if the file is damaged.
        """
        if self.is_whole:
            return getattr(self._image, component)
        return self._read_dataset(component=component)

    def mask_planes(self) -> set[str]:
        """Read the names of the mask planes (`set` [`str`])."""
        if self.is_whole:
            mask = self.get("mask")
        else:
            pixel = Box.from_shape((1, 1), start=self.get("bbox").start)
            mask = self._read_dataset(component="mask", parameters={"bbox": pixel})
        return set(mask.schema.names)

    def require_planes(self, planes: set[str]) -> None:
        """Check that the image has the mask planes of its bad pixels.

        Parameters
        ----------
        planes : `set` [`str`]
            Names of the mask planes.

        Raises
        ------
        InputError
            Raised if one is missing.
        """
        try:
            self._check_planes(planes, self.mask_planes())
        except InputError as err:
            if not self.is_whole:
                raise
            # The Butler leaves out planes of afw in which no pixel is set.
            self._image = self._convert(err)
            self._check_planes(planes, self.mask_planes())

    def require_flux(self) -> None:
        """Check that the pixels can be converted to nJy.

        Raises
        ------
        InputError
            Raised if they cannot.
        """
        unit = self.get("unit")
        if unit is not None and unit.is_equivalent(u.nJy):
            return
        scaling = self.get("photometric_scaling")
        if unit is not None and scaling is not None and (unit * scaling.unit).is_equivalent(u.nJy):
            return
        problem = (
            "it has no photometric_scaling"
            if scaling is None
            else f"its photometric_scaling in {scaling.unit} does not make it one"
        )
        raise InputError(
            f"{self} has pixels in {unit}, which is no unit of flux, and {problem}. Calibrate the dataset to "
            "nJy, or store it with the photometric_scaling that converts it.",
            dataset=str(self),
            unit=str(unit),
        )

    def read(self, bbox: Box) -> VisitImage:
        """Read a part of the image.

        Parameters
        ----------
        bbox : `lsst.images.Box`
            Pixels to read, inside of the image.

        Returns
        -------
        image : `lsst.images.VisitImage`
            That part.

        Raises
        ------
        DamagedInputError
            Raised if the file is damaged.
        """
        image = self._image if self.is_whole else self._read_dataset(parameters={"bbox": bbox})
        assert image is not None, "Read by _open if it is whole."
        return image if image.bbox == bbox else image[bbox]


def scale_to_njy(image: VisitImage) -> np.float32 | np.ndarray:
    """Return the scale of an image's pixels.

    Parameters
    ----------
    image : `lsst.images.VisitImage`
        An image that passes `VisitInput.require_flux`.

    Returns
    -------
    scale : `numpy.float32` or `numpy.ndarray`
        Flux of a unit of the pixels, nJy: a number, or the photometric
        scaling, shape ``(height, width)``.
    """
    if image.unit.is_equivalent(u.nJy):
        return np.float32(image.unit.to(u.nJy))
    scaling = image.photometric_scaling
    assert scaling is not None and scaling.unit is not None, "Guaranteed by require_flux."
    factor = np.float32((image.unit * scaling.unit).to(u.nJy))
    return scaling.render(image.bbox, dtype=np.float32).array * factor


def noise_correlation(image: VisitImage) -> float:
    """Return the correlation of an image's noise.

    Parameters
    ----------
    image : `lsst.images.VisitImage`
        A visit image.

    Returns
    -------
    correlation : `float`
        Power of the noise at low spatial frequencies in units of the variance
        of a pixel; 1 for the independent pixels of a detector, which is taken
        where the metadata do not have it.
    """
    value = image.metadata.get(NOISE_CORRELATION)
    return float(value) if isinstance(value, int | float) else 1.0
