# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Warps of visits, written without the full Science Pipelines."""

from __future__ import annotations

from collections.abc import Iterator

import astropy.table
import numpy as np
import pytest
from repositories import simulate_repository

from lsst.daf.butler import Butler
from lsst.drp.restore.repository.register import put_visit_image
from lsst.drp.restore.repository.write_warps import write_direct_warps
from lsst.drp.restore.simulation.config import SimulationConfig
from lsst.drp.restore.warping.build_stack import BuildStackConfig
from lsst.drp.restore.warping.patch_geometry import PatchGeometry

# A star in the middle of the patch.
STAR = astropy.table.Table({"ra": [150.0], "dec": [2.0], "flux_nJy": [1e5]})


@pytest.fixture(scope="module")
def butler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Butler]:
    """A client of a repository with two visits in i and one in r."""
    options = {"skymap": "test", "detectors": (1, 1), "detector_size": 130, "psf": "gaussian", "noise": False}
    options |= {"cosmic_rays": 0.0, "hot_pixels": 0.0, "bad_columns": 0.0, "sky_residual": 0.0}
    root = simulate_repository(
        tmp_path_factory.mktemp("warps") / "repo",
        SimulationConfig(**options, catalog=STAR, n_visits=2, dither_radius=0.0),
        SimulationConfig(**options, catalog=STAR, n_visits=1, first_visit=11, band="r", collection="red"),
        patch_size=70,
        cell_size=50,
    )
    with Butler.from_config(str(root), writeable=True) as butler:
        yield butler


@pytest.fixture
def geometry(butler: Butler) -> PatchGeometry:
    dataset = butler.get("tract_geometry", skymap="test", tract=0, collections="skymaps")
    return PatchGeometry.from_tract(dataset, 0)


def test_one_warp_for_each_visit_of_the_band(butler: Butler, geometry: PatchGeometry) -> None:
    config = BuildStackConfig()
    # One visit is warped at a time: this has no effect, and is not changed.
    config.minExposures = 7
    refs = write_direct_warps(butler, geometry, "i", collections="sim", run="warps", config=config)
    assert config.minExposures == 7
    assert [ref.dataId["visit"] for ref in refs] == [1, 2]
    found = butler.query_datasets("direct_warp", "warps", where="skymap='test' AND tract=0 AND patch=0")
    assert {ref.id for ref in found} == {ref.id for ref in refs}
    for ref in refs:
        warp = butler.get(ref)
        assert warp.bbox == geometry.patch.outer_bbox
        assert np.nansum(warp.image.array) == pytest.approx(1e5, rel=0.01)
        y, x = np.unravel_index(np.nanargmax(warp.image.array), warp.image.array.shape)
        assert (x, y) == pytest.approx((49.5, 49.5), abs=0.6)


def test_name_of_the_dataset_type(butler: Butler, geometry: PatchGeometry) -> None:
    (ref,) = write_direct_warps(butler, geometry, "r", collections="red", run="named", dataset_type="warp_r")
    assert (ref.datasetType.name, ref.run, ref.dataId["visit"]) == ("warp_r", "named", 11)
    assert ref.datasetType.storageClass_name == "CellCoadd"


def test_visit_without_usable_pixels(
    butler: Butler, geometry: PatchGeometry, caplog: pytest.LogCaptureFixture
) -> None:
    image = butler.get("visit_image", instrument="SimCam", visit=1, detector=0, collections="sim")
    image.mask.set("NO_DATA", np.ones(image.image.array.shape, bool))
    put_visit_image(butler, image, "empty")
    with caplog.at_level("INFO"):
        assert not write_direct_warps(butler, geometry, "i", collections="empty", run="none")
    assert "No warp of SimCam visit 1: " in caplog.text
