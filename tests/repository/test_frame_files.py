# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Images in FITS files and what belongs to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from exposure_files import SHAPE, make_header
from frames import write_small_frame

from lsst.drp.restore.repository.frame_files import find_frames, is_fits_name
from lsst.drp.restore.repository.manifest import ManifestError


def test_names() -> None:
    assert all(is_fits_name(Path(name)) for name in ("a.fits", "b.FIT", "c.fts", "d.fits.fz", "e.fits.gz"))
    assert not any(is_fits_name(Path(name)) for name in ("a.ecsv", "fits", "b.fits.txt"))


def test_images_and_their_companions(tmp_path: Path) -> None:
    for name in ("a.fits", "a.weight.fits", "a_dq.fits", "a.err.fits", "a_psf.fits", "n_exp.fits"):
        write_small_frame(tmp_path / name)
    (tmp_path / "log.txt").touch()
    first, second = find_frames([tmp_path])
    assert (first.name(tmp_path), second.name(tmp_path)) == ("a.fits", "n_exp.fits")
    assert first.companions == {
        "weight": str(tmp_path / "a.weight.fits"),
        "mask": str(tmp_path / "a_dq.fits"),
    }
    assert first.has_wcs and not second.companions


def test_compressed_extension_has_the_keywords_of_the_primary_header(tmp_path: Path) -> None:
    primary = fits.PrimaryHDU(header=fits.Header({"FILTER": "i", "EXPTIME": 30.0}))
    image = fits.CompImageHDU(np.ones(SHAPE, np.float32), make_header(), name="IMAGE")
    image.header["EXPTIME"] = 20.0
    fits.HDUList([primary, image]).writeto(tmp_path / "a.fits.fz")
    (frame,) = find_frames([tmp_path])
    assert (frame.extension, frame.has_wcs) == (None, True)
    assert (frame.header["FILTER"], frame.header["EXPTIME"]) == ("i", 20.0)


def test_first_image_without_a_wcs_is_not_the_default(tmp_path: Path) -> None:
    hdus = [fits.PrimaryHDU(np.ones((5, 5))), fits.ImageHDU(np.ones(SHAPE), make_header())]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    (frame,) = find_frames([tmp_path / "a.fits"])
    assert frame.name(tmp_path) == "a.fits[1]"


def test_files_that_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "bad.fits").write_text("not FITS")
    with pytest.raises(ManifestError, match="bad.fits: cannot be read"):
        find_frames([tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="no FITS images in"):
        find_frames([tmp_path / "empty"])
