# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Weights of a run kept for others, through a real repository, ``butler`` and
``pipetask``.
"""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from repositories import simulate_repository

from lsst.ctrl.mpexec.cli.pipetask import cli as pipetask
from lsst.daf.butler import Butler
from lsst.daf.butler.cli.butler import cli as butler_command
from lsst.drp.restore.simulate_config import SimulationConfig

PIPELINE = "resource://lsst.drp.restore/pipelines/restoreCoadd.yaml"
INITIAL = "restored_coadd_initial_weights"


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with three small visits over two patches."""
    return simulate_repository(
        tmp_path_factory.mktemp("warm") / "repo",
        SimulationConfig(skymap="test", n_visits=3, detector_size=110, seed=11),
        patch_size=70,
        cell_size=50,
        n_patches=(2, 1),
    )


def run(repo: Path, collection: str, *inputs: str, patch: str = "0") -> Result:
    quick = {"cropSize": 32, "stepsPerEpoch": 5, "maxEpochs": 2, "computeDevice": "cpu"}
    return CliRunner().invoke(
        pipetask,
        [
            *("run", "-b", str(repo), "-i", ",".join(["sim", *inputs]), "--output-run", collection),
            *("-p", PIPELINE, "-d", f"skymap='test' AND tract=0 AND patch IN ({patch})"),
            *("--register-dataset-types", "-c", "restoreCoadd:warmStart=True"),
            *("-c", "restoreCoadd:characterize.numRealizations=2", "-c", "restoreCoadd:refine.steps=1"),
            *(
                item
                for name, value in quick.items()
                for item in ("-c", f"restoreCoadd:restorer.{name}={value}")
            ),
        ],
    )


def test_pipeline_starts_from_the_weights_of_an_earlier_run(repo: Path) -> None:
    # There are none yet, and the dataset type does not exist.
    result = run(repo, "u/cold")
    assert result.exit_code == 0, result.output
    assert "weights of an earlier run" not in result.output

    result = CliRunner().invoke(butler_command, ["keep-weights", str(repo), "u/cold", "--output", "kept"])
    assert result.exit_code == 0, result.output
    assert "weights of 1 restored coadds in collection 'kept'" in result.output
    # Again: those that are there are replaced.
    result = CliRunner().invoke(butler_command, ["keep-weights", str(repo), "u/cold", "--output", "kept"])
    assert result.exit_code == 0, result.output

    # The second patch has none of its own; the first one's are next to it.
    result = run(repo, "u/warm", "kept", patch="1")
    assert result.exit_code == 0, result.output
    data_id = {"skymap": "test", "tract": 0, "band": "i"}
    with Butler.from_config(str(repo)) as butler:
        cold = butler.get("restored_coadd_metrics", data_id, patch=0, collections="u/cold")
        warm = butler.get("restored_coadd_metrics", data_id, patch=1, collections="u/warm")
        fitted = butler.get("restored_coadd_weights", data_id, patch=0, collections="u/cold")
        kept = butler.get(INITIAL, data_id, patch=0, collections="kept")
    assert cold["warm_start"] == 0.0
    assert "initial_loss" not in cold
    assert warm["warm_start"] == 1.0
    assert np.isfinite(warm["initial_loss"])
    np.testing.assert_array_equal(kept["value"], fitted["value"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nowhere"], "no collection 'nowhere'"), (["sim"], "'sim' has no dataset")],
)
def test_weights_that_are_not_there_cannot_be_kept(repo: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(butler_command, ["keep-weights", str(repo), *arguments])
    assert result.exit_code != 0
    assert message in result.output
