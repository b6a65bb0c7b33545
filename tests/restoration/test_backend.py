# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Device and threads of Keras."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lsst.drp.restore import RestorationError
from lsst.drp.restore.restoration.backend import COMPUTE_DEVICES, prepare_backend

# TensorFlow takes its threads in a process that has not computed yet.
SCRIPT = """
import dataclasses, json
from lsst.drp.restore.restoration.backend import describe_backend, prepare_backend
print(json.dumps([dataclasses.asdict(prepare_backend("cpu", 2)), describe_backend()]))
"""


@pytest.mark.slow
def test_device_and_threads_of_a_process() -> None:
    output = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True).stdout
    backend, facts = json.loads(output)
    assert backend == {"device": "CPU", "n_threads": 2}
    # Operations are too small to be divided among threads.
    assert (facts["threads_within_operations"], facts["threads_between_operations"]) == (1, 2)
    assert (facts["backend"], facts["float_type"]) == ("tensorflow", "float32")
    assert facts["deterministic"] is True
    assert isinstance(facts["reduced_precision"], bool)


def test_operations_are_deterministic() -> None:
    import tensorflow as tf

    prepare_backend("cpu", 1)
    # With determinism, TensorFlow refuses random numbers without a seed.
    tf.random.set_seed(None)
    with pytest.raises(RuntimeError, match="seed"):
        tf.random.normal((2,))


def test_a_gpu_that_is_not_there() -> None:
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("This machine has a GPU.")
    with pytest.raises(RestorationError, match=r"sees none.*lsst-drp-restore\[gpu\].*computeDevice='auto'"):
        prepare_backend("gpu", 1)
    assert prepare_backend("auto", 1).device == "CPU"
    assert set(COMPUTE_DEVICES) == {"auto", "gpu", "cpu"}


# What is used of PyTorch and of Keras with it, where PyTorch has no GPU.
TORCH = """
class cuda:
    @staticmethod
    def is_available():
        return False
def set_num_threads(n):
    print("threads", n)
class device:
    def __init__(self, name):
        self.type = name.partition(":")[0]
"""
KERAS = """
import os
print("device", os.environ["KERAS_TORCH_DEVICE"])
class backend:
    @staticmethod
    def backend():
        return "torch"
"""


def test_pytorch_alone(tmp_path: Path) -> None:
    """Neither TensorFlow nor JAX is imported; the device is chosen before
    Keras is imported.
    """
    (tmp_path / "torch.py").write_text(TORCH)
    (tmp_path / "keras.py").write_text(KERAS)
    for name in ("tensorflow", "jax"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError('imported')")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from lsst.drp.restore.restoration.backend import prepare_backend\n"
        "print(prepare_backend('auto', 3).device)\n"
        "from lsst.drp.restore.errors import RestorationError\n"
        "try:\n    prepare_backend('gpu', 3)\nexcept RestorationError as err:\n    print(err)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[:3] == ["device cpu", "threads 3", "CPU"]
    assert "PyTorch sees none" in lines[3]
