# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The whole way, through a real repository and ``pipetask``."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from repositories import simulate_repository

from lsst.ctrl.mpexec.cli.pipetask import cli as pipetask
from lsst.daf.butler import Butler, DatasetType
from lsst.drp.restore import (
    PatchGeometry,
    PublishedNetTask,
    RestoreCoaddConfig,
    RestoreCoaddTask,
)
from lsst.drp.restore.restoration.target_psf import target_kernel
from lsst.drp.restore.simulation.config import SimulationConfig
from lsst.images.cells import CellCoadd
from lsst.pipe.base import NoWorkFound, Pipeline
from lsst.pipe.base.tests.pipelineStepTester import PipelineStepTester

PIPELINE = "resource://lsst.drp.restore/pipelines/restoreCoadd.yaml"
DATA_ID = {"skymap": "test", "tract": 0, "patch": 0, "band": "i"}
WHERE = "skymap='test' AND tract=0 AND patch=0 AND band='i'"
OUTPUTS = {
    "restored_coadd": "CellCoadd",
    "restored_coadd_measurable": "CellCoadd",
    "restored_coadd_reference": "CellCoadd",
    "restored_coadd_naive_mean": "ImageV2",
    "restored_coadd_training": "ArrowAstropy",
    "restored_coadd_metrics": "StructuredDataDict",
    "restored_coadd_plot": "Plot",
    "restored_coadd_training_plot": "Plot",
    "restored_coadd_kernels": "NumpyArray",
    "restored_coadd_kernels_plot": "Plot",
}
SOURCE_OUTPUTS = {"restored_source", "restored_source_metrics", "restored_source_plot"}
# A restoration of seconds: what is tested here is not the image.
QUICK = {
    "restoreCoadd:characterize.numRealizations": 2,
    "restoreCoadd:restorer.computeDevice": "cpu",
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with four small visits over one patch."""
    config = SimulationConfig(skymap="test", n_visits=4, detector_size=110, seed=11)
    root = tmp_path_factory.mktemp("template") / "repo"
    return simulate_repository(root, config, patch_size=120, cell_size=50)


@pytest.fixture(scope="module")
def finished(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the template with a patch restored in ``u/test/run``; not to
    be written to.
    """
    root = Path(shutil.copytree(template, tmp_path_factory.mktemp("finished") / "repo"))
    result = run_pipeline(arguments(root))
    assert result.exit_code == 0, result.output
    return root


@pytest.fixture
def repo(template: Path, tmp_path: Path) -> Path:
    """A copy of the template to write to."""
    return Path(shutil.copytree(template, tmp_path / "repo"))


def arguments(
    repo: Path,
    *extra: str,
    run: str = "u/test/run",
    config: dict[str, Any] | None = None,
    pipeline: str = PIPELINE,
) -> list[str]:
    """Return the arguments of a run of the pipeline."""
    options = [f"{key}={value}" for key, value in (QUICK | (config or {})).items()]
    return [
        *("run", "-b", str(repo), "-i", "sim", "--output-run", run, "-p", pipeline, "-d", WHERE),
        *("--register-dataset-types", *extra),
        *[item for option in options for item in ("-c", option)],
    ]


def run_pipeline(arguments: Sequence[str]) -> Any:
    return CliRunner().invoke(pipetask, arguments)


def make_coadd(repo: Path, run: str = "coadds") -> None:
    """Give the repository a pipeline coadd: the reference of an earlier run."""
    with Butler.from_config(str(repo), writeable=True, run=run) as butler:
        coadd = butler.get("restored_coadd_reference", DATA_ID, collections="u/test/run")
        butler.registry.registerDatasetType(
            DatasetType("deep_coadd", tuple(DATA_ID), "CellCoadd", universe=butler.dimensions)
        )
        butler.put(coadd, "deep_coadd", DATA_ID)


@pytest.mark.slow
def test_outputs(finished: Path) -> None:
    with Butler.from_config(str(finished), collections="u/test/run") as butler:
        for name, storage_class in OUTPUTS.items():
            ref = butler.find_dataset(name, DATA_ID)
            assert ref is not None
            assert ref.datasetType.storageClass_name == storage_class
        restored: CellCoadd = butler.get("restored_coadd", DATA_ID)
        reference: CellCoadd = butler.get("restored_coadd_reference", DATA_ID)
        measurable: CellCoadd = butler.get("restored_coadd_measurable", DATA_ID)
        geometry = PatchGeometry.from_tract(butler.get("tract_geometry", DATA_ID, collections="sim"), 0)
        training = butler.get("restored_coadd_training", DATA_ID)
        metrics = butler.get("restored_coadd_metrics", DATA_ID)
        kernels = butler.get("restored_coadd_kernels", DATA_ID)
        naive = butler.get("restored_coadd_naive_mean", DATA_ID)
        picture = butler.getURI("restored_coadd_plot", DATA_ID).read()
        metadata = butler.get("restoreCoadd_metadata", DATA_ID)
    assert restored.bbox == reference.bbox == naive.bbox == geometry.outer_bbox
    assert restored.unit == naive.unit == "nJy"
    seen = np.isfinite(restored.image.array)
    assert seen.mean() > 0.95
    assert (restored.image.array[seen] >= 0).all()
    assert (restored.variance.array[seen] > 0).all()
    assert set(restored.mask.schema.names) == {"NO_DATA", "FEW_EXPOSURES", "INCONSISTENT", "NOT_CONVERGED"}
    assert set(restored.provenance.inputs["visit"]) == {1, 2, 3, 4}
    # As deep as the coadd: nothing of it depends on how well a network
    # restores.
    noise = measurable.image.array[seen] / np.sqrt(measurable.variance.array[seen])
    assert 0.7 < 1.48 * np.median(np.abs(noise - np.median(noise))) < 1.3
    assert measurable.bbox == reference.bbox
    assert training["step"][-1] == metrics["steps"] == 5
    assert metrics["loss"] == training["loss"][-1] < 0.7
    psf = restored.psf.compute_kernel_image(x=restored.bbox.x.center, y=restored.bbox.y.center)
    np.testing.assert_allclose(psf.array, target_kernel(), rtol=1e-6)
    assert kernels.shape == (4, 3, 3, 25, 25)
    assert picture.startswith(b"\x89PNG")
    assert metrics["n_exposures"] == 4
    assert metrics["device"] == "CPU"
    assert metadata["restoreCoadd:buildStack"]["n_exposures"] == 4


@pytest.mark.slow
def test_grid_and_comparison_from_the_pipeline_coadd(finished: Path, tmp_path: Path) -> None:
    """The same inputs on the same grid also give the same result to the bit."""
    repo = Path(shutil.copytree(finished, tmp_path / "repo"))
    make_coadd(repo)
    # The tract's grid is not among the inputs.
    result = run_pipeline(
        arguments(
            repo, "-i", "sim/run,coadds", run="u/test/coadd", config={"restoreCoadd:patchGeometry": "coadd"}
        )
    )
    assert result.exit_code == 0, result.output
    with Butler.from_config(str(repo), collections="u/test/run") as butler:
        first = butler.get("restored_coadd", DATA_ID)
        assert "pipeline_coadd" not in butler.get("restored_coadd_metrics", DATA_ID)["psnr"]
    with Butler.from_config(str(repo), collections="u/test/coadd") as butler:
        second = butler.get("restored_coadd", DATA_ID)
        metrics = butler.get("restored_coadd_metrics", DATA_ID)
    for name in ("sharpness", "sky_noise", "psnr", "ssim"):
        assert metrics[name]["pipeline_coadd"] == pytest.approx(metrics[name]["reference_coadd"])
    assert second.patch == first.patch
    np.testing.assert_array_equal(second.image.array, first.image.array)


def test_patch_without_coadd_is_no_work(repo: Path) -> None:
    with Butler.from_config(str(repo), writeable=True, run="coadds") as butler:
        butler.registry.registerDatasetType(
            DatasetType("deep_coadd", tuple(DATA_ID), "CellCoadd", universe=butler.dimensions)
        )
    config = {"restoreCoadd:patchGeometry": "coadd"}
    result = run_pipeline(arguments(repo, "-i", "sim,coadds", config=config))
    assert result.exit_code != 0
    with Butler.from_config(str(repo)) as butler:
        assert not butler.collections.query("u/*")


def test_calexps_without_afw(repo: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without lsst.afw the middleware refuses afw's exposures before anything
    runs, and names the dataset; the remedy is logged.
    """
    try:
        import lsst.afw  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("lsst.afw is here.")
    with Butler.from_config(str(repo), writeable=True) as butler:
        calexp = DatasetType(
            "calexp", ("instrument", "visit", "detector"), "ExposureF", universe=butler.dimensions
        )
        butler.registry.registerDatasetType(calexp)
        butler.collections.register("calexps")
        data_ids = [ref.dataId for ref in butler.query_datasets("visit_image", collections="sim")]
        butler.registry.insertDatasets(calexp, data_ids, run="calexps")
    config = {"restoreCoadd:connections.visit_images": "calexp"}
    with caplog.at_level(logging.INFO):
        result = run_pipeline(arguments(repo, "-i", "sim,calexps", config=config))
    assert result.exit_code != 0
    assert "Incompatible definition for input dataset type 'calexp'" in caplog.text
    assert "'butler ingest-exposures'" in caplog.text


def test_too_few_exposures(repo: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = {"restoreCoadd:buildStack.minExposures": 5}
    with caplog.at_level(logging.INFO):
        result = run_pipeline(arguments(repo, config=config))
    # Nothing to do is no failure, and leaves no restored coadd.
    assert result.exit_code == 0, result.output
    assert "minExposures=5" in caplog.text
    with Butler.from_config(str(repo), collections="u/test/run") as butler:
        assert butler.find_dataset("restored_coadd", DATA_ID) is None


def test_no_exposures(repo: Path) -> None:
    with Butler.from_config(str(repo), collections="sim") as butler:
        geometry = PatchGeometry.from_tract(butler.get("tract_geometry", DATA_ID), 0)
    task = RestoreCoaddTask(config=RestoreCoaddConfig())
    with pytest.raises(NoWorkFound, match="minExposures=2"):
        task.run([], geometry, "i")


@pytest.mark.slow
def test_visit_images_with_bad_psfs_are_dropped_and_counted(repo: Path) -> None:
    config = {"restoreCoadd:buildStack.maxKernelLoss": 1e-4, "restoreCoadd:buildStack.minExposures": 1}
    result = run_pipeline(arguments(repo, config=config))
    assert result.exit_code == 0, result.output
    with Butler.from_config(str(repo), collections="u/test/run") as butler:
        metadata = butler.get("restoreCoadd_metadata", DATA_ID)
    assert metadata["restoreCoadd:buildStack"]["n_visit_images_dropped"] > 0


KILLED_WRITE = """
description: The default pipeline, killed while it writes.
imports: resource://lsst.drp.restore/pipelines/restoreCoadd.yaml
tasks:
  restoreCoadd:
    class: killed_write.KilledWriteTask
"""


@pytest.mark.slow
def test_run_killed_while_it_writes_can_be_completed(repo: Path, tmp_path: Path) -> None:
    """SIGKILL leaves a repository that the same command completes;
    test_faults.py kills a single quantum while it trains.
    """
    pipeline = tmp_path / "killed.yaml"
    pipeline.write_text(KILLED_WRITE)
    path = os.pathsep.join([str(Path(__file__).parents[1] / "support"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.run(
        [str(Path(sys.executable).parent / "pipetask"), *arguments(repo, pipeline=str(pipeline))],
        env=dict(os.environ, PYTHONPATH=path),
        capture_output=True,
        text=True,
    )
    # Some outputs are on disk, others are not, and none is visible.
    assert process.returncode == -signal.SIGKILL, process.stderr
    written = [name for name in OUTPUTS if any((repo / "u/test/run" / name).rglob("*.*"))]
    assert sum(name.endswith("plot") for name in written) == 1
    with Butler.from_config(str(repo), collections="u/test/run") as butler:
        assert not any(butler.find_dataset(name, DATA_ID) for name in OUTPUTS)
    result = run_pipeline(arguments(repo, "--extend-run", "--skip-existing"))
    assert result.exit_code == 0, result.output
    with Butler.from_config(str(repo), collections="u/test/run") as butler:
        for name in OUTPUTS:
            assert butler.find_dataset(name, DATA_ID) is not None
        assert butler.get("restored_coadd", DATA_ID).bbox.shape == (150, 150)


@pytest.mark.slow
def test_pipeline_of_the_papers(repo: Path) -> None:
    pipeline = PIPELINE.replace("restoreCoadd.yaml", "restoreCoaddPaper.yaml")
    graph = Pipeline.from_uri(pipeline).to_graph()
    assert list(graph.tasks) == ["restoreCoadd", "detectRestoredSources"]
    config = graph.tasks["restoreCoadd"].config
    assert config.restorer.target is PublishedNetTask
    assert config.restorer.value.maxEpochs == 450
    command = ["run", "-b", str(repo), "-i", "sim", "--output-run", "u/test/net", "-p", pipeline, "-d", WHERE]
    command += ["--register-dataset-types", "-c", "restoreCoadd:characterize.numRealizations=2"]
    result = run_pipeline([*command, "-c", "restoreCoadd:restorer.maxEpochs=10"])
    assert result.exit_code == 0, result.output
    with Butler.from_config(str(repo), collections="u/test/net") as butler:
        assert butler.get("restored_coadd_metrics", DATA_ID)["steps"] == 10
        assert len(butler.get("restored_coadd_weights", DATA_ID)) > 1000
        # Its PSF is measured: it ends in pixels.
        psf = butler.get("restored_coadd", DATA_ID).psf
        measured = psf[next(iter(psf.bounds.cell_indices()))].array
        assert np.abs(measured - target_kernel()).max() > 1e-3


@pytest.mark.slow
def test_pipeline_of_image_mm(repo: Path) -> None:
    pipeline = PIPELINE.replace("restoreCoadd.yaml", "restoreCoaddImageMM.yaml")
    command = ["run", "-b", str(repo), "-i", "sim", "--output-run", "u/test/mm", "-p", pipeline, "-d", WHERE]
    result = run_pipeline([*command, "--register-dataset-types", "-c", "restoreCoadd:restorer.maxSteps=10"])
    assert result.exit_code == 0, result.output
    with Butler.from_config(str(repo), collections="u/test/mm") as butler:
        assert butler.get("restored_coadd_metrics", DATA_ID)["steps"] == 10
        assert len(butler.get("restored_coadd_training", DATA_ID)) == 10
        # It fits no weights.
        assert not butler.registry.queryDatasets("restored_coadd_weights", collections="u/test/mm").any(
            execute=False, exact=False
        )
        assert np.nanmin(butler.get("restored_coadd", DATA_ID).image.array) >= 0


@pytest.mark.parametrize(
    ("source", "geometry"),
    [
        ("tract", ("tract_geometry", {"skymap", "tract"}, "StructuredDataDict", False)),
        ("coadd", ("deep_coadd", set(DATA_ID), "CellCoadd", False)),
        ("skymap", ("skyMap", {"skymap"}, "SkyMap", False)),
    ],
)
def test_dataset_types_of_the_pipeline(
    repo: Path, source: str, geometry: tuple[str, set[str], str, bool]
) -> None:
    coadd = ("deep_coadd", set(DATA_ID), "CellCoadd", False)
    visits = ("visit_image", {"instrument", "visit", "detector"}, "VisitImage", False)
    tester = PipelineStepTester(
        filename=PIPELINE,
        step_suffixes=[""],
        initial_dataset_types=[visits, coadd, geometry],
        # The pipeline's own coadd is read where there is one.
        expected_inputs={"visit_image", "deep_coadd", geometry[0]},
        expected_outputs=set(OUTPUTS) | SOURCE_OUTPUTS,
        pipeline_patches={"restoreCoadd:patchGeometry": source},
    )
    with Butler.from_config(str(repo), writeable=True) as butler:
        tester.run(butler, unittest.TestCase())
