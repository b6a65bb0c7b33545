# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the reading of single warps."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
import pytest
from handles import WarpHandle, formatter_error
from warps import GEOMETRY, gaussian_kernel, make_afw_warp, make_warp, stack

from lsst.drp.restore.errors import DamagedInputError, InputError
from lsst.drp.restore.warping.warp_input import WarpInput
from lsst.images import Image, MaskedImage

PLANES = ["BAD", "CR", "INTRP", "NO_DATA", "SAT", "SUSPECT"]


def test_label_and_data_id() -> None:
    warp_input = WarpInput(WarpHandle(make_warp(), 17))
    assert str(warp_input) == "Cam visit 17 warp"
    assert (warp_input.instrument, warp_input.visit) == ("Cam", 17)
    assert warp_input.detector == WarpInput.ALL_DETECTORS == 65535
    assert (warp_input.physical_filter, warp_input.day_obs) == ("Cam-i", 20240301)


def test_dimensions_that_the_data_id_lacks_are_not_known() -> None:
    handle = WarpHandle(make_warp())
    del handle.dataId["physical_filter"], handle.dataId["day_obs"]
    warp_input = WarpInput(handle)
    assert (warp_input.physical_filter, warp_input.day_obs) == ("unknown", 0)


def test_pixels_in_njy() -> None:
    warp = make_warp(unit=u.uJy)
    warp.mask.set("COSMIC_RAY", np.indices(warp.bbox.shape)[0] == 20)
    warp.mask.set("DETECTED", np.indices(warp.bbox.shape)[0] == 30)
    image = WarpInput(WarpHandle(warp)).read(PLANES)
    assert image.bbox == warp.bbox
    assert image.image.dtype == image.variance.dtype == np.float32
    np.testing.assert_allclose(image.image, 1e3 * warp.image.array, rtol=1e-6)
    np.testing.assert_allclose(image.variance, 1e6 * warp.variance.array, rtol=1e-6)
    np.testing.assert_array_equal(image.masked.any(axis=1).nonzero()[0], [20])
    assert image.psf is not None
    kernel = image.psf.compute_kernel_image(x=80.0, y=50.0)
    np.testing.assert_allclose(kernel.array, gaussian_kernel(), atol=1e-7)
    ra, dec = image.to_sky(np.array([80.0]), np.array([50.0]))
    sky = GEOMETRY.sky_projection.pixel_to_sky(x=80.0, y=50.0)
    np.testing.assert_allclose([ra[0], dec[0]], [sky.ra.rad, sky.dec.rad], rtol=1e-10)


def test_image_without_psf() -> None:
    """An error, unless the PSF is not needed."""
    warp = make_warp()
    bare = MaskedImage(
        Image(warp.image.array, bbox=warp.bbox, unit=u.nJy, sky_projection=warp.sky_projection),
        mask=warp.mask,
        variance=Image(warp.variance.array, bbox=warp.bbox, unit=u.nJy**2),
    )
    with pytest.raises(InputError, match="Cam visit 1 warp has no PSF.*visit_image") as info:
        WarpInput(WarpHandle(bare)).read(PLANES)
    assert info.value.metadata == {"dataset": "Cam visit 1 warp"}
    assert WarpInput(WarpHandle(bare)).read(PLANES, needs_psf=False).psf is None


def test_image_without_projection() -> None:
    warp = make_warp()
    bare = MaskedImage(
        Image(warp.image.array, bbox=warp.bbox, unit=u.nJy),
        mask=warp.mask,
        variance=Image(warp.variance.array, bbox=warp.bbox, unit=u.nJy**2),
    )
    with pytest.raises(InputError, match="Cam visit 1 warp has no sky projection.*visit_image"):
        WarpInput(WarpHandle(bare)).read(PLANES, needs_psf=False)


@pytest.mark.parametrize("make", [make_warp, make_afw_warp])
def test_planes_by_either_name(make: Any) -> None:
    warp_input = WarpInput(WarpHandle(make()))
    assert not warp_input.read(["SATURATED", "CR"]).masked.any()
    with pytest.raises(InputError, match="Cam visit 1 warp has no mask plane NOISE.*badMaskPlanes") as info:
        warp_input.read(["SATURATED", "NOISE"])
    assert info.value.metadata == {"dataset": "Cam visit 1 warp", "missing": "NOISE"}


def test_damaged_file() -> None:
    handle = WarpHandle(make_warp())

    def get() -> Any:
        raise formatter_error(OSError("Empty or corrupt FITS file"))

    handle.get = get  # type: ignore[method-assign]
    with pytest.raises(DamagedInputError, match="its file cannot be decoded"):
        WarpInput(handle).read(PLANES)


@pytest.mark.usefixtures("geom")
def test_afw_planes_by_either_name() -> None:
    warp = make_afw_warp()
    warp.mask.array[20] |= warp.mask.getPlaneBitMask(["SAT"])
    result = stack(warp, badMaskPlanes=["SATURATED"])
    assert not result.stack.good[0, 13].any()
    with pytest.raises(InputError, match="no mask plane SPIKE.*badMaskPlanes"):
        stack(warp, badMaskPlanes=["SPIKE"])


@pytest.mark.usefixtures("geom")
def test_afw_without_calibration() -> None:
    with pytest.raises(InputError, match="Cam visit 1 warp has no photometric calibration"):
        stack(make_afw_warp(mean=None, unit=None))
