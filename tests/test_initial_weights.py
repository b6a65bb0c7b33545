# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Trainings that start from the weights of an earlier run."""

import logging
from pathlib import Path
from typing import Any

import astropy.table
import numpy as np
import pytest
from repositories import simulate_repository
from stacks import star_field

from lsst.daf.butler import Butler, DatasetType
from lsst.drp.restore.astro_clear_net import AstroClearNetConfig, AstroClearNetTask
from lsst.drp.restore.errors import InputError
from lsst.drp.restore.initial_weights import adapt_weights, find_initial_weights, read_weights_table
from lsst.drp.restore.pack import make_weights_table
from lsst.drp.restore.reference_coadd import reference_coadd

INITIAL = "restored_coadd_initial_weights"


def make_task(**fields: Any) -> AstroClearNetTask:
    config = AstroClearNetConfig()
    config.update(cropSize=32, batchSize=2, stepsPerEpoch=20, maxEpochs=10, computeDevice="cpu")
    config.update(**fields)
    config.validate()
    return AstroClearNetTask(config=config)


def example() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = {"a/kernel": (3, 3, 4, 1), "b": (), "c/bias": (7,), "member_1/a/kernel": (2, 1)}
    return {name: np.asarray(rng.normal(size=shape), np.float32) for name, shape in shapes.items()}


def test_table_can_be_read_back() -> None:
    weights, table = example(), make_weights_table(example())
    # Whatever the order of its rows, and as Arrow returns strings.
    table = table[np.random.default_rng(2).permutation(len(table))]
    table["name"] = table["name"].astype(object)
    again = read_weights_table(table)
    assert again.keys() == weights.keys()
    for name, value in weights.items():
        np.testing.assert_array_equal(again[name], value)
    assert read_weights_table(make_weights_table({})) == {}


def lose_rows(table: astropy.table.Table) -> astropy.table.Table:
    return table[:-1]


def repeat_a_row(table: astropy.table.Table) -> astropy.table.Table:
    table["index"][1] = 0
    return table


def spoil_a_number(table: astropy.table.Table) -> astropy.table.Table:
    table["value"][3] = np.nan
    return table


def spoil_a_shape(table: astropy.table.Table) -> astropy.table.Table:
    table["shape"][0] = "3,3"
    return table


def lose_columns(table: astropy.table.Table) -> astropy.table.Table:
    return table["name", "value"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lose_rows, "member_1/a/kernel.* has 1 numbers"),
        (repeat_a_row, "a/kernel.*twice"),
        (spoil_a_number, "a/kernel.*not finite"),
        (spoil_a_shape, "a/kernel.*no clear shape"),
        (lose_columns, "lacks the columns shape, index"),
    ],
)
def test_wrong_tables_are_refused(spoil: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"{INITIAL}.*{message}.*keep-weights"):
        read_weights_table(spoil(make_weights_table(example())))


def random_encoder(n: int, **fields: Any) -> Any:
    from lsst.drp.restore.network import build_encoder

    encoder = build_encoder(n, make_task(**fields).config.encoder_spec(), seed=n)
    rng = np.random.default_rng(n)
    for variable in encoder.variables:
        # Positive: the variances of batch normalization, and the output.
        variable.assign(rng.uniform(0.1, 1.0, variable.shape))
    return encoder


def weights_of(encoder: Any) -> dict[str, np.ndarray]:
    return {v.path: np.asarray(v) for v in encoder.variables}


def load(encoder: Any, weights: dict[str, np.ndarray]) -> Any:
    adapted = adapt_weights(weights, {v.path: tuple(v.shape) for v in encoder.variables})
    assert len(adapted) == len(encoder.variables)
    for variable in encoder.variables:
        variable.assign(adapted[variable.path])
    return encoder


PAPER = dict(
    normalizeInput=False,
    leakiness=0.0,
    batchNormalization=True,
    hiddenFilters=[],
    hiddenKernelSizes=[],
    brightnessWindow=0,
    projectedOutput=False,
    cropSize=0,
    validationFraction=0.0,
)


@pytest.mark.parametrize("fields", [{}, PAPER], ids=["default", "paper"])
@pytest.mark.parametrize(("old", "new"), [(3, 3), (3, 6), (2, 8)])
def test_weights_for_another_number_of_exposures(fields: dict[str, Any], old: int, new: int) -> None:
    """Exposures that show the same make the same image."""
    one = np.random.default_rng(3).normal(5.0, 2.0, (1, 40, 42, 1)).astype(np.float32)
    first = random_encoder(old, **fields)
    expected = np.asarray(first(np.repeat(one, old, axis=-1), training=False))
    assert expected.max() > 0
    second = load(random_encoder(new, **fields), weights_of(first))
    found = np.asarray(second(np.repeat(one, new, axis=-1), training=False))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # And back.
    third = load(random_encoder(old, **fields), weights_of(second))
    for name, value in weights_of(third).items():
        np.testing.assert_allclose(value, weights_of(first)[name], rtol=1e-6)


def test_fewer_exposures_than_before() -> None:
    adapted = adapt_weights(
        weights_of(random_encoder(5)), {k: v.shape for k, v in weights_of(random_encoder(3)).items()}
    )
    first = weights_of(random_encoder(5))
    np.testing.assert_array_equal(adapted["depthwise_3/kernel"], first["depthwise_3/kernel"][:, :, :3])
    old, new = (w.reshape(1, 1, 6, -1, 16) for w in (first["hidden_0/kernel"], adapted["hidden_0/kernel"]))
    np.testing.assert_allclose(new, old[:, :, :, :3] * 5 / 3, rtol=1e-6)


def test_warm_start_begins_where_the_earlier_run_ended(caplog: pytest.LogCaptureFixture) -> None:
    stack, _, _ = star_field(n=3, shape=(96, 96), n_stars=9, flux=(300.0, 3000.0))
    reference = reference_coadd(stack)
    cold = make_task().run(stack, reference)
    assert cold.warm_start == 0.0
    assert np.isnan(cold.initial_loss)
    stored = read_weights_table(make_weights_table(cold.weights))
    with caplog.at_level(logging.INFO, logger="lsst"):
        warm = make_task(maxEpochs=2, warmStartRate=0.002).run(stack, reference, initial_weights=stored)
    total = sum(value.size for value in cold.weights.values())
    assert f"Starting from {total} of {total} weights of an earlier run." in caplog.text
    assert warm.warm_start == 1.0
    assert warm.initial_loss == pytest.approx(cold.loss, rel=1e-6)
    assert warm.loss < 1.02 * cold.loss
    assert warm.history["learning_rate"][0] == pytest.approx(0.002)
    # As many cold steps are far behind.
    fresh = make_task(maxEpochs=2).run(stack, reference)
    assert fresh.loss > 1.1 * warm.loss


def test_what_does_not_fit_starts_afresh(caplog: pytest.LogCaptureFixture) -> None:
    stack, _, _ = star_field(n=4, shape=(64, 64), n_stars=4)
    reference = reference_coadd(stack)
    quick = dict(maxEpochs=1, stepsPerEpoch=1)
    old = make_task(hiddenFilters=[8, 8], **quick).run(stack, reference)
    with caplog.at_level(logging.INFO, logger="lsst"):
        new = make_task(**quick).run(stack, reference, initial_weights=old.weights)
    depthwise = sum(value.size for name, value in old.weights.items() if name.startswith("depthwise"))
    total = sum(value.size for value in new.weights.values())
    # Besides them only the last bias has the same shape.
    assert new.warm_start == pytest.approx((depthwise + 1) / total)
    assert "of another shape there: hidden_0/kernel, hidden_0/bias" in caplog.text
    # Three exposures of four.
    part = type(stack)(
        image=stack.image[:3],
        variance=stack.variance[:3],
        good=stack.good[:3],
        kernels=stack.kernels[:3],
        correlation=stack.correlation[:3],
        cell_shape=stack.cell_shape,
        names=stack.names[:3],
    )
    with caplog.at_level(logging.INFO, logger="lsst"):
        fewer = make_task(**quick).run(part, reference_coadd(part), initial_weights=new.weights)
    assert fewer.warm_start == 1.0
    assert "fitted to another number of exposures: depthwise_1/kernel" in caplog.text


def test_seeds_that_the_weights_lack_start_afresh() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    task = make_task(maxEpochs=1, stepsPerEpoch=1, numSeeds=2)
    one = task.run(stack, reference_coadd(stack))
    first, second = (
        task.run(stack, reference_coadd(stack), member=k, initial_weights=one.weights) for k in range(2)
    )
    assert (first.warm_start, second.warm_start) == (1.0, 0.0)


def test_nearest_patch_is_found(tmp_path: Path) -> None:
    root = simulate_repository(tmp_path / "repo", patch_size=70, cell_size=50, n_patches=(4, 2))
    with Butler.from_config(str(root), writeable=True, run="kept") as butler:
        dataset_type = DatasetType(
            INITIAL, ("skymap", "tract", "patch", "band"), "ArrowAstropy", universe=butler.dimensions
        )
        where = {"skymap": "test", "tract": 0, "band": "i"}

        def find(patch: int, band: str = "i", collections: tuple[str, ...] = ("kept",)) -> list[int]:
            data_id = butler.registry.expandDataId(where | {"patch": patch, "band": band})
            found = find_initial_weights(dataset_type, butler.registry, data_id, collections)
            return [int(ref.dataId["patch"]) for ref in found]

        butler.registry.insertDimensionData(
            "instrument",
            {"name": "Cam", "visit_max": 9, "exposure_max": 9, "detector_max": 9, "class_name": "a.B"},
        )
        butler.registry.insertDimensionData(
            "physical_filter",
            {"instrument": "Cam", "name": "i", "band": "i"},
            {"instrument": "Cam", "name": "r", "band": "r"},
        )
        assert find(0) == []
        butler.registry.registerDatasetType(dataset_type)
        assert find(0) == []
        for patch in (0, 5):
            butler.put(make_weights_table(example()), dataset_type, where | {"patch": patch})
        # 4 5 6 7
        # 0 1 2 3
        assert {patch: find(patch) for patch in range(8)} == {
            **{0: [0], 1: [0], 2: [5], 3: []},
            **{4: [0], 5: [5], 6: [5], 7: []},
        }
        assert find(0, band="r") == []
