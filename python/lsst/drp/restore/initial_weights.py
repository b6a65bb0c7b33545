# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Weights of an earlier restoration as the start of another one."""

from __future__ import annotations

__all__ = ("adapt_weights", "find_initial_weights", "read_weights_table")

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import astropy.table
import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    from lsst.daf.butler import DataCoordinate, DatasetRef, DatasetType

_COLUMNS = ("name", "shape", "index", "value")
# Per exposure and size of kernel: which axis counts the exposures.
_DEPTHWISE_KERNEL = re.compile(r"depthwise_\d+/kernel")
_DEPTHWISE_OTHER = re.compile(r"(depthwise_\d+/bias|normalization_\d+/\w+)")


def read_weights_table(table: astropy.table.Table) -> dict[str, np.ndarray]:
    """Read what `make_weights_table` made.

    Parameters
    ----------
    table : `astropy.table.Table`
        Dataset ``restored_coadd_weights`` or
        ``restored_coadd_initial_weights``.

    Returns
    -------
    weights : `dict` [`str`, `numpy.ndarray`]
        Weights of the network by name, `numpy.float32`.

    Raises
    ------
    InputError
        Raised if the table is not such a table, numbers are missing or not
        finite.
    """
    missing = [name for name in _COLUMNS if name not in table.colnames]
    if missing:
        raise _refuse(f"it lacks the columns {', '.join(missing)}")
    names = np.array([str(name) for name in table["name"]], dtype=str)
    weights = {}
    for name in dict.fromkeys(names.tolist()):
        rows = np.flatnonzero(names == name)
        shapes = {str(shape) for shape in table["shape"][rows]}
        text = shapes.pop()
        if shapes or not re.fullmatch(r"(\d+(,\d+)*)?", text):
            raise _refuse(f"'{name}' has no clear shape")
        shape = tuple(int(extent) for extent in text.split(",") if extent)
        index = np.asarray(table["index"][rows])
        if not np.array_equal(np.sort(index), np.arange(np.prod(shape, dtype=int))):
            raise _refuse(f"'{name}' of shape ({text}) has {len(rows)} numbers, or some of them twice")
        values = np.empty(len(rows), np.float32)
        values[index] = np.asarray(table["value"][rows], np.float32)
        if not np.isfinite(values).all():
            raise _refuse(f"'{name}' has numbers that are not finite")
        weights[name] = values.reshape(shape)
    return weights


def _refuse(reason: str) -> InputError:
    return InputError(
        f"The initial weights (dataset restored_coadd_initial_weights) cannot be used: {reason}. Make them "
        "with 'butler keep-weights' from the restored_coadd_weights of a run that succeeded, or start "
        "without them (warmStart=False)."
    )


def adapt_weights(
    weights: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Fit weights to a network for another number of exposures.

    Parameters
    ----------
    weights : `~collections.abc.Mapping` [`str`, `numpy.ndarray`]
        Weights by name, of one network.
    shapes : `~collections.abc.Mapping` [`str`, `tuple`]
        Shapes of the weights of the new network by name.

    Returns
    -------
    adapted : `dict` [`str`, `numpy.ndarray`]
        Those weights that the new network has a place for, in its shapes.
        What is missing has to start afresh.

    Notes
    -----
    With another number of exposures, the exposures of the new network take
    turns with the branches of the old one, and the layer that adds the
    branches up is scaled by the ratio of the numbers: if all exposures looked
    the same, the network would say the same as before.  (A mean of the
    branches would not do: the features of different exposures have different
    signs, and their mean is next to nothing.)
    """
    old, new = _count_exposures({k: v.shape for k, v in weights.items()}), _count_exposures(shapes)
    adapted = {}
    for name, shape in shapes.items():
        if name not in weights:
            continue
        value = weights[name]
        if old and new and old != new:
            turns = np.arange(new) % old
            if _DEPTHWISE_KERNEL.fullmatch(name):
                value = value[:, :, turns] if value.ndim == 4 and value.shape[2] == old else value
            elif _DEPTHWISE_OTHER.fullmatch(name):
                value = value[turns] if value.shape == (old,) else value
            elif name == _first_dense(shapes) and value.ndim == 4 and value.shape[2] % old == 0:
                # Channels are ordered by size of kernel, then by exposure.
                branches = value.reshape(*value.shape[:2], -1, old, value.shape[3])
                value = branches[:, :, :, turns].reshape(*value.shape[:2], -1, value.shape[3]) * (old / new)
        if value.shape == shape:
            adapted[name] = np.asarray(value, np.float32)
    return adapted


def _count_exposures(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the number of exposures of a network; 0 if it cannot be told."""
    counts = {shape[2] for name, shape in shapes.items() if _DEPTHWISE_KERNEL.fullmatch(name)}
    return counts.pop() if len(counts) == 1 else 0


def _first_dense(shapes: Mapping[str, Any]) -> str:
    """Return the kernel that adds the exposures' branches up."""
    return "hidden_0/kernel" if "hidden_0/kernel" in shapes else "pointwise/kernel"


def find_initial_weights(
    dataset_type: DatasetType, registry: Any, data_id: DataCoordinate, collections: Sequence[str]
) -> Iterable[DatasetRef]:
    """Find weights of the same patch, or else of the nearest patch that
    touches it, in the same band.

    Parameters
    ----------
    dataset_type : `lsst.daf.butler.DatasetType`
        Type of the weights.
    registry : `lsst.daf.butler.Registry`
        Where to search.
    data_id : `lsst.daf.butler.DataCoordinate`
        The patch and band to restore.
    collections : `~collections.abc.Sequence` [`str`]
        Collections to search, in order.

    Returns
    -------
    refs : `list` [`lsst.daf.butler.DatasetRef`]
        One reference or none.
    """
    from lsst.daf.butler import MissingDatasetTypeError

    try:
        found = list(
            registry.queryDatasets(
                dataset_type,
                collections=collections,
                findFirst=True,
                skymap=data_id["skymap"],
                tract=data_id["tract"],
                band=data_id["band"],
            )
        )
    except MissingDatasetTypeError:
        return []
    here = registry.expandDataId(data_id).records["patch"]
    near: list[tuple[int, int, DatasetRef]] = []
    for ref in found:
        there = registry.expandDataId(ref.dataId).records["patch"]
        dx, dy = abs(there.cell_x - here.cell_x), abs(there.cell_y - here.cell_y)
        if max(dx, dy) <= 1:
            near.append((dx + dy, there.id, ref))
    return [min(near, key=lambda item: item[:2])[2]] if near else []
