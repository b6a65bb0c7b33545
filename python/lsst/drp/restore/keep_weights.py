# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Keep the networks of a run, for later runs to start from."""

from __future__ import annotations

__all__ = ("keep_weights",)

from lsst.daf.butler import (
    Butler,
    CollectionType,
    DatasetType,
    MissingCollectionError,
    MissingDatasetTypeError,
)

FITTED = "restored_coadd_weights"
INITIAL = "restored_coadd_initial_weights"


def keep_weights(butler: Butler, collection: str, *, output: str, where: str = "") -> int:
    """Copy weights that a run wrote to the dataset type that others read.

    Parameters
    ----------
    butler : `lsst.daf.butler.Butler`
        A butler that can write.
    collection : `str`
        Collection with ``restored_coadd_weights``.
    output : `str`
        RUN collection for ``restored_coadd_initial_weights``; made if it does
        not exist.  What it has of the same patches and bands is replaced.
    where : `str`, optional
        Query expression that selects patches and bands.

    Returns
    -------
    count : `int`
        How many were copied.

    Raises
    ------
    ValueError
        Raised if there are no weights of a network to copy, or ``output`` is
        no RUN collection.
    """
    try:
        butler.collections.get_info(collection)
    except MissingCollectionError as error:
        raise ValueError(f"There is no collection {collection!r}.") from error
    try:
        refs = butler.query_datasets(FITTED, collection, where=where, limit=None, explain=False)
    except MissingDatasetTypeError:
        refs = []
    tables = [(ref, butler.get(ref)) for ref in refs]
    # Without a network there are no weights.
    tables = [(ref, table) for ref, table in tables if len(table)]
    if not tables:
        raise ValueError(
            f"Collection {collection!r} has no dataset {FITTED!r} with weights"
            + (f" where {where}." if where else ".")
        )
    dataset_type = DatasetType(INITIAL, refs[0].dimensions, "ArrowAstropy")
    butler.registry.registerDatasetType(dataset_type)
    butler.collections.register(output)
    if butler.collections.get_info(output).type is not CollectionType.RUN:
        raise ValueError(f"{output!r} is not a RUN collection.")
    for ref, table in tables:
        old = butler.find_dataset(dataset_type, ref.dataId, collections=output)
        if old is not None:
            butler.pruneDatasets([old], disassociate=True, unstore=True, purge=True)
        butler.put(table, dataset_type, ref.dataId, run=output)
    return len(tables)
