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

# Lines of the table of estimates that are shown; rows in the middle are left out.
_MAX_LINES = 60


@click.command("ingest-exposures", cls=ButlerCommand, short_help="Ingest exposures from FITS files.")
@repo_argument(required=True)
@click.argument("sources", metavar="MANIFEST|FILES...", nargs=-1, required=True, type=click.Path(exists=True))
@click.option(
    "--write-manifest",
    "manifest",
    metavar="FILE",
    type=click.Path(),
    help="Write the manifest of the FITS files to FILE, to edit and ingest; nothing is ingested now.",
)
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
def ingest_exposures(repo: str, sources: tuple[str, ...], manifest: str | None, **options: Any) -> None:
    """Ingest exposures as visit images in nJy.

    FILES are calibrated FITS images, or folders of them, with a WCS.  Zero point
    (AB), exposure time, date and filter are read from their headers; variance,
    saturation, correlation of the noise and PSF are measured in the images. A
    table shows each value with its origin.

    MANIFEST is an ECSV table with one row for each exposure and detector, whose
    values count instead. Columns marked with * are optional.

    \b
    visit              ID of the exposure, the same for all of its detectors
    detector *         ID of the detector (0)
    image              FITS image with WCS
    variance *         FITS image, counts squared, photons of sources included; or
    weight *           FITS image, inverse variance (estimated)
    gain *             electrons per count, if there is no variance (estimated)
    background *       mesh, pixels, of a background to subtract, 0 for none
    saturation *       counts (estimated)
    correlation *      noise at low frequencies over variance (measured)
    mask *             FITS image, non-zero for bad pixels
    psf_kind *         kernel, psfex, piff, fwhm_pixel, fwhm_arcsec or stars
    psf *              file of the PSF, or its FWHM (measured from stars)
    band               band, for example i
    physical_filter *  name of the filter (the band)
    time               start of the exposure, ISO or MJD, UTC
    exposure_time      seconds
    zero_point         AB magnitude of 1 count

    File names are relative to MANIFEST; name.fits[1] or name.fits[SCI] chooses
    an extension.  All files are checked before anything is written.
    """  # noqa: D301 (a backspace is how click is told to keep the lines)
    from lsst.daf.butler import Butler

    from ..repository.frame_manifest import write_manifest
    from ..repository.ingest import ingest_exposures as ingest

    try:
        if manifest is not None:
            table, problems = write_manifest(sources, manifest)
            click.echo(f"Wrote {len(table)} rows to {manifest}; nothing was ingested.")
            for problem in problems:
                click.echo(f"To fill in: {problem}")
            return
        with Butler.from_config(repo, writeable=True) as butler:
            summary = ingest(butler, sources, **options)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if len(summary.estimates):
        click.echo("\n".join(summary.estimates.pformat(max_lines=_MAX_LINES, max_width=-1)))
        click.echo(
            "Origins: h header, g given in the manifest, e estimated. sigma in nJy, fwhm in pixels, gain in "
            "electrons per count; where it is unknown, the variance lacks the photons of sources: give it in "
            "a manifest."
        )
    click.echo(
        f"Ingested {summary.n_images} images of {summary.n_visits} visits with {summary.instrument!r}; "
        f"input collection: {summary.collection}"
    )
