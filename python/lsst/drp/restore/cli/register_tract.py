# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The command ``butler register-tract``."""

from __future__ import annotations

__all__ = ("register_tract",)

from typing import Any

import click

from lsst.daf.butler.cli.opt import repo_argument
from lsst.daf.butler.cli.utils import ButlerCommand


@click.command("register-tract", cls=ButlerCommand, short_help="Register a tract and its grid of patches.")
@repo_argument(required=True)
@click.argument("name")
@click.option("--ra", type=float, required=True, help="Right ascension of the tract's center, degrees.")
@click.option("--dec", type=float, required=True, help="Declination of the tract's center, degrees.")
@click.option("--pixel-scale", type=float, default=0.2, show_default=True, help="Size of a pixel, arcsec.")
@click.option(
    "--patch-size",
    type=int,
    default=3000,
    show_default=True,
    help="Height and width of a patch without its border, pixels.",
)
@click.option(
    "--patch-border",
    type=int,
    default=150,
    show_default=True,
    help="Width of the border on each side of a patch, which overlaps adjacent patches, pixels.",
)
@click.option(
    "--cell-size",
    type=int,
    default=150,
    show_default=True,
    help="Height and width of a cell, within which the PSF of an exposure is constant, pixels.  Cells tile "
    "the patch including its border.",
)
@click.option(
    "--patches",
    "n_patches",
    type=(int, int),
    metavar="NX NY",
    default=(1, 1),
    show_default=True,
    help="Number of patches along x and y.",
)
@click.option("--tract", type=int, default=0, show_default=True, help="ID of the tract.")
@click.option(
    "--collection",
    default="skymaps",
    show_default=True,
    help="RUN collection for the dataset 'tract_geometry'.",
)
def register_tract(repo: str, name: str, **options: Any) -> None:
    """Register a tract and its grid of patches as skymap NAME.

    Patches are numbered from the south-east, along x first.  No skyMap dataset
    of the Science Pipelines is needed.  Registering the same tract again has no
    effect.
    """
    from lsst.daf.butler import Butler

    from ..repository.register_tract import register_tract as register

    try:
        with Butler.from_config(repo, writeable=True) as butler:
            geometry = register(butler, name, **options)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    columns, rows = geometry["n_patches"]
    size = geometry["patch_size"] + 2 * geometry["patch_border"]
    click.echo(
        f"Skymap {name!r}: tract {geometry['tract']} with {columns}x{rows} patches of {size}x{size} pixels, "
        f"including {geometry['patch_border']} pixels of border on each side; geometry in collection "
        f"{options['collection']!r}."
    )
