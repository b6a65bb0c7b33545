# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A deep coadd restored without visits, through a real repository and
``pipetask``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import astropy.table
import numpy as np
import pytest
from click.testing import CliRunner
from coadds import CoaddHandle, coadd_visits, write_coadd
from simulations import CLEAN, make_repository, simulate
from warps import GEOMETRY, make_warp

from lsst.ctrl.mpexec.cli.pipetask import cli as pipetask
from lsst.daf.butler import Butler
from lsst.drp.restore import PatchGeometry, RestoreMultibandCoaddConfig, RestoreMultibandCoaddTask
from lsst.drp.restore.restoration.target_psf import TARGET_FWHM
from lsst.drp.restore.stack.kernel_shape import fwhm
from lsst.images.cells import CellCoadd

PIPELINE = "resource://lsst.drp.restore/pipelines/restoreDeepCoadd.yaml"
DATA_ID = {"skymap": "field", "tract": 0, "patch": 0, "band": "i"}
N_VISITS = 5
# Positions of the stars on the patch, pixels, and their flux, nJy (21 mag).
STARS = [(x + 0.3, y - 0.2) for x in (35, 80, 125, 165) for y in (35, 80, 125, 165)]
FLUX = 1.4e4


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with visits of a field of stars."""
    root = make_repository(tmp_path_factory.mktemp("visits") / "repo")
    with Butler.from_config(str(root), writeable=True) as butler:
        geometry = read_geometry(butler)
        start = geometry.outer_bbox.start
        x, y = np.transpose(STARS) + np.array([[start.x], [start.y]])
        sky = geometry.sky_projection.pixel_to_sky_transform.apply_forward(x=x, y=y)
        catalog = astropy.table.Table(
            {"ra": np.degrees(sky.x), "dec": np.degrees(sky.y), "flux_nJy": np.full(len(x), FLUX)}
        )
        options = CLEAN | {"noise": True, "cosmic_rays": 20.0}
        simulate(
            butler, **options, catalog=catalog, n_visits=N_VISITS, detectors=(1, 1), detector_size=290, seed=5
        )
    return root


@pytest.fixture(scope="module")
def repo(visits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the coadd of these visits and nothing else."""
    with Butler.from_config(str(visits), collections="sim") as butler:
        coadd = coadd_visits(butler, read_geometry(butler))
    root = tmp_path_factory.mktemp("coadd") / "repo"
    write_coadd(visits, root, coadd, DATA_ID)
    return root


def read_geometry(butler: Butler) -> PatchGeometry:
    return PatchGeometry.from_tract(butler.get("tract_geometry", DATA_ID, collections="skymaps"), 0)


def run_pipeline(repo: Path, *extra: str, run: str = "u/test/restored") -> Any:
    return CliRunner().invoke(
        pipetask,
        [
            *("run", "-b", str(repo), "-i", "coadds", "--output-run", run, "-p", PIPELINE),
            *("-d", "skymap='field' AND tract=0 AND patch=0 AND band='i'", "--register-dataset-types"),
            *("-c", "restoreCoadd:characterize.numRealizations=2", *extra),
        ],
    )


@pytest.mark.slow
def test_a_coadd_alone_is_restored(repo: Path) -> None:
    with Butler.from_config(str(repo)) as butler:
        assert [one.name for one in butler.registry.queryDatasetTypes()] == ["deep_coadd"]
    result = run_pipeline(repo)
    assert result.exit_code == 0, result.output
    with Butler.from_config(str(repo), collections="u/test/restored") as butler:
        restored: CellCoadd = butler.get("restored_coadd", DATA_ID)
        measurable: CellCoadd = butler.get("restored_coadd_measurable", DATA_ID)
        coadd: CellCoadd = butler.get("deep_coadd", DATA_ID, collections="coadds")
        metrics = butler.get("restored_coadd_metrics", DATA_ID)
        sources = butler.get("restored_source", DATA_ID)
        metadata = butler.get("restoreCoadd_metadata", DATA_ID)
    assert restored.bbox == coadd.bbox and restored.patch == coadd.patch
    assert metrics["n_exposures"] == 1 and metrics["clipped_fraction"] == 0.0
    assert "pipeline_coadd" not in metrics["psnr"]
    assert np.isfinite(metrics["psnr"]["reference_coadd"]) and np.isfinite(metrics["psnr"]["exposures"])
    assert metadata["restoreCoadd:stackCoadd"]["n_cells_empty"] == 0

    # Sharp: stars are as wide as the PSF that is stated, and have their flux.
    image, start = restored.image.array, restored.bbox.start
    stamps = np.array(
        [image[int(y) - 10 : int(y) + 11, int(x) - 10 : int(x) + 11] for x, y in np.round(STARS)]
    )
    assert np.median(stamps.sum(axis=(1, 2))) == pytest.approx(FLUX, rel=0.02)
    core = np.median(stamps[:, 8:13, 8:13].sum(axis=(1, 2)))
    assert core > 0.9 * FLUX
    assert fwhm(restored.psf.compute_kernel_image(x=start.x + 80, y=start.y + 80).array) == pytest.approx(
        TARGET_FWHM, rel=0.1
    )
    # The table of sources has the stars, with errors that are right.
    x, y = np.asarray(sources["x"]) - start.x, np.asarray(sources["y"]) - start.y
    nearest = [int(np.argmin(np.hypot(x - star[0], y - star[1]))) for star in STARS]
    found = sources[nearest]
    assert np.hypot(x[nearest] - np.transpose(STARS)[0], y[nearest] - np.transpose(STARS)[1]).max() < 0.3
    assert np.median(found["psfFlux"]) == pytest.approx(FLUX, rel=0.02)
    pull = (np.asarray(found["psfFlux"]) - np.median(found["psfFlux"])) / np.asarray(found["psfFluxErr"])
    assert 0.5 < np.std(pull) < 2.0
    # The noise of the image for photometry is the one it states.
    empty = np.ones(restored.bbox.shape, bool)
    for star_x, star_y in np.round(STARS).astype(int):
        empty[star_y - 14 : star_y + 15, star_x - 14 : star_x + 15] = False
    empty &= measurable.variance.array > 0.0
    noise = measurable.image.array[empty] / np.sqrt(measurable.variance.array[empty])
    assert 1.4826 * np.median(np.abs(noise - np.median(noise))) == pytest.approx(1.0, abs=0.2)
    inexact = coadd.mask.get("INEXACT_PSF")
    assert inexact.any() and measurable.mask.get("INEXACT_PSF")[inexact].all()
    # The visits of the coadd are those of the result.
    assert set(restored.provenance.inputs["visit"]) == set(range(1, N_VISITS + 1))
    assert len(restored.provenance.contributions) == len(coadd.provenance.contributions)


@pytest.mark.slow
def test_coadds_of_several_bands() -> None:
    task = RestoreMultibandCoaddTask(config=several_bands())
    handles = {band: [CoaddHandle(make_warp(border=0, seed=seed))] for seed, band in enumerate("ir", start=1)}
    results = task.run_bands(handles, GEOMETRY)
    assert set(results) == {"i", "r"}
    for band, outputs in results.items():
        assert outputs.restored_coadd.band == band
        assert outputs.restored_coadd_metrics["n_exposures"] == 1
        # A coadd is not said to have few exposures.
        assert not outputs.restored_coadd.mask.get("FEW_EXPOSURES").any()


def several_bands() -> RestoreMultibandCoaddConfig:
    config = RestoreMultibandCoaddConfig()
    config.inputType = "coadd"
    config.characterize.numRealizations = 2
    config.validate()
    return config


@pytest.mark.slow
def test_a_patch_without_coadd_is_no_quantum(repo: Path) -> None:
    result = run_pipeline(repo, "-c", "restoreCoadd:connections.coadd=other_coadd", run="u/test/none")
    assert result.exit_code != 0
