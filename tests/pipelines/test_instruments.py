# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The pipelines of cameras whose data have their own names."""

from __future__ import annotations

import importlib.util
import unittest
from pathlib import Path

import pytest

from lsst.daf.butler import Butler
from lsst.drp.restore import PublishedNetTask, RestoreCoaddConfig
from lsst.images import get_legacy_visit_image_mask_planes
from lsst.pex.config import FieldValidationError
from lsst.pipe.base import Pipeline
from lsst.pipe.base.tests.pipelineStepTester import PipelineStepTester

HAS_AFW = importlib.util.find_spec("lsst.afw") is not None
# What stores exposures that lsst.afw wrote: without it, nothing can read them,
# and graphs with them are refused.
VISIT_CLASS = "ExposureF" if HAS_AFW else "VisitImage"

VISIT = {"instrument", "visit", "detector"}
WARP = {"instrument", "visit", "skymap", "tract", "patch"}
PATCH = {"skymap", "tract", "patch", "band"}

# Names in the repositories that drp_pipe's pipelines make; how the coadds are
# stored.
NAMES = {
    "HSC": ("calexp", "deepCoadd_directWarp", "deepCoadd_calexp", "ExposureF"),
    "DECam": ("calexp", "deepCoadd_directWarp", "deepCoadd_calexp", "ExposureF"),
    "LSSTCam": ("visit_image", "direct_warp", "deep_coadd", "CellCoadd"),
    "LSSTComCam": ("visit_image", "direct_warp", "deep_coadd", "ExposureF"),
}
OUTPUTS = {"restored_coadd", "restored_coadd_measurable", "restored_coadd_metrics"}


def uri(name: str) -> str:
    return f"resource://lsst.drp.restore/pipelines/{name}.yaml"


def config_of(name: str) -> RestoreCoaddConfig:
    config = Pipeline.from_uri(uri(name)).to_graph().tasks["restoreCoadd"].config
    assert isinstance(config, RestoreCoaddConfig)
    return config


def test_all_instruments_are_tested() -> None:
    top = Path(__file__).resolve().parents[2]
    assert {path.name for path in (top / "pipelines").iterdir() if path.is_dir()} == set(NAMES)


@pytest.mark.parametrize("source", ["visit_image", "direct_warp", "coadd"])
@pytest.mark.parametrize("instrument", list(NAMES))
def test_dataset_types(instrument: str, source: str, tmp_path: Path) -> None:
    """A repository with the camera's own names and types has what the pipeline
    asks for.
    """
    visits, warps, coadd, coadd_class = NAMES[instrument]
    inputs = {
        "visit_image": (visits, VISIT, VISIT_CLASS, False),
        "direct_warp": (warps, WARP, "ExposureF", False),
    }
    expected = {inputs[source][0], coadd, "skyMap"} if source in inputs else {coadd, "skyMap"}
    if source == "coadd" and coadd_class == "CellCoadd":
        # It has its own grid.
        expected.remove("skyMap")
    tester = PipelineStepTester(
        filename=uri(f"{instrument}/restoreCoadd"),
        step_suffixes=["#restoreCoadd"],
        initial_dataset_types=[
            *inputs.values(),
            (coadd, PATCH, coadd_class, False),
            ("skyMap", {"skymap"}, "SkyMap", False),
        ],
        expected_inputs=expected,
        expected_outputs=OUTPUTS,
        pipeline_patches={"restoreCoadd:inputType": source},
    )
    Butler.makeRepo(tmp_path / "repo")
    with Butler.from_config(str(tmp_path / "repo"), writeable=True) as butler:
        tester.run(butler, unittest.TestCase())


@pytest.mark.parametrize("instrument", list(NAMES))
def test_settings(instrument: str) -> None:
    config = config_of(f"{instrument}/restoreCoadd")
    assert config.inputType == "visit_image"
    assert config.patchGeometry == "skymap"
    assert config.warpStorageClass == "ExposureF"
    planes = get_legacy_visit_image_mask_planes()
    assert set(config.buildStack.value.badMaskPlanes) <= {plane.name for plane in planes.values()}
    # Those that lsst.afw has in every mask, and the camera's own.
    assert set(config.stackWarps.value.badMaskPlanes) >= {"BAD", "CR", "INTRP", "NO_DATA", "SAT", "SUSPECT"}
    assert set(config.stackWarps.value.badMaskPlanes) <= set(planes)
    assert ("SPIKE" in config.stackWarps.value.badMaskPlanes) == (instrument == "LSSTCam")


def test_pipeline_of_the_papers() -> None:
    config = config_of("HSC/restoreCoaddPaper")
    assert config.inputType == "direct_warp"
    assert config.connections.direct_warps == "deepCoadd_directWarp"
    assert config.restorer.target is PublishedNetTask
    assert config.restorer.value.maxEpochs == 450


def test_grid_of_a_coadd_without_cells() -> None:
    config = RestoreCoaddConfig(patchGeometry="coadd", coaddStorageClass="ExposureF")
    with pytest.raises(FieldValidationError, match="must be 'CellCoadd'"):
        config.validate()
