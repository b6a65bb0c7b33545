# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures in FITS files, and the manifests that list them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

SHAPE = (50, 64)
NANOJANSKY = 10 ** (-0.4 * (28.0 - 31.4))
"""Flux of one count, nJy, with the zero point of the exposures."""


def make_header(x: float = 0.0) -> fits.Header:
    """Return the header of a detector that is x pixels beside the first."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ("RA---TAN", "DEC--TAN")
    wcs.wcs.crval = (150.0, 2.0)
    wcs.wcs.crpix = (32.5 - x, 25.5)
    wcs.wcs.cd = [[-7e-5, 1e-6], [2e-6, 7e-5]]
    return wcs.to_header()


def make_kernel(size: int = 25, dx: float = 0.0, sigma: float = 1.6) -> np.ndarray:
    """Return a round Gaussian kernel that is shifted along x."""
    offset = np.arange(size) - size // 2
    kernel = np.exp(-0.5 * ((offset - dx) ** 2 + offset[:, np.newaxis] ** 2) / sigma**2)
    return kernel / kernel.sum()


class Exposures:
    """FITS files in a folder and the rows of a manifest that names them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        self.meta: dict[str, Any] = {}
        self._rng = np.random.default_rng(3)

    def add(self, visit: int, detector: int = 0, **cells: Any) -> dict[str, Any]:
        """Write the files of an exposure and return its row."""
        stem = f"v{visit}d{detector}"
        row = {
            "visit": visit,
            "detector": detector,
            "image": f"{stem}.fits",
            "variance": f"{stem}.var.fits",
            "weight": "",
            "mask": "",
            "psf_kind": "kernel",
            "psf": f"{stem}.psf.fits",
            "band": "r",
            "time": f"2024-03-02T0{visit}:00:00",
            "exposure_time": 30.0,
            "zero_point": 28.0,
        } | cells
        self.write(f"{stem}.fits", self._rng.normal(size=SHAPE), make_header(70.0 * detector))
        self.write(f"{stem}.var.fits", self._rng.uniform(1.0, 2.0, size=SHAPE))
        self.write(f"{stem}.psf.fits", make_kernel())
        self.rows.append(row)
        return row

    def write(self, name: str, array: np.ndarray, header: fits.Header | None = None) -> str:
        """Write a FITS image and return its name."""
        fits.writeto(self.folder / name, np.asarray(array), header, overwrite=True)
        return name

    def manifest(self) -> Path:
        """Write the manifest and return its path."""
        path = self.folder / "manifest.ecsv"
        Table(rows=self.rows, meta=self.meta).write(path, format="ascii.ecsv", overwrite=True)
        return path


def write_psfex(path: Path, kernels: np.ndarray, step: float, order: int) -> None:
    """Write a PSFEx file; the kernels are in PSFEx's order."""
    format_, dim = f"{kernels.size}E", str(kernels.shape[::-1])
    column = fits.Column("PSF_MASK", format=format_, dim=dim, array=kernels[np.newaxis])
    hdu = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    hdu.header["POLNAXIS"] = 2 if order else 0
    for axis, name in enumerate(("X_IMAGE", "Y_IMAGE") if order else (), start=1):
        hdu.header[f"POLGRP{axis}"] = 1
        hdu.header[f"POLNAME{axis}"] = name
        hdu.header[f"POLZERO{axis}"] = 30.0 + axis
        hdu.header[f"POLSCAL{axis}"] = 60.0 - axis
    hdu.header["POLNGRP"] = 1 if order else 0
    if order:
        hdu.header["POLDEG1"] = order
    hdu.header["PSF_SAMP"] = step
    hdu.header["PSFNAXIS"] = 3
    for axis, size in enumerate(kernels.shape[::-1], start=1):
        hdu.header[f"PSFAXIS{axis}"] = size
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
