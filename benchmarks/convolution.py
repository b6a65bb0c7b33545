# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Compare convolutions with the PSF kernels, by Fourier transforms and direct,
compiled with XLA and not: time of a training step and of a pass over cells.

Run by ``python -m benchmarks.convolution``, with ``KERAS_BACKEND=jax`` for
JAX.  Prints a table.
"""

from __future__ import annotations

__all__ = ("COMMAND", "DirectBlur", "time_cells", "time_training")

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from .command import Command
from .tables import block

_KERNEL = 25
_CELL = 150


class DirectBlur:
    """Convolution of latent images with PSF kernels, product by product:
    stands in for `Blur`.

    Parameters
    ----------
    kernels : tensor
        PSF kernels, shape ``(batch, n, k, k)``.
    height, width : `int`
        Size of the blurred images.
    """

    def __init__(self, kernels: Any, height: int, width: int) -> None:
        self._kernels = kernels
        self._size = height, width

    def forward(self, latent: Any) -> Any:
        """Blur latent images.

        Parameters
        ----------
        latent : tensor
            Latent images, shape ``(batch, height + k - 1, width + k - 1)``.

        Returns
        -------
        blurred : tensor
            The same as of `Blur.forward`, shape ``(batch, n, height,
            width)``.
        """
        from keras import ops

        batch, n, _, _ = self._kernels.shape
        # Every latent image is a channel of its own, with a filter by exposure.
        filters = ops.transpose(ops.flip(self._kernels, (2, 3)), (2, 3, 0, 1))
        blurred = ops.depthwise_conv(
            ops.transpose(latent, (1, 2, 0))[None], filters, padding="valid", data_format="channels_last"
        )
        return ops.transpose(ops.reshape(blurred, (*self._size, batch, n)), (2, 3, 0, 1))


def time_training(blur: type, compiled: bool, n: int, repeats: int) -> float:
    """Time a training step of the network on crops (`build_crop_encoder`).

    Parameters
    ----------
    blur : `type`
        `Blur` or `DirectBlur`.
    compiled : `bool`
        Whether to compile with XLA.
    n : `int`
        Number of exposures.
    repeats : `int`
        Steps to time.

    Returns
    -------
    seconds : `float`
        Median time of a step, s.
    """
    import keras

    from lsst.drp.restore.psf_fitting.blind_network import MARGIN, build_crop_encoder
    from lsst.drp.restore.psf_fitting.network_kernels import BATCH_SIZE, CROP_SIZE
    from lsst.drp.restore.restoration import convolution
    from lsst.drp.restore.restoration.network import MaskedHuber, build_trainer

    crop, batch = CROP_SIZE, BATCH_SIZE
    context = crop + _KERNEL - 1 + 2 * MARGIN
    rng = np.random.default_rng(1)
    shapes = {
        "exposures": (batch, context, context, n),
        "kernels": (batch, 1, 1, n, _KERNEL, _KERNEL),
        "inverse_sigma": (batch, n, crop, crop),
    }
    inputs = {name: rng.uniform(size=shape).astype(np.float32) for name, shape in shapes.items()}
    target = rng.normal(size=shapes["inverse_sigma"]).astype(np.float32)
    with mock.patch.object(convolution, "Blur", blur):
        trainer = build_trainer(build_crop_encoder(n, seed=1), n, (context, context), shapes["kernels"][1:])
        trainer.compile(optimizer=keras.optimizers.Adam(1e-3), loss=MaskedHuber(2.0), jit_compile=compiled)
        return _median_time(lambda: trainer.train_on_batch(inputs, target, target > -9), repeats)


def time_cells(blur: type, compiled: bool, n: int, repeats: int) -> float:
    """Time the prediction of the exposures in a cell.

    Parameters
    ----------
    blur : `type`
        `Blur` or `DirectBlur`.
    compiled : `bool`
        Whether to compile with XLA.
    n : `int`
        Number of exposures.
    repeats : `int`
        Predictions to time.

    Returns
    -------
    seconds : `float`
        Median time of a prediction, s.
    """
    from keras import ops

    rng = np.random.default_rng(1)
    extent = _CELL + _KERNEL - 1
    latent = ops.convert_to_tensor(rng.uniform(size=(1, extent, extent)).astype(np.float32))
    kernels = ops.convert_to_tensor(rng.uniform(size=(1, n, _KERNEL, _KERNEL)).astype(np.float32))

    def predict(latent: Any, kernels: Any) -> Any:
        return blur(kernels, _CELL, _CELL).forward(latent)

    function = _compile(predict) if compiled else predict
    return _median_time(lambda: ops.convert_to_numpy(function(latent, kernels)), repeats)


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=True)


def _median_time(function: Callable[[], Any], repeats: int) -> float:
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    add = parser.add_argument
    add("--exposures", type=int, nargs="+", default=[8, 33], help="numbers of exposures")
    add("--device", default="auto", help="auto, gpu or cpu")
    add("--threads", type=int, default=1, help="CPU threads")
    add("--repeats", type=int, default=10, help="repetitions of each measurement")


def _run(options: argparse.Namespace, folder: Path) -> None:
    """Time everything and print the table."""
    import keras

    from lsst.drp.restore.restoration.backend import prepare_backend

    # TensorFlow compiles nothing that has to be deterministic.
    name = "tensorflow.config.experimental.enable_op_determinism"
    with mock.patch(name) if keras.backend.backend() == "tensorflow" else nullcontext():
        device = prepare_backend(options.device, options.threads).device
    from lsst.drp.restore.restoration.convolution import Blur

    rows = {
        f"{name}, {n} exposures": [
            1e3 * measure(blur, compiled, n, options.repeats)
            for blur in (Blur, DirectBlur)
            for compiled in (False, True)
        ]
        for n in options.exposures
        for name, measure in (("training step", time_training), (f"{_CELL}x{_CELL} pixels", time_cells))
    }
    title = f"{keras.backend.backend()} on {device}; median time, ms"
    print("\n".join(block(title, ("FFT", "FFT, XLA", "direct", "direct, XLA"), rows, ".1f")))


COMMAND = Command(name="convolution", description=__doc__, add_options=_add_options, run=_run)
"""The command line (`Command`)."""

if __name__ == "__main__":
    COMMAND.main()
