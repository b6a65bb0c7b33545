# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Several quanta at a time use no more cores than they were given."""

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


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="Threads are looked up in /proc.")
def test_processes_keep_to_their_cores(tmp_path: Path) -> None:
    simulate_repository(
        tmp_path / "repo",
        SimulationConfig(skymap="test", n_visits=3, detectors=(1, 1), detector_size=150, psf="gaussian"),
        patch_size=48,
        patch_border=8,
        cell_size=32,
        n_patches=(2, 1),
        dec=2.2,
    )
    (tmp_path / "watched.yaml").write_text(PIPELINE)
    # What the environment says of threads is not what keeps them few.
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parents[1] / "support"), *filter(None, [environment.get("PYTHONPATH")])]
    )
    command = f"""
        {Path(sys.executable).parent}/pipetask run --register-dataset-types -b repo -i sim -o u/me/two
        -p watched.yaml -j 2 --cores-per-quantum 1
    """
    result = subprocess.run(command.split(), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    with Butler.from_config(str(tmp_path / "repo"), collections="u/me/two") as butler:
        refs = butler.query_datasets("restoreCoadd_metadata")
        reports = [butler.get(ref)["restoreCoadd"] for ref in refs]
    assert len({report["process"] for report in reports}) == 2
    for report in reports:
        # A process that was forked from one that has used TensorFlow hangs.
        assert report["start_method"] != "fork"
        assert (report["intra_op"], report["inter_op"]) == (1, 1)
        assert set(report.getArray("pools")) == {1}
        # There are more threads, but one works at a time.  An exception: the
        # next crops are made while the network learns from the last.
        assert report["cpu_per_wall"] < 1.3
        *others, busiest = report.getArray("thread_seconds")
        assert sum(others) < 0.35 * busiest
