# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A small campaign in which almost everything goes wrong, its completion, and
the reproduction of one of its patches.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from repositories import simulate_repository

from lsst.ctrl.mpexec.cli.pipetask import cli as pipetask
from lsst.daf.butler import Butler, DatasetRef, MissingCollectionError, MissingDatasetTypeError
from lsst.drp.restore.simulation.config import SimulationConfig
from lsst.images import VisitImage
from lsst.images.cells import CellCoadd

pytestmark = pytest.mark.slow

PIPETASK = str(Path(sys.executable).parent / "pipetask")
PIPELINE = "resource://lsst.drp.restore/pipelines/restoreCoaddPaper.yaml#restoreCoadd"
RUN = "u/test/run"
# In the order in which they are written.
OUTPUTS = (
    "restored_coadd",
    "restored_coadd_measurable",
    "restored_coadd_reference",
    "restored_coadd_naive_mean",
    "restored_coadd_training",
    "restored_coadd_metrics",
    "restored_coadd_plot",
    "restored_coadd_training_plot",
    "restored_coadd_kernels",
    "restored_coadd_kernels_plot",
    "restored_coadd_weights",
)
# What is wrong with each patch; no two of them have a visit in common.
DAMAGED, KILLED, EXTREME, PSF, FULL = range(0, 15, 3)
PATCHES = (DAMAGED, KILLED, EXTREME, PSF, FULL)
QUICK = {
    "restoreCoadd:restorer.kernelSizes": [3],
    "restoreCoadd:restorer.maxEpochs": 10,
    "restoreCoadd:restorer.computeDevice": "cpu",
    "restoreCoadd:characterize.numRealizations": 2,
}
# Smaller than any image.
SMALL_DISK = 'mount -t tmpfs -o size=8k tmpfs "$0" && exec "$@"'


@dataclasses.dataclass
class Campaign:
    """A run of five patches in a repository, and what was seen of it."""

    repo: Path
    command: list[str]
    exit_code: int
    output: str
    # Which of OUTPUTS were visible in each patch, each time another client looked.
    seen: list[dict[int, list[bool]]]
    # What the summary says of each patch.
    quanta: dict[int, dict[str, Any]]
    graph: Path
    log: Path
    full_disk: bool
    finished: list[DatasetRef]

    def message(self, patch: int) -> str:
        return self.quanta[patch]["exceptionInfo"]["message"]


def visits(patch: int) -> range:
    first = 10 * PATCHES.index(patch) + 1
    return range(first, first + (4 if patch == DAMAGED else 3))


def make_repo(root: Path) -> None:
    simulations = [
        SimulationConfig(
            skymap="test",
            patch=patch,
            collection=f"sim{patch}",
            n_visits=len(visits(patch)),
            first_visit=visits(patch).start,
            detectors=(1, 1),
            detector_size=110,
            dither_radius=1.0,
            star_density=5.0,
            bright_stars=1,
            seed=11,
        )
        for patch in PATCHES
    ]
    simulate_repository(root, *simulations, patch_size=60, cell_size=30, n_patches=(PATCHES[-1] + 1, 1))


def break_exposures(butler: Butler, patch: int, change: Callable[[VisitImage], None]) -> None:
    """Write changed copies of a patch's exposures to the collection "bad"."""
    butler.collections.register("bad")
    for ref in visit_images(butler, patch):
        image = butler.get(ref)
        change(image)
        butler.put(image, "visit_image", ref.dataId, run="bad")


def visit_images(butler: Butler, patch: int, collection: str | None = None) -> list[DatasetRef]:
    refs = butler.query_datasets(
        "visit_image",
        collections=collection or f"sim{patch}",
        where="instrument='SimCam' AND visit IN (visits)",
        bind={"visits": list(visits(patch))},
    )
    return sorted(refs, key=lambda ref: ref.dataId["visit"])


def make_extreme(image: VisitImage) -> None:
    image.image.array[40:70, 40:70] = 1e38


def make_psf_fail(image: VisitImage) -> None:
    # An ellipticity that no galaxy and no star has.
    image.psf.piff_psf.interp.q[1, 0] = 2.0


def damage_files(butler: Butler) -> None:
    """Cut the first file of a patch in two, and overwrite a part of the
    second one's pixels.
    """
    first, second = (Path(butler.getURI(ref).ospath) for ref in visit_images(butler, DAMAGED)[:2])
    with first.open("r+b") as file:
        file.truncate(first.stat().st_size // 2)
    with fits.open(second) as hdus:
        info = hdus.fileinfo(1)
    with second.open("r+b") as file:
        file.seek(info["datLoc"] + info["datSpan"] // 2)
        file.write(np.random.default_rng(1).bytes(200))


def visible(repo: Path) -> dict[int, list[bool]]:
    """Return which outputs of each patch a new client sees.

    It asks for them in the order in which they are written: if they are
    published all at once, those it sees come last.
    """
    result: dict[int, list[bool]] = {patch: [] for patch in PATCHES}
    with Butler.from_config(str(repo)) as butler:
        for name in OUTPUTS:
            try:
                refs = butler.query_datasets(name, collections=RUN, explain=False)
            except (MissingCollectionError, MissingDatasetTypeError):
                refs = []
            there = {ref.dataId["patch"] for ref in refs}
            for patch in PATCHES:
                result[patch].append(patch in there)
    return result


def watch(process: subprocess.Popen[str], repo: Path, log: Path) -> list[dict[int, list[bool]]]:
    """Kill one quantum while it trains; return what was visible until the
    end.
    """
    seen, read, killed, looked = [], 0, False, 0.0
    while process.poll() is None:
        if not killed and log.exists():
            text = log.read_text()
            text = text[: text.rfind("\n") + 1]
            for line in text[read:].splitlines():
                record = json.loads(line)
                label = record["MDC"].get("LABEL", "")
                if record["message"].startswith("Fitting") and re.search(rf"patch: {KILLED}\b", label):
                    os.kill(record["process"], signal.SIGKILL)
                    killed = True
            read = len(text)
        if time.monotonic() - looked > 1.0:
            seen.append(visible(repo))
            looked = time.monotonic()
        time.sleep(0.02)
    assert killed
    return [*seen, visible(repo)]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """The run in which each patch has a fault of its own."""
    root = tmp_path_factory.mktemp("campaign")
    repo, log, summary, graph = (root / name for name in ("repo", "log.json", "summary.json", "graph.qg"))
    make_repo(repo)
    with Butler.from_config(str(repo), writeable=True) as butler:
        damage_files(butler)
        break_exposures(butler, EXTREME, make_extreme)
        break_exposures(butler, PSF, make_psf_fail)
    collections = ",".join(["bad", *(f"sim{patch}" for patch in PATCHES)])
    where = f"skymap='test' AND tract=0 AND band='i' AND patch IN ({', '.join(map(str, PATCHES))})"
    command = ["run", "-b", str(repo), "-i", collections, "--output-run", RUN, "-p", PIPELINE, "-d", where]
    command += ["--register-dataset-types"]
    for key, value in QUICK.items():
        command += ["-c", f"{key}={value}"]

    # A disk without space for one dataset of one patch.  Where only an administrator can make one, a file
    # takes the place of the folder.
    place = repo / RUN / "restored_coadd_reference" / "0" / str(FULL)
    place.mkdir(parents=True)
    prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c", SMALL_DISK, str(place)]
    full_disk = (
        bool(shutil.which("unshare")) and not subprocess.run([*prefix, "true"], check=False).returncode
    )
    if not full_disk:
        place.rmdir()
        place.touch()
        prefix = []
    extra = ["-j", "2", "--save-qgraph", str(graph), "--summary", str(summary)]
    with (root / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [*prefix, PIPETASK, "--log-file", str(log), *command, *extra],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
        seen = watch(process, repo, log)
    if place.is_file():
        place.unlink()
    with Butler.from_config(str(repo)) as butler:
        finished = [
            ref
            for name in OUTPUTS
            for ref in butler.query_datasets(
                name, collections=RUN, where=f"patch={DAMAGED} AND skymap='test'"
            )
        ]
    quanta = {
        quantum["dataId"]["patch"]: quantum for quantum in json.loads(summary.read_text())["quantaReports"]
    }
    text = (root / "output.txt").read_text()
    return Campaign(repo, command, process.returncode, text, seen, quanta, graph, log, full_disk, finished)


@pytest.fixture(scope="module")
def completed(campaign: Campaign) -> Campaign:
    """The same repository after the causes have been removed and the same
    command has been run again.
    """
    with Butler.from_config(str(campaign.repo), writeable=True) as butler:
        refs = [ref for patch in (EXTREME, PSF) for ref in visit_images(butler, patch, "bad")]
        butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True)
    result = CliRunner().invoke(
        pipetask, [*campaign.command, "--extend-run", "--skip-existing", "--clobber-outputs"]
    )
    assert result.exit_code == 0, result.output
    return campaign


def test_others_finish_and_the_summary_says_what_failed_and_why(campaign: Campaign) -> None:
    assert campaign.exit_code not in (0, -signal.SIGKILL)
    status = {patch: quantum["status"] for patch, quantum in campaign.quanta.items()}
    assert status == {patch: "success" if patch == DAMAGED else "failure" for patch in PATCHES}
    assert campaign.quanta[KILLED]["exitCode"] == -signal.SIGKILL
    assert "killed by signal 9" in campaign.output
    assert "DivergedError" in campaign.quanta[EXTREME]["exceptionInfo"]["className"]
    assert re.search(r"diverged.*learning rate.*e\+38 nJy, on SimCam visit 2", campaign.message(EXTREME))
    assert "InputError" in campaign.quanta[PSF]["exceptionInfo"]["className"]
    assert re.search(
        r"3 others are damaged. Repair.*--skip-existing.*SimCam visit 31 detector 0: its PSF fails",
        campaign.message(PSF),
        re.DOTALL,
    )


def test_write_to_a_full_disk_or_to_a_place_that_cannot_be_written(campaign: Campaign) -> None:
    expected = "No space left on device" if campaign.full_disk else "Not a directory"
    message = campaign.message(FULL)
    assert expected in message
    assert "nothing of it is left" in message
    assert "--extend-run --skip-existing --clobber-outputs" in message
    assert "restored_coadd_reference" in message


def test_diverged_training_was_repeated_once(campaign: Campaign) -> None:
    records = [json.loads(line) for line in campaign.log.read_text().splitlines()]
    (warning,) = (record for record in records if "Retrying from fresh weights" in record["message"])
    assert warning["levelname"] == "WARNING"
    assert f"patch: {EXTREME}}}" in warning["MDC"]["LABEL"]


def test_report_names_the_failed_patches(campaign: Campaign, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = CliRunner().invoke(
        pipetask,
        [
            *("report", "--force-v2", "--full-output-filename", str(report)),
            *(str(campaign.repo), str(campaign.graph)),
        ],
    )
    assert result.exit_code == 0, result.output
    task = json.loads(report.read_text())["tasks"]["restoreCoadd"]
    # A killed process leaves no log: the report counts it, the summary names it.
    assert (task["n_expected"], task["n_successful"], task["n_failed"], task["n_unknown"]) == (5, 1, 3, 1)
    failed = {quantum["data_id"]["patch"]: quantum["messages"][0] for quantum in task["failed_quanta"]}
    assert set(failed) == {EXTREME, PSF, FULL}
    assert "diverged" in failed[EXTREME] and "damaged" in failed[PSF] and "cannot be written" in failed[FULL]


def test_no_partial_patch_is_ever_visible(campaign: Campaign) -> None:
    for seen in campaign.seen:
        for outputs in seen.values():
            assert outputs == sorted(outputs)
    last = campaign.seen[-1]
    assert {patch: sum(outputs) for patch, outputs in last.items()} == {
        patch: len(OUTPUTS) if patch == DAMAGED else 0 for patch in PATCHES
    }


def test_damaged_files_cost_their_exposures(campaign: Campaign) -> None:
    with Butler.from_config(str(campaign.repo), collections=RUN) as butler:
        metrics = butler.get("restored_coadd_metrics", skymap="test", tract=0, patch=DAMAGED, band="i")
        metadata = butler.get("restoreCoadd_metadata", skymap="test", tract=0, patch=DAMAGED, band="i")
    assert metrics["n_exposures"] == metrics["n_dropped"] == 2
    assert (
        metrics["dropped"]["SimCam visit 1 detector 0"]
        == "its file does not have the size with which it was written"
    )
    assert metrics["dropped"]["SimCam visit 2 detector 0"].startswith("its file cannot be decoded")
    assert metadata["restoreCoadd:buildStack"]["n_visit_images_damaged"] == 2
    # Nobody's folders are in the metrics.
    assert str(campaign.repo) not in json.dumps(metrics)
    # But the log says where the file is.
    assert re.search(r"Dropping SimCam visit 1 detector 0.*file://.*/visit_image/", campaign.output)


def test_run_is_completed_when_the_causes_are_gone(completed: Campaign) -> None:
    assert all(all(outputs) for outputs in visible(completed.repo).values())
    with Butler.from_config(str(completed.repo), collections=RUN) as butler:
        for patch in PATCHES:
            coadd: CellCoadd = butler.get("restored_coadd", skymap="test", tract=0, patch=patch, band="i")
            assert set(coadd.provenance.inputs["visit"]) == set(visits(patch)[2 if patch == DAMAGED else 0 :])
            metrics = butler.get("restored_coadd_metrics", skymap="test", tract=0, patch=patch, band="i")
            assert metrics["n_retries"] == 0
        # What had been finished was left alone.
        assert len(completed.finished) == len(OUTPUTS)
        for ref in completed.finished:
            assert butler.find_dataset(ref.datasetType.name, ref.dataId) == ref


def test_patch_is_reproduced_to_the_bit_from_what_is_stored(campaign: Campaign, tmp_path: Path) -> None:
    """With nothing but the repository, by another process; the first time the
    damaged exposures were among the inputs.
    """
    data_id = {"skymap": "test", "tract": 0, "patch": DAMAGED, "band": "i"}
    with Butler.from_config(str(campaign.repo), collections=RUN) as butler:
        first = {name: butler.get(name, data_id) for name in OUTPUTS if not name.endswith("plot")}
        config = butler.get("restoreCoadd_config")
    inputs = first["restored_coadd"].provenance.inputs
    used = first["restored_coadd"].butler_provenance.inputs
    stored_in = {ref.run for ref in used if ref.datasetType.name == "visit_image"}
    config.save(str(tmp_path / "config.py"))
    where = (
        f"skymap='test' AND tract=0 AND patch={DAMAGED} AND band='i' "
        f"AND instrument='{inputs['instrument'][0]}' AND visit IN ({', '.join(map(str, inputs['visit']))})"
    )
    collections = ",".join([*sorted(stored_in), "skymaps"])
    result = subprocess.run(
        [
            *(PIPETASK, "run", "-b", str(campaign.repo), "-i", collections, "--output-run", "u/test/again"),
            *("-p", PIPELINE, "-d", where, "-C", f"restoreCoadd:{tmp_path / 'config.py'}"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    with Butler.from_config(str(campaign.repo), collections="u/test/again") as butler:
        second = {name: butler.get(name, data_id) for name in first}
    for name in ("restored_coadd", "restored_coadd_measurable", "restored_coadd_reference"):
        for one, other in zip(planes(first[name]), planes(second[name]), strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        first["restored_coadd_naive_mean"].array, second["restored_coadd_naive_mean"].array
    )
    np.testing.assert_array_equal(first["restored_coadd_kernels"], second["restored_coadd_kernels"])
    np.testing.assert_array_equal(
        first["restored_coadd_weights"]["value"], second["restored_coadd_weights"]["value"]
    )
    np.testing.assert_array_equal(
        first["restored_coadd_training"]["loss"], second["restored_coadd_training"]["loss"]
    )
    provenance = first["restored_coadd_metrics"]["provenance"]
    assert provenance == second["restored_coadd_metrics"]["provenance"]
    assert provenance["backend"] == "tensorflow"
    assert provenance["deterministic"]
    assert provenance["threads_within_operations"] == 1
    assert {"keras", "lsst-drp-restore", "numpy", "python", "tensorflow"} <= set(provenance["versions"])


def planes(coadd: CellCoadd) -> list[np.ndarray]:
    return [
        *(coadd.image.array, coadd.variance.array, coadd.mask.array),
        *(noise.array for noise in coadd.noise_realizations),
        np.stack([coadd.psf.compute_kernel_image(x=x, y=y).array for x, y in centers(coadd)]),
    ]


def centers(coadd: CellCoadd) -> list[tuple[float, float]]:
    box = coadd.bbox
    return [
        (x, y)
        for x in range(box.x.start + 15, box.x.stop, 30)
        for y in range(box.y.start + 15, box.y.stop, 30)
    ]
