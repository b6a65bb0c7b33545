# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Reading of one warp: all detectors of a visit on the grid of a patch.

This is the only module that touches lsst.afw: its warps and coadds are
exposures without a detector, which the Butler cannot convert to anything that
lsst.images has.
"""

from __future__ import annotations

__all__ = ("WarpImage", "WarpInput", "coadd_from_afw")

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import astropy.units as u
import numpy as np

from lsst.images import Box, Image, Mask, MaskedImage, MaskSchema, get_legacy_visit_image_mask_planes

from ..errors import InputError
from .read_errors import reading

# Mask planes of lsst.afw and what lsst.images calls them.
_NEW_NAMES = {old: plane.name for old, plane in get_legacy_visit_image_mask_planes().items()}
_OLD_NAMES = {new: old for old, new in _NEW_NAMES.items()}


class KernelImages(Protocol):
    """What is used of a PSF model: `lsst.images.psfs.PointSpreadFunction`
    without its bounds.
    """

    def compute_kernel_image(self, *, x: float, y: float) -> Image:
        """Draw the model at a position, centered on pixel (0, 0)."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class WarpImage:
    """A warp as plain arrays.

    Parameters
    ----------
    bbox : `lsst.images.Box`
        Its pixels in the tract.
    image : `numpy.ndarray`
        Flux per pixel, nJy, shape of the box.
    variance : `numpy.ndarray`
        Variance of ``image``, same shape.
    masked : `numpy.ndarray` of `bool`
        Where one of the bad mask planes is set, same shape.
    psf : `KernelImages`
        PSF model, in pixels of the tract.
    to_sky : `~collections.abc.Callable`
        Takes arrays x and y, pixels of the tract, to right ascension and
        declination, radians.
    """

    bbox: Box
    image: np.ndarray
    variance: np.ndarray
    masked: np.ndarray
    psf: KernelImages
    to_sky: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class WarpInput:
    """One warp behind a deferred handle.

    A warp is an afw ``ExposureF``, or an image of lsst.images with ``psf`` and
    ``sky_projection``: a `~lsst.images.cells.CellCoadd` of one visit, which is
    the one class that can be stored with a tract's pixel frame and a PSF.

    Parameters
    ----------
    handle : `lsst.daf.butler.DeferredDatasetHandle`
        Handle of the dataset; or anything with its ``dataId`` and ``get``.
    """

    ALL_DETECTORS: ClassVar[int] = 65535
    """Detector in the provenance of what is made from warps (`int`): the
    largest number that its table can hold.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    @property
    def instrument(self) -> str:
        """Name of the instrument (`str`)."""
        return str(self._handle.dataId["instrument"])

    @property
    def visit(self) -> int:
        """ID of the visit (`int`)."""
        return int(self._handle.dataId["visit"])

    @property
    def detector(self) -> int:
        """What stands for all detectors of the visit (`int`)."""
        return self.ALL_DETECTORS

    @property
    def physical_filter(self) -> str:
        """Full name of the filter (`str`)."""
        return str(self._data_id_value("physical_filter", "unknown"))

    @property
    def day_obs(self) -> int:
        """Observing night as YYYYMMDD, 0 if not known (`int`)."""
        return int(self._data_id_value("day_obs", 0))

    def __str__(self) -> str:
        return f"warp of {self.instrument} visit {self.visit}"

    def _data_id_value(self, dimension: str, default: Any) -> Any:
        try:
            return self._handle.dataId[dimension]
        except KeyError:
            return default

    def close(self) -> None:
        """Do nothing: a warp is not kept after it has been read."""

    def read(self, bad_mask_planes: Sequence[str]) -> WarpImage:
        """Read the warp.

        Parameters
        ----------
        bad_mask_planes : `~collections.abc.Sequence` [`str`]
            Names of mask planes, those of lsst.afw (``SAT``) or of lsst.images
            (``SATURATED``), whichever the warp has.

        Returns
        -------
        image : `WarpImage`
            The warp.

        Raises
        ------
        InputError
            Raised if the warp lacks a mask plane, a PSF or a WCS, or has no
            unit of flux.
        DamagedInputError
            Raised if the file is damaged.
        """
        with reading(self):
            warp = self._handle.get()
        if isinstance(warp, MaskedImage):
            return self._from_images(warp, bad_mask_planes)
        return self._from_afw(warp, bad_mask_planes)

    def _from_images(self, warp: MaskedImage, bad_mask_planes: Sequence[str]) -> WarpImage:
        psf, projection = getattr(warp, "psf", None), warp.sky_projection
        self._require(psf, "PSF")
        self._require(projection, "sky projection")
        assert psf is not None and projection is not None, "Guaranteed by _require."
        if warp.unit is None or not warp.unit.is_equivalent(u.nJy):
            raise self._no_flux(f"has pixels in {warp.unit}")
        scale = np.float32(warp.unit.to(u.nJy))
        planes = self._planes(bad_mask_planes, set(warp.mask.schema.names), _NEW_NAMES)

        def to_sky(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            sky = projection.pixel_to_sky_transform.apply_forward(x=x, y=y)
            return sky.x, sky.y

        return WarpImage(
            bbox=warp.bbox,
            image=warp.image.array * scale,
            variance=warp.variance.array * scale**2,
            masked=(warp.mask.array & warp.mask.schema.bitmask(*planes)).any(axis=-1),
            psf=psf,
            to_sky=to_sky,
        )

    def _from_afw(self, warp: Any, bad_mask_planes: Sequence[str]) -> WarpImage:
        psf, wcs = warp.getPsf(), warp.getWcs()
        self._require(psf, "PSF")
        self._require(wcs, "WCS")
        scale = _afw_scale(warp)
        if scale is None:
            raise self._no_flux("has no photometric calibration")
        planes = self._planes(bad_mask_planes, set(warp.mask.getMaskPlaneDict()), _OLD_NAMES)
        return WarpImage(
            bbox=Box.from_legacy(warp.getBBox()),
            image=warp.image.array * scale,
            variance=warp.variance.array * scale**2,
            masked=(warp.mask.array & warp.mask.getPlaneBitMask(planes)) != 0,
            psf=_AfwPsf(psf),
            to_sky=wcs.pixelToSkyArray,
        )

    def _require(self, component: Any, name: str) -> None:
        if component is None:
            raise InputError(
                f"The {self} has no {name}. Make it again with one, or restore from visit images "
                "(inputType='visit_image').",
                dataset=str(self),
            )

    def _no_flux(self, problem: str) -> InputError:
        return InputError(
            f"The {self} {problem}, so that its pixels cannot be converted to nJy. Make it again from "
            "calibrated images, or restore from visit images (inputType='visit_image').",
            dataset=str(self),
        )

    def _planes(self, wanted: Sequence[str], present: set[str], other_names: dict[str, str]) -> list[str]:
        """Return the names that the warp's mask has for some planes."""
        planes = [name if name in present else other_names.get(name, name) for name in wanted]
        if missing := sorted(set(planes) - present):
            raise InputError(
                f"The {self} has no mask plane {', '.join(missing)}, without which bad pixels would pass for "
                f"good ones; its planes are {', '.join(sorted(present))}. Make it again, or remove the name "
                "from the configuration field badMaskPlanes.",
                dataset=str(self),
                missing=", ".join(missing),
            )
        return planes


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
    scale = _afw_scale(coadd)
    if scale is None:
        raise InputError(
            "The pipeline's coadd has no photometric calibration. Point connections.coadd to another one, or "
            "to a name that does not exist to do without."
        )
    bbox = Box.from_legacy(coadd.getBBox())
    mask = Mask(0, schema=MaskSchema([get_legacy_visit_image_mask_planes()["NO_DATA"]]), bbox=bbox)
    mask.set("NO_DATA", (coadd.mask.array & coadd.mask.getPlaneBitMask(["NO_DATA"])) != 0)
    return MaskedImage(Image(coadd.image.array * scale, bbox=bbox, unit=u.nJy), mask=mask)


def _afw_scale(exposure: Any) -> np.float32 | None:
    """Return what takes the pixels of an afw exposure to nJy.

    Calibrated pixels say so.  The calibration of others is a number, since
    warps and coadds are scaled to a common zero point.
    """
    if str(exposure.getMetadata().get("BUNIT", "")) == "nJy":
        return np.float32(1.0)
    photo_calib = exposure.getPhotoCalib()
    return np.float32(photo_calib.getCalibrationMean()) if photo_calib is not None else None


class _AfwPsf:
    """A PSF of lsst.afw.

    The wrapper that lsst.images has asks for the size of the model at the
    edges of the image, where a warp may have no detector and hence no PSF.
    """

    def __init__(self, psf: Any) -> None:
        self._psf = psf

    def compute_kernel_image(self, *, x: float, y: float) -> Image:
        """Draw the model at a position, centered on pixel (0, 0)."""
        from lsst.geom import Point2D

        image = self._psf.computeKernelImage(Point2D(x, y))
        return Image(image.array, bbox=Box.from_legacy(image.getBBox()))
