# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Sites of Parsl: as many jobs at a time as cores and memory allow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bps_configs import load_config, seconds_per_patch

from lsst.ctrl.bps import BpsConfig
from lsst.ctrl.bps.parsl.site import SiteConfig
from lsst.drp.restore.parsl_sites import Local, Slurm, job_request


@pytest.mark.parametrize("site", ["slurm", "slurmGpu"])
def test_slurm(site: str, tmp_path: Path) -> None:
    config = load_config(site, tmp_path)
    sites = SiteConfig.from_config(config)
    assert isinstance(sites, Slurm)
    (executor,) = sites.get_executors()
    assert executor.cores_per_worker == config["requestCpus"]
    assert executor.mem_per_worker == config["requestMemory"] / 1024
    hours, minutes, seconds = map(int, executor.provider.walltime.split(":"))
    patches = config[".cluster.restorePatches.partitionMaxSize"]
    assert 3600 * hours + 60 * minutes + seconds >= patches * seconds_per_patch(config)
    assert ("--gpus-per-node=1" in executor.provider.scheduler_options) == (site == "slurmGpu")


@pytest.mark.parametrize(
    ("cores", "cpus", "memory", "jobs"), [(5, 2, 1, 2), (1, 2, 1, 1), (8, 1, 10**9, 1), (None, 1, 1, None)]
)
def test_one_node(cores: int | None, cpus: int, memory: int, jobs: int | None, tmp_path: Path) -> None:
    config = load_config("local", tmp_path)
    if cores is not None:
        config[".site.local.cores"] = cores
    config["requestCpus"], config["requestMemory"] = cpus, memory
    sites = SiteConfig.from_config(config)
    assert isinstance(sites, Local)
    (executor,) = sites.get_executors()
    assert executor.max_workers_per_node == (jobs or os.cpu_count())


def test_request_of_a_job() -> None:
    assert job_request(BpsConfig({"requestCpus": 3, "requestMemory": 4096})) == (3, 4096)
    with pytest.raises(KeyError, match="requestMemory"):
        job_request(BpsConfig({"requestCpus": 3}))
