# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Manifests of exposures to ingest."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.time import Time
from exposure_files import Exposures

from lsst.drp.restore.repository.manifest import ManifestError, read_manifest


@pytest.mark.parametrize(
    "cell,scale",
    [
        ("2024-03-02T03:04:05", "utc"),
        ("2024-03-02 03:04:05", "utc"),
        (60371.127835648148, "utc"),
        ("60371.127835648148", "utc"),
        (Time("2024-03-02T03:04:05", scale="utc"), "utc"),
        ("2024-03-02T03:04:42", "tai"),
    ],
)
def test_times(exposures: Exposures, cell: Any, scale: str) -> None:
    exposures.add(3, time=cell)
    exposures.meta["time_scale"] = scale
    manifest = read_manifest(exposures.manifest())
    assert not manifest.problems
    expected = Time("2024-03-02T03:04:05", scale="utc")
    assert abs((manifest.rows[0].begin - expected).to_value(u.s)) < 1e-3


def test_tables_that_are_no_manifests(exposures: Exposures) -> None:
    exposures.add(1, wieght="w.fits")
    del exposures.rows[0]["band"]
    path = exposures.manifest()
    with pytest.raises(ManifestError, match="(?s)no column 'band'.*unknown column 'wieght'"):
        read_manifest(path)
    path.write_text("visit image\n1 a.fits\n")
    with pytest.raises(ManifestError, match="not an ECSV table"):
        read_manifest(path)


def test_rows(exposures: Exposures) -> None:
    exposures.add(3, 7, mask="m.fits", exposure_time=12, physical_filter="r_1")
    exposures.add(4, psf_kind="fwhm_arcsec", psf="0.8", variance="", weight="w.fits")
    exposures.meta |= {"instrument": "Cam", "mask_planes": {"BAD": 3, "SATURATED": [1, 2]}}
    path = exposures.manifest()
    manifest = read_manifest(path)
    assert (manifest.path, manifest.problems, manifest.instrument) == (path, (), "Cam")
    assert manifest.mask_planes == {"BAD": [3], "SATURATED": [1, 2]}
    first, second = manifest.rows
    assert first.label == "row 1 (visit 3, detector 7)"
    assert (first.image, first.mask, first.weight) == ("v3d7.fits", "m.fits", None)
    assert (first.psf_kind, first.psf, first.physical_filter) == ("kernel", "v3d7.psf.fits", "r_1")
    assert (first.exposure_time, first.zero_point, first.complete) == (12.0, 28.0, True)
    # The filter has the name of the band unless it has another one.
    assert (second.psf, second.physical_filter, second.weight) == (0.8, "r", "w.fits")


def test_defaults_of_columns_that_can_be_left_out(exposures: Exposures) -> None:
    row = exposures.add(3)
    for name in ("detector", "variance", "weight", "mask", "psf_kind", "psf"):
        del row[name]
    (row,) = read_manifest(exposures.manifest()).rows
    assert (row.detector, row.variance, row.weight, row.mask, row.complete) == (0, None, None, None, True)
    assert (row.gain, row.background, row.saturation, row.correlation) == (None, None, None, None)
    assert (row.psf_kind, row.psf) == ("stars", "")


def test_values_that_are_not_estimated(exposures: Exposures) -> None:
    exposures.add(3, gain=2.5, background=64.0, saturation=np.inf, correlation=1.4)
    exposures.add(4, gain=np.nan, background=0.0, saturation=6e4, correlation=np.nan)
    first, second = read_manifest(exposures.manifest()).rows
    assert (first.gain, first.background, first.saturation, first.correlation) == (2.5, 64.0, np.inf, 1.4)
    # An empty cell.
    assert (second.gain, second.background, second.saturation) == (None, 0.0, 6e4)
    assert second.correlation is None and first.complete and second.complete


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ({"zero_point": np.nan}, "zero_point is nan, not a finite number"),
        ({"exposure_time": -1.0}, "exposure_time is -1.0, not a finite number of at least 0"),
        ({"visit": -1}, "visit is -1, not an integer from 0 to"),
        ({"detector": 1000}, "detector is 1000, not an integer from 0 to 999"),
        ({"psf_kind": "moffat"}, "psf_kind 'moffat' is unknown; there are kernel, psfex, piff, fwhm_pixel"),
        ({"psf_kind": "fwhm_pixel", "psf": "-2"}, "psf is a FWHM of -2.0, which must be positive"),
        ({"weight": "w.fits"}, "give a variance or a weight, not both"),
        ({"psf_kind": "stars"}, "psf is v1d0.psf.fits, but psf_kind does not say what it is"),
        ({"gain": -1.0}, "gain is -1.0, not a finite number of at least 0"),
        ({"correlation": 0.0}, "correlation is 0, not a positive number"),
        ({"image": ""}, "image is empty"),
        ({"time": "yesterday"}, "time is yesterday, neither ISO format nor MJD"),
        ({"time": "1969-12-31T00:00:00"}, "which is before 1970"),
        ({"physical_filter": 33 * "r"}, "has more than 32 characters"),
    ],
)
def test_problem_of_a_row(exposures: Exposures, cells: dict[str, Any], problem: str) -> None:
    exposures.add(1)
    exposures.rows[0] |= cells
    manifest = read_manifest(exposures.manifest())
    (found,) = manifest.problems
    assert found.startswith("manifest.ecsv: row 1 (visit ") and problem in found
    assert not manifest.rows[0].complete


def test_rows_that_exclude_each_other(exposures: Exposures) -> None:
    exposures.add(1)
    exposures.add(1)
    exposures.add(1, 1, exposure_time=31.0)
    exposures.add(2, band="i", physical_filter="r")
    assert list(read_manifest(exposures.manifest()).problems) == [
        "row 2 (visit 1, detector 0): v1d0.fits: the same visit and detector as row 1",
        "row 3 (visit 1, detector 1): v1d1.fits: exposure_time is 31.0, but 30.0 in row 1 of the same visit",
        "row 4 (visit 2, detector 0): v2d0.fits: filter 'r' is of band 'i', but of 'r' in row 1",
    ]


@pytest.mark.parametrize(
    ("planes", "problem"),
    [
        ([1], "mask_planes is [1], not a mapping from mask plane to bit numbers"),
        ({"CR": [1]}, "mask_planes: no mask plane 'CR'; there are ["),
        ({"BAD": [64]}, "mask_planes: BAD is [64], not bit numbers from 0 to 63"),
        ({"BAD": "all"}, "mask_planes: BAD is 'all', not bit numbers from 0 to 63"),
    ],
)
def test_mask_planes_that_are_refused(exposures: Exposures, planes: Any, problem: str) -> None:
    exposures.add(1)
    exposures.meta["mask_planes"] = planes
    (found,) = read_manifest(exposures.manifest()).problems
    assert problem in found


def test_error_lists_all_problems(exposures: Exposures) -> None:
    error = ManifestError(exposures.folder / "m.ecsv", ["a: one", "b: two"])
    assert error.problems == ("a: one", "b: two")
    assert str(error).endswith("m.ecsv:\n- a: one\n- b: two")
    assert "Nothing was ingested, 2 problem(s)" in str(error)
