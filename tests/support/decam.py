# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Ten real DECam exposures of one field as files that can be ingested."""

from __future__ import annotations

__all__ = ("FOLDER", "PIXEL_SCALE", "STARS", "TRACT", "ZERO_POINT", "arrays", "require", "write_exposures")

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "decam_i"

PIXEL_SCALE = 0.262
"""Size of a pixel, arcsec."""

STARS = ((57.6, 180.5), (100.6, 73.1), (104.6, 233.3), (178.6, 202.3))
"""Positions (x, y) of four stars to measure the sharpness on, pixels from 0."""

TRACT = {
    **{"ra": 318.10818, "dec": -66.01562, "pixel_scale": PIXEL_SCALE},
    **{"patch_size": 200, "patch_border": 25, "cell_size": 50, "n_patches": (1, 1)},
}
"""Arguments of `lsst.drp.restore.repository.register_tract.register_tract` for a tract of
one patch that holds the four stars.  North is along x in the exposures.
"""

ZERO_POINT = 30.1
"""AB magnitude of 1 count on the common scale; about that of DECam, not
calibrated.
"""


def require() -> None:
    """Skip the test where the exposures are missing."""
    if not (FOLDER / "load.py").exists():
        pytest.skip(f"The real exposures are not beside this checkout, in {FOLDER}.")


def arrays(*, cosmics: bool = False) -> dict[str, Any]:
    """Return image, variance, mask and psf of the exposures on the common flux
    scale, as the data's own loader reads them.
    """
    spec = importlib.util.spec_from_file_location("decam_i_load", FOLDER / "load.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    return loader.load(cosmics=cosmics)


def write_exposures(folder: Path, *, cosmics: bool = False) -> Path:
    """Write FITS files and a manifest, and return the path of the manifest.

    Images are written in each exposure's own counts, so that the zero points
    differ; the first five with variances, the others with weights; without
    masks if ``cosmics``.
    """
    data = arrays(cosmics=cosmics)
    names = np.load(FOLDER / "derived.npz")["fname"]
    rows = []
    for n, (name, scale) in enumerate(zip(names, data["scale"], strict=True)):
        header = fits.getheader(FOLDER / str(name))
        stamp = header["EXP_BN"].split("_")  # the true time, for example c4d_180804_092331
        day, time = stamp[1], stamp[2]
        begin = f"20{day[:2]}-{day[2:4]}-{day[4:]}T{time[:2]}:{time[2:4]}:{time[4:]}"
        variance = data["variance"][n].astype(np.float64) * scale**2
        row = {
            "visit": int(day + time[:4]),
            "detector": header["CCDNUM"],
            "image": f"image{n}.fits",
            "variance": f"variance{n}.fits" if n < 5 else "",
            "weight": "" if n < 5 else f"weight{n}.fits",
            "psf_kind": "kernel",
            "psf": f"psf{n}.fits",
            "band": "i",
            "physical_filter": header["FILTER"][:12],
            "time": begin,
            "exposure_time": header["EXPTIME"],
            "zero_point": ZERO_POINT + 2.5 * np.log10(scale),
        }
        fits.writeto(folder / row["image"], (data["image"][n] * scale).astype(np.float32), header)
        if n < 5:
            fits.writeto(folder / row["variance"], variance.astype(np.float32))
        else:
            fits.writeto(folder / row["weight"], (1.0 / variance).astype(np.float32))
        fits.writeto(folder / row["psf"], data["psf"][n])
        if not cosmics:
            row["mask"] = f"mask{n}.fits"
            fits.writeto(folder / row["mask"], data["mask"][n].astype(np.uint8))
        rows.append(row)
    table = Table(rows=rows, meta={"instrument": "DECam"})
    assert Time(list(table["time"])).jyear.min() > 2016
    table.write(folder / "manifest.ecsv", format="ascii.ecsv")
    return folder / "manifest.ecsv"
