# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images of lsst.afw, and their conversion, which refuse the same as
the real ones.
"""

from __future__ import annotations

import logging
import types
from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np
from handles import StoredHandle, formatter_error
from warps import AfwImage, AfwMask

from lsst.drp.restore.warping.legacy import other_plane_name
from lsst.images import MaskedImage, MaskPlane, VisitImage, get_legacy_visit_image_mask_planes


class LegacyImage(AfwImage):
    """`AfwImage` with the position of its first pixel."""

    def getX0(self) -> int:  # noqa: N802
        return self._bbox.x.start

    def getY0(self) -> int:  # noqa: N802
        return self._bbox.y.start


class LegacyMask(AfwMask):
    """`AfwMask` with the position of its first pixel."""

    def __init__(self, array: np.ndarray, planes: dict[str, int], image: LegacyImage) -> None:
        super().__init__(array, planes)
        self.getX0, self.getY0 = image.getX0, image.getY0


class AfwVisit:
    """What is used of `lsst.afw.image.ExposureF`.

    Parameters
    ----------
    like : `lsst.images.VisitImage`
        Image with the same contents, without its mask.
    masked : `~collections.abc.Mapping` [`str`, `numpy.ndarray`]
        Pixels with a mask plane, by afw's name of it.
    unit : `str` or `None`
        ``BUNIT`` of the header.
    mean : `float` or `None`
        Photometric calibration.
    detector, psf : `bool`
        Whether it has them.
    """

    def __init__(
        self,
        like: VisitImage,
        *,
        masked: Mapping[str, np.ndarray] | None = None,
        unit: str | None = "nJy",
        mean: float | None = 1.0,
        detector: bool = True,
        psf: bool = True,
    ) -> None:
        self.like, self._unit, self._mean = like, unit, mean
        self.has_detector, self.has_psf = detector, psf
        self.image = LegacyImage(like.image.array, like.bbox)
        self.variance = LegacyImage(like.variance.array, like.bbox)
        masked = masked or {}
        names = dict.fromkeys([*get_legacy_visit_image_mask_planes(), "DETECTED_NEGATIVE", *masked])
        planes = {name: bit for bit, name in enumerate(names)}
        array = np.zeros(like.bbox.shape, np.int32)
        for name, pixels in masked.items():
            array |= np.where(pixels, 1 << planes[name], 0)
        self.mask = LegacyMask(array, planes, self.image)
        frame = like.sky_projection.pixel_frame
        visit_info = types.SimpleNamespace(
            getId=lambda: frame.visit, getInstrumentLabel=lambda: frame.instrument
        )
        self.info = types.SimpleNamespace(getVisitInfo=lambda: visit_info)

    def getMaskedImage(self) -> Any:  # noqa: N802
        return types.SimpleNamespace(
            getImage=lambda: self.image, getMask=lambda: self.mask, getVariance=lambda: self.variance
        )

    def getMetadata(self) -> dict[str, str]:  # noqa: N802
        return {} if self._unit is None else {"BUNIT": self._unit}

    def getPhotoCalib(self) -> Any:  # noqa: N802
        return None if self._mean is None else types.SimpleNamespace(getCalibrationMean=lambda: self._mean)


def from_legacy(
    legacy: AfwVisit,
    *,
    exposure_record: Any,
    unit: u.UnitBase | None = None,
    plane_map: Mapping[str, MaskPlane] | None = None,
) -> VisitImage:
    """Convert as `lsst.images.VisitImage.from_legacy` does."""
    if not legacy.has_detector:
        raise ValueError("Exposure does not have a Detector.")
    if not legacy.has_psf:
        raise ValueError("Exposure file does not have a Psf.")
    if exposure_record is None:
        logging.getLogger("lsst.images").warning("Converting without an exposure dimension record")
    elif exposure_record.id != legacy.info.getVisitInfo().getId():
        raise ValueError("Exposure ID from VisitInfo does not match that of the given exposure record.")
    bunit = legacy.getMetadata().get("BUNIT")
    if unit is None and bunit is not None:
        unit = u.Unit(bunit)
    planes = plane_map if plane_map is not None else get_legacy_visit_image_mask_planes()
    pixels = MaskedImage.from_legacy(legacy.getMaskedImage(), unit=unit, plane_map=planes)
    like = legacy.like
    return VisitImage(
        pixels.image,
        mask=pixels.mask,
        variance=pixels.variance,
        sky_projection=like.sky_projection,
        psf=like.psf,
        obs_info=like.obs_info,
        detector=like.detector,
        band=like.band,
    )


class AfwHandle:
    """A visit image of lsst.afw in a repository.

    Parameters
    ----------
    exposure : `AfwVisit`
        The image.
    """

    def __init__(self, exposure: AfwVisit) -> None:
        self.dataId: Any = StoredHandle(exposure.like).dataId
        self.exposure = exposure
        self.records: list[Any] = []

    def get(
        self,
        *,
        component: str | None = None,
        parameters: dict[str, Any] | None = None,
        storageClass: str | None = None,  # noqa: N803
    ) -> Any:
        if storageClass == "ExposureF":
            assert not parameters, "It is read as it is."
            return self.exposure
        assert component is None, f"{component} would be a read of the whole image"
        assert parameters is not None and set(parameters) == {"exposure_record"}
        self.records.append(parameters["exposure_record"])
        try:
            return VisitImage.from_legacy(self.exposure, **parameters)
        except Exception as err:
            raise formatter_error(err, "lsst.images._visit_image") from err


def bits(name: str, image: VisitImage) -> np.ndarray:
    """Return the pixels with a mask plane, by afw's name of it."""
    return image.mask.get(name if name in image.mask.schema.names else other_plane_name(name))
