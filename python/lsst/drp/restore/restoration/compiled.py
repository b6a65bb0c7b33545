# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Compilation of functions of tensors by Keras' backend, and where they run.

This module imports Keras; import it inside of the function that needs it.
"""

from __future__ import annotations

__all__ = ("compiled", "uses_gpu")

import os
from collections.abc import Callable
from typing import Any

import keras


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of tensors.

    Parameters
    ----------
    function : `~collections.abc.Callable`
        Takes tensors and returns tensors, `None`, or tuples or lists of them;
        it has no other effect.

    Returns
    -------
    function : `~collections.abc.Callable`
        The same as a graph of TensorFlow, or compiled by JAX; PyTorch's is not
        changed.

    Notes
    -----
    A graph of TensorFlow on the CPU reuses the memory of intermediate results:
    the steps of the restoration take two thirds of the time.  XLA is no faster
    there: most of the time goes to Fourier transforms and convolutions.
    """
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            # One graph for all numbers of cells.
            return tf.function(function, reduce_retracing=True, autograph=False)
        case "jax":
            import jax

            return jax.jit(function)
        case _:
            return function


def uses_gpu() -> bool:
    """Tell whether tensors are on a GPU.

    Returns
    -------
    uses_gpu : `bool`
        Whether Keras' backend computes on a GPU by default.
    """
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            return bool(tf.config.get_visible_devices("GPU"))
        case "jax":
            import jax

            return jax.default_backend() != "cpu"
        case _:
            # `prepare_backend` sets it.
            return os.environ.get("KERAS_TORCH_DEVICE", "cpu") != "cpu"
