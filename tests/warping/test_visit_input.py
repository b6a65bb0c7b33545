# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the reading of single visit images."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from afw_visits import AfwHandle, AfwVisit, bits, from_legacy
from handles import ConvertedHandle, StoredHandle, formatter_error
from visit_images import BBOX, SHAPE, build, make_image, register_images

from lsst.drp.restore.errors import DamagedInputError, InputError
from lsst.drp.restore.warping.visit_input import VisitInput, noise_correlation, scale_to_njy
from lsst.images import Box, VisitImage
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


# -- exposures of lsst.afw


@pytest.fixture
def afw(monkeypatch):
    """Provide the conversion of visit images, as it is."""
    monkeypatch.setattr(VisitImage, "from_legacy", staticmethod(from_legacy))


def read_afw(handle):
    return VisitInput(handle).read(BBOX)


@pytest.mark.usefixtures("afw")
@pytest.mark.parametrize("name", ["DETECTED_NEGATIVE", "STREAK", "BRIGHT_OBJECT", "CLIPPED", "SENSOR_EDGE"])
def test_afw_image_with_mask_planes_that_the_butler_refuses(name):
    rows = np.indices(SHAPE)[0]
    exposure = AfwVisit(make_image(), masked={name: rows == 20, "SAT": rows == 30})
    with pytest.raises(ValueError, match=f"{name}' is not remapped, but 80 pixels"):
        AfwHandle(exposure).get(parameters={"exposure_record": None})
    image = read_afw(AfwHandle(exposure))
    np.testing.assert_array_equal(bits(name, image), rows == 20)
    np.testing.assert_array_equal(bits("SAT", image), rows == 30)
    assert image.unit == u.nJy
    # They can be configured as bad, by their names.
    empty = AfwVisit(make_image(2), masked={name: rows < 0})
    stack = build(AfwHandle(exposure), AfwHandle(empty), badMaskPlanes=["SATURATED", name]).stack
    lost = stack.good[1].sum() - stack.good[0].sum()
    # Two rows, and those whose interpolation reaches them.
    assert lost == pytest.approx(12 * 80, rel=0.1)


@pytest.mark.usefixtures("afw")
@pytest.mark.parametrize(("mean", "unit"), [(1.0, u.nJy), (57.5, u.electron)])
def test_afw_image_without_unit(mean, unit):
    exposure = AfwVisit(make_image(), unit=None, mean=mean)
    with pytest.raises(ValueError, match="Failure from formatter"):
        AfwHandle(exposure).get(parameters={"exposure_record": None})
    assert read_afw(AfwHandle(exposure)).unit == unit


@pytest.mark.usefixtures("afw")
@pytest.mark.parametrize(
    ("parts", "cause"),
    [
        ({"detector": False}, "ValueError: Exposure does not have a Detector"),
        ({"psf": False}, "ValueError: Exposure file does not have a Psf"),
        ({"unit": None, "mean": None}, "neither a unit .keyword BUNIT. nor a photometric calibration"),
    ],
)
def test_afw_image_that_cannot_be_converted_is_an_error(parts, cause):
    """Not a damaged file, without which a run would succeed."""
    broken = AfwHandle(AfwVisit(make_image(2), **parts))
    with pytest.raises(InputError, match=f"Cam visit 2 detector 1 cannot be converted.*{cause}") as info:
        build(make_image(1), broken, make_image(3))
    assert info.value.metadata == {"dataset": "Cam visit 2 detector 1"}


@pytest.mark.usefixtures("afw")
def test_exposure_record_is_passed(butler, caplog):
    image = make_image()
    register_images(butler, [image, make_image(2)])
    handle = AfwHandle(AfwVisit(image))
    handle.dataId = butler.registry.expandDataId(instrument="Cam", visit=1, detector=1)
    read_afw(handle)
    (record,) = handle.records
    assert (record.instrument, record.id, record.physical_filter) == ("Cam", 1, "i_1")
    assert record.timespan == handle.dataId.records["visit"].timespan
    assert "without an exposure dimension record" not in caplog.text
    # That of another exposure does not match, and is not needed.
    other = AfwHandle(AfwVisit(make_image(2)))
    other.dataId = handle.dataId
    assert read_afw(other).bbox == BBOX
