# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A repository with the campaign that ``butler inspect-restored`` is tested with."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from repositories import simulate_repository

from lsst.ctrl.mpexec.cli.pipetask import cli as pipetask
from lsst.daf.butler import Butler
from lsst.drp.restore.simulation.config import SimulationConfig

PATCH_5 = "skymap='test' AND tract=0 AND patch=5"
DATA_ID = {"skymap": "test", "tract": 0, "band": "i"}

_PIPELINE = "resource://lsst.drp.restore/pipelines/restoreCoadd.yaml"
_QUICK = {"restorer.computeDevice": "cpu", "characterize.numRealizations": 2}
_FAILING = {"fitKernels.mode": "gaussian", "fitKernels.initialFwhm": "[1.0, 2.0]"}
_IMAGES = ("restored_coadd", "restored_coadd_reference", "restored_coadd_training")


def restore(repo: Path, run: str, patch: int, **config: Any) -> Result:
    """Restore a patch by ``pipetask``."""
    return CliRunner().invoke(
        pipetask,
        [
            *("run", "-b", str(repo), "-i", "sim", "--output-run", run, "--register-dataset-types"),
            *("-p", f"{_PIPELINE}#restoreCoadd", "-d", f"skymap='test' AND tract=0 AND patch={patch}"),
            *(item for k, v in (_QUICK | config).items() for item in ("-c", f"restoreCoadd:{k}={v}")),
        ],
    )


def make_campaign(root: Path) -> Path:
    """Make a repository with a campaign of 12 patches.

    Parameters
    ----------
    root : `pathlib.Path`
        Folder to make.

    Returns
    -------
    root : `pathlib.Path`
        The same.  ``u/run`` has a restored patch, 5, and copies of it with
        other metrics; ``u/failed`` has a patch, 6, whose task failed, and
        ``u/idle`` one, 9, whose task found nothing to do.
    """
    simulate_repository(
        root,
        SimulationConfig(skymap="test", n_visits=3, detector_size=110, seed=11, patch=5),
        patch_size=70,
        cell_size=50,
        n_patches=(4, 4),
    )
    result = restore(root, "u/run", 5)
    assert result.exit_code == 0, result.output
    assert restore(root, "u/failed", 6, **_FAILING).exit_code != 0
    result = restore(root, "u/idle", 9, **{"buildStack.minExposures": 4})
    assert result.exit_code == 0, result.output
    with Butler.from_config(str(root), writeable=True, run="u/run") as butler:
        originals = {name: butler.get(name, DATA_ID, patch=5) for name in _IMAGES}
        metrics = butler.get("restored_coadd_metrics", DATA_ID, patch=5)
        for patch in (0, 1, 2, 3, 4, 7, 8, 10, 11, 12, 13):
            butler.put(_changed(metrics, patch), "restored_coadd_metrics", DATA_ID, patch=patch)
            for name, dataset in originals.items():
                # Patch 12 has no reference coadd, patch 13 no image.
                if patch < 12 or (patch == 12 and name == "restored_coadd"):
                    butler.put(dataset, name, DATA_ID, patch=patch)
    return root


def _changed(metrics: dict[str, Any], patch: int) -> dict[str, Any]:
    """Return the metrics of a copy: most are those of a good patch."""
    metrics = copy.deepcopy(metrics)
    metrics |= {"converged": True, "inconsistent_fraction": 0.01, "no_data_fraction": 0.01, "pedestal": 0.0}
    metrics["loss"] = 0.5 + 0.001 * patch
    metrics["sharpness"]["restored"] = metrics["sharpness"]["reference_coadd"] + 0.5
    metrics["ssim"]["reference_coadd"] = 0.98
    match patch:
        case 1:
            metrics["converged"] = False
            metrics["inconsistent_fraction"] = 0.123
        case 2:
            metrics["loss"] = 0.65
        case 3:
            metrics["no_data_fraction"] = 0.12
            metrics["n_exposures"], metrics["n_dropped"] = 1, 2
        case 4:
            # Of an older version.
            del metrics["no_data_fraction"], metrics["ssim"], metrics["kernel_fraction"]
        case 7:
            metrics["loss"] = math.nan
    return metrics
