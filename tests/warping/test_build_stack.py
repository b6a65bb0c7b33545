# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the way from visit images to a stack of exposures."""

from __future__ import annotations

import logging

import astropy.units as u
import numpy as np
import pytest
from handles import ConvertedHandle, StoredHandle
from skies import make_geometry
from visit_images import (
    BBOX,
    MOSAIC,
    SHAPE,
    build,
    failing,
    gaussian,
    make_image,
    mosaic,
    register_images,
)
from warps import HAS_AFW

from lsst.daf.butler import DatasetRef, DatasetType, FileDataset
from lsst.drp.restore.errors import InputError
from lsst.drp.restore.repository.register import put_visit_image
from lsst.drp.restore.stack.kernel_shape import fwhm
from lsst.drp.restore.warping.psf_drawing import resampled_psf_kernel
from lsst.images import Box, Mask, MaskPlane, MaskSchema, Polygon, VisitImage
from lsst.images.fields import ChebyshevField
from lsst.images.psfs import GaussianPointSpreadFunction

# -- the stack


def test_detectors_of_a_visit_become_one_exposure():
    first, second = mosaic(20), mosaic(7)
    result = build(first[2], second[0], *second[1:], first[3], first[0], first[1])
    stack = result.stack
    assert stack.names == ("Cam visit 7", "Cam visit 20")
    assert stack.image.shape == (2, 120, 120) and stack.kernels.shape == (2, 4, 4, 25, 25)
    assert stack.image.dtype == stack.variance.dtype == stack.kernels.dtype == np.float32
    assert np.array_equal(stack.image[0], stack.image[1])
    # The detectors' corners of the patch, with the gap between them.
    image, good = stack.image[0], stack.good[0]
    assert image[20, 20] == pytest.approx(1.0, rel=1e-5) and image[20, 100] == pytest.approx(2.0, rel=1e-5)
    assert image[100, 20] == pytest.approx(3.0, rel=1e-5) and image[100, 100] == pytest.approx(4.0, rel=1e-5)
    # The patch's middle is between its pixels 59 and 60, the detectors' edges
    # 3 pixels from it, and two more pixels miss a part of their footprint.
    assert not good[:, 57:63].any() and not good[57:63, :].any()
    assert good[:54, :54].all() and good[66:, 66:].all()
    assert not image[~good].any() and np.isinf(stack.variance[0][~good]).all()
    assert np.allclose(stack.variance[0][good], 0.5 * image[good], rtol=0.6)
    assert result.dropped == []
    assert result.metadata["n_exposures"] == 2 and result.metadata["n_visit_images"] == 8


def test_kernels_are_those_of_the_cells_detectors():
    result = build(*mosaic(1), *mosaic(2))
    stack = result.stack
    assert stack.has_kernel.all()
    detectors = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
    for (i, j), detector in np.ndenumerate(detectors):
        expected = resampled_psf_kernel(gaussian(1.5 + 0.1 * detector), 0.0, 0.0, np.eye(2))
        assert np.abs(stack.kernels[0, i, j] - expected).max() < 0.01 * expected.max()
    widths = [fwhm(kernel) for kernel in stack.kernels[0].reshape(16, 25, 25)]
    assert result.seeing.shape == (2,)
    assert min(widths) < result.seeing[0] < max(widths)
    assert 0.99 < result.metadata["kernel_fraction_min"] <= result.metadata["kernel_fraction_median"] <= 1.001


def test_cell_takes_the_kernel_of_the_detector_with_most_good_pixels():
    """Two detectors meet in a column of cells, where the left one is masked
    in the lower half.
    """
    mask = np.zeros(SHAPE, bool)
    mask[:35, 60:] = True
    left = make_image(1, 1, center=(69.5, 34.5), psf=gaussian(1.4), mask={"BAD": mask})
    right = make_image(1, 2, center=(-13.5, 34.5), psf=gaussian(2.2))
    result = build(left, right, make_image(2))
    widths = [fwhm(result.stack.kernels[0, i, 2]) for i in (1, 2)]
    # The gap is 9 to 13 pixels right of the middle: the cell has 9 columns of
    # the left detector, and 17 of the right one.
    assert widths == pytest.approx([2.2 * 2.3548] * 2, rel=0.01)
    assert fwhm(result.stack.kernels[0, 1, 1]) == pytest.approx(1.4 * 2.3548, rel=0.01)
    more_left = make_image(1, 1, center=(62.5, 34.5), psf=gaussian(1.4), mask={"BAD": mask})
    less_right = make_image(1, 2, center=(-20.5, 34.5), psf=gaussian(2.2))
    result = build(more_left, less_right, make_image(2))
    widths = [fwhm(result.stack.kernels[0, i, 2]) for i in (1, 2)]
    assert widths == pytest.approx([2.2 * 2.3548, 1.4 * 2.3548], rel=0.01)


def test_cells_without_an_exposure_have_no_kernel():
    result = build(make_image(1, center=(10.0, 35.0)), make_image(2))
    stack = result.stack
    counts = stack.good.reshape(2, 4, 30, 4, 30).sum(axis=(2, 4))
    assert not stack.has_kernel.all()
    assert np.array_equal(stack.has_kernel, counts > 0)


def test_inputs_describe_the_contribution_of_each_image():
    mask = np.zeros(SHAPE, bool)
    mask[40:60, 10:30] = True
    images = mosaic(1, angle=10.0, mask={"SATURATED": mask})
    result = build(*images, make_image(5, detector=9))
    inputs, stack = result.inputs, result.stack
    assert [(i.visit, i.detector, i.exposure) for i in inputs] == [
        (1, 0, 0), (1, 1, 0), (1, 2, 0), (1, 3, 0), (5, 9, 1)
    ]  # fmt: skip
    assert {(i.instrument, i.physical_filter, i.day_obs) for i in inputs} == {("Cam", "i_1", 20240301)}
    counts = stack.good.reshape(2, 4, 30, 4, 30).sum(axis=(2, 4)) / 900
    assert np.allclose(sum(i.unmasked_fraction for i in inputs[:4]), counts[0])
    assert np.allclose(inputs[4].unmasked_fraction, counts[1])
    for visit_input in inputs:
        assert (visit_input.unmasked_fraction <= visit_input.overlap_fraction + 0.02).all()
        assert visit_input.overlap_fraction.max() <= 1.0 + 1e-9
        assert visit_input.polygon.area == pytest.approx(visit_input.overlap_fraction.sum() * 900, rel=1e-3)
        contributes = visit_input.unmasked_fraction > 0.0
        assert np.isfinite(visit_input.psf_xx[contributes]).all()
        assert np.isnan(visit_input.psf_xx[~contributes]).all()
        assert not visit_input.weight[~contributes].any()
        assert np.isnan(visit_input.kernel_fraction[~contributes]).all()
    # The middle of cell (0, 0), of variance 0.5 or less after interpolation.
    assert inputs[0].overlaps_center[0, 0] and not inputs[3].overlaps_center[0, 0]
    good = stack.good[0, :30, :30]
    assert inputs[0].weight[0, 0] == pytest.approx(1.0 / np.median(stack.variance[0, :30, :30][good]))
    assert inputs[0].psf_xx[0, 0] == pytest.approx(1.5**2, rel=0.02)
    assert inputs[0].psf_xy[0, 0] == pytest.approx(0.0, abs=0.02)


def test_correlation_is_that_of_each_cells_good_pixels():
    """On a shifted detector all pixels have the same weights, of which those
    of half a pixel's shift have the smallest sum of squares.
    """
    aligned = make_image(1, center=(40.5, 35.5))
    half_shifted = make_image(2)
    rotated = mosaic(3, angle=25.0)
    stack = build(aligned, half_shifted, *rotated, mosaic(4)[0]).stack
    covered = stack.good.reshape(4, 4, 30, 4, 30).any(axis=(2, 4))
    assert stack.correlation.shape == (4, 4, 4) and stack.correlation.dtype == np.float32
    assert (stack.correlation[~covered] == 1.0).all() and covered.any() and not covered.all()
    assert stack.correlation[0][covered[0]] == pytest.approx(1.0, rel=0.01)
    taps = np.arange(-2.5, 3.0)
    weights = np.sinc(taps) * np.sinc(taps / 3.0)
    half = (weights.sum() ** 2 / (weights**2).sum()) ** 2
    assert stack.correlation[1][covered[1]] == pytest.approx(half, rel=0.03)
    # The mean over all phases, of every detector that has pixels in the cell.
    assert covered[2].all()
    assert stack.correlation[2] == pytest.approx(stack.correlation[2].mean(), rel=0.02)
    assert 1.2 < stack.correlation[2].mean() < 1.4
    # Of images of the same noise, the aligned one has the largest variance, yet all count the same.
    fluxes = np.median(stack.variance[:2, 50:70, 50:70], axis=(1, 2)) * stack.correlation[:2, 1, 1]
    assert fluxes == pytest.approx(2.0, rel=0.02)


def test_correlation_of_an_image_multiplies_that_of_its_interpolation():
    plain, correlated = make_image(1), make_image(2, noise_correlation=1.8)
    stack = build(plain, correlated).stack
    covered = stack.good[0].reshape(4, 30, 4, 30).any(axis=(1, 3))
    assert stack.correlation[1][covered] == pytest.approx(1.8 * stack.correlation[0][covered], rel=1e-5)
    assert np.array_equal(stack.variance[0], stack.variance[1])


def test_stars_are_where_the_sky_projections_say():
    """One source seen by detectors upright and upside down."""
    y, x = np.indices(SHAPE)

    def star(x0: float, y0: float) -> np.ndarray:
        return 1000.0 * np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / 1.6**2) / (2 * np.pi * 1.6**2)

    geometry = make_geometry(start=(500, 700))
    upright = make_image(1, center=(40.0, 35.0), image=star(50.0, 30.0))
    turned = make_image(2, center=(40.0, 35.0), angle=180.0, image=star(30.0, 40.0))
    stack = build(upright, turned, geometry=geometry).stack
    # 10 pixels right and 5 below of the patch's middle at 59.5.
    for plane, good in zip(stack.image, stack.good, strict=True):
        rows, columns = np.indices(plane.shape)
        assert plane.sum() == pytest.approx(1000.0, rel=2e-3)
        assert (plane * columns).sum() / plane.sum() == pytest.approx(69.5, abs=0.03)
        assert (plane * rows).sum() / plane.sum() == pytest.approx(54.5, abs=0.03)
        assert good[54, 69]


def test_images_that_start_anywhere():
    """A cutout of a detector gives what the whole gives where it has data."""
    box = Box.factory[10:61, 22:75]
    rng = np.random.default_rng(3)
    whole = make_image(1, angle=20.0, image=rng.normal(size=SHAPE))
    expected = build(whole, make_image(2)).stack
    result = build(whole[box], make_image(2)).stack
    good = result.good[0]
    assert 0.5 * box.area < good.sum() < box.area
    assert expected.good[0][good].all()
    assert np.allclose(result.image[0][good], expected.image[0][good], atol=0.04)


def test_valid_polygon_limits_the_image():
    image = make_image(1)
    # A triangle; the image's middle is the patch's (59.5, 59.5).
    polygon = Polygon(x_vertices=[-0.5, 79.5, -0.5], y_vertices=[-0.5, -0.5, 69.5])
    limited = VisitImage(
        image.image,
        mask=image.mask,
        variance=image.variance,
        psf=image.psf,
        detector=image.detector,
        obs_info=image.obs_info,
        band="i",
        bounds=polygon,
    )
    for source in (limited, ConvertedHandle(limited)):
        result = build(source, make_image(2))
        good = result.stack.good[0]
        area = 0.5 * 80 * 70
        assert 0.75 * area < good.sum() < area
        assert good[30, 25] and not good[90, 95]
        assert result.inputs[0].polygon.area == pytest.approx(area, rel=1e-3)


def test_only_the_overlap_is_read():
    """And the PSF is evaluated before that, units and planes of every image
    before anything.
    """
    handles = [StoredHandle(make_image(visit, center=(75.0, 66.0))) for visit in (1, 2)]
    boxes = []

    class Recorder(StoredHandle):
        def get(self, *, component=None, parameters=None):
            result = super().get(component=component, parameters=parameters)
            if component is None:
                boxes.append(result.bbox)
                # Every component was read before, also those of the others.
                assert "psf" in self.reads
                assert all({"unit", "mask"} <= set(handle.reads) for handle in handles)
            return result

    for handle in handles:
        handle.__class__ = Recorder
    # The patch's first pixel is that at (75 - 59.5, 66 - 59.5).
    build(*handles)
    assert boxes == [Box.factory[2:70, 11:80]] * 2
    for handle in handles:
        assert handle.reads.count("image and all") == 1


# -- repositories


def test_from_a_repository(butler):
    images = [*mosaic(1, angle=15.0), *mosaic(2, angle=-100.0)]
    register_images(butler, images)
    refs = [put_visit_image(butler, image, "run") for image in images]
    result = build(*(butler.getDeferred(ref) for ref in refs))
    expected = build(*images)
    assert np.array_equal(result.stack.image, expected.stack.image)
    assert np.array_equal(result.stack.kernels, expected.stack.kernels)
    assert [(i.visit, i.detector, i.physical_filter) for i in result.inputs] == [
        (i.visit, i.detector, i.physical_filter) for i in expected.inputs
    ]
    assert {i.day_obs for i in result.inputs} == {20240301}


def test_images_converted_from_exposures_are_read_once():
    images = [*mosaic(1), *mosaic(2)]
    handles = [ConvertedHandle(image) for image in images]
    result, expected = build(*handles), build(*images)
    assert [len(handle.reads) for handle in handles] == [1] * 8
    assert np.array_equal(result.stack.image, expected.stack.image)
    assert np.array_equal(result.stack.kernels, expected.stack.kernels)


@pytest.mark.skipif(HAS_AFW, reason="lsst.afw reads them.")
def test_exposures_without_afw_say_what_to_do(butler, tmp_path):
    """A dataset type registered as ExposureF, in a repository; and a formatter
    that cannot be imported.
    """
    image = make_image()
    register_images(butler, [image, make_image(2)])
    calexp = DatasetType(
        "calexp", ("instrument", "visit", "detector"), "ExposureF", universe=butler.dimensions
    )
    butler.registry.registerDatasetType(calexp)
    butler.collections.register("run")
    data_id = butler.registry.expandDataId(instrument="Cam", visit=1, detector=1)
    ref = DatasetRef(calexp, data_id, run="run")
    path = tmp_path / "calexp.fits"
    path.touch()
    formatter = "lsst.images.formatters.GenericFormatter"
    butler.ingest(FileDataset(path, [ref], formatter=formatter), transfer="copy")
    handle = butler.getDeferred(ref, storageClass="VisitImage")
    with pytest.raises(InputError, match="Cam visit 1 detector 1 cannot be read.*lsst.afw.*ingest-exposures"):
        build(handle, StoredHandle(make_image(2)))

    other = ConvertedHandle(image)

    def get(**kwargs):
        raise ImportError("No module named 'lsst.obs'")

    other.get = get
    with pytest.raises(
        InputError, match="Cam visit 1 detector 1 cannot be read.*'lsst.obs'.*ingest-exposures"
    ):
        build(other, make_image(2))


# -- units


@pytest.mark.parametrize("unit", [u.nJy, u.mJy, u.Jy])
def test_units_of_flux_are_converted(unit):
    factor = (1.0 * u.nJy).to_value(unit)
    image = make_image(
        1, image=np.full(SHAPE, 5.0) * factor, variance=np.full(SHAPE, 2.0) * factor**2, unit=unit
    )
    stack = build(image, make_image(2)).stack
    good = stack.good[0]
    assert np.array_equal(good, stack.good[1])
    assert np.allclose(stack.image[0][good], stack.image[1][good], rtol=1e-5)
    assert np.allclose(stack.variance[0][good], stack.variance[1][good], rtol=1e-5)


def test_instrumental_units_are_scaled():
    """By a photometric scaling that doubles from the left to the right."""
    image = make_image(1, unit=u.electron)
    image.photometric_scaling = ChebyshevField(BBOX, np.array([[15.0, 5.0]]), unit=u.nJy / u.electron)
    original = image.image.array.copy()
    for source in (image, ConvertedHandle(image)):
        stack = build(source, make_image(2)).stack
        x = np.arange(120) - 59.5 + 40.0
        expected = 5.0 * (15.0 + 5.0 * (x - 39.5) / 40.0)
        assert np.allclose(stack.image[0, 60, 30:90], expected[30:90], rtol=2e-3)
        assert np.allclose(
            stack.variance[0, 60, 30:90] / stack.variance[1, 60, 30:90],
            (expected[30:90] / 5.0) ** 2,
            rtol=0.02,
        )
    assert np.array_equal(image.image.array, original)


def test_images_without_a_unit_of_flux_are_refused():
    bare = make_image(2, 3, unit=u.adu)
    with pytest.raises(
        InputError, match="Cam visit 2 detector 3 has pixels in adu.*no photometric_scaling.*Calibrate"
    ) as info:
        build(make_image(1), bare)
    assert info.value.metadata == {"dataset": "Cam visit 2 detector 3", "unit": "adu"}
    bare.photometric_scaling = ChebyshevField(BBOX, np.ones((1, 1)), unit=u.nJy / u.electron)
    with pytest.raises(InputError, match="photometric_scaling in nJy / electron does not make it one"):
        build(make_image(1), bare)


def test_wrong_inputs_are_found_before_pixels_are_read():
    first = StoredHandle(make_image(1))
    with pytest.raises(InputError):
        build(first, make_image(2, unit=u.adu))
    assert "image and all" not in first.reads


# -- mask planes and bad pixels


def test_missing_mask_plane_is_refused():
    image = make_image(2, 3)
    schema = MaskSchema([MaskPlane("BAD", "Bad."), MaskPlane("SATURATED", "Full.")])
    poor = VisitImage(
        image.image,
        mask=Mask(0, schema=schema, bbox=BBOX),
        variance=image.variance,
        psf=image.psf,
        detector=image.detector,
        obs_info=image.obs_info,
        band="i",
    )
    first = StoredHandle(make_image(1))
    with pytest.raises(
        InputError, match="Cam visit 2 detector 3 has no mask plane COSMIC_RAY.*BAD, SATURATED.*badMaskPlanes"
    ):
        build(first, poor)
    assert "image and all" not in first.reads
    with pytest.raises(InputError, match="no mask plane COSMIC_RAY"):
        build(make_image(1), ConvertedHandle(poor))
    assert build(make_image(1), poor, badMaskPlanes=["BAD"]).stack.n_exposures == 2


@pytest.mark.parametrize(
    "kind",
    ["COSMIC_RAY", "NO_DATA", "DETECTED", "nan", "inf", "zero variance", "negative variance", "nan variance"],
)
def test_bad_pixels_are_not_used(kind):
    bad = np.zeros(SHAPE, bool)
    bad[30:40, 20:30] = True
    values, variance, mask = np.full(SHAPE, 5.0), np.full(SHAPE, 2.0), {}
    match kind:
        case "nan" | "inf":
            values[bad] = float(kind)
        case "zero variance":
            variance[bad] = 0.0
        case "negative variance":
            variance[bad] = -2.0
        case "nan variance":
            variance[bad] = np.nan
        case _:
            mask = {kind: bad}
            values[bad] = 1e5 if kind != "DETECTED" else 5.0
    stack = build(make_image(1, image=values, variance=variance, mask=mask), make_image(2)).stack
    # Pixel (35, 40) of the detector is at (59.5, 59.5).
    hole = np.s_[55:64, 40:49]
    assert stack.good[0][hole].any() == (kind == "DETECTED")
    assert stack.good[1][hole].all()
    good = stack.good[0]
    assert np.allclose(stack.image[0][good], 5.0, rtol=1e-5)
    lost = stack.good[1].sum() - good.sum()
    assert lost == 0 if kind == "DETECTED" else 100 <= lost <= 16 * 16


def test_image_wholly_masked_is_dropped(caplog):
    masked = make_image(2, 7, mask={"NO_DATA": np.ones(SHAPE, bool)})
    with caplog.at_level(logging.WARNING, "lsst"):
        result = build(make_image(1), masked, make_image(3))
    assert result.stack.names == ("Cam visit 1", "Cam visit 3")
    ((label, reason),) = result.dropped
    assert label == "Cam visit 2 detector 7"
    assert "100% masked" in reason and "NO_DATA" in reason
    assert "Dropping Cam visit 2 detector 7: none of its" in caplog.text
    assert result.metadata["n_visit_images_dropped"] == 1
    assert result.metadata.getArray("dropped") == [f"{label}: {reason}"]
    assert [i.exposure for i in result.inputs] == [0, 1]


def test_image_of_nothing_but_nan_is_dropped():
    empty = make_image(2, image=np.full(SHAPE, np.nan), variance=np.zeros(SHAPE))
    result = build(make_image(1), empty, make_image(3))
    assert "100% not finite; 100% without a positive variance" in result.dropped[0][1]


def test_one_detector_of_a_visit_is_dropped():
    images = mosaic(1)
    images[2] = make_image(1, 2, center=MOSAIC[2], mask={"BAD": np.ones(SHAPE, bool)})
    result = build(*images, make_image(2, 9))
    assert result.stack.n_exposures == 2
    assert [label for label, _ in result.dropped] == ["Cam visit 1 detector 2"]
    assert not result.stack.good[0, 66:, :54].any() and result.stack.good[0, :54, :54].all()
    assert [i.detector for i in result.inputs] == [0, 1, 3, 9]


# -- PSFs


def test_psf_that_raises_drops_its_image(caplog):
    handle = StoredHandle(make_image(2, 4, psf=failing()))
    with caplog.at_level(logging.WARNING, "lsst"):
        result = build(make_image(1), handle, make_image(3))
    assert result.dropped == [
        ("Cam visit 2 detector 4", "its PSF fails (RuntimeError: no stars to interpolate)")
    ]
    assert "Dropping Cam visit 2 detector 4: its PSF fails" in caplog.text
    # Found before its pixels were read.
    assert "image and all" not in handle.reads


def test_psf_that_cannot_be_read_drops_its_image():
    handle = StoredHandle(make_image(2, 4), broken={"psf": ValueError("no coefficients")})
    result = build(make_image(1), handle, make_image(3))
    assert result.dropped[0][1] == "its PSF cannot be read (ValueError: no coefficients)"


@pytest.mark.parametrize("error", [ImportError("No module named 'piff'"), TypeError("takes no argument")])
def test_psf_without_its_software_drops_no_image(error):
    handle = StoredHandle(make_image(2, 4), broken={"psf": error})
    with pytest.raises(type(error), match=str(error)):
        build(make_image(1), handle, make_image(3))


def test_psf_of_nan_drops_its_image():
    class NanPsf(GaussianPointSpreadFunction):
        def compute_kernel_image(self, *, x, y):
            image = super().compute_kernel_image(x=x, y=y)
            image.array[0, 0] = np.nan
            return image

    psf = NanPsf(1.6, bounds=BBOX, stamp_size=41)
    result = build(make_image(1), make_image(2, psf=psf), make_image(3))
    assert "its PSF fails (ValueError: The PSF model's image at" in result.dropped[0][1]


def test_psf_too_wide_for_the_kernel_drops_its_image():
    wide = make_image(2, psf=gaussian(6.0, stamp_size=81))
    result = build(make_image(1), wide, make_image(3))
    assert "kernel of 25x25 pixels misses 7." in result.dropped[0][1]
    assert "more than maxKernelLoss=0.05" in result.dropped[0][1]
    assert build(make_image(1), wide, maxKernelLoss=0.1).dropped == []
    assert build(make_image(1), wide, kernelSize=41).stack.kernels.shape[-2:] == (41, 41)


def test_psf_that_fails_in_some_cells_costs_these(caplog):
    """The image's left half, of columns up to 39, is in two columns of cells."""
    with caplog.at_level(logging.WARNING, "lsst"):
        result = build(make_image(1, psf=failing(limit=40.0)), make_image(2))
    assert result.dropped == []
    assert (
        "Cam visit 1 detector 1 is not used in 8 of its 16 cells, in the first because its PSF fails"
        in caplog.text
    )
    assert not result.stack.good[0, :, :60].any() and result.stack.good[0, 40:80, 60:90].all()
    assert not result.stack.has_kernel[0, :, :2].any()
    assert not result.inputs[0].unmasked_fraction[:, :2].any()


def test_psf_is_evaluated_where_it_is_valid():
    """At the middle of what each cell sees of the image, and never outside of
    the PSF's bounds, which here are smaller than the image's.
    """
    positions = []

    class RecordingPsf(GaussianPointSpreadFunction):
        def compute_kernel_image(self, *, x, y):
            positions.append((x, y))
            return super().compute_kernel_image(x=x, y=y)

    psf = RecordingPsf(1.6, bounds=Box.factory[5:60, 10:79], stamp_size=41)
    build(make_image(1, psf=psf), make_image(2))
    x, y = np.array(positions).T
    assert x.min() == 10.0 and x.max() < 78.0 and y.min() == 5.0 and y.max() == 59.0
    # The cells' borders are at 10, 40 and 70 on the detector, which ends at 79.5.
    assert np.isin(np.unique(x.round(3)), [10.0, 25.0, 55.0, 74.75]).all()
