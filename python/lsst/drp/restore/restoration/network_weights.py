# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The weights that the package ships, and their identity."""

from __future__ import annotations

__all__ = ("describe_weights", "read_weights", "write_weights")

import functools
import hashlib
import importlib.resources
from collections.abc import Sequence
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np

_FILE = "sky_network.npz"


def read_weights(path: str | None = None) -> list[np.ndarray]:
    """Read the weights of the network.

    Parameters
    ----------
    path : `str`, optional
        File from `write_weights`; by default that of the package.

    Returns
    -------
    weights : `list` [`numpy.ndarray`]
        Arguments of `keras.Model.set_weights`, `numpy.float32`.
    """
    with _source(path).open("rb") as file, np.load(file) as stored:
        return [stored[f"weights_{k:03d}"] for k in range(len(stored.files) - 1)]


def write_weights(path: Path, weights: Sequence[np.ndarray], version: str) -> None:
    """Write weights as the package ships them.

    Parameters
    ----------
    path : `pathlib.Path`
        File to write.
    weights : `~collections.abc.Sequence` [`numpy.ndarray`]
        From `keras.Model.get_weights`.
    version : `str`
        Their name.
    """
    arrays = {f"weights_{k:03d}": np.asarray(array, np.float32) for k, array in enumerate(weights)}
    np.savez(path, version=np.array(version), **arrays)  # type: ignore[arg-type]


@functools.cache
def describe_weights(path: str | None = None) -> dict[str, str]:
    """Identify weights, for provenance.

    Parameters
    ----------
    path : `str`, optional
        File from `write_weights`; by default that of the package.

    Returns
    -------
    facts : `dict` [`str`, `str`]
        ``version``, and ``sha256`` of the file.
    """
    source = _source(path)
    with source.open("rb") as file, np.load(file) as stored:
        version = str(stored["version"])
    return {"version": version, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}


def _source(path: str | None) -> Traversable:
    """Return the file of weights."""
    return importlib.resources.files(__package__).joinpath(_FILE) if path is None else Path(path)
