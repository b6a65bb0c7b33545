# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The command ``butler keep-weights``."""

from __future__ import annotations

__all__ = ("keep_weights",)

from typing import Any

import click

from lsst.daf.butler.cli.opt import repo_argument
from lsst.daf.butler.cli.utils import ButlerCommand


@click.command("keep-weights", cls=ButlerCommand, short_help="Keep networks of a run for later ones.")
@repo_argument(required=True)
@click.argument("collection")
@click.option(
    "--output",
    default="restored_coadd_initial_weights",
    show_default=True,
    help="RUN collection for the datasets 'restored_coadd_initial_weights'.",
)
@click.option(
    "--where", default="", help="Only some of the patches, as in: \"skymap='s' AND tract=0 AND band='i'\"."
)
def keep_weights(repo: str, collection: str, **options: Any) -> None:
    """Keep the networks that were fitted in COLLECTION, for later runs to
    start from.

    Copies the datasets 'restored_coadd_weights', small tables, to
    'restored_coadd_initial_weights' in a collection that later runs get as
    an input, with -c restoreCoadd:warmStart=True.  Those that are there
    already are replaced.
    """
    from lsst.daf.butler import Butler

    from ..keep_weights import keep_weights as keep

    try:
        with Butler.from_config(repo, writeable=True) as butler:
            count = keep(butler, collection, **options)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Kept the weights of {count} restored coadds in collection {options['output']!r}.")
