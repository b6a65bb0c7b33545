# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import dataclasses

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from source_lists import make_sources

from lsst.drp.restore.sources.source_table import COLUMNS, PatchFrame, make_source_table, near_missing

SHAPE = (60, 80)
NOWHERE = np.zeros(SHAPE, bool)
# Pixels of a thousandth of a degree at the equator.
FRAME = PatchFrame(
    tract=9,
    patch=17,
    x0=1000,
    y0=2000,
    inner=(slice(2010, 2050), slice(1010, 1070)),
    pixel_to_sky=lambda x, y: SkyCoord(10.0 - 1e-3 * (x - 1000), 1e-3 * (y - 2000), unit="deg"),
)


def pixel(x: int, y: int) -> np.ndarray:
    plane = np.zeros(SHAPE, bool)
    plane[y, x] = True
    return plane


def test_columns_have_types_units_and_descriptions() -> None:
    table = make_source_table(make_sources([5.0], [5.0], [100.0]), FRAME, {}, edge=NOWHERE)
    assert table.colnames == [column.name for column in COLUMNS]
    for name, dtype, unit, description in COLUMNS:
        assert table[name].dtype == dtype
        assert (table[name].unit or "") == u.Unit(unit)
        assert table[name].description == description
        assert len(description) > 5


def test_sources_are_ordered_from_below_and_have_their_own_measurements() -> None:
    found = make_sources([30.0, 20.5, 40.25], [40.0, 10.0, 20.0], [300.0, 100.0, 200.0])
    table = make_source_table(found, FRAME, {}, edge=NOWHERE)
    np.testing.assert_array_equal(table["id"], [1, 2, 3])
    np.testing.assert_array_equal(table["psfFlux"], [100.0, 200.0, 300.0])
    np.testing.assert_array_equal(table["apFlux"], [90.0, 180.0, 270.0])
    np.testing.assert_array_equal(table["x"], [1020.5, 1040.25, 1030.0])
    np.testing.assert_array_equal(table["y"], [2010.0, 2020.0, 2040.0])
    np.testing.assert_allclose(table["coord_ra"], [9.9795, 9.95975, 9.97])
    np.testing.assert_allclose(table["coord_dec"], [0.01, 0.02, 0.04])
    assert set(table["tract"]) == {9} and set(table["patch"]) == {17}
    assert not table["parent"].any() and not table["deblend_nChild"].any()
    # The ellipse of moments 4, 3 and 0.5.
    np.testing.assert_allclose(table["a"] ** 2 + table["b"] ** 2, 7.0, rtol=1e-5)
    np.testing.assert_allclose(table["a"] ** 2 * table["b"] ** 2, 11.75, rtol=1e-5)
    np.testing.assert_allclose(table["theta"], 22.5, rtol=1e-5)


def test_blends_follow_their_sources() -> None:
    found = make_sources([50.0, 20.0, 24.0, 53.0, 70.0], [30.0, 10.0, 12.0, 31.0, 50.0], [5.0] * 5)
    found = dataclasses.replace(found, footprint=np.array([8, 3, 3, 8, 5]))
    table = make_source_table(found, FRAME, {}, edge=NOWHERE)
    np.testing.assert_array_equal(table["id"], np.arange(1, 8))
    np.testing.assert_array_equal(table["parent"], [6, 6, 7, 7, 0, 0, 0])
    np.testing.assert_array_equal(table["deblend_nChild"], [0, 0, 0, 0, 0, 2, 2])
    np.testing.assert_array_equal(table["flag_blended"], [1, 1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(table["x"][5:], [1022.0, 1051.5])
    np.testing.assert_array_equal(table["y"][5:], [2011.0, 2030.5])
    assert np.isnan(table["psfFlux"][5:]).all() and table["flag_psfFlux"][5:].all()
    assert np.isfinite(table["psfFlux"][:5]).all() and not table["flag_psfFlux"][:5].any()


def test_primary_sources_are_in_the_inner_region_and_no_blends() -> None:
    # The inner region starts at pixel 10: a source at 9.6 is in it.
    found = make_sources([9.4, 9.6, 69.4, 69.6, 30.0, 33.0], [30.0] * 4 + [49.6, 40.0], [5.0] * 6)
    found = dataclasses.replace(found, footprint=np.array([1, 2, 3, 4, 5, 5]))
    table = make_source_table(found, FRAME, {}, edge=NOWHERE)
    inner = dict(zip(table["x"].round(1).tolist(), table["detect_isPatchInner"].tolist(), strict=True))
    assert inner == {1009.4: 0, 1009.6: 1, 1069.4: 1, 1069.6: 0, 1030.0: 0, 1033.0: 1, 1031.5: 1}
    blend = table["deblend_nChild"] > 0
    assert table["detect_isPatchInner"][blend].all() and not table["detect_isPrimary"][blend].any()
    np.testing.assert_array_equal(table["detect_isPrimary"][~blend], table["detect_isPatchInner"][~blend])


@pytest.mark.parametrize(
    ("plane", "flag"),
    [
        ("NO_DATA", "flag_noData"),
        ("FEW_EXPOSURES", "flag_fewExposures"),
        ("INCONSISTENT", "flag_inconsistent"),
        ("NOT_CONVERGED", "flag_notConverged"),
        ("INEXACT_PSF", "flag_inexactPsf"),
    ],
)
def test_flags_are_those_of_mask_planes_within_a_pixel(plane: str, flag: str) -> None:
    found = make_sources([20.2, 40.0, 60.0], [10.0, 20.0, 30.0], [5.0] * 3)
    table = make_source_table(found, FRAME, {plane: pixel(21, 11) | pixel(42, 20)}, edge=NOWHERE)
    np.testing.assert_array_equal(table[flag], [True, False, False])
    others = {column.name for column in COLUMNS if column.name.startswith("flag_")} - {flag}
    assert not any(table[name].any() for name in others)


def test_flags_of_failed_measurements() -> None:
    found = make_sources([20.0, 40.0], [10.0, 20.0], [5.0, 5.0])
    nothing = np.array([np.nan, 1.0])
    found = dataclasses.replace(
        found,
        photometry=dataclasses.replace(found.photometry, flux=nothing),
        aperture_flux=nothing,
        moments=np.array([[np.nan] * 3, [2.0, 2.0, 0.0]]),
        sharp_peak=np.array([False, True]),
    )
    table = make_source_table(found, FRAME, {}, edge=pixel(20, 10))
    for flag in ("flag_psfFlux", "flag_apFlux", "flag_shape", "flag_notRestored", "flag_edge"):
        np.testing.assert_array_equal(table[flag], [True, False])
    assert np.isnan(table["a"][0])


def test_no_sources() -> None:
    table = make_source_table(make_sources([], [], []), FRAME, {}, edge=NOWHERE)
    assert len(table) == 0
    assert [table[name].dtype for name in table.colnames] == [np.dtype(column.dtype) for column in COLUMNS]


def test_near_missing_is_a_square_around_each_missing_pixel_and_a_frame() -> None:
    valid = np.ones((20, 30), bool)
    valid[10, 12] = False
    expected = np.ones((20, 30), bool)
    expected[2:-2, 2:-2] = False
    expected[8:13, 10:15] = True
    np.testing.assert_array_equal(near_missing(valid, 2), expected)
