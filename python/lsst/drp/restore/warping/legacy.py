# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures of lsst.afw: visit images, warps and coadds.

Warps and coadds have no detector, so that the Butler cannot convert them to any
class of lsst.images; and of visit images it converts those that LSST's own
pipelines write today.  No other module uses lsst.afw.
"""

from __future__ import annotations

__all__ = (
    "MASK_GROWTH",
    "coadd_from_afw",
    "other_plane_name",
    "replace_pixels",
    "visit_image_from_afw",
    "warp_from_afw",
)

from collections.abc import Sequence
from typing import Any

import astropy.units as u
import numpy as np
import scipy.ndimage

from lsst.daf.butler import DimensionRecord
from lsst.images import (
    Box,
    Image,
    Mask,
    MaskedImage,
    MaskPlane,
    MaskSchema,
    NoOverlapError,
    VisitImage,
    get_legacy_difference_image_mask_planes,
    get_legacy_non_cell_coadd_mask_planes,
    get_legacy_visit_image_mask_planes,
)

from ..errors import InputError
from .psf_drawing import KernelImages
from .warp_image import StoredWarp

MASK_GROWTH = 2
"""Pixels by which the masks of warps are grown: the pipelines interpolate pixels
with Lanczos kernels and masks linearly, so that bad pixels reach that much
farther than their masks.  Next to saturated stars it reduces the scatter of
fluxes from 13 to 1 percent (Lanczos-3; of Lanczos-5, which HSC and DECam use,
weights of up to 0.03 are beyond).
"""

_PLANES = get_legacy_visit_image_mask_planes()

# From names of mask planes in lsst.afw to those in lsst.images, and back.
_OTHER_NAMES = {old: plane.name for old, plane in _PLANES.items()} | {
    plane.name: old for old, plane in _PLANES.items()
}


def other_plane_name(name: str) -> str:
    """Return the other library's name of a mask plane.

    Parameters
    ----------
    name : `str`
        Name in lsst.afw (``SAT``) or lsst.images (``SATURATED``).

    Returns
    -------
    name : `str`
        Name in the other; the same if there is no other one.
    """
    return _OTHER_NAMES.get(name, name)


def visit_image_from_afw(exposure: Any, exposure_record: DimensionRecord | None) -> VisitImage:
    """Convert a calibrated exposure, with any mask planes and with or without
    the unit of its pixels.

    Parameters
    ----------
    exposure : `lsst.afw.image.Exposure`
        The exposure.
    exposure_record : `lsst.daf.butler.DimensionRecord` or `None`
        Describes it, unless it is that of another exposure.

    Returns
    -------
    image : `lsst.images.VisitImage`
        The same.  Mask planes that lsst.images does not know keep their names.
        Without a keyword ``BUNIT`` the pixels are in nJy if the photometric
        calibration is 1, else in the units that it converts from, electrons.

    Raises
    ------
    InputError
        Raised if the exposure has neither a unit nor a photometric
        calibration.
    ValueError
        Raised if it has no WCS, detector, visit information or PSF.
    """
    planes = get_legacy_visit_image_mask_planes()
    known = get_legacy_non_cell_coadd_mask_planes() | get_legacy_difference_image_mask_planes()
    for name in exposure.mask.getMaskPlaneDict():
        if name not in planes:
            planes[name] = known.get(name) or MaskPlane(name, f"Mask plane {name} of lsst.afw.")
    visit_info = exposure.info.getVisitInfo()
    if exposure_record is not None and visit_info is not None:
        same_instrument = visit_info.getInstrumentLabel() in ("", exposure_record.instrument)
        if visit_info.getId() != exposure_record.id or not same_instrument:
            exposure_record = None
    return VisitImage.from_legacy(
        exposure, exposure_record=exposure_record, unit=_missing_unit(exposure), plane_map=planes
    )


def _missing_unit(exposure: Any) -> u.UnitBase | None:
    """Return the unit of an exposure that does not state it, else `None`."""
    metadata = exposure.getMetadata()
    if metadata.get("BUNIT"):
        return None
    photo_calib = exposure.getPhotoCalib()
    if photo_calib is None:
        raise InputError("it has neither a unit (keyword BUNIT) nor a photometric calibration")
    return u.nJy if photo_calib.getCalibrationMean() == 1.0 else u.electron


def warp_from_afw(warp: Any) -> StoredWarp:
    """Take the arrays of an afw warp, with masks grown by `MASK_GROWTH`.

    Parameters
    ----------
    warp : `lsst.afw.image.Exposure`
        The warp.

    Returns
    -------
    stored : `StoredWarp`
        Its arrays.
    """
    psf, wcs = warp.getPsf(), warp.getWcs()

    def masked(planes: Sequence[str]) -> np.ndarray:
        core = (warp.mask.array & warp.mask.getPlaneBitMask(list(planes))) != 0
        return scipy.ndimage.maximum_filter(core, size=2 * MASK_GROWTH + 1)

    return StoredWarp(
        bbox=Box.from_legacy(warp.getBBox()),
        image=warp.image.array,
        variance=warp.variance.array,
        scale=_scale(warp),
        scale_problem="has no photometric calibration",
        mask_planes=frozenset(warp.mask.getMaskPlaneDict()),
        masked=masked,
        psf=_AfwPsf(psf) if psf is not None else None,
        to_sky=wcs.pixelToSkyArray if wcs is not None else None,
    )


def coadd_from_afw(coadd: Any) -> MaskedImage:
    """Convert an afw coadd as far as it is needed to compare pixels.

    Parameters
    ----------
    coadd : `lsst.afw.image.Exposure`
        The coadd.

    Returns
    -------
    image : `lsst.images.MaskedImage`
        Its pixels, nJy, with the mask plane ``NO_DATA``; the variance is not
        set.

    Raises
    ------
    InputError
        Raised if it has no photometric calibration.
    """
    scale = _scale(coadd)
    if scale is None:
        raise InputError(
            "The pipeline's coadd has no photometric calibration. Set connections.coadd to the name of "
            "another one, or to a name that does not exist to go without the comparison."
        )
    bbox = Box.from_legacy(coadd.getBBox())
    mask = Mask(0, schema=MaskSchema([_PLANES["NO_DATA"]]), bbox=bbox)
    mask.set("NO_DATA", (coadd.mask.array & coadd.mask.getPlaneBitMask(["NO_DATA"])) != 0)
    return MaskedImage(Image(coadd.image.array * scale, bbox=bbox, unit=u.nJy), mask=mask)


def replace_pixels(coadd: Any, image: np.ndarray, bbox: Box) -> Any:
    """Copy an afw coadd with other pixels.

    Parameters
    ----------
    coadd : `lsst.afw.image.Exposure`
        The coadd.
    image : `numpy.ndarray`
        The pixels, nJy, shape of ``bbox``.
    bbox : `lsst.images.Box`
        Where they are, pixels of the tract.

    Returns
    -------
    copy : `lsst.afw.image.Exposure`
        The coadd with these pixels in its own unit, zero beyond the box; its
        mask, variance and ``ExposureInfo`` are copied.

    Raises
    ------
    InputError
        Raised if the coadd has no pixel of the box, or no photometric
        calibration.
    """
    scale = _scale(coadd)
    if scale is None:
        raise InputError(
            "The pipeline's coadd has no photometric calibration, so that flux cannot be converted to its "
            "unit. Set connections.coadd to the name of a calibrated one."
        )
    outer = Box.from_legacy(coadd.getBBox())
    try:
        common = outer.intersection(bbox)
    except NoOverlapError as err:
        raise InputError(
            f"The pipeline's coadd has the pixels {outer}, the restored coadd {bbox}: they are not of the "
            "same patch and pixel grid. Restore the coadd again with superResolution=1."
        ) from err
    copy = coadd.clone()
    copy.image.array[:] = 0.0
    copy.image.array[common.slice_within(outer)] = image[common.slice_within(bbox)] / scale
    return copy


def _scale(exposure: Any) -> np.float32 | None:
    """Return the flux of a unit of an afw exposure's pixels, nJy.

    Calibrated pixels have the keyword ``BUNIT``.  The calibration of others is
    a number, since warps and coadds are scaled to a common zero point.
    """
    if str(exposure.getMetadata().get("BUNIT", "")) == "nJy":
        return np.float32(1.0)
    photo_calib = exposure.getPhotoCalib()
    return np.float32(photo_calib.getCalibrationMean()) if photo_calib is not None else None


class _AfwPsf(KernelImages):
    """A PSF of lsst.afw.

    The wrapper in lsst.images evaluates the size of the model at the edges of
    the image, where a warp may have no detector and hence no PSF.
    """

    def __init__(self, psf: Any) -> None:
        self._psf = psf

    def compute_kernel_image(self, *, x: float, y: float) -> Image:
        """Draw the model at a position, centered on pixel (0, 0)."""
        from lsst.geom import Point2D

        image = self._psf.computeKernelImage(Point2D(x, y))
        return Image(image.array, bbox=Box.from_legacy(image.getBBox()))
