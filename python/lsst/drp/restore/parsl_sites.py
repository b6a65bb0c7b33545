# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Parsl sites for ``bps submit`` that limit the number of jobs on a node by
the cores and the memory that the jobs request.

The sites of ctrl_bps_parsl run one job per core, or a configured number of
jobs, whatever the jobs request.
"""

from __future__ import annotations

__all__ = ("Local", "Slurm")

import os

import psutil
from parsl.executors import HighThroughputExecutor
from parsl.executors.base import ParslExecutor
from parsl.providers import LocalProvider

from lsst.ctrl.bps import BpsConfig
from lsst.ctrl.bps.parsl import sites
from lsst.ctrl.bps.parsl.configuration import get_bps_config_value


class Local(sites.Local):
    """The machine that ``bps submit`` runs on.

    The number of concurrent jobs is limited by ``requestCpus`` and
    ``site.<computeSite>.cores`` (default: all cores), and by ``requestMemory``
    and the memory that is free when the workflow starts; it is at least one.
    """

    def get_executors(self) -> list[ParslExecutor]:
        """Return the executor."""
        cpus, memory = job_request(self.config)
        cores = get_bps_config_value(self.site, "cores", int, os.cpu_count() or 1)
        n_jobs = min(cores // cpus, int(psutil.virtual_memory().available / 2**20 / memory))
        return [
            HighThroughputExecutor("local", provider=LocalProvider(), max_workers_per_node=max(1, n_jobs))
        ]


class Slurm(sites.Slurm):
    """A Slurm cluster.

    The number of concurrent jobs on a node is limited by ``requestCpus`` and
    ``requestMemory``.
    """

    def get_executors(self) -> list[ParslExecutor]:
        """Return the executor."""
        cpus, memory = job_request(self.config)
        return [
            self.make_executor(
                "slurm", mem_per_worker=memory / 1024, executor_options={"cores_per_worker": cpus}
            )
        ]


def job_request(config: BpsConfig) -> tuple[int, int]:
    """Return the resources that a job requests.

    Parameters
    ----------
    config : `lsst.ctrl.bps.BpsConfig`
        Configuration.

    Returns
    -------
    cpus : `int`
        Its ``requestCpus``.
    memory : `int`
        Its ``requestMemory``, MB.
    """
    return (
        get_bps_config_value(config, "requestCpus", int, required=True),
        get_bps_config_value(config, "requestMemory", int, required=True),
    )
