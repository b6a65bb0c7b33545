# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

from pathlib import Path

import numpy as np

from lsst.daf.butler import Butler, DatasetType
from lsst.drp.restore.outputs.weights_table import make_weights_table


def test_weights_table_holds_all_weights() -> None:
    rng = np.random.default_rng(4)
    weights = {
        "conv/kernel": rng.normal(size=(3, 3, 4, 2)).astype(np.float32),
        "conv/bias": np.zeros(2, np.float32),
        "scale": np.array(0.5, np.float32),
    }
    table = make_weights_table(weights)
    assert table.colnames == ["name", "shape", "index", "value"]
    assert len(table) == 72 + 2 + 1
    restored = {}
    for name in dict.fromkeys(table["name"]):
        rows = table[table["name"] == name]
        rows.sort("index")
        shape = tuple(map(int, filter(None, rows["shape"][0].split(","))))
        restored[name] = np.array(rows["value"]).reshape(shape)
    assert restored.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(restored[name], array)
        assert restored[name].dtype == np.float32


def test_weights_table_survives_the_butler(tmp_path: Path) -> None:
    weights = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(1.5, np.float32)}
    Butler.makeRepo(str(tmp_path / "repo"))
    with Butler.from_config(str(tmp_path / "repo"), run="out") as butler:
        dataset_type = DatasetType("weights", (), "ArrowAstropy", universe=butler.dimensions)
        butler.registry.registerDatasetType(dataset_type)
        butler.put(make_weights_table(weights), dataset_type)
        table = butler.get(dataset_type)
    assert list(table["name"]) == ["a"] * 6 + ["b"]
    assert list(table["shape"]) == ["2,3"] * 6 + [""]
    np.testing.assert_array_equal(table["value"], [0, 1, 2, 3, 4, 5, 1.5])


def test_no_weights() -> None:
    table = make_weights_table({})
    assert table.colnames == ["name", "shape", "index", "value"]
    assert len(table) == 0
