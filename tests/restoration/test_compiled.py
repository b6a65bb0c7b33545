# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Compilation of functions of tensors."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from lsst.drp.restore.restoration.backend import prepare_backend
from lsst.drp.restore.restoration.compiled import compiled, uses_gpu


def test_result_is_that_of_the_function() -> None:
    calls = []

    def function(a: Any, b: Any) -> tuple[list[Any], None]:
        calls.append(a.shape)
        return [a * b, keras.ops.sum(a, axis=1)], None

    fast = compiled(function)
    rng = np.random.default_rng(1)
    for batch in (2, 3, 4, 5):
        arrays = [rng.normal(size=(batch, 4)).astype(np.float32) for _ in range(2)]
        (product, total), nothing = fast(*map(keras.ops.convert_to_tensor, arrays))
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(product), arrays[0] * arrays[1])
        np.testing.assert_allclose(keras.ops.convert_to_numpy(total), arrays[0].sum(axis=1), rtol=1e-6)
        assert nothing is None
    if keras.backend.backend() == "tensorflow":
        # One graph for the first number of cells, one for all others.
        assert len(calls) == 2


def test_device() -> None:
    assert uses_gpu() == (prepare_backend("auto", 1).device != "CPU")
