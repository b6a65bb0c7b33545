# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Small warps of one patch, of lsst.images and of lsst.afw."""

from __future__ import annotations

import copy
import importlib.util
import types
from typing import Any

import astropy.units as u
import numpy as np
from handles import WarpHandle
from skies import make_geometry

from lsst.drp.restore import PatchGeometry, StackWarpsConfig, StackWarpsTask
from lsst.drp.restore.warping.stack_input import StackedInputs
from lsst.images import Box, Image, Mask, MaskSchema, SkyProjection, get_legacy_visit_image_mask_planes
from lsst.images.cells import CellCoadd, CellGridBounds, CellPointSpreadFunction

GEOMETRY = make_geometry(cells=(2, 3), cell_size=40, start=(10, 20))
HAS_AFW = importlib.util.find_spec("lsst.afw") is not None


def gaussian_kernel(fwhm: float = 3.0, size: int = 31) -> np.ndarray:
    offset = np.arange(size) - size // 2
    profile = np.exp(-4.0 * np.log(2.0) * (offset / fwhm) ** 2)
    kernel = profile[:, None] * profile
    return kernel / kernel.sum()


def make_warp(
    *,
    geometry: PatchGeometry = GEOMETRY,
    border: int = 7,
    unit: u.UnitBase = u.nJy,
    planes: tuple[str, ...] | None = None,
    projection: SkyProjection | None = None,
    bbox: Box | None = None,
    seed: int = 1,
    kernel_sum: float = 1.0,
) -> CellCoadd:
    """Return a warp of noise that is larger than the patch by a border, as
    those of the Science Pipelines are.
    """
    bbox = geometry.outer_bbox.padded(border) if bbox is None else bbox
    known = get_legacy_visit_image_mask_planes().values()
    schema = MaskSchema([plane for plane in known if planes is None or plane.name in planes])
    image = np.random.default_rng(seed).normal(0.0, 2.0, bbox.shape).astype(np.float32)
    variance = np.full(bbox.shape, 4.0, np.float32)
    mask = Mask(0, schema=schema, bbox=bbox)
    grid = geometry.patch.cells
    kernels = np.tile(kernel_sum * gaussian_kernel(), (*geometry.n_cells, 1, 1))
    psf = CellPointSpreadFunction(kernels, bounds=CellGridBounds(grid=grid, bbox=grid.bbox))
    return CellCoadd(
        Image(image, bbox=bbox, unit=unit, sky_projection=projection or geometry.sky_projection),
        mask=mask,
        variance=Image(variance, bbox=bbox, unit=unit**2),
        psf=psf,
        band="i",
    )


def stack(*warps: Any, geometry: PatchGeometry = GEOMETRY, **config: Any) -> StackedInputs:
    """Stack warps of visits 1, 2 and so on."""
    chosen = StackWarpsConfig()
    chosen.update(minExposures=1, **config)
    handles = [WarpHandle(warp, visit) for visit, warp in enumerate(warps, start=1)]
    return StackWarpsTask(config=chosen).run(handles, geometry, "i")


class AfwMask:
    """What is used of `lsst.afw.image.Mask`."""

    def __init__(self, array: np.ndarray, planes: dict[str, int]) -> None:
        self.array = array
        self._planes = planes

    def getMaskPlaneDict(self) -> dict[str, int]:  # noqa: N802
        return self._planes

    def getPlaneBitMask(self, names: list[str]) -> int:  # noqa: N802
        return sum(1 << self._planes[name] for name in names)


class AfwImage:
    """What is used of `lsst.afw.image.Image`; its box has intervals with
    begin and end.
    """

    def __init__(self, array: np.ndarray, bbox: Box) -> None:
        self.array = array
        self._bbox = bbox

    def getBBox(self) -> Any:  # noqa: N802
        x, y = self._bbox.x, self._bbox.y
        return types.SimpleNamespace(
            x=types.SimpleNamespace(begin=x.start, end=x.stop),
            y=types.SimpleNamespace(begin=y.start, end=y.stop),
        )


class AfwPsf:
    """What is used of `lsst.afw.detection.Psf`: undefined in the first
    columns, as the PSF of a warp is beyond the edge of a detector.
    """

    def computeKernelImage(self, point: Any) -> AfwImage:  # noqa: N802
        if point.x < 60.0:
            raise RuntimeError("Cannot compute CoaddPsf at this point: no input images there.")
        return AfwImage(gaussian_kernel(), Box.factory[-15:16, -15:16])


class AfwExposure(AfwImage):
    """What is used of `lsst.afw.image.ExposureF`.  A real one was not
    available where this was written; `test_afw` takes it where it is.
    """

    def __init__(self, like: CellCoadd, *, mean: float | None, unit: str | None) -> None:
        super().__init__(like.image.array, like.bbox)
        names = ["BAD", "SAT", "INTRP", "CR", "EDGE", "DETECTED", "DETECTED_NEGATIVE", "SUSPECT", "NO_DATA"]
        planes = {name: bit for bit, name in enumerate(names)}
        self.image, self.variance = like.image, like.variance
        self.mask = AfwMask(np.zeros(like.bbox.shape, np.int32), planes)
        self._projection, self._mean, self._unit = like.sky_projection, mean, unit

    def clone(self) -> AfwExposure:
        other = copy.copy(self)
        other.image, other.variance = self.image.copy(), self.variance.copy()
        other.mask = copy.deepcopy(self.mask)
        return other

    def getMetadata(self) -> dict[str, str]:  # noqa: N802
        return {} if self._unit is None else {"BUNIT": self._unit}

    def getPhotoCalib(self) -> Any:  # noqa: N802
        return None if self._mean is None else types.SimpleNamespace(getCalibrationMean=lambda: self._mean)

    def getPsf(self) -> AfwPsf:  # noqa: N802
        return AfwPsf()

    def getWcs(self) -> Any:  # noqa: N802
        def to_sky(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            sky = self._projection.pixel_to_sky_transform.apply_forward(x=x, y=y)
            return sky.x, sky.y

        return types.SimpleNamespace(pixelToSkyArray=to_sky)


def make_afw_warp(*, mean: float | None = 1.0, unit: str | None = "nJy") -> Any:
    """Return a warp of lsst.afw; a real one where there is lsst.afw."""
    like = make_warp()
    if not HAS_AFW:
        return AfwExposure(like, mean=mean, unit=unit)
    from lsst.afw.detection import GaussianPsf
    from lsst.afw.image import ExposureF, PhotoCalib

    exposure = ExposureF(like.bbox.to_legacy(), like.sky_projection.to_legacy())
    exposure.image.array[:] = like.image.array
    exposure.variance.array[:] = like.variance.array
    exposure.setPsf(GaussianPsf(31, 31, 3.0 / np.sqrt(8.0 * np.log(2.0))))
    if mean is not None:
        exposure.setPhotoCalib(PhotoCalib(mean))
    if unit is not None:
        exposure.getMetadata()["BUNIT"] = unit
    return exposure
