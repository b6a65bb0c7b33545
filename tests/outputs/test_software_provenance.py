# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import json
import platform

import numpy as np
import pytest

from lsst.drp.restore.outputs.software_provenance import describe_computation


def test_software_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.delenv("MKL_CBWR", raising=False)
    facts = describe_computation({"backend": "tensorflow", "n_threads": 3})
    assert (facts["backend"], facts["n_threads"]) == ("tensorflow", 3)
    assert facts["machine"] == platform.machine()
    assert facts["cpu"]
    assert facts["switches"]["NVIDIA_TF32_OVERRIDE"] == "0"
    assert "MKL_CBWR" not in facts["switches"]
    versions = facts["versions"]
    assert versions["python"] == platform.python_version()
    assert versions["numpy"] == np.__version__
    assert {"keras", "sep", "scipy", "tensorflow"} <= versions.keys()
    assert json.loads(json.dumps(facts)) == facts


def test_versions_are_those_of_the_backend() -> None:
    assert "tensorflow" not in describe_computation({"backend": "jax"})["versions"]


def test_network_is_the_shipped_one_or_the_given_one() -> None:
    shipped = describe_computation({"backend": "tensorflow"})["network"]
    assert len(shipped["sha256"]) == 64
    assert shipped["version"] and shipped["fine_tuning_steps"] == 0
    own = {"version": "mine", "sha256": "0" * 64, "fine_tuning_steps": 100}
    assert describe_computation({"backend": "tensorflow"}, own)["network"] == own
