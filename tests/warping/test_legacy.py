# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of warps and coadds of lsst.afw."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from warps import GEOMETRY, gaussian_kernel, make_afw_warp

from lsst.drp.restore.errors import InputError
from lsst.drp.restore.warping.legacy import (
    coadd_from_afw,
    other_plane_name,
    replace_pixels,
    warp_from_afw,
)
from lsst.images import Box


def test_names_of_mask_planes() -> None:
    assert other_plane_name("SAT") == "SATURATED"
    assert other_plane_name("SATURATED") == "SAT"
    assert other_plane_name("BAD") == "BAD"
    assert other_plane_name("MY_PLANE") == "MY_PLANE"


@pytest.mark.usefixtures("geom")
def test_warp() -> None:
    warp = make_afw_warp(mean=57.54, unit=None)
    warp.mask.array[20] |= warp.mask.getPlaneBitMask(["SAT"])
    warp.mask.array[30] |= warp.mask.getPlaneBitMask(["DETECTED"])
    stored = warp_from_afw(warp)
    assert stored.bbox == GEOMETRY.outer_bbox.padded(7)
    np.testing.assert_array_equal(stored.image, warp.image.array)
    np.testing.assert_array_equal(stored.variance, 4.0)
    assert stored.scale == np.float32(57.54)
    assert {"SAT", "CR", "NO_DATA"} <= stored.mask_planes
    masked = stored.masked(["SAT", "CR"])
    np.testing.assert_array_equal(masked.all(axis=1).nonzero()[0], [18, 19, 20, 21, 22])
    np.testing.assert_array_equal(masked.any(axis=1), masked.all(axis=1))
    assert stored.psf is not None
    kernel = stored.psf.compute_kernel_image(x=80.0, y=50.0)
    assert kernel.bbox == Box.factory[-15:16, -15:16]
    np.testing.assert_allclose(kernel.array, gaussian_kernel(), atol=1e-5)
    assert stored.to_sky is not None
    ra, dec = stored.to_sky(np.array([80.0]), np.array([50.0]))
    sky = GEOMETRY.sky_projection.pixel_to_sky(x=80.0, y=50.0)
    np.testing.assert_allclose([ra[0], dec[0]], [sky.ra.rad, sky.dec.rad], rtol=1e-10)


@pytest.mark.usefixtures("geom")
def test_rim_of_a_saturated_core_is_masked() -> None:
    """A row of bad pixels that is moved by half a pixel by Lanczos-3, as the
    pipelines do it, with its mask moved linearly.
    """
    distance = np.abs(np.arange(94) + 0.5 - 20.0)
    pixels = np.sinc(distance) * np.sinc(distance / 3.0) * (distance < 3.0)
    mask = distance < 1.0
    warp = make_afw_warp()
    warp.mask.array[mask] |= warp.mask.getPlaneBitMask(["SAT"])
    reached = np.abs(pixels) > 0.01
    assert np.count_nonzero(reached & ~mask) == 4
    assert warp_from_afw(warp).masked(["SAT"])[reached].all()


@pytest.mark.parametrize(("mean", "unit", "scale"), [(3.0, "nJy", 1.0), (3.0, None, 3.0), (None, None, None)])
def test_scale_of_a_warp(mean: float | None, unit: str | None, scale: float | None) -> None:
    """Pixels in nJy keep it, whatever their calibration is."""
    stored = warp_from_afw(make_afw_warp(mean=mean, unit=unit))
    assert stored.scale == scale
    assert "photometric calibration" in stored.scale_problem


def test_coadd() -> None:
    """A coadd of lsst.afw can be compared with."""
    coadd = make_afw_warp(mean=10.0, unit=None)
    coadd.mask.array[20] |= coadd.mask.getPlaneBitMask(["NO_DATA"])
    image = coadd_from_afw(coadd)
    assert image.unit == u.nJy
    np.testing.assert_allclose(image.image.array, 10.0 * coadd.image.array, rtol=1e-6)
    assert image.mask.get("NO_DATA").sum(axis=1).nonzero()[0].tolist() == [20]
    with pytest.raises(InputError, match="connections.coadd"):
        coadd_from_afw(make_afw_warp(mean=None, unit=None))


def test_replaced_pixels() -> None:
    """Of a part of a coadd, in its unit."""
    coadd = make_afw_warp(mean=10.0, unit=None)
    start = GEOMETRY.outer_bbox.start
    part = Box.from_shape((4, 6), start=start)
    result = replace_pixels(coadd, np.full((4, 6), 50.0, np.float32), part)
    expected = np.zeros(coadd.image.array.shape)
    expected[7:11, 7:13] = 5.0
    np.testing.assert_array_equal(result.image.array, expected)
    elsewhere = Box.from_shape((4, 6), start=(5000, 5000))
    with pytest.raises(InputError, match="not of the same patch and pixel grid"):
        replace_pixels(coadd, np.zeros((4, 6), np.float32), elsewhere)
    with pytest.raises(InputError, match="no photometric calibration"):
        replace_pixels(make_afw_warp(mean=None, unit=None), np.zeros((4, 6), np.float32), part)
