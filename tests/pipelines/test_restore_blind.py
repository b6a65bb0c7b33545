# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Blind restoration through a real repository and ``pipetask``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from repositories import simulate_repository

from lsst.ctrl.mpexec.cli.pipetask import cli as pipetask
from lsst.daf.butler import Butler
from lsst.drp.restore import PatchGeometry, RestoreCoaddConfig, RestoreCoaddTask
from lsst.drp.restore.outputs.image_quality import star_fwhm
from lsst.drp.restore.simulation.config import SimulationConfig
from lsst.drp.restore.stack.kernel_shape import fwhm
from lsst.pipe.base import Pipeline

PIPELINES = "resource://lsst.drp.restore/pipelines"
DATA_ID = {"skymap": "test", "tract": 0, "patch": 0, "band": "i"}
WHERE = "skymap='test' AND tract=0 AND patch=0 AND band='i'"
# The same deterministic restorer for both: what is compared is the kernels.
QUICK = {
    "restorer.maxSteps": 60,
    "restorer.computeDevice": "cpu",
    "characterize.numRealizations": 2,
}


def run(repo: Path, collection: str, config: dict[str, Any]) -> None:
    options = [f"restoreCoadd:{key}={value}" for key, value in (QUICK | config).items()]
    arguments = [
        *("run", "-b", str(repo), "-i", "sim", "--output-run", collection, "-d", WHERE),
        *("-p", f"{PIPELINES}/restoreCoaddImageMM.yaml", "--register-dataset-types"),
        *[item for option in options for item in ("-c", option)],
    ]
    result = CliRunner().invoke(pipetask, arguments)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a patch restored with the exposures' PSF models in
    ``models``, and blindly in ``blind``.
    """
    root = simulate_repository(
        tmp_path_factory.mktemp("blind") / "repo",
        SimulationConfig(
            skymap="test",
            n_visits=5,
            detectors=(1, 1),
            seed=21,
            star_density=25.0,
            star_magnitudes=(18.5, 22.5),
            bright_stars=0,
            psf_variation=0.02,
        ),
        patch_size=180,
        cell_size=70,
    )
    run(root, "models", {})
    with Butler.from_config(str(root), collections="models") as butler:
        widths = mean_widths(butler.get("restored_coadd_kernels", DATA_ID))
    wrong = {"buildStack.psf": "gaussian", "fitKernels.mode": "gaussian"}
    run(root, "blind", wrong | {"fitKernels.initialFwhm": [float(0.8 * width) for width in widths]})
    return root


def mean_widths(kernels: np.ndarray) -> np.ndarray:
    return np.array([fwhm(k[k.any(axis=(-2, -1))].mean(axis=0)) for k in kernels])


@pytest.mark.slow
def test_kernels(repo: Path) -> None:
    with Butler.from_config(str(repo)) as butler:
        true, fitted = (
            mean_widths(butler.get("restored_coadd_kernels", DATA_ID, collections=run))
            for run in ("models", "blind")
        )
        metrics = butler.get("restored_coadd_metrics", DATA_ID, collections="blind")
        metadata = butler.get("restoreCoadd_metadata", DATA_ID, collections="blind")
        restored = butler.get("restored_coadd", DATA_ID, collections="blind")
        picture = butler.getURI("restored_coadd_kernel_fit_plot", DATA_ID, collections="blind").read()
        assert butler.find_dataset("restored_coadd_kernel_fit_plot", DATA_ID, collections="models") is None
    np.testing.assert_allclose(fitted, true, rtol=0.05)
    report = metrics["kernel_fit"]
    np.testing.assert_allclose(list(report["start_fwhm_pixels"].values()), 0.8 * true, rtol=0.02)
    np.testing.assert_allclose(list(report["fwhm_pixels"].values()), fitted, rtol=1e-3)
    assert report["n_stars"] == metadata["restoreCoadd:fitKernels"]["n_stars"] >= 5
    assert metrics["seeing_pixels"]["median"] == pytest.approx(np.median(fitted), rel=1e-3)
    assert picture.startswith(b"\x89PNG")
    # The provenance states the width of the kernels that were used.
    contributions = restored.provenance.contributions
    sizes = np.sqrt(0.5 * (contributions["psf_shape_xx"] + contributions["psf_shape_yy"]))
    assert np.nanmedian(sizes) == pytest.approx(np.median(fitted) / 2.355, rel=0.15)


@pytest.mark.slow
def test_stars_are_as_sharp(repo: Path) -> None:
    """Restored blindly, stars are as wide as with the right kernels."""
    with Butler.from_config(str(repo)) as butler:
        truth = butler.get("truth_catalog", DATA_ID, collections="sim")
        images = [butler.get("restored_coadd", DATA_ID, collections=run).image for run in ("models", "blind")]
        reference = butler.get("restored_coadd_reference", DATA_ID, collections="blind")
    stars = truth[(truth["kind"] == "star") & (truth["flux_nJy"] > 3e4)]
    widths = []
    for image in (*images, reference.image):
        x, y = stars["x"] - image.bbox.x.start, stars["y"] - image.bbox.y.start
        widths.append([star_fwhm(image.array, *place) for place in zip(x, y, strict=True)])
    models, blind, coadd = np.nanmedian(widths, axis=1)
    assert blind == pytest.approx(models, rel=0.1)
    assert blind < 0.75 * coadd


@pytest.mark.slow
def test_psf_models_are_not_read(repo: Path) -> None:
    """Exposures whose PSF model cannot be evaluated are used all the same."""

    class Handle:
        def __init__(self, handle: Any) -> None:
            self._handle = handle
            self.dataId = handle.dataId

        def get(self, component: str | None = None, **kwargs: Any) -> Any:
            if component == "psf":
                raise OSError("no PSF")
            return self._handle.get(component=component, **kwargs)

    with Butler.from_config(str(repo), collections="sim") as butler:
        refs = butler.query_datasets("visit_image", collections="sim")
        handles = [Handle(butler.getDeferred(ref)) for ref in refs]
        geometry = PatchGeometry.from_tract(butler.get("tract_geometry", DATA_ID), 0)
        config = RestoreCoaddConfig()
        config.load("resource://lsst.drp.restore/config/blind.py")
        task = RestoreCoaddTask(config=config)
        stack = task.buildStack.run(handles, geometry, "i").stack
    assert stack.n_exposures == 5
    np.testing.assert_allclose(mean_widths(stack.kernels), config.buildStack.gaussianFwhm, rtol=0.01)


def test_pipeline() -> None:
    pipeline = Pipeline.from_uri(f"{PIPELINES}/restoreCoaddBlind.yaml")
    graph = pipeline.to_graph()
    assert "restored_coadd_kernel_fit_plot" in graph.dataset_types
    config = graph.tasks["restoreCoadd"].config
    assert config.fitKernels.mode == config.buildStack.psf == "gaussian"
