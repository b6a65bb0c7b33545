# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Values of a manifest in FITS headers."""

from __future__ import annotations

from typing import Any

import pytest
from astropy.io.fits import Header
from astropy.time import Time

from lsst.drp.restore.repository.frame_headers import FrameHeader, read_frame_header

COMPLETE: dict[str, Any] = {
    "INSTRUME": "HAWKI",
    "DATE-OBS": "2013-10-03T01:02:03.4",
    "EXPTIME": 30.0,
    "FILTER": "Ks",
    "MAGZPT": 28.5,
}


def read(**cards: Any) -> FrameHeader:
    """Read a complete header with changes; `None` removes a keyword."""
    cards = COMPLETE | {name.replace("__", "-"): value for name, value in cards.items()}
    return read_frame_header(Header({name: value for name, value in cards.items() if value is not None}))


def test_complete_header() -> None:
    frame = read(GAIN=1.8, SATURATE=6e4, CCDNUM=3)
    assert (frame.instrument, frame.physical_filter, frame.band) == ("HAWKI", "Ks", "Ks")
    assert abs((frame.begin - Time("2013-10-03T01:02:03.4")).sec) < 1e-6
    assert (frame.exposure_time, frame.zero_point) == (30.0, 28.5)
    assert (frame.gain, frame.saturation, frame.detector) == (1.8, 6e4, 3)
    assert not frame.problems


@pytest.mark.parametrize(
    ("cards", "zero_point"),
    [
        ({"MAGZPT": None, "MAGZERO": 25.0}, 25.0),
        ({"MAGZPT": None, "PHOTZP": "31.4"}, 31.4),
        ({"MAGZPT": None, "FLUXMAG0": 1e12}, 30.0),
        ({"BUNIT": "nJy"}, 31.4),
        ({"BUNIT": "uJy"}, 23.9),
        ({"BUNIT": "MJy/sr", "PIXAR_SR": 1e-15}, 31.4),
        # WFC3/UVIS F606W has 26.09 AB for one electron per second.
        ({"MAGZPT": None, "PHOTFLAM": 1.15e-19, "PHOTPLAM": 5889.0, "BUNIT": "ELECTRONS/S"}, 26.09),
        ({"MAGZPT": None, "PHOTFLAM": 1.15e-19, "PHOTPLAM": 5889.0, "EXPTIME": 100.0}, 31.09),
    ],
)
def test_zero_points(cards: dict[str, Any], zero_point: float) -> None:
    assert read(**cards).zero_point == pytest.approx(zero_point, abs=0.01)


@pytest.mark.parametrize(
    ("cards", "seconds"),
    [
        ({"EXPTIME": None, "EXPOSURE": 40.0}, 40.0),
        ({"EXPTIME": 10.0, "ESO DET DIT": 10.0, "ESO DET NDIT": 6}, 60.0),
        ({"EXPTIME": 60.0, "DIT": 10.0, "NDIT": 6}, 60.0),
        ({"EXPTIME": None, "DIT": 10.0, "NDIT": 6}, 60.0),
    ],
)
def test_exposure_times(cards: dict[str, Any], seconds: float) -> None:
    assert read(**cards).exposure_time == seconds


@pytest.mark.parametrize(
    ("cards", "begin"),
    [
        ({"DATE__OBS": None, "MJD__OBS": 56568.25}, "2013-10-03T06:00:00"),
        ({"DATE__OBS": "2013-10-03", "MJD__OBS": 56568.25}, "2013-10-03T06:00:00"),
        ({"DATE__OBS": "2013-10-03", "TIME__OBS": "06:00:00"}, "2013-10-03T06:00:00"),
        ({"DATE__OBS": "2013-10-03"}, "2013-10-03T00:00:00"),
        ({"DATE__BEG": "2013-10-03T02:00:00"}, "2013-10-03T02:00:00"),
        ({"DATE__OBS": "2013-10-03T01:00:37", "TIMESYS": "TAI"}, "2013-10-03T01:00:02"),
    ],
)
def test_dates(cards: dict[str, Any], begin: str) -> None:
    found = read(**cards).begin
    assert found is not None and abs((found - Time(begin)).sec) < 1e-3


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("i DECam SDSS c0003 7835.0 1470.0", "i"),
        ("r.MP9602", "r"),
        ("HSC-I2", "I"),
        ("SDSS g'", "g"),
        ("gp", "g"),
        ("Bessel_V", "V"),
        ("F606W", "F606W"),
    ],
)
def test_bands(name: str, band: str) -> None:
    frame = read(FILTER=name)
    assert (frame.physical_filter, frame.band) == (name, band)


def test_filter_wheels() -> None:
    assert read(FILTER=None, FILTER1="OPEN", FILTER2="H").physical_filter == "H"


@pytest.mark.parametrize(
    ("cards", "gain"),
    [
        ({"BUNIT": "adu"}, 2.0),
        ({"BUNIT": "ADU/s"}, 60.0),
        ({"BUNIT": "counts/s"}, 60.0),
        ({"BUNIT": "electron"}, 1.0),
        ({"BUNIT": "electron/s"}, 30.0),
    ],
)
def test_gain_is_that_of_the_pixels(cards: dict[str, Any], gain: float) -> None:
    assert read(GAIN=2.0, **cards).gain == gain


@pytest.mark.parametrize(
    ("cards", "column", "reason"),
    [
        ({"MAGZPT": None}, "zero_point", "no zero point (MAGZERO, MAGZPT"),
        ({"PHOTSYS": "VEGA"}, "zero_point", "Vega"),
        ({"FILTER": None}, "band", "no filter"),
        ({"EXPTIME": None}, "exposure_time", "no exposure time"),
        ({"DATE__OBS": None}, "time", "no date"),
        ({"DATE__OBS": "last night"}, "time", "no date"),
    ],
)
def test_missing_values(cards: dict[str, Any], column: str, reason: str) -> None:
    problems = read(**cards).problems
    assert list(problems) == [column] and reason in problems[column]
