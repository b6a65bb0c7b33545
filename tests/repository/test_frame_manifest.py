# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Manifests made from FITS headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from exposure_files import SHAPE, Exposures, make_header
from frames import CARDS, write_small_frame

from lsst.drp.restore.repository.frame_manifest import (
    load_manifest,
    load_sources,
    propose_manifest,
    write_manifest,
)
from lsst.drp.restore.repository.manifest import ManifestError, read_manifest


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_visits_are_in_the_order_of_dates(tmp_path: Path) -> None:
    write_small_frame(tmp_path / "a.fits", DATE__OBS="2024-03-02T03:00:00", CCDNUM=1)
    write_small_frame(tmp_path / "b.fits", DATE__OBS="2024-03-02T01:00:00", CCDNUM=2, GAIN=1.5)
    write_small_frame(tmp_path / "c.fits", DATE__OBS="2024-03-02T01:00:00", CCDNUM=1)
    (tmp_path / "notes.txt").write_text("seeing 0.8")
    manifest = load_manifest(tmp_path)
    assert (manifest.problems, manifest.origin, manifest.instrument) == ((), "header", "My_Camera")
    found = [(row.visit, row.detector, row.image, row.gain) for row in manifest.rows]
    # Two detectors of one visit, and another visit.
    assert found == [(1, 2, "b.fits", 1.5), (1, 1, "c.fits", None), (2, 1, "a.fits", None)]
    assert {(row.band, row.zero_point, row.exposure_time, row.psf_kind) for row in manifest.rows} == {
        ("i", CARDS["MAGZP"], 30.0, "stars")
    }


def test_images_of_one_time_without_detectors_are_visits(tmp_path: Path) -> None:
    for name in "ab":
        write_small_frame(tmp_path / f"{name}.fits")
    rows = load_manifest([tmp_path / "b.fits", tmp_path / "a.fits"]).rows
    assert [(row.visit, row.detector, row.image) for row in rows] == [(1, 0, "a.fits"), (2, 0, "b.fits")]


def test_companions(tmp_path: Path) -> None:
    for name in ("a.fits", "a.weight.fits", "a_mask.fits", "a.psf.fits", "b.fits", "b.var.fits"):
        write_small_frame(tmp_path / name)
    first, second = load_manifest(tmp_path).rows
    assert (first.image, first.weight, first.mask, first.variance) == (
        "a.fits",
        "a.weight.fits",
        "a_mask.fits",
        None,
    )
    assert (second.image, second.weight, second.variance) == ("b.fits", None, "b.var.fits")


def test_extensions(tmp_path: Path) -> None:
    primary = fits.PrimaryHDU(header=fits.Header(CARDS))
    images = [fits.ImageHDU(np.ones(SHAPE), make_header(80.0 * n), name="SCI", ver=n + 1) for n in range(2)]
    masks = [fits.ImageHDU(np.zeros(SHAPE, np.int16), name="DQ", ver=n + 1) for n in range(2)]
    fits.HDUList([primary, images[0], masks[0], images[1], masks[1]]).writeto(tmp_path / "mef.fits")
    rows = load_manifest("mef.fits").rows
    assert [(row.visit, row.detector, row.image, row.mask) for row in rows] == [
        (1, 1, "mef.fits[1]", "mef.fits[2]"),
        (1, 3, "mef.fits[3]", "mef.fits[4]"),
    ]
    fits.HDUList([primary, images[0], masks[0]]).writeto(tmp_path / "one.fits")
    (row,) = load_manifest("one.fits").rows
    assert (row.image, row.mask, row.zero_point) == ("one.fits", "one.fits[2]", CARDS["MAGZP"])


def test_missing_values_are_named_with_a_remedy(tmp_path: Path) -> None:
    write_small_frame(tmp_path / "a.fits", MAGZP=None)
    fits.writeto(tmp_path / "b.fits", np.ones(SHAPE), fits.Header(CARDS))
    write_small_frame(tmp_path / "c.fits", INSTRUME="Other")
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path)
    zero_point, wcs, instruments = caught.value.problems
    assert zero_point.startswith("a.fits: no zero point (MAGZERO")
    assert "column 'zero_point' of a manifest made with --write-manifest" in zero_point
    assert wcs.startswith("b.fits: no celestial WCS; solve its astrometry")
    assert "frames of several instruments, ['My Camera', 'Other']" in instruments


def test_written_manifest_is_completed_by_hand(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    write_small_frame(tmp_path / "raw/a.fits", MAGZP=None, SATURATE=5e4)
    table, problems = write_manifest([tmp_path / "raw"], "list.ecsv")
    assert len(table) == 1 and len(problems) == 1 and "raw/a.fits: no zero point" in problems[0]
    with pytest.raises(ValueError, match="list.ecsv exists"):
        write_manifest([tmp_path / "raw"], "list.ecsv")
    (problem,) = read_manifest("list.ecsv").problems
    assert "zero_point is empty" in problem
    table["zero_point"] = 26.5
    table.write("list.ecsv", format="ascii.ecsv", overwrite=True)
    manifest = load_manifest("list.ecsv")
    assert (manifest.problems, manifest.origin, manifest.instrument) == ((), "given", "My_Camera")
    (row,) = manifest.rows
    assert (row.zero_point, row.saturation, row.gain, row.image) == (26.5, 5e4, None, "raw/a.fits")


def test_names_are_relative_to_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    write_small_frame(tmp_path / "a.fits")
    table, _ = propose_manifest(["a.fits"], tmp_path / "lists")
    assert list(table["image"]) == ["../a.fits"]


def test_sources_need_a_wcs_only(tmp_path: Path, exposures: Exposures) -> None:
    write_small_frame(tmp_path / "a.fits", MAGZP=None, EXPTIME=None)
    label, folder, names = load_sources(["a.fits"])
    assert (folder, names) == (tmp_path, ["a.fits"])
    exposures.add(1)
    label, folder, names = load_sources([exposures.manifest()])
    assert (label.name, folder, names) == ("manifest.ecsv", exposures.folder, ["v1d0.fits"])
