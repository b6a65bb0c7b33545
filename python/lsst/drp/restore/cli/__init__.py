# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Subcommands of ``butler``.

Every ``butler`` call imports this package, so its modules import the rest of
the package only inside of functions.
"""

from __future__ import annotations

__all__ = ("get_cli_subcommands",)

import click


def get_cli_subcommands() -> list[click.Command]:
    """Return the subcommands that this package adds to ``butler``.

    Returns
    -------
    commands : `list` [`click.Command`]
        The commands.
    """
    from .ingest import ingest_exposures
    from .inspect_restored import inspect_restored
    from .register_tract import register_tract
    from .simulate import simulate_exposures

    return [ingest_exposures, inspect_restored, register_tract, simulate_exposures]
