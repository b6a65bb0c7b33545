# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Several bands of a patch restored at once."""

import dataclasses
import unittest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from repositories import simulate_repository
from stacks import star_field

from lsst.ctrl.mpexec.cli.pipetask import cli as pipetask
from lsst.daf.butler import Butler
from lsst.drp.restore import (
    PublishedNetTask,
    RestoreCoaddConfig,
    RestoreCoaddTask,
    RestoreMultibandCoaddConfig,
    RestoreMultibandCoaddTask,
)
from lsst.drp.restore.restoration.crops import Crop, NetworkInput
from lsst.drp.restore.restore_multiband import RestoreMultibandCoaddConnections
from lsst.drp.restore.simulation.config import SimulationConfig
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.pipe.base import NoWorkFound
from lsst.pipe.base.tests.pipelineStepTester import PipelineStepTester

PIPELINE = "resource://lsst.drp.restore/pipelines/restoreMultibandCoadd.yaml"
WHERE = "skymap='test' AND tract=0 AND patch=0"
DATA_ID = {"skymap": "test", "tract": 0, "patch": 0}
QUICK = {
    "restorer.computeDevice": "cpu",
    "characterize.numRealizations": 2,
}


def some_of(stack: ExposureStack, exposures: slice) -> ExposureStack:
    return dataclasses.replace(
        stack,
        image=stack.image[exposures],
        variance=stack.variance[exposures],
        good=stack.good[exposures],
        kernels=stack.kernels[exposures],
        correlation=stack.correlation[exposures],
        names=stack.names[exposures],
    )


def make_quick[Config: RestoreCoaddConfig](config: Config) -> Config:
    """Choose a network that sees the other bands, and train it for
    seconds.
    """
    config.restorer.retarget(PublishedNetTask)
    config.restorer.maxEpochs = 10
    for name, value in QUICK.items():
        subtask, field = name.split(".")
        setattr(getattr(config, subtask), field, value)
    return config


def make_task(**fields: Any) -> RestoreMultibandCoaddTask:
    config = make_quick(RestoreMultibandCoaddConfig())
    config.update(**fields)
    config.validate()
    return RestoreMultibandCoaddTask(config=config)


def test_guides_are_where_the_exposures_are() -> None:
    stack, latent, _ = star_field(n=2, shape=(64, 96), n_stars=3, bad_fraction=0.0)
    other_bands = np.stack([latent, np.random.default_rng(1).normal(size=latent.shape).astype(np.float32)])
    margin = 5
    field = NetworkInput(stack, np.zeros(stack.shape), margin, other_bands=other_bands)
    without = NetworkInput(stack, np.zeros(stack.shape), margin)
    # What is outside of the latent image is dark.
    padded = np.pad(other_bands, ((0, 0), (margin, margin), (margin, margin)))
    for crop in (Crop(0, 0, 64, 96), Crop(20, 30, 16, 24), Crop(48, 80, 16, 16)):
        context = field.context(crop)
        np.testing.assert_array_equal(context[..., :2], without.context(crop))
        reach = 2 * (stack.padding + margin)
        expected = padded[:, crop.y : crop.y + crop.height + reach, crop.x : crop.x + crop.width + reach]
        np.testing.assert_array_equal(context[..., 2:], np.moveaxis(expected, 0, -1))
    covered = np.zeros(latent.shape, dtype=int)
    for rows, columns, tile in field.tiles(40):
        assert tile.shape[-1] == 4
        inner = tile[0, margin:-margin, margin:-margin, 3]
        np.testing.assert_array_equal(inner, other_bands[1, rows, columns])
        covered[rows, columns] += 1
    assert (covered == 1).all()
    with pytest.raises(ValueError, match="Images of other bands have shape"):
        NetworkInput(stack, np.zeros(stack.shape), margin, other_bands=other_bands[:, 1:])


def test_guides_are_channels_of_the_input() -> None:
    from lsst.drp.restore.restoration.network import build_encoder

    encoder = build_encoder(3, (1, 3, 5), seed=1, n_other_bands=1)
    rng = np.random.default_rng(1)
    for variable in encoder.variables:
        variable.assign(rng.uniform(0.0, 0.1, variable.shape))
    seen = rng.gamma(1.0, 10.0, (1, 40, 40, 4)).astype(np.float32)
    image = np.asarray(encoder(seen, training=False))
    other_guide = seen.copy()
    other_guide[..., 3] = rng.permuted(seen[..., 3])
    assert np.abs(np.asarray(encoder(other_guide, training=False)) / image - 1).max() > 0.01


@pytest.mark.slow
def test_shallow_bands_see_the_deep_ones() -> None:
    stack, _, _ = star_field(n=6, shape=(64, 64), n_stars=4)
    deep, shallow = some_of(stack, slice(0, 4)), some_of(stack, slice(4, 6))
    single = RestoreCoaddTask(config=make_quick(RestoreCoaddConfig()))
    alone = {
        "i": single.restore(deep, patch="i").restoration.latent,
        "g": single.restore(shallow, patch="g").restoration.latent,
    }
    together = make_task().restore_bands({"g": shallow, "i": deep})
    assert list(together) == ["i", "g"]
    np.testing.assert_array_equal(together["i"].restoration.latent, alone["i"])
    latent = together["g"].restoration.latent
    assert np.abs(latent - alone["g"]).max() > 0.1
    repeated = together["g"].restoration.fitted.restore(shallow)
    assert repeated.shape == latent.shape
    # The network has inputs for two exposures and another band.
    assert together["g"].restoration.weights["depthwise_3/kernel"].shape == (3, 3, 3, 1)
    apart = make_task(shareStructure=False).restore_bands({"g": shallow, "i": deep})
    np.testing.assert_array_equal(apart["g"].restoration.latent, alone["g"])


def test_no_exposures() -> None:
    from skies import make_geometry

    with pytest.raises(NoWorkFound, match=r"band g.*band i"):
        make_task().run_bands({"g": [], "i": []}, make_geometry())
    with pytest.raises(NoWorkFound, match="no visit images"):
        make_task().run_bands({}, make_geometry())


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with exposures in three bands, of r a single one."""
    simulations = [
        SimulationConfig(
            skymap="test",
            band=band,
            n_visits=n,
            first_visit=first,
            collection=f"sim_{band}",
            detector_size=110,
            seed=11,
            color=(0.4, 0.2),
        )
        for band, n, first in (("i", 3, 1), ("g", 2, 11), ("r", 1, 21))
    ]
    root = tmp_path_factory.mktemp("bands") / "repo"
    return simulate_repository(root, *simulations, patch_size=70, cell_size=50)


def run(repo: Path, collection: str, *options: str) -> Result:
    return CliRunner().invoke(
        pipetask,
        [
            *("run", "-b", str(repo), "-i", "sim_i,sim_g,sim_r", "--output-run", collection),
            *("-p", PIPELINE, "-d", WHERE, "--register-dataset-types", *options),
            *(item for k, value in QUICK.items() for item in ("-c", f"restoreMultibandCoadd:{k}={value}")),
        ],
    )


@pytest.mark.slow
def test_sources_have_the_same_color_in_all_bands(repo: Path) -> None:
    with Butler.from_config(str(repo)) as butler:
        flux = {
            band: np.asarray(
                butler.get("truth_catalog", DATA_ID, band=band, collections=f"sim_{band}")["flux_nJy"]
            )
            for band in "gri"
        }
    g_i, r_i = (2.5 * np.log10(flux["i"] / flux[band]) for band in "gr")
    np.testing.assert_allclose(g_i, 2 * r_i, atol=1e-9)
    assert np.mean(r_i) == pytest.approx(0.4, abs=0.1)
    assert np.std(r_i) == pytest.approx(0.2, abs=0.1)


def test_colors_need_a_known_band() -> None:
    with pytest.raises(ValueError, match="band must be one of u, g, r, i, z, y"):
        SimulationConfig(skymap="test", band="clear", color=(0.4, 0.0))


@pytest.mark.slow
def test_pipeline(repo: Path) -> None:
    result = run(repo, "u/bands")
    assert result.exit_code == 0, result.output
    with Butler.from_config(str(repo), collections="u/bands") as butler:
        for band, n in (("i", 3), ("g", 2)):
            metrics = butler.get("restored_coadd_metrics", DATA_ID, band=band)
            assert metrics["n_exposures"] == n
            assert butler.get("restored_coadd", DATA_ID, band=band).band == band
            for name in ("measurable", "reference", "naive_mean", "plot", "kernels", "training"):
                assert butler.find_dataset(f"restored_coadd_{name}", DATA_ID, band=band) is not None
        # One exposure is not enough.
        assert butler.find_dataset("restored_coadd", DATA_ID, band="r") is None


@pytest.mark.slow
def test_only_some_bands(repo: Path) -> None:
    result = run(repo, "u/one", "-c", "restoreMultibandCoadd:bands=['g']")
    assert result.exit_code == 0, result.output
    with Butler.from_config(str(repo), collections="u/one") as butler:
        assert butler.find_dataset("restored_coadd", DATA_ID, band="g") is not None
        assert butler.find_dataset("restored_coadd", DATA_ID, band="i") is None


@pytest.mark.slow
def test_dataset_types_of_the_pipeline(repo: Path) -> None:
    patch = {*DATA_ID, "band"}
    visits = ("visit_image", {"instrument", "visit", "detector"}, "VisitImage", False)
    tract = ("tract_geometry", {"skymap", "tract"}, "StructuredDataDict", False)
    tester = PipelineStepTester(
        filename=PIPELINE,
        step_suffixes=[""],
        initial_dataset_types=[visits, ("deep_coadd", patch, "CellCoadd", False), tract],
        expected_inputs={"visit_image", "deep_coadd", "tract_geometry"},
        expected_outputs=expected_outputs(),
        pipeline_patches={},
    )
    with Butler.from_config(str(repo), writeable=True) as butler:
        tester.run(butler, unittest.TestCase())


def expected_outputs() -> set[str]:
    connections = RestoreMultibandCoaddConnections(config=RestoreMultibandCoaddConfig())
    assert connections.dimensions == set(DATA_ID)
    for name in connections.outputs:
        assert getattr(connections, name).multiple
        assert "band" in getattr(connections, name).dimensions
    return {getattr(connections, name).name for name in connections.outputs}
