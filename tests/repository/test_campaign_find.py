# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restored patches found in a real repository."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from campaigns import DATA_ID, PATCH_5

from lsst.daf.butler import Butler
from lsst.drp.restore.repository.campaign.columns import COLUMNS
from lsst.drp.restore.repository.campaign.find import find_patches
from lsst.drp.restore.repository.campaign.patches import Patch, State

pytestmark = pytest.mark.slow


def find(repo: Path, *collections: str, where: str = "", bands: tuple[str, ...] = ()) -> dict[int, Patch]:
    """Find patches by their IDs, in the order "worst first"."""
    with Butler.from_config(str(repo), collections=collections or None) as butler:
        patches = find_patches(butler, collections, where=where, bands=bands).patches
    assert len({item.patch for item in patches}) == len(patches)
    return {item.patch: item for item in patches}


def test_worst_patches_come_first_with_the_reasons(campaign: Path) -> None:
    patches = find(campaign, "u/run", "u/failed", "u/idle")
    # How good a training of a moment is nobody knows.
    assert [number for number in patches if number != 5][:5] == [6, 1, 7, 2, 3]
    assert list(patches)[-1] == 9
    assert (patches[6].state, patches[9].state) == (State.FAILED, State.NO_WORK)
    warnings = {number: item.warnings for number, item in patches.items()}
    assert warnings[6].startswith("failed: initialFwhm has 2 values for 3 exposures")
    assert warnings[1] == "did not converge; 12% of the pixels inconsistent with the exposures"
    assert warnings[2].startswith("unusually high loss (0.650; median of the band 0.51")
    assert warnings[3] == "12% of the pixels without data; only 1 exposure; 2 visit images could not be used"
    assert warnings[7] == "the loss is not a number"
    assert warnings[9].startswith("nothing to restore: ")
    assert not warnings[4]


def test_values_and_position_of_a_restored_patch(campaign: Path) -> None:
    item = find(campaign, "u/run", where=PATCH_5)[5]
    assert item.values.keys() == COLUMNS.keys()
    assert all(value is not None and np.isfinite(value) for value in item.values.values())
    assert item.ra == pytest.approx(150.0, abs=0.01)
    assert item.dec == pytest.approx(2.0, abs=0.01)
    assert item.run == "u/run"
    assert {"restored_coadd", "restored_coadd_reference", "restored_coadd_training"} < item.datasets.keys()


def test_values_that_the_metrics_lack(campaign: Path) -> None:
    item = find(campaign, "u/run", where="tract=0 AND patch=4")[4]
    assert item.values["no_data"] is None and item.values["ssim"] is None
    assert item.values["loss"] == pytest.approx(0.504)


def test_metrics_that_cannot_be_read(campaign: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(campaign, tmp_path / "repo"))
    with Butler.from_config(str(copied)) as butler:
        path = butler.getURI("restored_coadd_metrics", DATA_ID, patch=8, collections="u/run").ospath
    Path(path).write_text("loss: [")
    patches = find(copied, "u/run")
    assert len(patches) == 12
    assert patches[8].state is State.UNREADABLE
    assert patches[8].warnings.startswith("the metrics cannot be read: ")


def test_metrics_that_are_not_there(campaign: Path, tmp_path: Path) -> None:
    """The task wrote them, and somebody removed them."""
    copied = Path(shutil.copytree(campaign, tmp_path / "repo"))
    with Butler.from_config(str(copied), writeable=True) as butler:
        refs = butler.query_datasets("restored_coadd_metrics", "u/run", where=PATCH_5)
        butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True)
    item = find(copied, "u/run")[5]
    assert item.state is State.UNREADABLE
    assert item.warnings == "the task finished, but its metrics are not in the repository"


def test_runs_and_search_paths(campaign: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(campaign, tmp_path / "repo"))
    with Butler.from_config(str(copied), writeable=True, run="u/again") as butler:
        metrics = butler.get("restored_coadd_metrics", DATA_ID, patch=5, collections="u/run")
        butler.put(metrics, "restored_coadd_metrics", DATA_ID, patch=5)
        both = find_patches(butler, where=PATCH_5).patches
        assert [item.run for item in both] == ["u/again", "u/run"]
        # In a search path the first one wins, and its own images are shown.
        (item,) = find_patches(butler, ["u/again", "u/run"], where=PATCH_5).patches
        assert item.run == "u/again"
        assert not item.datasets


def test_selection(campaign: Path) -> None:
    assert set(find(campaign, "u/run", where="tract=0 AND patch IN (3, 4)")) == {3, 4}
    assert len(find(campaign, "u/run", bands=("i", "r"))) == 12


@pytest.mark.parametrize(
    ("collections", "where", "bands", "message"),
    [
        (["nowhere"], "", (), "There is no such collection: .*nowhere"),
        (["sim"], "", (), r"No restored patches \('restored_coadd_metrics'\) in sim\."),
        (["u/run"], "", ("g",), "in band g"),
        (["u/run"], "skymap='test' AND tract=0 AND patch=99", (), "where .*patch=99"),
    ],
)
def test_empty_selections(
    campaign: Path, collections: list[str], where: str, bands: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        find(campaign, *collections, where=where, bands=bands)


def test_repository_without_any_restored_patch(tmp_path: Path) -> None:
    Butler.makeRepo(tmp_path / "repo")
    with pytest.raises(ValueError, match="in this repository"):
        find(tmp_path / "repo")


def test_loss_that_is_not_a_number(campaign: Path) -> None:
    loss = find(campaign, "u/run", where="tract=0 AND patch=7")[7].values["loss"]
    assert loss is not None and math.isnan(loss)
