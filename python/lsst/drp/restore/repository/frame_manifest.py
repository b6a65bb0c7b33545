# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Manifests made from the headers of FITS images."""

from __future__ import annotations

__all__ = ("load_manifest", "load_sources", "propose_manifest", "write_manifest")

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import astropy.table
import numpy as np

from .frame_files import NO_FILE, find_frames, is_fits_name
from .frame_headers import FrameHeader, read_frame_header
from .manifest import Manifest, ManifestError, parse_manifest, read_manifest

# Remedy of a header without a value, by column.
_REMEDY = "add it to the header, or to column {!r} of a manifest made with --write-manifest"


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
        raise ManifestError(NO_FILE, problems)
    return parse_manifest(table, NO_FILE, origin="header")


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
    return NO_FILE, Path.cwd(), [frame.name(Path.cwd()) for frame in find_frames(paths)]


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
    return len(paths) == 1 and not paths[0].is_dir() and not is_fits_name(paths[0])


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
