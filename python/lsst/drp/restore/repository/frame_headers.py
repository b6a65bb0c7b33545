# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Photometric zero point, times, filter and detector of an image, read from its
FITS header.
"""

from __future__ import annotations

__all__ = ("FrameHeader", "read_frame_header")

import dataclasses
import math
import re
import warnings
from collections.abc import Iterable

import astropy.units as u
from astro_metadata_translator import FitsTranslator
from astropy.io.fits import Header
from astropy.time import Time

# Keywords in the order in which they are looked for.
_ZERO_POINT = ("MAGZERO", "MAGZPT", "MAGZP", "MAG_ZP", "ZEROPT", "ZEROPNT", "PHOTZP", "PHOT_ZP", "ZPT", "ZP")
_SYSTEM = ("PHOTSYS", "MAGSYS", "ZPSYS")
_EXPOSURE_TIME = ("EXPTIME", "EXPOSURE", "TEXPTIME", "XPOSURE")
_DIT = ("DIT", "ESO DET DIT", "ESO DET SEQ1 DIT")
_NDIT = ("NDIT", "ESO DET NDIT")
_TIME_OF_DAY = ("TIME-OBS", "UTC-OBS", "UT", "UTC", "TIME")
_FILTER = (
    "FILTER",
    "FILTER1",
    "FILTNAM",
    "FILTNAM1",
    "FILTERS",
    "ESO INS FILT1 NAME",
    "ESO INS FILT1 ID",
    "BAND",
)
_INSTRUMENT = ("INSTRUME", "CAMERA", "TELESCOP")
_GAIN = ("GAIN", "EGAIN", "CCDGAIN", "ESO DET OUT1 CONAD", "ARAWGAIN")
_SATURATION = ("SATURATE", "SATURATN", "SATLEVEL", "SATUR")
_DETECTOR = ("CCDNUM", "CHIPNUM", "DETNUM", "CHIP", "CCDID")

# Values that filter wheels report for an open position.
_NO_FILTER = ("", "CLEAR", "OPEN", "NONE", "EMPTY")

# Names of bands, longer ones first.
_BANDS = ("Ks", "u", "g", "r", "i", "z", "y", "U", "B", "V", "R", "I", "Z", "Y", "J", "H", "K")

# Units of pixels, of which others are multiples.
_UNITS = (u.adu, u.adu / u.s, u.electron, u.electron / u.s, u.Jy, u.Jy / u.sr)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FrameHeader:
    """Entries of a manifest that a FITS header has.

    Parameters
    ----------
    instrument, physical_filter, band : `str` or `None`
        Names of the instrument, the filter and its band; `None` where the
        header does not have the value, as below.
    begin : `astropy.time.Time` or `None`
        Start of the exposure.
    exposure_time : `float` or `None`
        Exposure time, s.
    zero_point : `float` or `None`
        AB magnitude of 1 count.
    gain : `float` or `None`
        Electrons per count.
    saturation : `float` or `None`
        Counts.
    detector : `int` or `None`
        Number of the detector.
    problems : `dict` [`str`, `str`]
        Reason, by column, for which a required value is missing.
    """

    instrument: str | None
    physical_filter: str | None
    band: str | None
    begin: Time | None
    exposure_time: float | None
    zero_point: float | None
    gain: float | None
    saturation: float | None
    detector: int | None
    problems: dict[str, str]


def read_frame_header(header: Header) -> FrameHeader:
    """Read the values of a manifest's row from a FITS header.

    Parameters
    ----------
    header : `astropy.io.fits.Header`
        Header of the image, with the primary header's keywords.

    Returns
    -------
    frame : `FrameHeader`
        The values, and what is missing.

    Notes
    -----
    ``EXPTIME`` is multiplied by ``NDIT`` where it equals ``DIT``, as in ESO's
    raw images.  Images in a unit of flux density, such as nJy or MJy/sr, need
    no zero point.  ``PHOTFLAM`` and ``PHOTPLAM`` are those of counts per
    second.
    """
    problems = {}
    exposure_time = _exposure_time(header)
    if exposure_time is None:
        problems["exposure_time"] = "no exposure time (EXPTIME)"
    begin = _begin(header)
    if begin is None:
        problems["time"] = "no date (DATE-OBS or MJD-OBS)"
    physical_filter = _filter(header)
    if physical_filter is None:
        problems["band"] = "no filter (FILTER)"
    zero_point, reason = _zero_point(header, exposure_time)
    if zero_point is None:
        problems["zero_point"] = reason
    gain = _number(header, _GAIN, minimum=0.0)
    unit = _unit(header)
    if _is_rate(unit) and gain is not None and exposure_time is not None:
        gain *= exposure_time
    elif unit is not None and unit.is_equivalent(u.electron):
        gain = 1.0
    elif unit is not None and unit.is_equivalent(u.electron / u.s) and exposure_time is not None:
        gain = exposure_time
    detector = _number(header, _DETECTOR, minimum=0.0)
    return FrameHeader(
        instrument=_text(header, _INSTRUMENT),
        physical_filter=physical_filter,
        band=_band(physical_filter) if physical_filter is not None else None,
        begin=begin,
        exposure_time=exposure_time,
        zero_point=zero_point,
        gain=gain or None,
        saturation=_number(header, _SATURATION, minimum=0.0) or None,
        detector=int(detector) if detector is not None else None,
        problems=problems,
    )


def _number(header: Header, names: Iterable[str], *, minimum: float = -math.inf) -> float | None:
    """Return the first keyword that is a finite number."""
    for name in names:
        value = header.get(name)
        if isinstance(value, bool):
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if minimum <= number < math.inf:
            return number
    return None


def _text(header: Header, names: Iterable[str]) -> str | None:
    """Return the first keyword with a text."""
    for name in names:
        value = header.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def _exposure_time(header: Header) -> float | None:
    """Return the exposure time."""
    total = _number(header, _EXPOSURE_TIME, minimum=0.0)
    dit, ndit = _number(header, _DIT, minimum=0.0), _number(header, _NDIT, minimum=1.0)
    if dit is None or ndit is None:
        return total
    return dit * ndit if total is None or math.isclose(total, dit) else total


def _begin(header: Header) -> Time | None:
    """Return the start of the exposure."""
    date = header.get("DATE-OBS")
    day = header.get("DATE-BEG") or header.get("MJD-BEG") or header.get("MJD-OBS")
    if isinstance(date, str) and "T" not in date and day is None:
        clock = next((header[name] for name in _TIME_OF_DAY if ":" in str(header.get(name, ""))), "00:00:00")
        header = header.copy()
        header["DATE-OBS"] = f"{date.strip()}T{str(clock).strip()}"
    elif isinstance(date, str) and "T" not in date and "DATE-BEG" not in header:
        header = header.copy()
        del header["DATE-OBS"]
    try:
        begin = FitsTranslator(header).to_datetime_begin()
    except (ValueError, KeyError, TypeError):
        # Not a date: reported as missing.
        return None
    return begin


def _filter(header: Header) -> str | None:
    """Return the name of the filter."""
    for name in (*_FILTER, *sorted(key for key in header if re.fullmatch(r"FILTER\d|FILTNAM\d", key))):
        value = header.get(name)
        if isinstance(value, str) and value.strip().upper() not in _NO_FILTER:
            return value.strip()
    return None


def _band(physical_filter: str) -> str:
    """Return the band of a filter: the first word that is the name of one."""
    words = re.split(r"[^0-9A-Za-z']+", physical_filter)
    for word in words:
        name = word.rstrip("'")
        if name in _BANDS:
            return name
        # Such as gp, zs, r1 and HSC-I2.
        if re.fullmatch(r"[ugrizy](p|s|\d)|[UBVRIZYJHK]\d", name):
            return name[0]
    return words[0] or physical_filter


def _unit(header: Header) -> u.UnitBase | None:
    """Return the unit of the pixels, if it is a known one."""
    text = re.sub(r"(?i)\b(adu|counts?|dn)\b", "adu", str(header.get("BUNIT", "")).strip())
    text = re.sub(r"(?i)\b(e-|electrons?)", "electron", text)
    for spelling in (text, text.lower()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", u.UnitsWarning)
            unit = u.Unit(spelling, parse_strict="silent")
        if any(unit.is_equivalent(known) for known in _UNITS):
            return unit
    return None


def _is_rate(unit: u.UnitBase | None) -> bool:
    """Whether pixels are counts per second."""
    return unit is not None and unit.is_equivalent(u.adu / u.s)


def _zero_point(header: Header, exposure_time: float | None) -> tuple[float | None, str]:
    """Return the zero point, or the reason why there is none."""
    unit = _unit(header)
    flux = _flux_of_one(header, unit)
    if flux is not None:
        return float(flux.to_value(u.ABmag)), ""
    system = _text(header, _SYSTEM)
    if system is not None and "VEGA" in system.upper():
        return None, f"the zero point is one of Vega magnitudes ({system}); AB magnitudes are needed"
    zero_point = _number(header, _ZERO_POINT)
    if zero_point is not None:
        return zero_point, ""
    flux_mag_0 = _number(header, ("FLUXMAG0",))
    if flux_mag_0 is not None and flux_mag_0 > 0.0:
        return 2.5 * math.log10(flux_mag_0), ""
    flam, pivot = _number(header, ("PHOTFLAM",)), _number(header, ("PHOTPLAM",))
    if flam is not None and pivot is not None and flam > 0.0 and pivot > 0.0:
        density = flam * u.erg / u.s / u.cm**2 / u.AA
        zero_point = float(density.to_value(u.ABmag, u.spectral_density(pivot * u.AA)))
        if unit is not None and (_is_rate(unit) or unit.is_equivalent(u.electron / u.s)):
            return zero_point, ""
        if exposure_time:
            return zero_point + 2.5 * math.log10(exposure_time), ""
    return None, f"no zero point ({', '.join(_ZERO_POINT)}, FLUXMAG0, PHOTFLAM and PHOTPLAM, or BUNIT in Jy)"


def _flux_of_one(header: Header, unit: u.UnitBase | None) -> u.Quantity | None:
    """Return the flux density of a pixel with the value 1, if its unit is one."""
    if unit is None:
        return None
    if unit.is_equivalent(u.nJy):
        return 1.0 * unit
    area = _number(header, ("PIXAR_SR",))
    if unit.is_equivalent(u.Jy / u.sr) and area is not None:
        return 1.0 * unit * area * u.sr
    return None
