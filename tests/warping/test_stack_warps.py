# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the way from warps to a stack of exposures."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from click.testing import CliRunner
from repositories import simulate_repository
from skies import make_geometry, tan_wcs
from warps import GEOMETRY, HAS_AFW, gaussian_kernel, make_afw_warp, make_warp, stack

from lsst.ctrl.mpexec.cli.pipetask import cli as pipetask
from lsst.daf.butler import Butler
from lsst.drp.restore import InputError, PatchGeometry, StackWarpsTask
from lsst.drp.restore.simulation.config import SimulationConfig
from lsst.drp.restore.warping.build_stack import BuildStackTask
from lsst.drp.restore.warping.warp_input import WarpInput
from lsst.images import Box, Image, MaskedImage, SkyProjection, TractFrame
from lsst.images.cells import CellCoadd, CellGridBounds, CellIJ, CellPointSpreadFunction
from lsst.pipe.base import NoWorkFound

PIPELINE = "resource://lsst.drp.restore/pipelines/restoreCoaddImageMM.yaml"
DATA_ID = {"skymap": "test", "tract": 0, "patch": 0, "band": "i"}
WHERE = "skymap='test' AND tract=0 AND patch=0 AND band='i'"


def test_pixels_are_taken_as_they_are() -> None:
    warp = make_warp()
    outer = GEOMETRY.outer_bbox
    inside = outer.slice_within(warp.bbox)
    warp.mask.set("SATURATED", np.indices(warp.bbox.shape)[0] == 20)
    warp.mask.set("DETECTED", np.indices(warp.bbox.shape)[0] == 30)
    warp.image.array[40, 50] = np.nan
    warp.variance.array[41, 50] = np.inf
    result = stack(warp, correlation=1.5)
    expected = np.ones(warp.bbox.shape, bool)
    expected[20], expected[40, 50], expected[41, 50] = False, False, False
    good = expected[inside]
    np.testing.assert_array_equal(result.stack.good[0], good)
    np.testing.assert_array_equal(result.stack.image[0][good], warp.image.array[inside][good])
    np.testing.assert_array_equal(result.stack.variance[0][good], 4.0)
    assert (result.stack.image[0][~good] == 0.0).all()
    assert np.isinf(result.stack.variance[0][~good]).all()
    np.testing.assert_allclose(result.stack.correlation, 1.5, rtol=1e-6)
    np.testing.assert_allclose(result.stack.kernels[0, 1, 2], gaussian_kernel()[3:-3, 3:-3], atol=1e-7)
    assert result.stack.names == ("Cam visit 1",)
    assert result.seeing[0] == pytest.approx(3.0, abs=0.05)
    assert result.dropped == []
    (entry,) = result.inputs
    assert (entry.visit, entry.detector, entry.day_obs) == (1, WarpInput.ALL_DETECTORS, 20240301)
    # Two pixels without data and a masked row of the patch's 80.
    assert entry.unmasked_fraction.mean() == pytest.approx(good.mean())
    assert entry.overlap_fraction.mean() == pytest.approx(1.0 - 2.0 / good.size)


def test_units_and_sums_of_kernels() -> None:
    """Pixels become nJy; a kernel's sum is the flux inside of it."""
    result = stack(make_warp(unit=u.uJy, kernel_sum=0.97))
    reference = stack(make_warp())
    np.testing.assert_allclose(result.stack.image, 1000.0 * reference.stack.image, rtol=1e-5)
    np.testing.assert_allclose(result.stack.variance, 4e6, rtol=1e-5)
    np.testing.assert_allclose(result.stack.kernels.sum(axis=(-2, -1)), 0.97, atol=1e-5)
    # Not normalized.
    scaled = stack(make_warp(kernel_sum=7.0))
    np.testing.assert_allclose(scaled.stack.kernels.sum(axis=(-2, -1)), 1.0, atol=1e-5)


def test_part_of_the_patch() -> None:
    """Where a warp ends, or has no PSF, there are no good pixels."""
    outer = GEOMETRY.outer_bbox
    warp = make_warp(bbox=Box.factory[outer.y.start : outer.y.start + 60, outer.x.start + 50 : outer.x.stop])
    # Half of the first cell row's last cell has no data: the PSF is that of a good pixel.
    warp.image.array[:40, 30:55] = np.nan
    grid = GEOMETRY.patch.cells
    kernels = np.tile(gaussian_kernel(), (2, 3, 1, 1))
    kernels[1, 2] = np.nan
    bounds = CellGridBounds(grid=grid, bbox=grid.bbox, missing=frozenset({CellIJ(i=1, j=2)}))
    warp = CellCoadd(
        warp.image,
        mask=warp.mask,
        variance=warp.variance,
        psf=CellPointSpreadFunction(kernels, bounds=bounds),
        band="i",
    )
    result = stack(warp)
    good = result.stack.good[0]
    assert not good[60:].any() and not good[:, :50].any() and not good[40:, 80:].any()
    assert good[:40, 50:80].all() and good[40:60, 50:80].all()
    assert not good[:40, 80:105].any() and good[:40, 105:].all()
    np.testing.assert_array_equal(result.stack.has_kernel[0], [[False, True, True], [False, True, False]])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(unit=u.adu), "pixels in adu.*visit_image"),
        (dict(planes=("BAD", "NO_DATA")), "no mask plane COSMIC_RAY, INTERPOLATED.*badMaskPlanes"),
        (
            dict(
                projection=SkyProjection.from_fits_wcs(
                    tan_wcs(center=(79.8, 49.5)),
                    TractFrame(skymap="other", tract=0, bbox=Box.from_shape((200, 200))),
                )
            ),
            "0.3.* pixels away from the grid of patch 3 of tract 0, more than 0.05.*patchGeometry",
        ),
    ],
)
def test_wrong_warps(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"(?s)Cam visit 1 warp.*{message}"):
        stack(make_warp(**kwargs))


def test_warp_of_another_patch() -> None:
    elsewhere = make_geometry(cells=(2, 3), cell_size=40, start=(500, 20))
    with pytest.raises(InputError, match="(?s)Cam visit 1 warp has .* none of which is in patch 3"):
        stack(make_warp(), geometry=elsewhere)


def test_warps_that_cannot_be_used() -> None:
    good, masked, empty, blurred = (make_warp(seed=seed) for seed in range(4))
    masked.mask.set("BAD", np.ones(masked.bbox.shape, bool))
    empty.image.array[:] = np.nan
    result = stack(good, masked, empty)
    assert result.stack.names == ("Cam visit 1",)
    assert [(label, "masked by one of BAD" in reason) for label, reason in result.dropped] == [
        ("Cam visit 2 warp", True)
    ]
    with pytest.raises(NoWorkFound, match="misses .* of the flux, more than maxKernelLoss"):
        stack(blurred, kernelSize=3)


@pytest.mark.usefixtures("geom")
@pytest.mark.parametrize(("mean", "unit", "scale"), [(1.0, "nJy", 1.0), (57.54, None, 57.54)])
def test_afw(mean: float, unit: str | None, scale: float) -> None:
    """Warps of lsst.afw are nJy, or instrumental with a common zero point."""
    warp = make_afw_warp(mean=mean, unit=unit)
    warp.mask.array[20] |= warp.mask.getPlaneBitMask(["SAT"])
    warp.mask.array[30] |= warp.mask.getPlaneBitMask(["DETECTED"])
    warp.image.array[40, 50] = np.nan
    warp.variance.array[40, 50] = np.inf
    result = stack(warp, correlation=1.0)
    inside = GEOMETRY.outer_bbox.slice_within(GEOMETRY.outer_bbox.padded(7))
    expected = np.ones((94, 134), bool)
    # The mask is grown.
    expected[18:23], expected[40, 50] = False, False
    good = expected[inside]
    if not HAS_AFW:
        # Where the PSF is not defined.
        good[:, :40] = False
    np.testing.assert_array_equal(result.stack.good[0], good)
    np.testing.assert_allclose(result.stack.image[0][good], scale * warp.image.array[inside][good], rtol=1e-6)
    np.testing.assert_allclose(result.stack.variance[0][good], scale**2 * 4.0, rtol=1e-6)
    np.testing.assert_allclose(result.stack.kernels[0, 1, 2], gaussian_kernel()[3:-3, 3:-3], atol=1e-5)


def test_gaussian_kernels_to_start_a_blind_restoration_from() -> None:
    """A warp needs no PSF then."""
    warp = make_warp()
    bare = MaskedImage(
        Image(warp.image.array, bbox=warp.bbox, unit=u.nJy, sky_projection=warp.sky_projection),
        mask=warp.mask,
        variance=Image(warp.variance.array, bbox=warp.bbox, unit=u.nJy**2),
    )
    result = stack(warp, bare, psf="gaussian", gaussianFwhm=5.0)
    assert result.stack.has_kernel.all()
    np.testing.assert_allclose(result.seeing, 5.0, rtol=0.01)
    np.testing.assert_array_equal(result.stack.good[0], result.stack.good[1])


def test_correlation_without_empty_sky(caplog: pytest.LogCaptureFixture) -> None:
    warp = make_warp()
    warp.mask.set("BAD", (np.indices(warp.bbox.shape).sum(axis=0) % 5) == 0)
    with caplog.at_level(logging.WARNING):
        result = stack(warp)
    assert (result.stack.correlation == 1.0).all()
    assert "field correlation" in caplog.text


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with visit images and the same visits as warps."""
    return make_repo(tmp_path_factory.mktemp("warps") / "repo", patch_size=220, cell_size=50, n_visits=2)


@pytest.fixture(scope="module")
def small_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a smaller patch."""
    return make_repo(tmp_path_factory.mktemp("small") / "repo", patch_size=90, cell_size=30, n_visits=4)


def make_repo(root: Path, *, patch_size: int, cell_size: int, n_visits: int) -> Path:
    config = SimulationConfig(
        skymap="test", n_visits=n_visits, detectors=(1, 1), psf="gaussian", seed=101, warps=True
    )
    return simulate_repository(root, config, patch_size=patch_size, cell_size=cell_size)


@pytest.mark.slow
def test_warps_of_the_simulator(repo: Path) -> None:
    """Stacked warps are the stacked visit images, but for the correlation of
    noise, which is measured.
    """
    with Butler.from_config(str(repo), collections="sim") as butler:
        geometry = PatchGeometry.from_tract(butler.get("tract_geometry", DATA_ID), 0)
        images = [butler.getDeferred(ref) for ref in butler.query_datasets("visit_image")]
        refs = butler.query_datasets("direct_warp", with_dimension_records=True)
        assert {ref.datasetType.storageClass_name for ref in refs} == {"CellCoadd"}
        warps = [butler.getDeferred(ref) for ref in refs]
        first, second = (
            task().run(handles, geometry, "i")
            for task, handles in ((BuildStackTask, images), (StackWarpsTask, warps))
        )
    for name in ("image", "variance", "good", "kernels", "names"):
        np.testing.assert_array_equal(getattr(first.stack, name), getattr(second.stack, name))
    assert first.stack.correlation.mean() > 1.2
    ratio = second.stack.correlation / first.stack.correlation
    np.testing.assert_allclose(np.median(ratio, axis=(1, 2)), 1.0, atol=0.1)
    assert [entry.physical_filter for entry in second.inputs] == ["SimCam-i"] * 2
    np.testing.assert_allclose(
        [entry.weight for entry in first.inputs], [entry.weight for entry in second.inputs], rtol=1e-6
    )


@pytest.mark.slow
def test_pipeline(small_repo: Path) -> None:
    """A patch restored from warps is the one restored from visit images."""
    restored, metrics = {}, {}
    for source, stacker in (("visit_image", "buildStack"), ("direct_warp", "stackWarps")):
        run = f"u/test/{source}"
        result = CliRunner().invoke(
            pipetask,
            [
                *(
                    "run",
                    "-b",
                    str(small_repo),
                    "-i",
                    "sim",
                    "--output-run",
                    run,
                    "-p",
                    PIPELINE,
                    "-d",
                    WHERE,
                ),
                *("--register-dataset-types", "-c", f"restoreCoadd:inputType={source}"),
                *("-c", "restoreCoadd:restorer.maxSteps=20"),
            ],
        )
        assert result.exit_code == 0, result.output
        with Butler.from_config(str(small_repo), collections=run) as butler:
            restored[source] = butler.get("restored_coadd", DATA_ID)
            metrics[source] = butler.get("restored_coadd_metrics", DATA_ID)
            metadata = butler.get("restoreCoadd_metadata", DATA_ID)
            measurable = butler.get("restored_coadd_measurable", DATA_ID)
        assert metadata[f"restoreCoadd:{stacker}"]["n_exposures"] == 4
    first, second = restored.values()
    # The pixels are the same; their weights differ a bit, since the correlation
    # of their noise is measured.
    seen = np.isfinite(first.image.array)
    difference = np.std(second.image.array[seen] - first.image.array[seen])
    assert difference < 0.01 * np.std(first.image.array[seen])
    assert second.image.array[seen].sum() == pytest.approx(first.image.array[seen].sum(), rel=0.01)
    assert metrics["direct_warp"]["loss"] == pytest.approx(metrics["visit_image"]["loss"], rel=0.01)
    seen = measurable.variance.array > 0.0
    noise = measurable.image.array[seen] / np.sqrt(measurable.variance.array[seen])
    assert 0.7 < 1.4826 * np.median(np.abs(noise - np.median(noise))) < 1.3
    assert set(second.provenance.inputs["visit"]) == {1, 2, 3, 4}
    assert set(second.provenance.inputs["detector"]) == {WarpInput.ALL_DETECTORS}
