# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A small visit image of plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.time import Time
from astropy.wcs import WCS

from lsst.drp.restore.repository.make_visit_image import make_visit_image
from lsst.images import Box, DetectorFrame, VisitImage
from lsst.images.psfs import GaussianPointSpreadFunction, PointSpreadFunction

BEGIN = Time("2024-03-02T03:04:05.5", scale="utc")
SHAPE = (60, 80)
BBOX = Box.from_shape(SHAPE)
FRAME = DetectorFrame(instrument="Cam", visit=17, detector=3, bbox=BBOX)


def make_wcs(ctype: tuple[str, str] = ("RA---TAN", "DEC--TAN"), radesys: str = "ICRS") -> WCS:
    """Return a WCS of 0.25 arcsec pixels, slightly rotated and sheared."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ctype
    wcs.wcs.crval = (150.0, 2.0)
    wcs.wcs.crpix = (400.0, -300.0)
    wcs.wcs.cd = [[-7e-5, 1e-6], [2e-6, 7e-5]]
    if radesys:
        wcs.wcs.radesys = radesys
    wcs.wcs.set()
    return wcs


def make_image(psf: PointSpreadFunction | None = None, **kwargs: Any) -> VisitImage:
    """Return a visit image with noise and one cosmic ray."""
    rng = np.random.default_rng(5)
    mask = np.zeros(SHAPE, bool)
    mask[7, 11] = True
    if psf is None:
        psf = GaussianPointSpreadFunction(1.7, bounds=BBOX, stamp_size=31)
    arguments = dict(
        image=rng.normal(size=SHAPE),
        variance=rng.uniform(1.0, 2.0, size=SHAPE),
        mask={"COSMIC_RAY": mask},
        wcs=make_wcs(),
        psf=psf,
        instrument="Cam",
        visit=17,
        detector=3,
        physical_filter="r_1",
        band="r",
        begin=BEGIN,
        exposure_time=30.0,
    )
    return make_visit_image(**arguments | kwargs)
