# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import dataclasses
import json
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from results import make_restored
from skies import make_geometry
from stacks import make_restoration, star_field

from lsst.drp.restore.outputs.image_quality import psnr, sky_noise, ssim
from lsst.drp.restore.outputs.metrics import format_metrics, measure_metrics
from lsst.drp.restore.outputs.pixel_flags import flag_pixels
from lsst.drp.restore.outputs.restored_stack import RestoredStack
from lsst.drp.restore.stack.exposure_checks import Finding
from lsst.drp.restore.stack.reference_coadd import naive_mean, reference_coadd
from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.images import Box, Image, Mask, MaskPlane, MaskSchema
from lsst.images.cells import CellCoadd, CellGridBounds, CellPointSpreadFunction


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


@pytest.fixture(scope="module")
def restored() -> RestoredStack:
    stack, latent, _ = star_field(shape=(128, 160), cell_shape=(32, 32))
    stack = stack.without(np.broadcast_to(np.arange(128)[:, None] < 5, (128, 160))[None].repeat(4, axis=0))
    stack.image[1, 60, 60] = 500.0
    stack.good[1, 60, 60], stack.variance[1, 60, 60] = True, 1.0
    reference = reference_coadd(stack)
    assert reference.clipped[1, 60, 60]
    naive, stack = naive_mean(stack), stack.without(reference.clipped)
    restoration = make_restoration(stack, latent, steps=1234, loss=0.81, seconds=12.5)
    return make_restored(stack, restoration, reference=reference, naive=naive)


def measure(restored: RestoredStack, coadd: CellCoadd | None = None) -> dict[str, Any]:
    return measure_metrics(
        restored,
        flag_pixels(restored, few_exposures=2),
        geometry=make_geometry(cells=(4, 5), cell_size=32, start=(1000, 2000)),
        seeing=np.linspace(2.8, 4.5, restored.stack.n_exposures),
        dropped=[("SimCam visit 7 detector 2", "its PSF cannot be read")],
        coadd=coadd,
    )


def test_measure_metrics(restored: RestoredStack) -> None:
    stack, reference, restoration = restored.stack, restored.reference, restored.restoration
    metrics = measure(restored)
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


def test_exposures_that_are_wrong(restored: RestoredStack) -> None:
    findings = (
        (),
        (Finding(text="too bright", is_fatal=True),),
        (Finding(text="narrow", is_fatal=False),),
        (),
    )
    checks = dataclasses.replace(
        restored.checks, findings=findings, flux_scale=np.array([1.0, 275.0, np.nan, 1.01])
    )
    metrics = measure(dataclasses.replace(restored, checks=checks))
    assert (metrics["n_exposures"], metrics["n_contradicted"], metrics["n_suspect"]) == (3, 1, 2)
    assert list(metrics["exposures"]) == list(restored.stack.names)
    found = metrics["exposures"]["visit 1"]
    assert (found["flux_scale"], found["dropped"], found["findings"]) == (275.0, True, "too bright")
    assert "flux_scale" not in metrics["exposures"]["visit 2"]
    text = format_metrics(metrics)
    assert "dropped     visit 1: too bright" in text and "check       visit 2: narrow" in text
    assert "visit 0" not in text


def test_metrics_are_plain_python(restored: RestoredStack) -> None:
    metrics = measure(restored)
    assert json.loads(json.dumps(metrics)) == metrics

    def check(value: object) -> None:
        if isinstance(value, dict):
            for item in value.values():
                check(item)
        else:
            assert type(value) in (float, int, bool, str)

    check(metrics)


@pytest.mark.parametrize("unit", [u.nJy, u.uJy])
def test_pipeline_coadd_is_compared_on_the_patch(restored: RestoredStack, unit: u.Unit) -> None:
    stack, reference = restored.stack, restored.reference
    geometry = make_geometry(cells=(4, 5), cell_size=32, start=(1000, 2000))
    no_data = np.zeros(stack.shape, bool)
    no_data[70:80, 20:30] = True
    pixels = np.where(no_data, 1e6, np.nan_to_num(reference.image))
    metrics = measure(restored, make_coadd(geometry, pixels, no_data, unit))
    expected = np.where(no_data, np.nan, pixels)
    expected[:32] = np.nan
    assert metrics["psnr"]["pipeline_coadd"] == pytest.approx(
        psnr(restored.restoration.image, expected), rel=1e-5
    )
    assert metrics["sky_noise"]["pipeline_coadd"] == pytest.approx(sky_noise(expected), rel=1e-4)
    text = format_metrics(metrics)
    assert "pipeline coadd" in text


def test_format_metrics(restored: RestoredStack) -> None:
    metrics = measure(restored)
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
