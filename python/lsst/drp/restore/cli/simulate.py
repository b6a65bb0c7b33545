# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The command ``butler simulate-exposures``."""

from __future__ import annotations

__all__ = ("simulate_exposures",)

from collections.abc import Callable
from typing import Any

import click

from lsst.daf.butler.cli.opt import repo_argument
from lsst.daf.butler.cli.utils import ButlerCommand

# Field of SimulationConfig, its type (a pair for two values), its default and
# its help.  The defaults are repeated here so that the help of the command is
# printed without importing the simulation; a test compares them.
_OPTIONS: tuple[tuple[str, Any, Any, str], ...] = (
    ("tract", int, 0, "Tract."),
    ("patch", int, 0, "Patch to point at."),
    ("band", str, "i", "Band."),
    ("tract_collection", str, "skymaps", "Collection with the geometry of the tract."),
    ("collection", str, "sim", "CHAINED collection to make; the datasets go to COLLECTION/run."),
    ("instrument", str, "SimCam", "Name of the camera."),
    ("seed", int, 0, "Seed of everything random."),
    ("n_visits", int, 8, "Number of visits."),
    ("first_visit", int, 1, "ID of the first visit."),
    ("begin", str, "2025-11-20T02:00:00", "Start of the first visit, ISO format, TAI."),
    ("exposure_time", float, 30.0, "Exposure time, s."),
    ("detectors", (int, int), (2, 2), "Number of detectors along x and y."),
    ("detector_size", int, None, "Height and width of a detector, pixels.  [default: cover the patch]"),
    ("detector_gap", int, 20, "Gap between detectors, pixels."),
    ("pixel_scale", float, 0.2, "Size of a camera pixel, arcsec."),
    ("distortion", float, 0.01, "Radial distortion at the corner of the camera, relative."),
    ("dither_radius", float, 10.0, "Radius of the circle of pointings, arcsec."),
    ("rotations", (float, float), (0.0, 360.0), "Range of the camera's rotation, degrees."),
    ("psf", ("piff", "kernel", "gaussian"), "piff", "Model of the PSF."),
    ("seeing_range", (float, float), (0.5, 0.95), "Range of the seeing (FWHM), arcsec."),
    ("moffat_beta", float, 3.5, "Exponent of the Moffat profile of the PSF."),
    ("psf_variation", float, 0.04, "Variation of the PSF's size and shape over the camera."),
    ("psf_loss", float, 5e-4, "Fraction of the flux outside of the PSF's stamp."),
    ("depth", float, 24.5, "5-sigma depth for point sources in a visit with 0.7 arcsec of seeing, mag."),
    ("sky_brightness", float, 20.0, "Brightness of the sky, mag per square arcsec."),
    ("sky_scatter", float, 0.25, "Scatter of the sky brightness between visits, mag."),
    ("zero_point_scatter", float, 0.1, "Scatter of the zero point between visits, mag."),
    ("calibration_error", float, 0.0, "Scatter of the relative flux error between visits."),
    ("full_well", float, 1e5, "Electrons at which a pixel saturates."),
    ("sky_residual", float, 0.05, "Amplitude of the residual sky, in units of the noise per pixel."),
    ("bad_columns", float, 1.0, "Average number of dead columns of a detector."),
    ("hot_pixels", float, 100.0, "Hot pixels per million."),
    ("cosmic_rays", float, 60.0, "Cosmic rays per million pixels."),
    ("unmasked_cosmic_rays", float, 0.1, "Fraction of the cosmic rays missing in the mask."),
    ("noise", bool, True, "Add noise to the images."),
    ("noise_seed", int, None, "Seed of the photon noise.  [default: drawn with SEED]"),
    ("star_density", float, 1.0, "Number of stars relative to a field far from the Galactic plane."),
    ("galaxy_density", float, 1.0, "Number of galaxies relative to the average of the sky."),
    ("star_magnitudes", (float, float), (15.0, 26.0), "Range of the stars' magnitudes."),
    ("galaxy_magnitudes", (float, float), (18.0, 26.5), "Range of the galaxies' magnitudes."),
    ("bright_stars", int, 3, "Additional stars of 15 to 18 mag within the patch."),
    ("warps", bool, False, "Also write warps on the patch's grid (direct_warp)."),
    (
        "color",
        (float, float),
        (0.0, 0.0),
        "Mean and scatter of the colors between neighboring bands, mag.",
    ),
)


def _config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the configuration to a command."""
    for name, kind, default, text in reversed(_OPTIONS):
        flag = "--" + name.replace("_", "-")
        if kind is bool:
            flag = f"{flag}/--no-{name.replace('_', '-')}"
        elif isinstance(kind, tuple) and isinstance(kind[0], str):
            kind = click.Choice(kind)
        option = click.option(
            flag, name, type=kind, default=default, show_default=default is not None, help=text
        )
        command = option(command)
    return command


@click.command(
    "simulate-exposures", cls=ButlerCommand, short_help="Simulate exposures of a patch and their truth."
)
@repo_argument(required=True)
@click.option("--skymap", required=True, help="Name of the skymap, as given to register-tract.")
@_config_options
@click.option(
    "--catalog",
    default=None,
    type=click.Path(exists=True, dir_okay=False),
    help="Table of sources to draw instead of a random sky, for example an ECSV file, with the columns "
    "ra, dec (degrees), flux_nJy, and for galaxies kind, half_light_radius, sersic_n, axis_ratio, "
    "position_angle.",
)
def simulate_exposures(repo: str, catalog: str | None, **options: Any) -> None:
    """Simulate dithered visits of one patch with a small camera.

    Exposures of stars and galaxies with distortion, variable seeing, sky noise
    and detector effects are written as visit_image datasets in nJy, the truth
    as truth_image and truth_catalog.  Register the tract with register-tract
    first.
    """
    import astropy.table

    from lsst.daf.butler import Butler

    from ..simulation.simulate import SimulationConfig
    from ..simulation.simulate import simulate_exposures as simulate

    try:
        config = SimulationConfig(
            **options, catalog=None if catalog is None else astropy.table.Table.read(catalog)
        )
        with Butler.from_config(repo, writeable=True) as butler:
            summary = simulate(butler, config)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo("\n".join(summary.visits.pformat(max_lines=-1, max_width=-1)))
    click.echo(
        f"{summary.n_sources['star']} stars and {summary.n_sources['galaxy']} galaxies on the patch; "
        f"input collection: {summary.collection}"
    )
