# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The command ``butler ingest-exposures``."""

from __future__ import annotations

__all__ = ("ingest_exposures",)

from typing import Any

import click

from lsst.daf.butler.cli.opt import repo_argument
from lsst.daf.butler.cli.utils import ButlerCommand


@click.command("ingest-exposures", cls=ButlerCommand, short_help="Ingest exposures from FITS files.")
@repo_argument(required=True)
@click.argument("manifest", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--instrument",
    help="Name of the instrument.  [default: 'instrument' of the manifest's metadata, or External]",
)
@click.option(
    "--collection",
    default="ingested",
    show_default=True,
    help="CHAINED collection to make; the images go to COLLECTION/run.",
)
@click.option(
    "--tract-collection",
    help="Collection with the geometry of the tract, added to the chain.  [default: skymaps, if it exists]",
)
@click.option("--dataset-type", default="visit_image", show_default=True, help="Dataset type of the images.")
@click.option("--skip-existing", is_flag=True, help="Skip images that COLLECTION/run has already.")
def ingest_exposures(repo: str, manifest: str, **options: Any) -> None:
    """Ingest the exposures listed in MANIFEST as visit images in nJy.

    MANIFEST is an ECSV table with one row for each exposure and detector.

    \b
    visit            ID of the exposure, the same for all of its detectors
    detector         ID of the detector (optional, 0)
    image            FITS image with WCS
    variance         FITS image, counts squared; or
    weight           FITS image, inverse variance
    mask             FITS image, non-zero for bad pixels (optional)
    psf_kind         kernel, psfex, piff, fwhm_pixel or fwhm_arcsec
    psf              file of the PSF, or its FWHM
    band             band, for example i
    physical_filter  name of the filter (optional, the band)
    time             start of the exposure, ISO or MJD, UTC
    exposure_time    seconds
    zero_point       AB magnitude of 1 count

    File names are relative to MANIFEST; name.fits[1] or name.fits[SCI] chooses
    an extension.  All files are checked before anything is written.
    """  # noqa: D301 (a backspace is how click is told to keep the lines)
    from lsst.daf.butler import Butler

    from ..repository.ingest import ingest_exposures as ingest

    try:
        with Butler.from_config(repo, writeable=True) as butler:
            summary = ingest(butler, manifest, **options)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"Ingested {summary.n_images} images of {summary.n_visits} visits with {summary.instrument!r}; "
        f"input collection: {summary.collection}"
    )
