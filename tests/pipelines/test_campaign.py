# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Many patches: the page about them, by ``bps submit`` with Parsl, and the files for other sites."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bps_configs import BPS, load_config, seconds_per_patch
from click.testing import CliRunner
from doc_pages import FOLDER, TOP, commands

import lsst.ctrl.bps
from lsst.ctrl.bps import BpsConfig, GenericWorkflow
from lsst.ctrl.bps.pre_transform import read_quantum_graph
from lsst.ctrl.bps.quantum_clustering_funcs import dimension_clustering
from lsst.ctrl.bps.transform import transform
from lsst.ctrl.mpexec.cli.pipetask import cli as pipetask
from lsst.daf.butler import Butler, Config
from lsst.daf.butler.cli.butler import cli as butler_cli

SITES = ["local", "slurm", "slurmGpu", "htcondor", "htcondorGpu", "panda"]
# The image does not matter here.
PIPELINE = """
description: A restoration of seconds.
imports:
- resource://lsst.drp.restore/pipelines/restoreCoaddImageMM.yaml
tasks:
  restoreCoadd:
    class: lsst.drp.restore.RestoreCoaddTask
    config:
      restorer.maxSteps: 3
      restorer.computeDevice: cpu
"""


def documented_commands(name: str, about: str = "") -> list[list[str]]:
    """Return the commands of a name on the page about campaigns, in order."""
    shown = [list(command.words) for command in commands(FOLDER / "campaign.md") if not command.inline]
    return [words for words in shown if words[0] == name and about in words[1]]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the commands of the page have been run."""
    directory = tmp_path_factory.mktemp("campaign")
    (directory / "bps").symlink_to(TOP / "bps")
    (directory / "quick.yaml").write_text(PIPELINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        for command in documented_commands("butler"):
            if command[1] != "aggregate-graph":
                result = CliRunner().invoke(butler_cli, command[1:])
                assert result.exit_code == 0, result.output
    environment = dict(os.environ, PWD=str(directory))
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    process = subprocess.run(
        [*documented_commands("bps")[0], "-p", "quick.yaml"],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return directory


def saved_graph(directory: Path) -> Path:
    (graph,) = directory.glob("submit/u/me/campaign/*/*.qg")
    return graph


def plan_jobs(config: BpsConfig, graph: Path, directory: Path) -> GenericWorkflow:
    """Divide a graph into jobs, as ``bps submit`` does."""
    config[".bps_defined.runQgraphFile"] = str(graph)
    clusters = dimension_clustering(config, read_quantum_graph(str(graph)), "u_me_campaign_now")
    workflow, _ = transform(config, clusters, str(directory))
    return workflow


@pytest.mark.slow
def test_every_patch_is_in_the_repository(campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(campaign)
    with Butler.from_config("demo/campaign", collections="u/me/campaign") as butler:
        for name in ("restored_coadd", "restored_source", "restoreCoadd_log"):
            refs = butler.query_datasets(name)
            assert sorted(ref.dataId["patch"] for ref in refs) == [0, 1, 2, 3]
        for ref in butler.query_datasets("restored_coadd"):
            assert np.nanmax(butler.get(ref).image.array) > 0
    # All in one process, which has loaded TensorFlow once.
    assert len(list(campaign.glob("submit/u/me/campaign/*/logs/restorePatches/**/*.stderr"))) == 1
    (report,) = documented_commands("pipetask", "report")
    result = CliRunner().invoke(pipetask, with_graph(report[1:], campaign))
    assert result.exit_code == 0, result.output
    assert "restoreCoadd" in result.output
    # What is registered already is left as it is.
    (register,) = documented_commands("butler", "aggregate-graph")
    result = CliRunner().invoke(butler_cli, with_graph(register[1:], campaign))
    assert result.exit_code == 0, result.output


def with_graph(arguments: list[str], directory: Path) -> list[str]:
    return [str(saved_graph(directory)) if argument.endswith(".qg") else argument for argument in arguments]


@pytest.mark.slow
def test_only_what_failed_is_done_again(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph of a second submission has the patches that are missing."""
    monkeypatch.chdir(campaign)
    first, again = documented_commands("bps")
    assert again[: len(first)] == first
    option, value = again[len(first) :]
    assert option == "--extra-qgraph-options"
    query = first[first.index("-d") + 1]
    where = f"{query} AND patch=2"
    with Butler.from_config("demo/campaign", writeable=True) as butler:
        refs = [
            ref
            for ref in butler.query_all_datasets("u/me/campaign", where=where, find_first=False)
            if ref.run.startswith("u/me/campaign/") and "patch" in ref.dataId
        ]
        assert refs
        butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True)
    graph = tmp_path / "again.qg"
    config = load_config(
        "local",
        tmp_path,
        data_query=query,
        pipeline="quick.yaml",
        extra_qgraph_options=value,
    )
    _, command = config.search("createQuantumGraph", opt={"curvals": {"qgraphFile": str(graph)}})
    result = CliRunner().invoke(pipetask, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    workflow = plan_jobs(config, graph, tmp_path)
    assert [name for name in workflow if name != "pipetaskInit"] == ["restorePatches_campaign_0_i_001"]
    job = workflow.get_job("restorePatches_campaign_0_i_001")
    assert dict(job.quanta_counts) == {"restoreCoadd": 1, "detectRestoredSources": 1}


@pytest.fixture
def panda_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration of a facility in ctrl_bps_panda, which is not installed."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config/bps_usdf.yaml").write_text("computeSite: SLAC\nfinalJob:\n  queue: Merge\n")
    monkeypatch.setenv("CTRL_BPS_PANDA_DIR", str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("site", SITES)
@pytest.mark.usefixtures("panda_site")
def test_jobs_ask_for_what_they_use(site: str, campaign: Path, tmp_path: Path) -> None:
    config = load_config(site, tmp_path)
    config[".cluster.restorePatches.partitionMaxSize"] = 3
    workflow = plan_jobs(config, saved_graph(campaign), tmp_path)
    jobs = [workflow.get_job(name) for name in workflow if name != "pipetaskInit"]
    assert sorted(job.quanta_counts["restoreCoadd"] for job in jobs) == [1, 3]
    for job in jobs:
        count = job.quanta_counts["restoreCoadd"]
        assert job.quanta_counts["detectRestoredSources"] == count
        assert job.request_cpus == job.cmdvals["requestCpus"] == config["requestCpus"]
        assert "--cores-per-quantum {requestCpus}" in job.arguments
        assert job.request_memory == config["requestMemory"]
        assert job.request_walltime == count * seconds_per_patch(config)
    final = workflow.get_final()
    assert (final.request_cpus, final.request_memory) == (1, 4096)
    assert final.queue == ("Merge" if site == "panda" else None)


def test_gpu_of_an_htcondor_job(tmp_path: Path) -> None:
    config = load_config("htcondorGpu", tmp_path)
    for label in config["cluster"]:
        # The plugin refuses request_gpus itself.
        assert dict(config[f".cluster.{label}.profile.condor"]) == {"+RequestGPUs": 1}


@pytest.mark.usefixtures("panda_site")
def test_keys_are_known() -> None:
    """A misspelled key would be ignored silently."""
    package = Path(lsst.ctrl.bps.__file__).parent
    known = "\n".join(path.read_text() for suffix in ("py", "yaml") for path in package.rglob(f"*.{suffix}"))
    words = set(re.findall(r"\w+", known))
    # Of the plugins that are not installed here.
    words |= {"LSST_VERSION", "custom_lsst_setup", "condor", "+RequestGPUs"}
    labels = {"restoreCoadd", "restoreMultibandCoadd", "detectRestoredSources", "slurm"}
    labels |= {"restorePatches", "restorePatchesMultiband"}
    for site in SITES:
        for name in Config(str(BPS / f"{site}.yaml")).nameTuples():
            assert set(name) <= words | labels, (site, name)
