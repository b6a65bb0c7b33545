# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Ten real DECam exposures, from FITS files to a restored coadd by commands."""

from __future__ import annotations

import warnings
from pathlib import Path

import decam
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from click.testing import CliRunner
from scipy.ndimage import label
from scipy.signal import fftconvolve

from lsst.ctrl.mpexec.cli.pipetask import cli as pipetask
from lsst.daf.butler import Butler
from lsst.daf.butler.cli.butler import cli as butler_command
from lsst.drp.restore.outputs.image_quality import star_fwhm

pytestmark = pytest.mark.slow

DATA_ID = {"skymap": "decam", "tract": 0, "patch": 0, "band": "i"}


def invoke(command: object, *arguments: object) -> None:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Butler, Path]:
    """A repository with the restored coadd, and the folder of the files."""
    decam.require()
    files = tmp_path_factory.mktemp("files")
    repo = tmp_path_factory.mktemp("decam") / "repo"
    manifest = decam.write_exposures(files)
    tract = decam.TRACT
    invoke(butler_command, "create", repo)
    invoke(
        butler_command,
        *("register-tract", repo, "decam", "--ra", tract["ra"], "--dec", tract["dec"]),
        *("--pixel-scale", tract["pixel_scale"], "--patch-size", tract["patch_size"]),
        *("--patch-border", tract["patch_border"], "--cell-size", tract["cell_size"]),
        *("--patches", *tract["n_patches"]),
    )
    invoke(butler_command, "ingest-exposures", repo, manifest)
    invoke(
        pipetask,
        *("run", "--register-dataset-types", "-b", repo, "-i", "ingested,skymaps", "-o", "u/test/restored"),
        *("-p", "resource://lsst.drp.restore/pipelines/restoreCoadd.yaml"),
        *("-d", "skymap='decam' AND tract=0 AND patch=0 AND band='i'"),
        *("-c", "restoreCoadd:restorer.computeDevice=cpu"),
    )
    return Butler.from_config(str(repo), collections="u/test/restored"), files


def to_patch(butler: Butler, files: Path, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take pixels of the exposures, which share one WCS, to the patch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        sky = WCS(fits.getheader(files / "image0.fits")).pixel_to_world(x, y)
    coadd = butler.get("restored_coadd", DATA_ID)
    pixel = coadd.sky_projection.sky_to_pixel(sky)
    return pixel.x - coadd.bbox.x.start, pixel.y - coadd.bbox.y.start


def test_stars_are_sharper(restored: tuple[Butler, Path]) -> None:
    butler, files = restored
    image = butler.get("restored_coadd", DATA_ID).image.array
    reference = butler.get("restored_coadd_reference", DATA_ID).image.array
    assert np.nanmin(image) >= 0
    for x, y in zip(*to_patch(butler, files, *np.array(decam.STARS).T), strict=True):
        before, after = star_fwhm(reference, x, y), star_fwhm(image, x, y)
        assert 3.5 < before < 4.6
        assert after < 0.6 * before


def test_no_cosmic_ray_survives(restored: tuple[Butler, Path]) -> None:
    butler, files = restored
    image = butler.get("restored_coadd", DATA_ID).image.array
    coadd = butler.get("restored_coadd_reference", DATA_ID)
    kernel = coadd.psf.compute_kernel_image(x=coadd.bbox.x.center, y=coadd.bbox.y.center).array
    # What the coadd would be if the restored image were true.
    expected = fftconvolve(np.nan_to_num(image), kernel, mode="same")
    sigma = np.sqrt(coadd.variance.array)
    nanojansky = 10 ** (-0.4 * (decam.ZERO_POINT - 31.4))
    masks, data = decam.arrays()["mask"], decam.arrays(cosmics=True)["image"] * nanojansky
    brightest = []
    for mask, pixels in zip(masks, data, strict=True):
        labels, count = label(mask)
        for ray in range(1, count + 1):
            y, x = np.unravel_index(np.argmax(np.where(labels == ray, pixels, -np.inf)), mask.shape)
            brightest.append((x, y, pixels[y, x]))
    x, y, peak = np.array(brightest).T
    columns, rows = (np.rint(axis).astype(int) for axis in to_patch(butler, files, x, y))
    inside = (columns > 12) & (columns < 237) & (rows > 12) & (rows < 237)
    stars = np.stack(to_patch(butler, files, *np.array(decam.STARS).T))
    alone = np.hypot(columns[:, None] - stars[0], rows[:, None] - stars[1]).min(axis=1) > 12
    checked = inside & alone & (peak > 500)
    assert checked.sum() >= 15
    at = rows[checked], columns[checked]
    # In the mean of ten exposures each of them would have been seen.
    assert (peak[checked] / 10 > 1.5 * sigma[at]).all()
    assert ((expected - coadd.image.array)[at] < 4 * sigma[at]).all()
    assert np.median(image[at] / peak[checked]) < 0.02


def test_metrics(restored: tuple[Butler, Path]) -> None:
    metrics = restored[0].get("restored_coadd_metrics", DATA_ID)
    assert metrics["n_exposures"] == 10
    assert metrics["n_dropped"] == 0
    assert metrics["sharpness"]["restored"] > 1.15 * metrics["sharpness"]["reference_coadd"]
    assert metrics["sky_noise"]["restored"] < 0.29 * metrics["sky_noise"]["reference_coadd"]
