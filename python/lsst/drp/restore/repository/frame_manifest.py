# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Manifests made from the headers of FITS images."""

from __future__ import annotations

__all__ = ("Frame", "find_frames", "load_manifest", "load_sources", "propose_manifest", "write_manifest")

import dataclasses
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import astropy.io.fits
import astropy.table
import numpy as np
from astropy.io.fits import Header

from .exposure_files import is_image
from .frame_headers import FrameHeader, read_frame_header
from .manifest import Manifest, ManifestError, parse_manifest, read_manifest

_LOG = logging.getLogger(__name__)

_FITS_NAME = re.compile(r"(.+?)\.(fits|fit|fts)(\.fz|\.gz)?$", re.IGNORECASE)

# Last word of the name of a file or extension that belongs to an image, by the
# column of the manifest.
_COMPANIONS = {
    "variance": ("var", "variance"),
    "weight": ("weight", "weights", "wht", "wt", "ivar"),
    "mask": ("mask", "dq", "flag", "flags", "bpm"),
}
# Those that are neither images nor used.
_OTHERS = ("err", "error", "sigma", "rms", "seg", "psf", "bkg", "background")

# Stands for the file of a manifest that is not written.
_NO_FILE = Path("the frames' headers")

# Remedy of a header without a value, by column.
_REMEDY = "add it to the header, or to column {!r} of a manifest made with --write-manifest"


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Frame:
    """An image in a FITS file.

    Parameters
    ----------
    path : `~pathlib.Path`
        The file.
    extension : `int` or `None`
        Number of the extension; `None` if it is that of the first image and
        there is no other.
    header : `astropy.io.fits.Header`
        Header of the extension, with the primary header's other keywords.
    has_wcs : `bool`
        Whether the header has a celestial WCS.
    companions : `dict` [`str`, `str`]
        File and extension of variance, weight and mask by column, each
        absolute.
    """

    path: Path
    extension: int | None
    header: Header
    has_wcs: bool
    companions: dict[str, str]

    def name(self, folder: Path) -> str:
        """Return the name in a manifest that is in a folder (`str`)."""
        name = os.path.relpath(self.path, folder)
        return name if self.extension is None else f"{name}[{self.extension}]"


def load_manifest(sources: str | Path | Sequence[str | Path]) -> Manifest:
    """Read a manifest, or make one from FITS headers.

    Parameters
    ----------
    sources : `str`, `~pathlib.Path` or `~collections.abc.Sequence`
        A manifest, or FITS files and folders of FITS files.

    Returns
    -------
    manifest : `Manifest`
        The manifest.

    Raises
    ------
    ManifestError
        Raised if a file is not a manifest, or if headers lack required values.
    """
    paths = _paths(sources)
    if _is_manifest(paths):
        return read_manifest(paths[0])
    table, problems = propose_manifest(paths, Path.cwd())
    if problems:
        raise ManifestError(_NO_FILE, problems)
    return parse_manifest(table, _NO_FILE, origin="header")


def load_sources(sources: str | Path | Sequence[str | Path]) -> tuple[Path, Path, list[str]]:
    """Find the images of a manifest, or of files and folders, whether or not
    their headers have more than a WCS.

    Parameters
    ----------
    sources : `str`, `~pathlib.Path` or `~collections.abc.Sequence`
        A manifest, or FITS files and folders of FITS files.

    Returns
    -------
    label : `~pathlib.Path`
        Name for messages.
    folder : `~pathlib.Path`
        Folder that names are relative to.
    names : `list` [`str`]
        Names of the images, with the extension if any.

    Raises
    ------
    ManifestError
        Raised if there are none.
    """
    paths = _paths(sources)
    if _is_manifest(paths):
        manifest = read_manifest(paths[0])
        return manifest.path, manifest.path.parent, [row.image for row in manifest.rows if row.image]
    return _NO_FILE, Path.cwd(), [frame.name(Path.cwd()) for frame in find_frames(paths)]


def write_manifest(
    sources: str | Path | Sequence[str | Path], path: str | Path
) -> tuple[astropy.table.Table, tuple[str, ...]]:
    """Write a manifest with the values of FITS headers, to edit.

    Parameters
    ----------
    sources : `str`, `~pathlib.Path` or `~collections.abc.Sequence`
        FITS files and folders of FITS files.
    path : `str` or `~pathlib.Path`
        Manifest to write, an ECSV file that does not exist.

    Returns
    -------
    table : `astropy.table.Table`
        The manifest.  Values that ingestion estimates are left empty, so that
        it does.
    problems : `tuple` [`str`, ...]
        Values to fill in.

    Raises
    ------
    ManifestError
        Raised if there are no FITS images.
    ValueError
        Raised if the file exists.
    """
    path = Path(path)
    if path.exists():
        raise ValueError(f"{path} exists; choose another name for the manifest, or remove it.")
    table, problems = propose_manifest(_paths(sources), path.parent)
    table.write(path, format="ascii.ecsv")
    return table, problems


def _paths(sources: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(source) for source in ([sources] if isinstance(sources, str | Path) else sources)]


def _is_manifest(paths: list[Path]) -> bool:
    """Whether the one source is a file that is not FITS."""
    return len(paths) == 1 and not paths[0].is_dir() and not _FITS_NAME.match(paths[0].name)


def propose_manifest(
    paths: Iterable[str | Path], folder: Path
) -> tuple[astropy.table.Table, tuple[str, ...]]:
    """Make the table of a manifest from FITS headers.

    Parameters
    ----------
    paths : `~collections.abc.Iterable`
        FITS files, and folders of FITS files.
    folder : `~pathlib.Path`
        Folder of the manifest, to which its file names are relative.

    Returns
    -------
    table : `astropy.table.Table`
        The manifest, ordered by time; cells without a value are masked.
    problems : `tuple` [`str`, ...]
        Required values that the headers do not have.

    Raises
    ------
    ManifestError
        Raised if there are no FITS images.

    Notes
    -----
    Visits are numbered from 1 in the order of their dates.  Frames of one
    instrument, time and filter that have different detector numbers are one
    visit.
    """
    problems = []
    found = []
    for frame in find_frames(paths):
        header = read_frame_header(frame.header)
        name = frame.name(folder)
        if not frame.has_wcs:
            problems.append(
                f"{name}: no celestial WCS; solve its astrometry, for example with astrometry.net"
            )
        problems += [
            f"{name}: {reason}; {_REMEDY.format(column)}" for column, reason in header.problems.items()
        ]
        found.append((name, frame, header))
    found.sort(key=lambda item: (item[2].begin.mjd if item[2].begin is not None else np.inf, item[0]))
    rows: list[dict[str, Any]] = []
    visits = _number_visits([header for _, _, header in found])
    for (name, frame, header), (visit, detector) in zip(found, visits, strict=True):
        companions = {column: os.path.relpath(value, folder) for column, value in frame.companions.items()}
        rows.append(
            {
                "visit": visit,
                "detector": detector,
                "image": name,
                "variance": companions.get("variance"),
                "weight": companions.get("weight"),
                "mask": companions.get("mask"),
                "band": header.band,
                "physical_filter": header.physical_filter,
                "time": header.begin.utc.isot if header.begin is not None else None,
                "exposure_time": header.exposure_time,
                "zero_point": header.zero_point,
                "gain": header.gain,
                "background": None,
                "saturation": header.saturation,
                "correlation": None,
                "psf_kind": "stars",
                "psf": None,
            }
        )
    instruments = {header.instrument for _, _, header in found if header.instrument is not None}
    if len(instruments) > 1:
        problems.append(f"frames of several instruments, {sorted(instruments)}; ingest them one by one")
    table = _table(rows)
    if instruments:
        # Names of collections and data IDs have no blanks.
        table.meta["instrument"] = re.sub(r"[^0-9A-Za-z_-]+", "_", min(instruments))
    return table, tuple(problems)


def _number_visits(headers: list[FrameHeader]) -> list[tuple[int, int]]:
    """Return visit and detector of images ordered by time."""
    result: list[tuple[int, int]] = []
    visits: dict[tuple[Any, ...], int] = {}
    seen = set()
    visit = 0
    for header in headers:
        detector = header.detector if header.detector is not None else 0
        key = (
            header.begin.mjd if header.begin is not None else None,
            header.physical_filter,
            header.exposure_time,
        )
        known = visits.get(key)
        if known is None or header.begin is None or header.detector is None or (known, detector) in seen:
            visit += 1
            known = visits[key] = visit
        seen.add((known, detector))
        result.append((known, detector))
    return result


def _table(rows: list[dict[str, Any]]) -> astropy.table.Table:
    """Return a table whose cells without a value are masked."""
    texts = ("image", "variance", "weight", "mask", "band", "physical_filter", "time", "psf_kind", "psf")
    table = astropy.table.Table(masked=True)
    for name in rows[0]:
        values = [row[name] for row in rows]
        kind = str if name in texts else int if name in ("visit", "detector") else float
        table[name] = astropy.table.MaskedColumn(
            [kind() if value is None else value for value in values],
            mask=[value is None for value in values],
            dtype=kind,
        )
    return table


def find_frames(paths: Iterable[str | Path]) -> list[Frame]:
    """Find the images in FITS files.

    Parameters
    ----------
    paths : `~collections.abc.Iterable`
        FITS files, and folders of FITS files.

    Returns
    -------
    frames : `list` [`Frame`]
        The images, without variances, weights, masks and other files that
        belong to them, by name.

    Raises
    ------
    ManifestError
        Raised if there are none, or a file cannot be read.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        files += [file for file in inside if not path.is_dir() or _FITS_NAME.match(file.name)]
    companions: dict[Path, dict[str, str]] = defaultdict(dict)
    images = []
    for file in dict.fromkeys(file.absolute() for file in files):
        stem, column = _companion_of(file)
        if column is None:
            images.append(file)
        elif column:
            companions[stem][column] = str(file)
        else:
            _LOG.info("%s is not used: it is not an image of the sky by its name.", file.name)
    problems = []
    frames: list[Frame] = []
    for file in images:
        try:
            frames += _images_of(file, companions.get(_stem(file), {}))
        except OSError as error:
            problems.append(f"{file.name}: cannot be read: {error}")
    if not problems and not frames:
        problems.append("no FITS images in " + ", ".join(map(str, paths)))
    if problems:
        raise ManifestError(_NO_FILE, problems)
    return frames


def _stem(file: Path) -> Path:
    match = _FITS_NAME.match(file.name)
    return file.with_name(match[1]) if match else file


def _companion_of(file: Path) -> tuple[Path, str | None]:
    """Return the stem of the image to which a file belongs, and its column,
    empty if it is not used; `None` if it is an image itself.
    """
    stem = _stem(file)
    match = re.fullmatch(r"(.+)[._-]([A-Za-z]+)", stem.name)
    column = _column(match[2]) if match else None
    if match is None or column is None:
        return stem, None
    return stem.with_name(match[1]), column


def _column(word: str) -> str | None:
    """Return the column of a companion, empty if it is not used."""
    for column, words in _COMPANIONS.items():
        if word.lower() in words:
            return column
    return "" if word.lower() in _OTHERS else None


def _images_of(file: Path, companions: dict[str, str]) -> list[Frame]:
    """Return the images of a file."""
    with astropy.io.fits.open(file) as hdus:
        primary = hdus[0].header
        images: list[tuple[int, Header]] = []
        others: dict[tuple[str, int], int] = {}
        first = None
        for number, hdu in enumerate(hdus):
            if not is_image(hdu):
                continue
            first = first if first is not None else number
            column = _column(str(hdu.name).rpartition("_")[2]) if hdu.name else None
            if column is None:
                header = hdu.header.copy()
                if number:
                    header.extend(primary, unique=True, strip=True)
                images.append((number, header))
            else:
                others[column, hdu.ver] = number
        with_wcs = [(number, header) for number, header in images if _has_wcs(header)]
        images = with_wcs or images[:1]
        frames = []
        for number, header in images:
            own = dict(companions) if len(images) == 1 else {}
            version = hdus[number].ver
            for column in _COMPANIONS:
                if (column, version) in others:
                    own[column] = f"{file}[{others[column, version]}]"
            if "variance" in own:
                own.pop("weight", None)
            if len(images) > 1 and "CCDNUM" not in header:
                header["CCDNUM"] = number
            is_default = len(images) == 1 and number == first
            frames.append(
                Frame(
                    path=file,
                    extension=None if is_default else number,
                    header=header,
                    has_wcs=bool(with_wcs),
                    companions=own,
                )
            )
    return frames


def _has_wcs(header: Header) -> bool:
    """Whether a header has the keywords of a celestial WCS."""
    axes = {str(header.get(f"CTYPE{axis}", ""))[:4].rstrip("-") for axis in (1, 2)}
    return axes in ({"RA", "DEC"}, {"GLON", "GLAT"}, {"ELON", "ELAT"})
