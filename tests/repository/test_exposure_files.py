# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Pixels of exposures read from FITS files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from exposure_files import NANOJANSKY, SHAPE, Exposures, make_header

from lsst.drp.restore.repository.exposure_files import (
    ExposureArrays,
    ExposureFileError,
    read_exposure,
    read_fits_image,
    split_extension,
)
from lsst.drp.restore.repository.manifest import read_manifest


def read(exposures: Exposures) -> list[ExposureArrays]:
    """Read all exposures."""
    manifest = read_manifest(exposures.manifest())
    return [
        read_exposure(row, exposures.folder, instrument="Cam", mask_planes=manifest.mask_planes)
        for row in manifest.rows
    ]


def test_weight_mask_and_missing_pixels(exposures: Exposures) -> None:
    row = exposures.add(1, variance="", weight="w.fits", mask="m.fits")
    weight = np.full(SHAPE, 0.25)
    weight[3, 4], weight[5, 6], weight[7, 8] = 0.0, -1.0, np.nan
    exposures.write("w.fits", weight)
    mask = np.zeros(SHAPE, np.int16)
    mask[9, 10], mask[9, 11] = 1, -4
    exposures.write("m.fits", mask)
    counts = fits.getdata(exposures.folder / row["image"]).copy()
    counts[20, 21] = np.nan
    exposures.write(row["image"], counts, make_header())
    (arrays,) = read(exposures)
    np.testing.assert_array_equal(np.argwhere(arrays.mask["BAD"]), [[9, 10], [9, 11]])
    missing = [[3, 4], [5, 6], [7, 8], [20, 21]]
    np.testing.assert_array_equal(np.argwhere(arrays.mask["NO_DATA"]), missing)
    np.testing.assert_array_equal(np.argwhere(~np.isfinite(arrays.variance)), missing[:3])
    finite = np.isfinite(arrays.variance)
    np.testing.assert_allclose(arrays.variance[finite], 4.0 * NANOJANSKY**2, rtol=1e-6)


def test_estimated_variance(exposures: Exposures) -> None:
    """Of an image without a variance, with saturated pixels and padding."""
    row = exposures.add(1, variance="", saturation=50.0, background=0.0, gain=0.0, correlation=1.3)
    counts = fits.getdata(exposures.folder / row["image"]).copy()
    counts[10:12, 20:22] = 60.0
    counts[:, :3] = 0.0
    exposures.write(row["image"], counts, make_header())
    (arrays,) = read(exposures)
    assert arrays.sigma == pytest.approx(NANOJANSKY, rel=0.1)
    inner = np.s_[:, 3:]
    assert np.sqrt(arrays.variance[inner]) == pytest.approx(NANOJANSKY, rel=0.2)
    assert (arrays.gain, arrays.background, arrays.saturation, arrays.correlation) == (0.0, 0.0, 50.0, 1.3)
    np.testing.assert_array_equal(
        np.argwhere(arrays.mask["SATURATED"]), [[10, 20], [10, 21], [11, 20], [11, 21]]
    )
    assert arrays.mask["NO_DATA"][:, :3].all() and not arrays.mask["NO_DATA"][inner].any()
    np.testing.assert_allclose(arrays.image, counts * NANOJANSKY, rtol=1e-6)


def test_bit_masks(exposures: Exposures) -> None:
    exposures.add(1, mask="m.fits[DQ]")
    exposures.meta["mask_planes"] = {"BAD": [0, 3], "SATURATED": [1], "COSMIC_RAY": 4}
    mask = np.zeros(SHAPE, np.uint16)
    mask[1, 1], mask[2, 2], mask[3, 3], mask[4, 4], mask[5, 5] = 1, 8, 2, 16 + 2, 64
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones(SHAPE)), fits.ImageHDU(mask, name="DQ")]).writeto(
        exposures.folder / "m.fits"
    )
    planes = read(exposures)[0].mask
    np.testing.assert_array_equal(np.argwhere(planes["BAD"]), [[1, 1], [2, 2]])
    np.testing.assert_array_equal(np.argwhere(planes["SATURATED"]), [[3, 3], [4, 4]])
    np.testing.assert_array_equal(np.argwhere(planes["COSMIC_RAY"]), [[4, 4]])
    assert not planes["NO_DATA"].any()


def test_extensions_and_compression(exposures: Exposures) -> None:
    rng = np.random.default_rng(4)
    first, second, variance = rng.normal(size=SHAPE), rng.normal(size=SHAPE), np.ones(SHAPE)
    # A quantization level of 0 is lossless.
    compressed = fits.CompImageHDU(
        second, make_header(70.0), name="SCI", quantize_level=0, compression_type="GZIP_2"
    )
    compressed.ver = 2
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(first, make_header(), name="SCI", ver=1),
            fits.ImageHDU(variance, name="VAR"),
            compressed,
        ]
    ).writeto(exposures.folder / "all.fits")
    exposures.add(1, 0, image="all.fits", variance="all.fits[2]")
    exposures.add(1, 1, image="all.fits[SCI,2]", variance="all.fits[VAR]")
    first_read, second_read = read(exposures)
    np.testing.assert_allclose(first_read.image, first * NANOJANSKY, rtol=1e-6)
    np.testing.assert_allclose(second_read.image, second * NANOJANSKY, rtol=1e-6)
    sky = WCS(make_header(70.0)).pixel_to_world(3.0, 4.0)
    assert second_read.sky_projection.pixel_to_sky(x=3.0, y=4.0).separation(sky).arcsec < 1e-6


def test_types_and_frame(exposures: Exposures) -> None:
    exposures.add(17, 3)
    (arrays,) = read(exposures)
    assert arrays.image.dtype == arrays.variance.dtype == np.float32
    assert arrays.image.shape == arrays.variance.shape == SHAPE
    frame = arrays.sky_projection.pixel_frame
    assert (frame.instrument, frame.visit, frame.detector, frame.bbox.shape) == ("Cam", 17, 3, SHAPE)


@pytest.mark.parametrize(
    ("cells", "reasons"),
    [
        ({"image": "missing.fits"}, ["missing.fits: no such file"]),
        ({"variance": "wide.fits"}, ["wide.fits: 65x50 pixels, but v1d0.fits has 64x50"]),
        (
            {"image": "nowcs.fits", "variance": "missing.fits"},
            ["nowcs.fits: no celestial WCS", "missing.fits: no such file"],
        ),
        ({"variance": "zero.fits"}, ["zero.fits: not one positive pixel"]),
        # Reported with the manifest.
        ({"image": ""}, []),
    ],
)
def test_everything_wrong_with_an_exposure(
    exposures: Exposures, cells: dict[str, Any], reasons: list[str]
) -> None:
    exposures.write("wide.fits", np.ones((50, 65)))
    exposures.write("nowcs.fits", np.ones(SHAPE))
    exposures.write("zero.fits", np.zeros(SHAPE))
    exposures.add(1, **cells)
    with pytest.raises(ExposureFileError) as caught:
        read(exposures)
    assert list(caught.value.reasons) == reasons


def test_pixels_have_the_byte_order_of_the_machine(exposures: Exposures) -> None:
    exposures.write("i.fits", np.arange(12, dtype=np.int16).reshape(3, 4))
    array, header, _ = read_fits_image(exposures.folder, "i.fits")
    assert array.dtype.isnative and header["NAXIS1"] == 4
    np.testing.assert_array_equal(array, np.arange(12).reshape(3, 4))


@pytest.mark.parametrize(
    ("name", "file", "extension"),
    [
        ("a.fits", "a.fits", None),
        ("a.fits[2]", "a.fits", 2),
        ("a.fits[SCI]", "a.fits", "SCI"),
        ("a.fits[ SCI , 2 ]", "a.fits", ("SCI", 2)),
        ("a.fits[SCI,x]", "a.fits", "SCI,x"),
        # A file of that name is meant as it is.
        ("b[1]", "b[1]", None),
    ],
)
def test_names_of_extensions(tmp_path: Path, name: str, file: str, extension: object) -> None:
    (tmp_path / "b[1]").touch()
    assert split_extension(tmp_path, name) == (tmp_path / file, extension)
