# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of warps of lsst.images as arrays."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from warps import GEOMETRY, make_warp

from lsst.drp.restore.warping.warp_image import warp_from_images


@pytest.mark.parametrize(("unit", "scale"), [(u.nJy, 1.0), (u.uJy, 1000.0), (u.adu, None)])
def test_arrays_in_the_stored_unit(unit: u.UnitBase, scale: float | None) -> None:
    warp = make_warp(unit=unit)
    stored = warp_from_images(warp)
    assert stored.bbox == warp.bbox
    np.testing.assert_array_equal(stored.image, warp.image.array)
    np.testing.assert_array_equal(stored.variance, warp.variance.array)
    assert stored.scale is None if scale is None else stored.scale == pytest.approx(scale)
    assert stored.scale_problem == f"has pixels in {unit}"
    assert stored.psf is warp.psf


def test_masked_pixels() -> None:
    warp = make_warp()
    rows = np.indices(warp.bbox.shape)[0]
    warp.mask.set("BAD", rows == 3)
    warp.mask.set("SATURATED", rows == 5)
    warp.mask.set("DETECTED", rows == 7)
    stored = warp_from_images(warp)
    assert {"BAD", "SATURATED", "DETECTED"} <= stored.mask_planes
    masked = stored.masked(["BAD", "SATURATED"])
    assert masked.dtype == bool
    np.testing.assert_array_equal(masked, (rows == 3) | (rows == 5))


def test_sky_projection() -> None:
    stored = warp_from_images(make_warp())
    assert stored.to_sky is not None
    x, y = np.array([25.0, 130.0]), np.array([15.0, 80.0])
    sky = GEOMETRY.sky_projection.pixel_to_sky(x=x, y=y)
    np.testing.assert_allclose(stored.to_sky(x, y), [sky.ra.rad, sky.dec.rad], rtol=1e-10)
