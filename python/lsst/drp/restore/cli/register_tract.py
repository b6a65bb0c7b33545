# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The command ``butler register-tract``."""

from __future__ import annotations

__all__ = ("register_tract",)

import dataclasses
from typing import Any

import click

from lsst.daf.butler.cli.opt import repo_argument
from lsst.daf.butler.cli.utils import ButlerCommand

# Default grid without exposures.
_DEFAULTS = {
    "pixel_scale": 0.2,
    "patch_size": 3000,
    "patch_border": 150,
    "cell_size": 150,
    "n_patches": (1, 1),
}

# Options that exposures' footprints are divided by.
_SIZES = ("pixel_scale", "patch_size", "patch_border", "cell_size")


@click.command("register-tract", cls=ButlerCommand, short_help="Register a tract and its grid of patches.")
@repo_argument(required=True)
@click.argument("name")
@click.option(
    "--from",
    "sources",
    metavar="MANIFEST|FILES",
    multiple=True,
    type=click.Path(exists=True),
    help="Choose a grid that contains these exposures: a manifest, FITS files or a folder (repeatable).  "
    "Sizes that are given count.",
)
@click.option("--ra", type=float, help="Right ascension of the tract's center, degrees.")
@click.option("--dec", type=float, help="Declination of the tract's center, degrees.")
@click.option(
    "--pixel-scale",
    type=float,
    help="Size of a pixel, arcsec.  [default: 0.2, with --from that of the images]",
)
@click.option(
    "--patch-size",
    type=int,
    help="Height and width of a patch without its border, pixels.  [default: 3000, with --from up to 500]",
)
@click.option(
    "--patch-border",
    type=int,
    help="Width of the border on each side of a patch, which overlaps adjacent patches, pixels.  "
    "[default: 150, with --from 50]",
)
@click.option(
    "--cell-size",
    type=int,
    help="Height and width of a cell, within which the PSF of an exposure is constant, pixels.  Cells tile "
    "the patch including its border.  [default: 150, with --from 50]",
)
@click.option(
    "--patches",
    "n_patches",
    type=(int, int),
    metavar="NX NY",
    help="Number of patches along x and y.  [default: 1 1, with --from those of the images]",
)
@click.option("--tract", type=int, default=0, show_default=True, help="ID of the tract.")
@click.option(
    "--collection",
    default="skymaps",
    show_default=True,
    help="RUN collection for the dataset 'tract_geometry'.",
)
def register_tract(repo: str, name: str, sources: tuple[str, ...], **options: Any) -> None:
    """Register a tract and its grid of patches as skymap NAME.

    Give the center by --ra and --dec, or --from.  Patches are numbered from the
    south-east, along x first.  No skyMap dataset of the Science Pipelines is
    needed.  Registering the same tract again has no effect.
    """
    from lsst.daf.butler import Butler

    from ..repository.propose_tract import propose_tract
    from ..repository.register_tract import register_tract as register

    given = {key: value for key, value in options.items() if value is not None}
    if not sources and not {"ra", "dec"} <= given.keys():
        raise click.UsageError("Give the center by --ra and --dec, or exposures by --from.")
    try:
        if sources:
            sizes = {key: given[key] for key in _SIZES if key in given}
            defaults = dataclasses.asdict(propose_tract(sources, **sizes))
        else:
            defaults = _DEFAULTS
        with Butler.from_config(repo, writeable=True) as butler:
            geometry = register(butler, name, **(defaults | given))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    columns, rows = geometry["n_patches"]
    size = geometry["patch_size"] + 2 * geometry["patch_border"]
    if sources:
        wcs = geometry["wcs"]
        click.echo(
            f"Center {wcs['CRVAL1']:.6f} {wcs['CRVAL2']:.6f}, pixels of {3600 * wcs['CDELT2']:.4g} arcsec, "
            f"cells of {geometry['cell_size']} pixels, from the exposures."
        )
    click.echo(
        f"Skymap {name!r}: tract {geometry['tract']} with {columns}x{rows} patches of {size}x{size} pixels, "
        f"including {geometry['patch_border']} pixels of border on each side; geometry in collection "
        f"{options['collection']!r}."
    )
