# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The weights of a network as a table."""

from __future__ import annotations

__all__ = ("make_weights_table",)

from collections.abc import Mapping

import astropy.table
import numpy as np


def make_weights_table(weights: Mapping[str, np.ndarray]) -> astropy.table.Table:
    """Make the dataset ``restored_coadd_weights``.

    Parameters
    ----------
    weights : `~collections.abc.Mapping` [`str`, `numpy.ndarray`]
        Weights of the network by name.

    Returns
    -------
    table : `astropy.table.Table`
        One row per number: ``name`` of the array, its ``shape`` (comma
        separated; empty for a scalar), ``index`` in the flattened array (C
        order), and ``value``.
    """
    names, shapes, indices, values = [], [], [], []
    for name, array in weights.items():
        names += [name] * array.size
        shapes += [",".join(map(str, array.shape))] * array.size
        indices.append(np.arange(array.size))
        values.append(np.asarray(array, np.float32).ravel())
    return astropy.table.Table(
        {
            "name": np.array(names, dtype=str),
            "shape": np.array(shapes, dtype=str),
            "index": np.concatenate(indices) if indices else np.array([], np.int64),
            "value": np.concatenate(values) if values else np.array([], np.float32),
        }
    )
