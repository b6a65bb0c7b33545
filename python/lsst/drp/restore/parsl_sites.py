# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Parsl sites for ``bps submit`` on which jobs do not share cores.

Those of ctrl_bps_parsl start as many jobs on a node as it has cores, or as
they are told to, whatever a job asks for.
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

    Runs as many jobs at a time as find their ``requestCpus`` among
    ``site.<computeSite>.cores`` (default: all cores) and their
    ``requestMemory`` in the memory that is free when the workflow starts, but
    one in any case.
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

    Runs as many jobs at a time on a node as find their ``requestCpus`` and
    ``requestMemory`` there.
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
    """Return what a job asks for.

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
