# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Small visit images around one patch, and their stack."""

from __future__ import annotations

import dataclasses
from typing import Any

import astropy.units as u
import numpy as np
from astropy.time import Time
from handles import ConvertedHandle, StoredHandle
from skies import make_geometry, tan_wcs

from lsst.daf.butler import Butler
from lsst.drp.restore.repository.make_visit_image import make_visit_image
from lsst.drp.restore.repository.register import register_instrument, register_visit
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.warping.build_stack import BuildStackConfig, BuildStackTask
from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.drp.restore.warping.projections import sky_region
from lsst.drp.restore.warping.stack_input import StackInput
from lsst.images import Box, VisitImage
from lsst.images.psfs import GaussianPointSpreadFunction, PointSpreadFunction
from lsst.pipe.base import TaskMetadata

BEGIN = Time("2024-03-02T03:04:05", scale="utc")
SHAPE = (70, 80)
BBOX = Box.from_shape(SHAPE)
GEOMETRY = make_geometry(cells=(4, 4), cell_size=30)
"""A patch of 120x120 pixels, whose middle is at (RA, DEC)."""

# Positions of (RA, DEC) on the detectors of a 2x2 mosaic with gaps of 6 pixels
# that covers the patch.
MOSAIC = {0: (82.5, 72.5), 1: (-3.5, 72.5), 2: (82.5, -3.5), 3: (-3.5, -3.5)}


def gaussian(sigma: float = 1.6, stamp_size: int = 41) -> PointSpreadFunction:
    return GaussianPointSpreadFunction(sigma, bounds=BBOX, stamp_size=stamp_size)


def make_image(
    visit: int = 1, detector: int = 1, *, center=(40.0, 35.0), angle: float = 0.0, **kwargs
) -> VisitImage:
    """Return a visit image of flat sky, value 5 and variance 2, that is by
    default in the middle of the patch.
    """
    arguments = dict(
        image=np.full(SHAPE, 5.0),
        variance=np.full(SHAPE, 2.0),
        mask={},
        wcs=tan_wcs(center=center, angle=angle),
        psf=gaussian(),
        instrument="Cam",
        visit=visit,
        detector=detector,
        physical_filter="i_1",
        band="i",
        begin=BEGIN,
        exposure_time=30.0,
    )
    return make_visit_image(**arguments | kwargs)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Built:
    """Results of a stacker, and its metadata."""

    stack: ExposureStack
    inputs: list[StackInput]
    seeing: np.ndarray
    dropped: list[tuple[str, str]]
    metadata: TaskMetadata


def build(
    *sources: VisitImage | StoredHandle | ConvertedHandle, geometry: PatchGeometry = GEOMETRY, **config: Any
) -> Built:
    """Stack visit images, or those behind handles."""
    task = BuildStackTask(config=BuildStackConfig(**config))
    handles = [StoredHandle(source) if isinstance(source, VisitImage) else source for source in sources]
    stacked = task.run(handles, geometry, "i")
    return Built(
        stack=stacked.stack,
        inputs=stacked.inputs,
        seeing=stacked.seeing,
        dropped=stacked.dropped,
        metadata=task.metadata,
    )


class FailingPsf(GaussianPointSpreadFunction):
    """A PSF that cannot be evaluated left of a column."""

    limit = np.inf

    def compute_kernel_image(self, *, x, y):
        if x < self.limit:
            raise RuntimeError("no stars to interpolate\nbetween")
        return super().compute_kernel_image(x=x, y=y)


def failing(limit: float = np.inf) -> FailingPsf:
    psf = FailingPsf(1.6, bounds=BBOX, stamp_size=41)
    psf.limit = limit
    return psf


def mosaic(visit: int, **kwargs) -> list[VisitImage]:
    """Return the four images of a visit, of values 1, 2, 3 and 4."""
    return [
        make_image(
            visit,
            detector,
            center=center,
            image=np.full(SHAPE, detector + 1.0),
            variance=np.full(SHAPE, 0.5 * (detector + 1)),
            psf=gaussian(1.5 + 0.1 * detector),
            **kwargs,
        )
        for detector, center in MOSAIC.items()
    ]


def register_images(butler: Butler, images: list[VisitImage]) -> None:
    """Register the records of images of visits 1 and 2."""
    register_instrument(butler, "Cam", {d: f"S{d}" for d in range(4)}, {"i_1": "i"})
    for visit in (1, 2):
        register_visit(
            butler,
            instrument="Cam",
            visit=visit,
            physical_filter="i_1",
            begin=BEGIN + visit * u.min,
            exposure_time=30.0,
            detector_regions={
                image.sky_projection.pixel_frame.detector: sky_region(image.sky_projection, BBOX)
                for image in images
                if image.sky_projection.pixel_frame.visit == visit
            },
        )
