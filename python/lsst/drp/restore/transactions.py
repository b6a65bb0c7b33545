# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Writing all outputs of a quantum, or none."""

from __future__ import annotations

__all__ = ("all_or_nothing",)

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import lsst.pipe.base as pipeBase
from lsst.daf.butler import Butler

from .errors import describe_error, find_environment_error


@contextmanager
def all_or_nothing(butlerQC: pipeBase.QuantumContext) -> Iterator[None]:
    """Return a context in which all datasets are written or none is.

    A run that is killed between two of its outputs leaves a repository in
    which ``--skip-existing`` finds the quantum neither done nor to do.  A
    transaction of the repository prevents that; `QuantumContext` does not
    offer it, so it is asked of the butler behind it.  A butler without a
    registry (``pipetask run-qbb``) has no transactions and needs none: its
    datasets are registered when the whole graph has run.

    Parameters
    ----------
    butlerQC : `lsst.pipe.base.QuantumContext`
        Writes the datasets.

    Raises
    ------
    RuntimeError
        Raised if the disk or the network fails; its message has the remedy.
    """
    butler = butlerQC._QuantumContext__butler  # type: ignore[attr-defined]
    try:
        with butler.transaction() if isinstance(butler, Butler) else nullcontext():
            yield
    except Exception as err:
        if (cause := find_environment_error(err)) is None:
            raise
        # The Butler's message only says which dataset it was.
        raise RuntimeError(
            f"The patch cannot be written ({describe_error(cause)}), and nothing of it is left. Remove the "
            f"cause and run again with --extend-run --skip-existing --clobber-outputs. {err}"
        ) from err
