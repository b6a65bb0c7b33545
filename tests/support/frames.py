# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Simulated exposures as plain FITS frames: an image and its header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from exposure_files import SHAPE, make_header

from lsst.daf.butler import Butler
from lsst.images import VisitImage

ZERO_POINT = 27.3
NANOJANSKY = 10 ** (-0.4 * (ZERO_POINT - 31.4))
"""Flux of one count, nJy."""

CARDS: dict[str, Any] = {
    "DATE-OBS": "2024-03-02T01:00:00",
    "EXPTIME": 30.0,
    "INSTRUME": "My Camera",
    "FILTER": "i",
    "MAGZP": ZERO_POINT,
}
"""Keywords of a header that has all that is needed beside a WCS."""


def write_small_frame(path: Path, x: float = 0.0, **cards: Any) -> Path:
    """Write a frame without sources that is x pixels beside the first.

    Parameters
    ----------
    path : `~pathlib.Path`
        File to write.
    x : `float`, optional
        Shift, pixels.
    **cards
        Changes of `CARDS`, with two underscores for a hyphen; `None` leaves a
        keyword out.
    """
    header = make_header(x)
    for name, value in (CARDS | {name.replace("__", "-"): value for name, value in cards.items()}).items():
        if value is not None:
            header[name] = value
    image = np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)
    fits.writeto(path, image, header, overwrite=True)
    return path


def write_frames(butler: Butler, folder: Path, collection: str = "sim", **keywords: Any) -> list[VisitImage]:
    """Write the visit images of a simulation without variance, mask and PSF.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        Client of the repository with the simulation.
    folder : `~pathlib.Path`
        Folder to write ``visit<visit>.fits`` to.
    collection : `str`, optional
        Collection of the visit images.
    **keywords
        More keywords for the headers; `None` leaves one out.

    Returns
    -------
    truth : `list` [`lsst.images.VisitImage`]
        The visit images, by visit.
    """
    folder.mkdir(exist_ok=True)
    refs = butler.query_datasets("visit_image", collections=collection)
    images = [butler.get(ref) for ref in sorted(refs, key=lambda ref: ref.dataId.required_values)]
    for image in images:
        write_frame(
            folder / f"visit{image.obs_info.visit_id}d{image.obs_info.detector_num}.fits", image, **keywords
        )
    return images


def write_frame(path: Path, image: VisitImage, **keywords: Any) -> None:
    """Write a visit image as a frame; its gain is that of the variance of its
    sources.
    """
    flux, variance = image.image.array / NANOJANSKY, image.variance.array / NANOJANSKY**2
    good = ~image.mask.get("SATURATED") & ~image.mask.get("COSMIC_RAY") & ~image.mask.get("BAD")
    bright = good & (flux > 50 * np.sqrt(np.median(variance)))
    header = image.fits_wcs.to_header(relax=True)
    header["DATE-OBS"] = image.obs_info.datetime_begin.utc.isot
    header["EXPTIME"] = image.obs_info.exposure_time.to_value("s")
    header["INSTRUME"] = "SimCam"
    header["FILTER"] = image.physical_filter
    header["BUNIT"] = "adu"
    header["MAGZP"] = ZERO_POINT
    if bright.any():
        header["GAIN"] = float(np.median(flux[bright] / (variance[bright] - np.median(variance))))
    for key, value in keywords.items():
        if value is None:
            header.remove(key, ignore_missing=True)
        else:
            header[key] = value
    fits.writeto(path, flux.astype(np.float32), header, overwrite=True)
