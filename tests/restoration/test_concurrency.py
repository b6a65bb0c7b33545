# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Quanta that run at the same time use no more cores than they were given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from repositories import simulate_repository

from lsst.daf.butler import Butler
from lsst.drp.restore.simulation.config import SimulationConfig

PIPELINE = """
description: A restoration of seconds whose threads are watched.
tasks:
  restoreCoadd:
    class: thread_report.ThreadReportTask
    config:
      restorer.computeDevice: cpu
"""


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with visits over two patches."""
    return simulate_repository(
        tmp_path_factory.mktemp("concurrency") / "repo",
        SimulationConfig(skymap="test", n_visits=3, detectors=(1, 1), detector_size=150, psf="gaussian"),
        patch_size=48,
        patch_border=8,
        cell_size=32,
        n_patches=(2, 1),
        dec=2.2,
    )


@pytest.mark.slow
@pytest.mark.parametrize("n_cores", [1, 2])
def test_processes_keep_to_their_cores(n_cores: int, repo: Path) -> None:
    """Every library that computes in threads is told the number of cores."""
    folder = repo.parent
    (folder / "watched.yaml").write_text(PIPELINE)
    # The limits are the task's own, not those of the environment.
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parents[1] / "support"), *filter(None, [environment.get("PYTHONPATH")])]
    )
    run = f"u/me/cores{n_cores}"
    command = f"""
        {Path(sys.executable).parent}/pipetask run --register-dataset-types -b repo -i sim -o {run}
        -p watched.yaml -j 2 --cores-per-quantum {n_cores}
    """
    result = subprocess.run(command.split(), cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    with Butler.from_config(str(repo), collections=run) as butler:
        refs = butler.query_datasets("restoreCoadd_metadata")
        reports = [butler.get(ref)["restoreCoadd"] for ref in refs]
    assert len({report["process"] for report in reports}) == 2
    for report in reports:
        # A process that was forked from one that has used TensorFlow hangs.
        assert report["start_method"] != "fork"
        assert (report["intra_op"], report["inter_op"]) == (1, n_cores)
        # Of BLAS and OpenMP: work in threads is on this package's own.
        assert set(report.getArray("pools")) == {1}
        assert set(report.getArray("executors")) == {n_cores}
