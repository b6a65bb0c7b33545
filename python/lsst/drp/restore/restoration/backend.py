# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Preparing Keras' backend for a restoration: device, threads, determinism."""

from __future__ import annotations

__all__ = ("COMPUTE_DEVICES", "Backend", "describe_backend", "prepare_backend")

import dataclasses
import logging
import os
from typing import Any

from ..errors import RestorationError
from .gpus import claim_gpu, cuda_gpus

_LOG = logging.getLogger(__name__)

COMPUTE_DEVICES = {
    "auto": "A GPU where there is one, else the CPU. A process has its GPU for itself: where other processes "
    "of the same user have all of them, it waits until one ends, an hour at most.",
    "gpu": "The same, but fail where there is no GPU.",
    "cpu": "The CPU.",
}
"""Values of the config field ``computeDevice`` and what they mean (`dict`)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backend:
    """Device and threads of Keras' backend.

    Parameters
    ----------
    device : `str`
        ``CPU``, or the GPU's name.
    n_threads : `int`
        CPU threads to use.
    """

    device: str
    n_threads: int


def prepare_backend(device: str, n_threads: int) -> Backend:
    """Choose the device and make the results reproducible.

    Keras and its backend are imported here, not before: it takes seconds.

    Parameters
    ----------
    device : `str`
        A key of `COMPUTE_DEVICES`.
    n_threads : `int`
        CPU threads to use.  A process that has computed with TensorFlow
        before keeps the number it had then.

    Returns
    -------
    backend : `Backend`
        The device and the threads.

    Raises
    ------
    RestorationError
        Raised if ``device`` is ``gpu`` and there is none.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # TensorFlow's start-up messages go to stderr past the logging system.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if os.environ["KERAS_BACKEND"] == "torch":
        # Keras chooses PyTorch's device when it is imported.
        _choose_torch_device(device)
    import keras

    match keras.backend.backend():
        case "tensorflow":
            name = _prepare_tensorflow(device, n_threads)
        case "torch":
            name = _prepare_torch(n_threads)
        case _:
            name = _prepare_jax(device)
    return Backend(device=name, n_threads=n_threads)


def _prepare_tensorflow(device: str, n_threads: int) -> str:
    import tensorflow as tf

    try:
        # Operations on crops and cells are too small to be shared out among threads: two threads with an
        # operation each train as fast as one operation on two, and `ForwardModel` 1.4 times as fast.
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(n_threads)
    except RuntimeError:
        _LOG.debug("TensorFlow is already running; it keeps its number of threads.")
    tf.config.experimental.enable_op_determinism()
    gpus = [] if device == "cpu" else tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise RestorationError(_no_gpu("TensorFlow"))
    if gpus:
        # TensorFlow numbers GPUs as CUDA does, but may leave some out.
        names = cuda_gpus()
        numbers = [int(gpu.name.rpartition(":")[2]) for gpu in gpus]
        gpus = [gpus[claim_gpu([names[k] if k < len(names) else f"GPU-{k}" for k in numbers])]]
    try:
        tf.config.set_visible_devices(gpus, "GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        _LOG.debug("TensorFlow is already running; it keeps its devices.")
    if device == "auto" and not gpus:
        _LOG.info("TensorFlow sees no GPU: restoring on the CPU.")
    if not gpus:
        return "CPU"
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")


def _prepare_jax(device: str) -> str:
    import jax

    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif names := cuda_gpus():
        jax.config.update("jax_cuda_visible_devices", str(claim_gpu(names)))
    found = jax.devices()[0]
    if device == "gpu" and found.platform == "cpu":
        raise RestorationError(_no_gpu("JAX"))
    return "CPU" if found.platform == "cpu" else found.device_kind


def _choose_torch_device(device: str) -> None:
    import torch

    gpus = cuda_gpus() if device != "cpu" and torch.cuda.is_available() else []
    if device == "gpu" and not gpus:
        raise RestorationError(_no_gpu("PyTorch"))
    if "KERAS_TORCH_DEVICE" not in os.environ:
        os.environ["KERAS_TORCH_DEVICE"] = f"cuda:{claim_gpu(gpus)}" if gpus else "cpu"


def _prepare_torch(n_threads: int) -> str:
    import torch

    torch.set_num_threads(n_threads)
    device = torch.device(os.environ.get("KERAS_TORCH_DEVICE", "cpu"))
    return "CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)


def _no_gpu(backend: str) -> str:
    return (
        f"computeDevice is 'gpu' but {backend} sees none. Install the extra lsst-drp-restore[gpu] and a "
        "driver, or set computeDevice='auto' (or 'cpu') to restore on the CPU."
    )


def describe_backend() -> dict[str, Any]:
    """Describe the backend of Keras.

    Returns
    -------
    facts : `dict`
        `int`, `bool` and `str`:

        ``backend``
            Keras' backend.
        ``float_type``
            Type of the numbers the network computes with.
        ``deterministic``
            Whether the backend gives the same result each time.
        ``threads_within_operations``, ``threads_between_operations``
            CPU threads of TensorFlow; 0 if it chooses.  Sums of several
            threads are rounded differently from those of one.
        ``reduced_precision``
            Whether a GPU may multiply with fewer digits (TF32).
    """
    import keras

    backend = keras.backend.backend()
    facts: dict[str, Any] = {
        "backend": backend,
        "float_type": keras.config.floatx(),
        "deterministic": backend == "tensorflow",
    }
    if backend == "tensorflow":
        import tensorflow as tf

        threading = tf.config.threading
        facts["threads_within_operations"] = int(threading.get_intra_op_parallelism_threads())
        facts["threads_between_operations"] = int(threading.get_inter_op_parallelism_threads())
        facts["reduced_precision"] = bool(tf.config.experimental.tensor_float_32_execution_enabled())
    return facts
