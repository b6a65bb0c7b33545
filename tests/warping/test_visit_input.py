# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the reading of single visit images."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from handles import ConvertedHandle, StoredHandle, formatter_error
from visit_images import BBOX, SHAPE, make_image

from lsst.drp.restore.errors import DamagedInputError, InputError
from lsst.drp.restore.warping.visit_input import VisitInput, noise_correlation, scale_to_njy
from lsst.images import Box
from lsst.images.fields import ChebyshevField


def test_label_and_data_id():
    visit_input = VisitInput(StoredHandle(make_image(17, 3)))
    assert str(visit_input) == "Cam visit 17 detector 3"
    assert (visit_input.instrument, visit_input.visit, visit_input.detector) == ("Cam", 17, 3)
    assert (visit_input.physical_filter, visit_input.day_obs) == ("i_1", 20240301)


def test_what_the_data_id_lacks_comes_from_the_image():
    handle = StoredHandle(make_image())
    del handle.dataId["physical_filter"], handle.dataId["day_obs"]
    visit_input = VisitInput(handle)
    assert visit_input.physical_filter == "i_1"
    assert visit_input.day_obs == 0


@pytest.mark.parametrize(
    "error", [KeyError("disk on fire"), ValueError("disk on fire"), FileNotFoundError("gone")]
)
def test_other_errors_are_not_swallowed(error):
    handle = StoredHandle(make_image())

    def get(**kwargs):
        raise error

    handle.get = get
    with pytest.raises(type(error), match="disk on fire|gone"):
        VisitInput(handle).get("unit")


def test_stored_image_is_read_in_parts():
    handle = StoredHandle(make_image(image=np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE)))
    visit_input = VisitInput(handle)
    assert not visit_input.is_whole
    assert visit_input.get("bbox") == BBOX
    box = Box.factory[10:20, 30:70]
    part = visit_input.read(box)
    assert part.bbox == box
    assert np.array_equal(part.image.array, handle.image.image.array[10:20, 30:70])
    assert "COSMIC_RAY" in visit_input.mask_planes()
    assert handle.reads == ["bbox", "image and all", "bbox", "mask"]


def test_converted_image_is_read_once_until_it_is_closed():
    handle = ConvertedHandle(make_image())
    visit_input = VisitInput(handle)
    assert visit_input.is_whole
    assert visit_input.get("bbox") == BBOX
    assert visit_input.read(Box.factory[10:20, 30:70]).bbox == Box.factory[10:20, 30:70]
    assert "COSMIC_RAY" in visit_input.mask_planes()
    assert len(handle.reads) == 1
    visit_input.close()
    assert visit_input.is_whole
    assert len(handle.reads) == 2


@pytest.mark.parametrize("kind", [StoredHandle, ConvertedHandle])
def test_missing_mask_planes(kind):
    visit_input = VisitInput(kind(make_image()))
    visit_input.require_planes({"BAD", "COSMIC_RAY"})
    with pytest.raises(
        InputError, match="detector 1 has no mask plane CR, SAT, without.*badMaskPlanes"
    ) as info:
        visit_input.require_planes({"BAD", "SAT", "CR"})
    assert info.value.metadata == {"dataset": "Cam visit 1 detector 1", "missing": "CR, SAT"}


def test_noise_correlation():
    assert noise_correlation(make_image(noise_correlation=1.4)) == 1.4
    image = make_image()
    del image.metadata["noise_correlation"]
    assert noise_correlation(image) == 1.0


def test_scale_to_njy():
    image = make_image(unit=u.mJy)
    VisitInput(StoredHandle(image)).require_flux()
    assert scale_to_njy(image) == np.float32(1e6)
    image = make_image(unit=u.electron)
    with pytest.raises(InputError, match="pixels in electron.*no photometric_scaling"):
        VisitInput(StoredHandle(image)).require_flux()
    image.photometric_scaling = ChebyshevField(BBOX, np.array([[15.0, 5.0]]), unit=u.uJy / u.electron)
    VisitInput(StoredHandle(image)).require_flux()
    scale = scale_to_njy(image)
    assert scale.shape == SHAPE and scale.dtype == np.float32
    # A straight line from 10 to 20 over the width of 80 pixels.
    assert np.allclose(scale[3], 1e3 * (15.0 + 5.0 * (np.arange(80) - 39.5) / 40.0), rtol=1e-5)


def test_damaged_file():
    visit_input = VisitInput(StoredHandle(make_image(), broken={"psf": formatter_error(KeyError("ZTILE1"))}))
    with pytest.raises(DamagedInputError, match="its file cannot be decoded .KeyError: 'ZTILE1'"):
        visit_input.get("psf")
