# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Images in FITS files, and the files that belong to them."""

from __future__ import annotations

__all__ = ("NO_FILE", "Frame", "find_frames", "is_fits_name")

import dataclasses
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import astropy.io.fits
from astropy.io.fits import Header

from .exposure_files import is_image
from .manifest import ManifestError

_LOG = logging.getLogger(__name__)

NO_FILE = Path("the frames' headers")
"""Stands for the file of a manifest that is made of headers (`~pathlib.Path`)."""

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
        files += [file for file in inside if not path.is_dir() or is_fits_name(file)]
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
        raise ManifestError(NO_FILE, problems)
    return frames


def is_fits_name(path: Path) -> bool:
    """Whether a file has the name of a FITS file.

    Parameters
    ----------
    path : `~pathlib.Path`
        The file.

    Returns
    -------
    is_fits_name : `bool`
        Whether its name ends with ``.fits``, ``.fit`` or ``.fts``, compressed
        or not.
    """
    return _FITS_NAME.match(path.name) is not None


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
