# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Device and threads of Keras."""

from __future__ import annotations

import dataclasses

import pytest

from lsst.drp.restore import RestorationError
from lsst.drp.restore.restoration.backend import COMPUTE_DEVICES, describe_backend, prepare_backend


def test_the_cpu_and_what_it_computes_with() -> None:
    backend = prepare_backend("cpu", 2)
    assert dataclasses.asdict(backend) == {"device": "CPU", "n_threads": 2}
    facts = describe_backend()
    assert facts["backend"] == "tensorflow" and facts["float_type"] == "float32"
    assert facts["deterministic"] is True
    # Operations are too small to be divided among threads.
    assert facts["threads_within_operations"] == 1
    assert facts["threads_between_operations"] >= 1
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
