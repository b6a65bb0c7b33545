# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Device and threads of Keras."""

from __future__ import annotations

import json
import subprocess
import sys

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
