# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from lsst.drp.restore.restoration import network_weights
from lsst.drp.restore.restoration.network_weights import describe_weights, read_weights, write_weights

FILE = Path(network_weights.__file__).parent / "sky_network.npz"


def test_shipped_weights_are_those_of_the_network() -> None:
    from lsst.drp.restore.restoration.sky_network import build_network

    weights = read_weights()
    network = build_network()
    assert [array.shape for array in weights] == [array.shape for array in network.get_weights()]
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in weights)
    network.set_weights(weights)
    for stored, array in zip(weights, network.get_weights(), strict=True):
        np.testing.assert_array_equal(stored, array)
    # They are trained: a new network changes nothing.
    assert any(array.any() for array in network.get_layer("correction").get_weights())


def test_identity() -> None:
    facts = describe_weights()
    assert facts.keys() == {"version", "sha256"}
    assert facts["version"]
    assert facts["sha256"] == hashlib.sha256(FILE.read_bytes()).hexdigest()


def test_file_is_small() -> None:
    assert FILE.stat().st_size < 2e6


def test_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    # More than ten, which must come back in their order.
    weights = [rng.normal(size=(3, 3, k + 1, 2)) for k in range(12)] + [np.array(2.0)]
    path = tmp_path / "weights.npz"
    write_weights(path, weights, "a name")
    monkeypatch.setattr(network_weights, "_FILE", str(path))
    read = read_weights()
    assert len(read) == 13
    for stored, array in zip(read, weights, strict=True):
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(stored, array.astype(np.float32))
    facts = describe_weights.__wrapped__()
    assert facts == {"version": "a name", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
