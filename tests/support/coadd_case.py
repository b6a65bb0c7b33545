# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Results of a restoration that was never run, to make coadds of: exposures
with holes and missing cells, the visit images in them, and random images.
"""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS
from stacks import make_restoration, unchecked

from lsst.drp.restore.outputs.restored_stack import RestoredStack
from lsst.drp.restore.restoration.characterize import Characterization
from lsst.drp.restore.restoration.measurable import Measurable
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.reference_coadd import ReferenceCoadd, naive_mean, reference_coadd
from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.drp.restore.warping.stack_input import StackInput
from lsst.images import YX, Box, Polygon, SkyProjection, TractFrame
from lsst.images.cells import CellGrid, PatchDefinition

SHAPE = (60, 80)
CELL = (20, 20)
CELLS = (3, 4)
KERNEL_SIZE = 5
BBOX = Box.from_shape(SHAPE, start=YX(y=4000, x=7000))
FEW = 3


def make_geometry() -> PatchGeometry:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [1.0, 1.0]
    wcs.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600]
    tract_bbox = Box.from_shape((10000, 10000))
    return PatchGeometry(
        skymap="test",
        tract=0,
        patch=PatchDefinition(
            id=5,
            index=YX(y=1, x=2),
            inner_bbox=BBOX.padded(-10),
            cells=CellGrid(bbox=BBOX, cell_shape=YX(y=CELL[0], x=CELL[1])),
        ),
        sky_projection=SkyProjection.from_fits_wcs(
            wcs, TractFrame(skymap="test", tract=0, bbox=tract_bbox), pixel_bounds=tract_bbox
        ),
    )


def make_stack() -> ExposureStack:
    """Four exposures; the last two miss the right column of cells, no
    exposure has cell (2, 3), and no pixel is good in a hole and a band.
    """
    rng = np.random.default_rng(1)
    n = 4
    kernels = rng.uniform(0.01, 0.04, (n, *CELLS, KERNEL_SIZE, KERNEL_SIZE)).astype(np.float32)
    good = rng.uniform(size=(n, *SHAPE)) < 0.9
    kernels[2:, :, 3] = 0
    good[2:, :, 60:] = False
    kernels[:, 2, 3] = 0
    good[:, 40:, 60:] = False
    good[:, 25, 30] = False
    good[:, :8, :] = False
    sigma = np.array([1.0, 1.5, 0.8, 1.2])[:, None, None]
    image = rng.normal(size=(n, *SHAPE)) * sigma
    image[1, 30, 40] = 400.0
    good[:, 30, 40] = True
    return ExposureStack(
        image=np.where(good, image, 0).astype(np.float32),
        variance=np.where(good, sigma**2, np.inf).astype(np.float32),
        good=good,
        kernels=kernels,
        correlation=np.ones(kernels.shape[:3], np.float32),
        cell_shape=CELL,
        names=tuple(f"Cam visit {visit}" for visit in (101, 102, 103, 104)),
    )


def make_inputs(stack: ExposureStack) -> list[StackInput]:
    """Two detectors, left and right, of each visit."""
    rng = np.random.default_rng(2)
    inputs = []
    for t in range(stack.n_exposures):
        for detector, columns in ((0, slice(0, 40)), (7, slice(40, 80))):
            mine = np.zeros(SHAPE, bool)
            mine[:, columns] = stack.good[t][:, columns]
            count = mine.reshape(CELLS[0], CELL[0], CELLS[1], CELL[1]).sum(axis=(1, 3))
            moments = np.where(count > 0, rng.uniform(1, 3, (3, *CELLS)), np.nan)
            if t == 0 and detector == 0:
                moments[:, 1, 1] = np.nan
            box = Box.factory[4000:4060, 7000 + columns.start : 7000 + columns.stop]
            inputs.append(
                StackInput(
                    instrument="Cam",
                    visit=101 + t,
                    detector=detector,
                    physical_filter="i_1" if t < 3 else "i_2",
                    day_obs=20240301 + t,
                    exposure=t,
                    polygon=Polygon.from_box(box),
                    overlap_fraction=np.where(count > 0, rng.uniform(0.5, 1, CELLS), 0),
                    overlaps_center=count > 200,
                    unmasked_fraction=count / (CELL[0] * CELL[1]),
                    weight=np.where(count > 0, rng.uniform(0.5, 1, CELLS), 0),
                    kernel_fraction=np.where(count > 0, 0.97, np.nan),
                    psf_xx=moments[0],
                    psf_yy=moments[1],
                    psf_xy=moments[2],
                )
            )
    return inputs


def make_restored(*, converged: bool = True) -> RestoredStack:
    """Return random images and what belongs to them."""
    stack = make_stack()
    reference = reference_coadd(stack)
    rng = np.random.default_rng(3)
    return RestoredStack(
        stack=stack.without(reference.clipped),
        checks=unchecked(stack),
        naive=naive_mean(stack),
        reference=reference,
        kernel_fit=None,
        restoration=make_restoration(stack, rng.exponential(size=stack.latent_shape), converged=converged),
        measurable=_make_measurable(reference),
        characterization=_make_characterization(),
    )


def _make_measurable(reference: ReferenceCoadd) -> Measurable:
    rng = np.random.default_rng(4)
    nothing = reference.n_exposures == 0
    image, variance, noise = (np.where(nothing, np.nan, rng.exponential(size=SHAPE)) for _ in range(3))
    return Measurable(
        image=image.astype(np.float32),
        variance=variance.astype(np.float32),
        kernels=rng.uniform(size=(*CELLS, KERNEL_SIZE, KERNEL_SIZE)).astype(np.float32),
        coverage=np.linspace(0, 1, SHAPE[0], dtype=np.float32)[:, np.newaxis] * np.ones(SHAPE, np.float32),
        noise_realizations=[noise.astype(np.float32)],
    )


def _make_characterization() -> Characterization:
    rng = np.random.default_rng(6)
    return Characterization(
        variance=rng.exponential(size=SHAPE).astype(np.float32),
        kernels=rng.uniform(size=(*CELLS, KERNEL_SIZE, KERNEL_SIZE)).astype(np.float32),
        noise_realizations=[rng.normal(size=SHAPE).astype(np.float32)],
        inconsistent=rng.uniform(size=SHAPE) < 0.1,
        pedestal=0.1,
        residuals=np.full(5, 3.0, np.float32),
        beyond=np.zeros(5, int),
    )
