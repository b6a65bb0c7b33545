# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import json

import astropy.units as u
import numpy as np
import pytest
import scipy.special
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from stacks import make_restoration, moffat_kernel, star_field

from lsst.drp.restore.outputs.metrics import (
    format_metrics,
    measure_metrics,
    psnr,
    sharpness,
    sky_noise,
    ssim,
    star_fwhm,
)
from lsst.drp.restore.restoration.characterize import Characterization
from lsst.drp.restore.restoration.measurable import Measurable
from lsst.drp.restore.restoration.restoration import Restoration
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.reference_coadd import ReferenceCoadd, naive_mean, reference_coadd
from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.images import YX, Box, Image, Mask, MaskPlane, MaskSchema, SkyProjection, TractFrame
from lsst.images.cells import (
    CellCoadd,
    CellGrid,
    CellGridBounds,
    CellPointSpreadFunction,
    PatchDefinition,
)
from lsst.pipe.base import Struct

PIXEL_SCALE = 0.2


@pytest.mark.parametrize("shape", [(64, 64), (63, 65), (50, 81)])
def test_sharpness_of_a_point_is_its_brightness(shape: tuple[int, int]) -> None:
    image = np.zeros(shape)
    image[17, 30] = 1000.0
    assert sharpness(image) == pytest.approx(3.0, abs=1e-5)


@pytest.mark.parametrize("shape", [(64, 64), (63, 65), (50, 81)])
def test_sharpness_is_the_mean_over_the_full_transform(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).normal(size=shape)
    expected = np.mean(np.log10(np.abs(np.fft.fft2(image))))
    assert sharpness(image) == pytest.approx(expected, abs=1e-5)


def test_sharpness_of_white_noise() -> None:
    """The magnitude has a Rayleigh distribution."""
    sigma, size = 3.0, 400
    image = np.random.default_rng(2).normal(scale=sigma, size=(size, size))
    mean_square = size**2 * sigma**2
    expected = 0.5 * (np.log(mean_square) + scipy.special.digamma(1.0)) / np.log(10)
    assert sharpness(image) == pytest.approx(expected, abs=0.002)


def test_sharpness_falls_with_blur() -> None:
    image = np.zeros((60, 60))
    image[30, 30] = 1.0
    values = [sharpness(image)]
    for fwhm in (2.0, 3.0, 4.0):
        image[18:43, 18:43] = moffat_kernel(fwhm)
        values.append(sharpness(image))
    assert values == sorted(values, reverse=True)


def test_sharpness_counts_nan_as_zero() -> None:
    image = np.zeros((30, 30), np.float32)
    image[4, 4] = 10.0
    image[20:25, 3:9] = np.nan
    assert sharpness(image) == pytest.approx(1.0, abs=1e-5)


def noise_with_sources(sigma: float, size: int = 512) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    image = rng.normal(scale=sigma, size=(size, size))
    sources = np.zeros_like(image)
    for _ in range(60):
        y, x = rng.integers(12, size - 12, 2)
        sources[y - 12 : y + 13, x - 12 : x + 13] += 10 ** rng.uniform(1, 4) * sigma * moffat_kernel(3.5)
    return image, sources


def test_sky_noise_is_that_of_the_background() -> None:
    image, sources = noise_with_sources(2.5)
    assert sky_noise(image) == pytest.approx(2.5, rel=0.025)
    assert np.std(image + sources) > 5.0
    assert sky_noise(image + sources) == pytest.approx(2.5, rel=0.04)


def test_sky_noise_ignores_masked_and_missing_pixels() -> None:
    image, _ = noise_with_sources(1.0)
    bad = np.zeros(image.shape, bool)
    bad[:, 100:420] = True
    image[bad] = np.random.default_rng(4).normal(scale=50.0, size=np.count_nonzero(bad))
    image[400:, :] = np.nan
    assert sky_noise(image) > 2.0
    assert sky_noise(image, bad) == pytest.approx(1.0, rel=0.02)


def test_sky_noise_without_pixels_is_nan() -> None:
    assert np.isnan(sky_noise(np.full((20, 20), np.nan)))
    assert np.isnan(sky_noise(np.zeros((20, 20)), np.ones((20, 20), bool)))


def test_sky_noise_of_an_empty_restoration_is_zero() -> None:
    image = np.zeros((200, 200), np.float32)
    image[::40, ::40] = 100.0
    assert sky_noise(image) == pytest.approx(0.0, abs=1e-3)
    assert sky_noise(np.random.default_rng(1).normal(size=(256, 256))) == pytest.approx(1.0, rel=0.03)


@given(offset=st.floats(1e-3, 1e3), scale=st.floats(0.1, 1e4))
def test_psnr_of_an_offset(offset: float, scale: float) -> None:
    reference = scale * np.random.default_rng(5).uniform(size=(20, 30))
    reference[0, 0], reference[3, 3] = 0.0, scale
    assert psnr(reference + offset, reference) == pytest.approx(20 * np.log10(scale / offset), abs=1e-6)


def test_psnr_is_that_of_scikit_image() -> None:
    rng = np.random.default_rng(6)
    image, reference = rng.normal(size=(2, 40, 50))
    expected = peak_signal_noise_ratio(reference, image, data_range=reference.max() - reference.min())
    assert psnr(image, reference) == pytest.approx(expected, abs=1e-9)


def test_psnr_leaves_out_missing_pixels() -> None:
    rng = np.random.default_rng(7)
    image, reference = rng.normal(size=(2, 40, 50))
    expected = psnr(image[:, :30], reference[:, :30])
    image[:, 30:40] = np.nan
    reference[:, 40:] = np.nan
    assert psnr(image, reference) == pytest.approx(expected)
    assert np.isnan(psnr(image, np.full_like(image, np.nan)))
    assert psnr(reference, reference) == np.inf


def test_ssim_is_that_of_scikit_image() -> None:
    rng = np.random.default_rng(8)
    reference = rng.normal(size=(60, 50)).cumsum(axis=0)
    image = reference + rng.normal(size=(60, 50))
    expected = structural_similarity(image, reference, data_range=reference.max() - reference.min())
    assert ssim(image, reference) == pytest.approx(expected, abs=1e-5)
    assert ssim(reference, reference) == pytest.approx(1.0)


def test_ssim_leaves_out_windows_with_missing_pixels() -> None:
    rng = np.random.default_rng(9)
    reference = rng.normal(size=(60, 50)).cumsum(axis=0)
    reference[0, 0], reference[59, 0] = reference.min() - 1, reference.max() + 1
    image = reference + rng.normal(size=(60, 50))
    expected = ssim(image[:, :30], reference[:, :30])
    image[:, 30:] = np.nan
    assert ssim(image, reference) == pytest.approx(expected, abs=1e-5)
    assert np.isnan(ssim(np.full_like(image, np.nan), reference))


@pytest.mark.parametrize("fwhm", [2.0, 3.5, 5.0])
@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.4, -0.3)])
def test_star_fwhm(fwhm: float, offset: tuple[float, float]) -> None:
    beta, x0, y0 = 3.5, 40 + offset[0], 50 + offset[1]
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    y, x = np.mgrid[:100, :90]
    image = 1000 * (1 + ((x - x0) ** 2 + (y - y0) ** 2) / alpha**2) ** -beta
    image += 300.0 + np.random.default_rng(10).normal(size=image.shape)
    # The position is known to a pixel or so.
    for dx, dy in ((0.0, 0.0), (1.3, -1.4)):
        assert star_fwhm(image, x0 + dx, y0 + dy) == pytest.approx(fwhm, rel=0.03)


def test_star_fwhm_at_the_edge_is_nan() -> None:
    image = np.zeros((60, 60))
    image[:13, :13] = moffat_kernel(3.0)[12:, 12:]
    assert np.isnan(star_fwhm(image, 0.0, 0.0))
    assert np.isnan(star_fwhm(np.full((60, 60), np.nan), 30.0, 30.0))


# The tables.


def make_geometry(shape: tuple[int, int], cell_shape: tuple[int, int]) -> PatchGeometry:
    bbox = Box.from_shape(shape, start=YX(y=1000, x=2000))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [1.0, 1.0]
    wcs.wcs.cdelt = [-PIXEL_SCALE / 3600, PIXEL_SCALE / 3600]
    frame = TractFrame(skymap="test", tract=0, bbox=bbox)
    return PatchGeometry(
        skymap="test",
        tract=0,
        patch=PatchDefinition(
            id=0,
            index=YX(y=0, x=0),
            inner_bbox=bbox,
            cells=CellGrid(bbox=bbox, cell_shape=YX(y=cell_shape[0], x=cell_shape[1])),
        ),
        sky_projection=SkyProjection.from_fits_wcs(wcs, frame, pixel_bounds=bbox),
    )


def make_coadd(geometry: PatchGeometry, pixels: np.ndarray, no_data: np.ndarray, unit: u.Unit) -> CellCoadd:
    """Make a pipeline coadd that lacks the first row of cells."""
    cells = geometry.patch.cells
    bbox = Box.factory[
        geometry.outer_bbox.y.start + cells.cell_shape.y : geometry.outer_bbox.y.stop,
        geometry.outer_bbox.x.start : geometry.outer_bbox.x.stop,
    ]
    mask = Mask(0, schema=MaskSchema([MaskPlane("NO_DATA", "No data.")]), bbox=bbox)
    mask.set("NO_DATA", no_data[cells.cell_shape.y :])
    scale = (1 * u.nJy).to_value(unit)
    size = cells.grid_size
    return CellCoadd(
        Image((pixels[cells.cell_shape.y :] * scale).astype(np.float32), bbox=bbox, unit=unit),
        mask=mask,
        sky_projection=geometry.sky_projection,
        band="i",
        psf=CellPointSpreadFunction(
            np.ones((size.i, size.j, 3, 3)), bounds=CellGridBounds(grid=cells, bbox=cells.bbox)
        ),
        patch=geometry.patch,
    )


def make_inputs(stack: ExposureStack) -> Struct:
    seeing = np.linspace(2.8, 4.5, stack.n_exposures)
    return Struct(seeing=seeing, dropped=[("SimCam visit 7 detector 2", "its PSF cannot be read")])


@pytest.fixture(scope="module")
def restored() -> tuple[ExposureStack, ReferenceCoadd, Restoration, np.ndarray]:
    stack, latent, _ = star_field(shape=(128, 160), cell_shape=(32, 32))
    stack = stack.without(np.broadcast_to(np.arange(128)[:, None] < 5, (128, 160))[None].repeat(4, axis=0))
    stack.image[1, 60, 60] = 500.0
    stack.good[1, 60, 60], stack.variance[1, 60, 60] = True, 1.0
    naive = naive_mean(stack)
    reference = reference_coadd(stack)
    assert reference.clipped[1, 60, 60]
    stack = stack.without(reference.clipped)
    restoration = make_restoration(stack, latent, steps=1234, loss=0.81, seconds=12.5)
    return stack, reference, restoration, naive


def make_result(restoration: Restoration, reference: ReferenceCoadd, naive: np.ndarray) -> Struct:
    """Everything that a restoration returns; the coadd for the image to
    measure on.
    """
    shape = reference.image.shape
    return Struct(
        naive=naive,
        reference=reference,
        restoration=restoration,
        measurable=Measurable(
            image=reference.image,
            variance=reference.variance,
            kernels=reference.kernels,
            coverage=np.ones(shape, np.float32),
            noise_realizations=[],
        ),
        character=Characterization(
            variance=np.ones(shape, np.float32),
            kernels=reference.kernels,
            noise_realizations=[],
            inconsistent=np.arange(shape[0])[:, np.newaxis] < np.full(shape, shape[0] // 4),
            pedestal=0.125,
            residuals=np.float32([3.0, 2.5, 4.5, 2.0, 1.0]),
            beyond=np.array([0, 0, 7, 0, 0]),
        ),
    )


def test_measure_metrics(restored: tuple[ExposureStack, ReferenceCoadd, Restoration, np.ndarray]) -> None:
    stack, reference, restoration, naive = restored
    geometry = make_geometry(stack.shape, stack.cell_shape)
    metrics = measure_metrics(
        make_result(restoration, reference, naive), stack, geometry=geometry, inputs=make_inputs(stack)
    )
    names = {"exposures", "naive_mean", "reference_coadd", "restored", "measurable"}
    assert set(metrics["sharpness"]) == set(metrics["sky_noise"]) == names
    assert set(metrics["psnr"]) == set(metrics["ssim"]) == {"exposures", "reference_coadd"}
    # Noise of about 1 nJy in 4 exposures, none in the truth.
    noise = metrics["sky_noise"]
    assert noise["exposures"] == pytest.approx(1.0, rel=0.05)
    assert noise["naive_mean"] == pytest.approx(0.5, rel=0.1)
    assert noise["reference_coadd"] == pytest.approx(0.5, rel=0.1)
    assert noise["restored"] < 0.01
    assert metrics["sharpness"]["restored"] > metrics["sharpness"]["exposures"]
    assert metrics["sharpness"]["restored"] > metrics["sharpness"]["reference_coadd"]
    # The five rows without data are compared with nothing.
    truth = np.where(np.isnan(reference.image), np.nan, restoration.image)
    assert np.count_nonzero(np.isnan(truth)) >= 5 * 160
    good = [np.where(g, y, np.nan) for y, g in zip(stack.image, stack.good, strict=True)]
    assert metrics["psnr"]["exposures"] == pytest.approx(np.mean([psnr(truth, y) for y in good]))
    assert metrics["ssim"]["reference_coadd"] == pytest.approx(ssim(truth, reference.image))

    assert metrics["n_exposures"] == 4
    assert metrics["n_dropped"] == 1
    assert metrics["dropped"] == {"SimCam visit 7 detector 2": "its PSF cannot be read"}
    assert metrics["seeing_pixels"] == pytest.approx({"median": 3.65, "best": 2.8, "worst": 4.5})
    assert metrics["seeing_arcsec"]["worst"] == pytest.approx(0.9, rel=1e-3)
    assert metrics["kernel_fraction"] == pytest.approx({"median": 1.0, "lowest": 1.0})
    n_clipped = np.count_nonzero(reference.clipped)
    assert metrics["clipped_fraction"] == pytest.approx(
        n_clipped / (np.count_nonzero(stack.good) + n_clipped)
    )
    assert (metrics["steps"], metrics["loss"], metrics["seconds"]) == (1234, 0.81, 12.5)
    assert (metrics["converged"], metrics["device"]) == (True, "CPU")
    assert 0.05 < metrics["peak_memory_gib"] < 100
    assert (metrics["pedestal"], metrics["inconsistent_fraction"]) == (0.125, 0.25)
    assert list(metrics["residuals"]) == ["1", "2", "4", "8", "16"]
    assert metrics["residuals"]["4"] == {"largest": 4.5, "beyond": 7}


def test_metrics_are_plain_python(
    restored: tuple[ExposureStack, ReferenceCoadd, Restoration, np.ndarray],
) -> None:
    stack, reference, restoration, naive = restored
    metrics = measure_metrics(
        make_result(restoration, reference, naive),
        stack,
        geometry=make_geometry(stack.shape, stack.cell_shape),
        inputs=make_inputs(stack),
    )
    assert json.loads(json.dumps(metrics)) == metrics

    def check(value: object) -> None:
        if isinstance(value, dict):
            for item in value.values():
                check(item)
        else:
            assert type(value) in (float, int, bool, str)

    check(metrics)


@pytest.mark.parametrize("unit", [u.nJy, u.uJy])
def test_pipeline_coadd_is_compared_on_the_patch(
    restored: tuple[ExposureStack, ReferenceCoadd, Restoration, np.ndarray], unit: u.Unit
) -> None:
    stack, reference, restoration, naive = restored
    geometry = make_geometry(stack.shape, stack.cell_shape)
    no_data = np.zeros(stack.shape, bool)
    no_data[70:80, 20:30] = True
    pixels = np.where(no_data, 1e6, np.nan_to_num(reference.image))
    metrics = measure_metrics(
        make_result(restoration, reference, naive),
        stack,
        geometry=geometry,
        inputs=make_inputs(stack),
        coadd=make_coadd(geometry, pixels, no_data, unit),
    )
    expected = np.where(no_data, np.nan, pixels)
    expected[:32] = np.nan
    assert metrics["psnr"]["pipeline_coadd"] == pytest.approx(psnr(restoration.image, expected), rel=1e-5)
    assert metrics["sky_noise"]["pipeline_coadd"] == pytest.approx(sky_noise(expected), rel=1e-4)
    text = format_metrics(metrics)
    assert "pipeline coadd" in text


def test_format_metrics(restored: tuple[ExposureStack, ReferenceCoadd, Restoration, np.ndarray]) -> None:
    stack, reference, restoration, naive = restored
    metrics = measure_metrics(
        make_result(restoration, reference, naive),
        stack,
        geometry=make_geometry(stack.shape, stack.cell_shape),
        inputs=make_inputs(stack),
    )
    lines = format_metrics(metrics).splitlines()
    assert lines[0].split()[-2:] == ["restored", "measurable"]
    assert "pipeline coadd" not in lines[0]
    row = next(line for line in lines if line.startswith("sharpness"))
    assert [float(word) for word in row.split()[-5:]] == pytest.approx(
        list(metrics["sharpness"].values()), abs=6e-4
    )
    row = next(line for line in lines if line.startswith("PSNR"))
    assert [float(word) for word in row.split()[-2:]] == pytest.approx(
        list(metrics["psnr"].values()), abs=6e-3
    )
    text = "\n".join(lines)
    assert "4 used; visit images dropped: 1" in text
    assert "1234 steps in 12 s on CPU, converged" in text
    assert "SimCam visit 7 detector 2: its PSF cannot be read" in text
    assert max(map(len, lines)) < 140
