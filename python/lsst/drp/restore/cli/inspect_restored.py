# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The command ``butler inspect-restored``."""

from __future__ import annotations

__all__ = ("inspect_restored",)

import sys

import click

from lsst.daf.butler.cli.opt import repo_argument
from lsst.daf.butler.cli.utils import ButlerCommand

# Patches listed on the terminal without --limit.
_PRINTED = 25


@click.command("inspect-restored", cls=ButlerCommand, short_help="List restored patches, worst first.")
@repo_argument(required=True)
@click.argument("collections", nargs=-1)
@click.option(
    "--where", default="", help="Select patches, for example \"skymap='s' AND tract=0 AND patch<10\"."
)
@click.option("--band", "bands", multiple=True, help="Select a band; may be given several times.")
@click.option(
    "--sort",
    "by",
    default="warnings",
    show_default=True,
    help="'warnings', 'patch', or a column of the tables, such as loss, inconsistent, no_data, exposures, "
    "seeing, sharper, ssim or seconds; worst first.",
)
@click.option("--reverse", is_flag=True, help="Best first.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"Maximum number of patches, also in the files.  [default: all, and {_PRINTED} on the terminal]",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False),
    help="Write an HTML page; its pictures go to a folder next to it.",
)
@click.option(
    "--thumbnails/--no-thumbnails",
    default=True,
    show_default=True,
    help="Show pictures of the patches on the page.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False),
    help="Write a table with all columns: a .csv, .ecsv or .fits file.",
)
def inspect_restored(
    repo: str,
    collections: tuple[str, ...],
    where: str,
    bands: tuple[str, ...],
    by: str,
    reverse: bool,
    limit: int | None,
    html: str | None,
    thumbnails: bool,
    output: str | None,
) -> None:
    """List the restored patches in COLLECTIONS, worst first, with reasons.

    Reads restored_coadd_metrics and, for the pictures, the images. Several
    collections are searched in their order; without any, all runs of the
    repository are listed.

    Worst first means: patches whose restoration failed, then those with most
    problems of the image (it did not converge, it is inconsistent with the
    exposures, its loss is an outlier among the patches of its band, ...), then
    those with most remarks on the data (pixels without data, few exposures,
    ...), then those with the highest loss.
    """
    from lsst.daf.butler import Butler, ButlerUserError

    from ..repository.campaign.columns import COLUMNS
    from ..repository.campaign.find import find_patches
    from ..repository.campaign.page import write_page
    from ..repository.campaign.patches import sort_patches
    from ..repository.campaign.table import FORMATS, format_patches, write_table

    if by not in ("warnings", "patch", *COLUMNS):
        raise click.ClickException(f"--sort {by!r} is none of warnings, patch, {', '.join(COLUMNS)}.")
    if output is not None and not output.lower().endswith(tuple(FORMATS)):
        raise click.ClickException(f"--output {output!r} does not end with one of {', '.join(FORMATS)}.")
    try:
        # With the collections, --where may leave out the only skymap in them.
        with Butler.from_config(repo, collections=collections or None) as butler:
            campaign = find_patches(butler, collections, where=where, bands=bands)
            patches = sort_patches(campaign.patches, by, reverse=reverse)
            click.echo(campaign.summary() + "\n")
            chosen = patches[:limit]
            printed = chosen[: _PRINTED if limit is None else None]
            if printed:
                click.echo(format_patches(printed))
            if len(printed) < len(patches):
                click.echo(f"... and {len(patches) - len(printed)} more (--limit)")
            if output is not None:
                write_table(chosen, output)
                click.echo(f"Wrote {len(chosen)} patches to {output}")
            if html is not None:
                with click.progressbar(
                    chosen, label="Patches", file=sys.stderr, hidden=not sys.stderr.isatty()
                ) as progress:
                    write_page(butler, campaign, progress, html, thumbnails=thumbnails)
                click.echo(f"Wrote {len(chosen)} patches to {html}")
    except (ValueError, ButlerUserError, OSError) as error:
        raise click.ClickException(str(error)) from error
