# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Manifests: tables of exposures to ingest.

A manifest is an ECSV table with one row for each exposure and detector and
the following columns.  Columns marked with * are optional, also cell by cell.

``visit``
    ID of the exposure, the same for all of its detectors; a positive integer.
``detector`` *
    ID of the detector, 0 if not given.
``image``
    FITS image in counts: any unit with the zero point ``zero_point``.  It has
    a celestial WCS; TPV and SIP are supported.
``variance`` * and ``weight`` *
    FITS image of the variance (counts squared) with the photon noise of the
    sources, or of its inverse; at most one of the two.  Pixels without positive
    weight get the mask plane ``NO_DATA``.  Without either, the variance is
    estimated from the scatter of the sky and from ``gain``.
``gain`` *
    Electrons per count in the whole exposure, for the photon noise of the
    sources where neither ``variance`` nor ``weight`` is given.  Estimated from
    the level of the sky if the image has it; 0 for no such noise.
``background`` *
    Mesh size, pixels, of the background to subtract; 0 for images that are
    sky-subtracted, default with ``variance`` or ``weight``.  Otherwise a
    background that is significant is subtracted.
``saturation`` *
    Counts, before the subtraction of a background, from which pixels get the
    mask plane ``SATURATED``.  Estimated from plateaus of bright sources where
    no ``mask`` is given; ``inf`` for none.
``correlation`` *
    Power of the noise at low spatial frequencies in units of the variance of
    a pixel: 1 for independent pixels, larger for resampled images.  Measured
    in empty sky if not given.
``mask`` *
    FITS image, non-zero for bad pixels (mask plane ``BAD``).  Bit masks need
    ``mask_planes`` in the table's metadata, see below.
``psf_kind`` * and ``psf`` *
    ``stars``, default: measured from the stars of the image, ``psf`` is empty.
    ``kernel``: FITS image of the PSF in pixels of the exposure, square with
    an odd size of at least 25; an offset of its centroid from the middle pixel
    is preserved.  ``psfex``: PSFEx file.  ``piff``: Piff file.
    ``fwhm_pixel`` or ``fwhm_arcsec``: full width at half maximum of a round
    Gaussian that includes the pixel response.
``band``
    Band, for example ``i``.
``physical_filter`` *
    Name of the instrument's filter; default is that of the band.
``time``
    Start of the exposure: ISO format, MJD, or an Astropy time column.
``exposure_time``
    Exposure time, s.
``zero_point``
    AB magnitude of a source of 1 count in the whole exposure.

File names are relative to the manifest.  ``name.fits[1]`` or
``name.fits[SCI]`` chooses an extension; default is the first one with an image
(or PSFEx table).

Metadata of the table, all optional:

``instrument``
    Name of the instrument.
``time_scale``
    Time scale of ``time``, for example ``tai``; default is UTC.
``mask_planes``
    Bit numbers by mask plane, for example ``{BAD: [0, 1], SATURATED: [2],
    COSMIC_RAY: [4]}``.  Other bits are ignored.
"""

from __future__ import annotations

__all__ = ("Manifest", "ManifestError", "ManifestRow", "parse_manifest", "read_manifest")

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import astropy.table
import numpy as np
from astropy.time import Time

from lsst.images import get_legacy_visit_image_mask_planes

from ..instrument import ExternalInstrument

PSF_FILE_KINDS = ("kernel", "psfex", "piff")
PSF_FWHM_KINDS = ("fwhm_pixel", "fwhm_arcsec")
PSF_STARS = "stars"

# Maximum length of names of instruments, filters and bands in a repository.
MAX_NAME_LENGTH = 32

# Earliest time in a repository.
_EPOCH = Time("1970-01-01", scale="tai")

_REQUIRED = ("visit", "image", "band", "time", "exposure_time", "zero_point")
_FILES = ("variance", "weight", "mask")
_ESTIMATED = ("gain", "background", "saturation", "correlation")
_OPTIONAL = ("detector", *_FILES, *_ESTIMATED, "psf_kind", "psf", "physical_filter")


class ManifestError(ValueError):
    """A manifest, or a file it names, cannot be ingested.

    Parameters
    ----------
    path : `~pathlib.Path`
        The manifest.
    problems : `~collections.abc.Iterable` [`str`]
        All problems, each with file name and reason.
    """

    def __init__(self, path: Path, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"- {problem}" for problem in self.problems)
        super().__init__(f"Nothing was ingested, {len(self.problems)} problem(s) with {path}:\n{lines}")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ManifestRow:
    """One exposure of one detector.

    Parameters
    ----------
    number : `int`
        Number of the row in the table, from 1.
    visit, detector : `int`
        IDs of the visit and detector.
    image : `str`
        File of the image, with extension if any.
    variance, weight, mask : `str` or `None`
        Files of variance, inverse variance and mask; `None` if not given.
    gain, background, saturation, correlation : `float` or `None`
        Electrons per count, mesh size of the background (pixels), saturation
        (counts) and correlation of the noise; `None` if not given.
    psf_kind : `str`
        Kind of PSF: `PSF_STARS`, or one of `PSF_FILE_KINDS` or
        `PSF_FWHM_KINDS`.
    psf : `str` or `float`
        File of the PSF, or its FWHM in the unit of ``psf_kind``; empty for
        stars.
    band, physical_filter : `str`
        Names of band and filter.
    begin : `astropy.time.Time`
        Start of the exposure.
    exposure_time : `float`
        Exposure time, s.
    zero_point : `float`
        AB magnitude of 1 count.
    complete : `bool`
        Whether all cells are valid.
    """

    number: int
    visit: int
    detector: int
    image: str
    variance: str | None
    weight: str | None
    mask: str | None
    gain: float | None
    background: float | None
    saturation: float | None
    correlation: float | None
    psf_kind: str
    psf: str | float
    band: str
    physical_filter: str
    begin: Time
    exposure_time: float
    zero_point: float
    complete: bool

    @property
    def label(self) -> str:
        """Name of the row in messages (`str`)."""
        return f"row {self.number} (visit {self.visit}, detector {self.detector})"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Manifest:
    """The exposures to ingest.

    Parameters
    ----------
    path : `~pathlib.Path`
        The manifest; file names are relative to its folder.
    rows : `tuple` [`ManifestRow`, ...]
        The exposures; invalid cells are an empty text, -1 or NaN, and reported
        in ``problems``.
    problems : `tuple` [`str`, ...]
        Problems of the table, without those of the files it names.
    instrument : `str` or `None`
        Name of the instrument, if given.
    mask_planes : `dict` [`str`, `list` [`int`]] or `None`
        Bit numbers by mask plane; `None` if masks are not bit masks.
    origin : `str`
        Origin of the cells that are not empty: ``given`` or ``header``.
    """

    path: Path
    rows: tuple[ManifestRow, ...]
    problems: tuple[str, ...]
    instrument: str | None
    mask_planes: dict[str, list[int]] | None
    origin: str = "given"


def read_manifest(path: str | Path) -> Manifest:
    """Read and check a manifest, without the files it names.

    Parameters
    ----------
    path : `str` or `~pathlib.Path`
        The ECSV file.

    Returns
    -------
    manifest : `Manifest`
        The rows and the problems.

    Raises
    ------
    ManifestError
        Raised if the file is not a table with the required columns.
    """
    path = Path(path)
    try:
        table = astropy.table.Table.read(path, format="ascii.ecsv")
    except Exception as error:  # the reader's own errors are of many types
        raise ManifestError(path, [f"{path.name}: not an ECSV table: {error}"]) from error
    return parse_manifest(table, path)


def parse_manifest(table: astropy.table.Table, path: Path, *, origin: str = "given") -> Manifest:
    """Check the table of a manifest, without the files it names.

    Parameters
    ----------
    table : `astropy.table.Table`
        The table.
    path : `~pathlib.Path`
        Its file, whether or not it exists: names in the table are relative to
        its folder.
    origin : `str`, optional
        Origin of the cells: ``given`` or ``header``.

    Returns
    -------
    manifest : `Manifest`
        The rows and the problems.

    Raises
    ------
    ManifestError
        Raised if required columns are missing or the table has other columns.
    """
    missing = [name for name in _REQUIRED if name not in table.colnames]
    unknown = [name for name in table.colnames if name not in _REQUIRED + _OPTIONAL]
    if missing or unknown or not len(table):
        reasons = [f"no column {name!r}" for name in missing]
        reasons += [f"unknown column {name!r}" for name in unknown]
        reasons += [] if len(table) else ["no rows"]
        raise ManifestError(path, [f"{path.name}: {reason}" for reason in reasons])

    problems: list[str] = []
    rows = []
    scale = str(table.meta.get("time_scale", "utc"))
    for number in range(1, len(table) + 1):
        cells = {name: _cell(table[name], number - 1) for name in table.colnames}
        parser = _RowParser(cells, scale)
        row = parser.parse(number)
        rows.append(row)
        problems.extend(f"{path.name}: {row.label}: {reason}" for reason in parser.problems)
    problems.extend(_inconsistencies([row for row in rows if row.complete]))
    planes, reasons = _mask_planes(table.meta.get("mask_planes"))
    problems.extend(f"{path.name}: {reason}" for reason in reasons)
    return Manifest(
        path=path,
        rows=tuple(rows),
        problems=tuple(problems),
        instrument=table.meta.get("instrument"),
        mask_planes=planes,
        origin=origin,
    )


def _cell(column: Any, index: int) -> Any:
    """Return one value of a column, `None` if the cell is empty."""
    value = column[index]
    if value is np.ma.masked or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, Time) and np.any(value.mask):
        return None
    return value.strip() if isinstance(value, str) else value


class _RowParser:
    """Converts the cells of one row to a `ManifestRow` and collects problems."""

    def __init__(self, cells: dict[str, Any], time_scale: str) -> None:
        self._cells = cells
        self._time_scale = time_scale
        self.problems: list[str] = []

    def parse(self, number: int) -> ManifestRow:
        """Return the row; its problems are added to ``problems``."""
        if self._cells.get("variance") is not None and self._cells.get("weight") is not None:
            self.problems.append("give a variance or a weight, not both")
        row = ManifestRow(
            number=number,
            visit=self._integer("visit", ExternalInstrument.VISIT_MAX),
            detector=self._integer("detector", ExternalInstrument.DETECTOR_MAX, default=0),
            image=self._text("image"),
            variance=self._text("variance", default="") or None,
            weight=self._text("weight", default="") or None,
            mask=self._text("mask", default="") or None,
            gain=self._optional("gain"),
            background=self._optional("background"),
            saturation=self._optional("saturation", infinite=True),
            correlation=self._optional("correlation", positive=True),
            psf_kind=self._text("psf_kind", default=PSF_STARS),
            psf=self._psf(),
            band=self._name("band"),
            physical_filter=self._name("physical_filter", default=str(self._cells["band"])),
            begin=self._time(),
            exposure_time=self._number("exposure_time", minimum=0.0),
            zero_point=self._number("zero_point"),
            complete=True,
        )
        return dataclasses.replace(row, complete=not self.problems)

    def _value(self, name: str) -> Any:
        """Return a cell that must not be empty."""
        value = self._cells.get(name)
        if value is None:
            self.problems.append(f"{name} is empty")
        return value

    def _text(self, name: str, *, default: str | None = None) -> str:
        value = self._cells.get(name, default)
        if value is None:
            value = default if default is not None else self._value(name)
        return "" if value is None else str(value)

    def _name(self, name: str, *, default: str | None = None) -> str:
        value = self._text(name, default=default)
        if len(value) > MAX_NAME_LENGTH:
            self.problems.append(f"{name} {value!r} has more than {MAX_NAME_LENGTH} characters")
        return value

    def _number(self, name: str, *, minimum: float = -math.inf) -> float:
        value = self._value(name)
        if value is None:
            return math.nan
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not minimum <= number < math.inf:
            at_least = "" if math.isinf(minimum) else f" of at least {minimum:g}"
            self.problems.append(f"{name} is {value}, not a finite number{at_least}")
            return math.nan
        return number

    def _optional(self, name: str, *, positive: bool = False, infinite: bool = False) -> float | None:
        value = self._cells.get(name)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if infinite and value == math.inf:
            return math.inf
        number = self._number(name, minimum=0.0)
        if positive and number == 0.0:
            self.problems.append(f"{name} is 0, not a positive number")
        return number

    def _integer(self, name: str, limit: int, *, default: int | None = None) -> int:
        if default is not None and self._cells.get(name) is None:
            return default
        number = self._number(name)
        if math.isnan(number):
            return -1
        if number != int(number) or not 0 <= number < limit:
            self.problems.append(f"{name} is {self._cells[name]}, not an integer from 0 to {limit - 1}")
            return -1
        return int(number)

    def _psf(self) -> str | float:
        kind = self._cells.get("psf_kind")
        if kind in PSF_FWHM_KINDS:
            fwhm = self._number("psf")
            if fwhm <= 0.0:
                self.problems.append(f"psf is a FWHM of {fwhm}, which must be positive")
            return fwhm
        if kind in (None, PSF_STARS):
            if (psf := self._text("psf", default="")) != "":
                self.problems.append(f"psf is {psf}, but psf_kind does not say what it is")
            return ""
        if kind not in PSF_FILE_KINDS:
            known = ", ".join((*PSF_FILE_KINDS, *PSF_FWHM_KINDS, PSF_STARS))
            self.problems.append(f"psf_kind {kind!r} is unknown; there are {known}")
        return self._text("psf")

    def _time(self) -> Time:
        value = self._value("time")
        with contextlib.suppress(TypeError, ValueError):
            value = value if isinstance(value, Time) else float(value)
        try:
            time = Time(value, format="mjd" if isinstance(value, float) else None, scale=self._time_scale)
        except ValueError as error:
            if value is not None:
                self.problems.append(f"time is {value}, neither ISO format nor MJD: {error}")
            return _EPOCH
        if not time > _EPOCH:
            self.problems.append(f"time is {value}, which is before 1970")
            return _EPOCH
        return time


def _inconsistencies(rows: list[ManifestRow]) -> list[str]:
    """Return inconsistencies between rows."""
    problems = []
    seen: dict[tuple[int, int], ManifestRow] = {}
    visits: dict[int, ManifestRow] = {}
    filters: dict[str, ManifestRow] = {}
    for row in rows:
        first = seen.setdefault((row.visit, row.detector), row)
        if first is not row:
            problems.append(f"{row.label}: {row.image}: the same visit and detector as row {first.number}")
        first = visits.setdefault(row.visit, row)
        for name in ("band", "physical_filter", "begin", "exposure_time"):
            ours, theirs = getattr(row, name), getattr(first, name)
            if ours != theirs:
                problems.append(
                    f"{row.label}: {row.image}: {name} is {ours}, but {theirs} in row {first.number} of the "
                    "same visit"
                )
        first = filters.setdefault(row.physical_filter, row)
        if first.band != row.band and first.visit != row.visit:
            problems.append(
                f"{row.label}: {row.image}: filter {row.physical_filter!r} is of band {row.band!r}, but of "
                f"{first.band!r} in row {first.number}"
            )
    return problems


def _mask_planes(value: Any) -> tuple[dict[str, list[int]] | None, list[str]]:
    """Return the bit numbers by mask plane, and their problems."""
    if value is None:
        return None, []
    if not isinstance(value, Mapping):
        return None, [f"mask_planes is {value!r}, not a mapping from mask plane to bit numbers"]
    known = {plane.name for plane in get_legacy_visit_image_mask_planes().values()}
    problems = []
    result = {}
    for name, bits in value.items():
        bits = [bits] if isinstance(bits, int) else bits
        if name not in known:
            problems.append(f"mask_planes: no mask plane {name!r}; there are {sorted(known)}")
        if not isinstance(bits, list) or not all(isinstance(bit, int) and 0 <= bit < 64 for bit in bits):
            problems.append(f"mask_planes: {name} is {bits!r}, not bit numbers from 0 to 63")
        result[str(name)] = bits
    return result, problems
