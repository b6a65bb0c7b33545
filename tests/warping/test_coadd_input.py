# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Reading of the coadd of a patch."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from coadds import CoaddHandle, make_coadd, make_tables
from warps import GEOMETRY, make_afw_warp, make_warp

from lsst.drp.restore import InputError
from lsst.drp.restore.outputs.provenance_table import make_provenance
from lsst.drp.restore.warping.coadd_input import CoaddInput
from lsst.images.fields import ChebyshevField


def test_the_visits_of_a_coadd() -> None:
    """Its provenance is read, and written again."""
    tables = make_tables()
    visits = CoaddInput(CoaddHandle(make_coadd(provenance=tables))).visits(GEOMETRY.n_cells)
    assert [(one.visit, one.detector) for one in visits] == [(7, 1), (7, 2), (9, 1)]
    np.testing.assert_array_equal(visits[0].weight, [[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    assert visits[0].overlaps_center.tolist() == [[True, False, False], [False, False, False]]
    again = make_provenance(visits)
    assert again is not None
    for name in tables.inputs.colnames:
        assert list(again.inputs[name]) == list(tables.inputs[name])
    for name in tables.contributions.colnames:
        np.testing.assert_array_equal(again.contributions[name], tables.contributions[name])


@pytest.mark.usefixtures("geom")
def test_a_coadd_of_unknown_visits() -> None:
    for coadd in (make_coadd(), make_afw_warp()):
        assert CoaddInput(CoaddHandle(coadd)).visits(GEOMETRY.n_cells) == []


def test_read_once() -> None:
    handle = CoaddHandle(make_coadd())
    coadd = CoaddInput(handle)
    image = coadd.read(["NO_DATA"])
    coadd.visits(GEOMETRY.n_cells)
    assert str(coadd) == "tract 0 patch 3 i coadd" and handle.n_reads == 1
    np.testing.assert_array_equal(image.image, handle.coadd.image.array)
    coadd.close()
    coadd.read(["NO_DATA"])
    assert handle.n_reads == 2


def test_masks_of_coadds_differ() -> None:
    """A plane that a coadd does not have masks nothing."""
    coadd = make_coadd()
    coadd.mask.set("SATURATED", np.indices(coadd.bbox.shape)[0] == 4)
    image = CoaddInput(CoaddHandle(coadd)).read(["NO_DATA", "SAT", "CLIPPED"])
    np.testing.assert_array_equal(image.masked, np.indices(coadd.bbox.shape)[0] == 4)
    coadd_input = CoaddInput(CoaddHandle(coadd))
    larger = coadd.bbox.padded(2)
    saturated = coadd_input.pixels_with("SATURATED", larger)
    assert saturated is not None and saturated.shape == larger.shape
    assert saturated[6, 2:-2].all() and saturated.sum() == coadd.bbox.x.size
    assert coadd_input.pixels_with("INEXACT_PSF", larger) is None


def test_backgrounds() -> None:
    coadd = make_coadd()
    assert CoaddInput(CoaddHandle(coadd)).describe_background() == ""
    field = ChebyshevField(coadd.bbox, np.array([[100.0]]), unit=u.nJy)
    coadd.backgrounds.add("pretty", field)
    assert CoaddInput(CoaddHandle(coadd)).describe_background() == (
        "it has the background models 'pretty', of which none is subtracted"
    )
    coadd.apply_background("pretty")
    assert "of which 'pretty' is subtracted" in CoaddInput(CoaddHandle(coadd)).describe_background()


def test_a_coadd_without_unit_of_flux() -> None:
    with pytest.raises(InputError, match="tract 0 patch 3 i coadd has pixels in adu"):
        CoaddInput(CoaddHandle(make_warp(unit=u.adu))).read([])
