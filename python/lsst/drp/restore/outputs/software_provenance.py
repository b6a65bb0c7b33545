# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The software and the machine that a restoration was computed with."""

from __future__ import annotations

__all__ = ("describe_computation",)

import functools
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..restoration.network_weights import describe_weights

# Distributions whose code computes the pixels.
_NUMERICS = (
    "astropy",
    "drizzle",
    "galsim",
    "keras",
    "lsst-drp-restore",
    "lsst-images",
    "numpy",
    "piff",
    "scipy",
    "sep",
    "starlink-pyast",
)
_BACKENDS = {"tensorflow": ("tensorflow",), "jax": ("jax", "jaxlib")}

# Environment variables that choose between implementations that round
# differently.
_SWITCHES = ("TF_ENABLE_ONEDNN_OPTS", "NVIDIA_TF32_OVERRIDE", "OPENBLAS_CORETYPE", "MKL_CBWR")


def describe_computation(
    backend: Mapping[str, Any], network: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Describe the software and the machine of this process.

    With the configuration and the inputs, which the Butler keeps, this is all
    that the pixels depend on to the bit.  The dataset ``packages`` lacks the
    network's software, which is imported after it has been written.

    Parameters
    ----------
    backend : `~collections.abc.Mapping`
        Facts about Keras' backend, of
        `~lsst.drp.restore.restoration.backend.describe_backend`.
    network : `~collections.abc.Mapping`, optional
        Facts about the network that was used; by default, those of the
        weights that the package ships.

    Returns
    -------
    facts : `dict`
        Nested `dict` of `int`, `bool` and `str`:

        ``backend`` and others
            Those of ``backend``.
        ``machine``, ``cpu``
            Architecture and name of the processor.
        ``switches``
            Environment variables that choose between implementations, if set.
        ``network``
            ``version`` of the trained network's weights, ``sha256`` of
            their file, and ``fine_tuning_steps`` of training on the patch.
        ``versions``
            Versions of Python and of the packages that compute the pixels.
    """
    return {
        **backend,
        "network": dict(network or {**describe_weights(), "fine_tuning_steps": 0}),
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "switches": {name: os.environ[name] for name in _SWITCHES if name in os.environ},
        "versions": {"python": platform.python_version()}
        | _versions((*_NUMERICS, *_BACKENDS.get(str(backend["backend"]), ()))),
    }


def _versions(distributions: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of those distributions that are installed as such:
    in the Science Pipelines some are not.
    """
    versions = {}
    for name in sorted(distributions):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def _cpu_name() -> str:
    """Return the processor's name."""
    # The standard library knows it on other systems only.
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
