# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The pixels of a simulated exposure: sources, detector effects and noise."""

from __future__ import annotations

__all__ = ("SimulatedExposure", "draw_sources")

import dataclasses

import astropy.table
import numpy as np
from astropy.coordinates import SkyCoord

from lsst.images import SkyProjection

from .camera import SimulatedCamera, SimulatedVisit
from .config import Stream
from .detector_effects import CosmicRays, add_defects, bleed
from .psf import SimulatedPsf
from .sky import galaxy_profile, locate, truncation
from .truth import add_stamp

# Surface brightness to which sources are drawn, as a fraction of the sky noise
# per pixel.
_FAINTEST = 0.02
# Sources further away from the detector are ignored, pixels.
_LONGEST_REACH = 1000


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SimulatedExposure:
    """The pixels of one detector in one visit, shape ``(size, size)``.

    Parameters
    ----------
    image : `numpy.ndarray`
        Sky-subtracted image, nJy, `numpy.float32`.
    variance : `numpy.ndarray`
        Variance of sky and source photons, without cosmic rays and defects,
        nJy**2, `numpy.float32`.
    masks : `dict` [`str`, `numpy.ndarray`]
        Masked pixels by mask plane, `bool`: BAD, SATURATED and COSMIC_RAY.
    unmasked : `numpy.ndarray`
        Pixels hit only by cosmic rays that are missing in the mask, `bool`.
    n_cosmic_rays : `tuple` [`int`, `int`]
        Number of masked and unmasked cosmic rays.
    """

    image: np.ndarray
    variance: np.ndarray
    masks: dict[str, np.ndarray]
    unmasked: np.ndarray
    n_cosmic_rays: tuple[int, int]

    @classmethod
    def draw(
        cls,
        camera: SimulatedCamera,
        visit: SimulatedVisit,
        detector: int,
        catalog: astropy.table.Table,
        projection: SkyProjection,
        psf: SimulatedPsf,
    ) -> SimulatedExposure:
        """Simulate the exposure of a detector in a visit.

        Parameters
        ----------
        camera : `SimulatedCamera`
            The camera.
        visit : `SimulatedVisit`
            The visit.
        detector : `int`
            ID of the detector.
        catalog : `astropy.table.Table`
            Sources; see `lsst.drp.restore.simulation.sky`.
        projection : `lsst.images.SkyProjection`
            Maps the detector's pixels to the sky.
        psf : `SimulatedPsf`
            The PSF.

        Returns
        -------
        exposure : `SimulatedExposure`
            The exposure.
        """
        config = camera.config
        shape = (camera.size, camera.size)
        faintest = _FAINTEST * visit.sky_sigma
        sources = draw_sources(catalog, projection, psf, shape, loss=config.psf_loss, faintest=faintest)
        variance = (np.maximum(sources, 0) + visit.sky_level) / visit.gain

        rng = config.generator(Stream.PIXELS, visit.visit, detector)
        deviates = rng.standard_normal(shape)
        if config.noise_seed is not None:
            # Replaces the deviates above, which are drawn anyway so that cosmic
            # rays, which follow in the stream, do not depend on this seed.
            deviates = config.generator(Stream.NOISE, visit.visit, detector).standard_normal(shape)
        noise = np.sqrt(variance) * deviates
        held, saturated = bleed((sources + visit.sky_level) * visit.gain, config.full_well)
        image = np.where(saturated, held / visit.gain - visit.sky_level, sources)
        if config.noise:
            image[~saturated] += noise[~saturated]
        image += config.sky_residual * visit.sky_sigma * _low_order(rng, shape)

        rays = CosmicRays.draw(config, rng, shape)
        image += rays.electrons / visit.gain
        # Charge beyond the full well is lost.
        limit = config.full_well / visit.gain - visit.sky_level
        saturated |= image > limit
        image = np.minimum(image, limit)

        bad = add_defects(camera, visit, detector, image)
        return cls(
            image=(image * visit.calibration).astype(np.float32),
            variance=(variance * visit.calibration**2).astype(np.float32),
            masks={"BAD": bad, "SATURATED": saturated, "COSMIC_RAY": rays.masked},
            unmasked=rays.unmasked,
            n_cosmic_rays=(rays.n_masked, rays.n_unmasked),
        )


def draw_sources(
    catalog: astropy.table.Table,
    projection: SkyProjection,
    psf: SimulatedPsf,
    shape: tuple[int, int],
    *,
    loss: float,
    faintest: float,
) -> np.ndarray:
    """Draw the sources that a detector sees, without noise.

    Parameters
    ----------
    catalog : `astropy.table.Table`
        Sources; see `lsst.drp.restore.simulation.sky`.
    projection : `lsst.images.SkyProjection`
        Maps the detector's pixels to the sky.
    psf : `SimulatedPsf`
        The PSF.
    shape : `tuple` [`int`, `int`]
        Height and width of the detector.
    loss : `float`
        Fraction of a source's flux that its stamp may miss.
    faintest : `float`
        Surface brightness at which its stamp may end, nJy per pixel.

    Returns
    -------
    image : `numpy.ndarray`
        Flux per pixel, nJy, `numpy.float64`.

    Notes
    -----
    Each source is drawn with the PSF and the linearized WCS at its position.
    The stamp is large enough for both conditions: faint sources keep their
    flux, and bright sources their visible wings.
    """
    import galsim

    image = np.zeros(shape)
    # Far from the detector the WCS need not have an inverse.
    center = projection.pixel_to_sky(x=(shape[1] - 1) / 2, y=(shape[0] - 1) / 2)
    corner = projection.pixel_to_sky(x=-_LONGEST_REACH, y=-_LONGEST_REACH)
    near = SkyCoord(catalog["ra"], catalog["dec"]).separation(center) < center.separation(corner)
    catalog = catalog[near]
    x, y, jacobians = locate(catalog, projection)
    galaxy = catalog["kind"] == "galaxy"
    radii = np.array(
        [psf.radius(loss, faintest / max(abs(flux), 1e-30)) for flux in np.asarray(catalog["flux_nJy"])]
    )
    # A galaxy's profile ends at a finite radius.
    ends = np.array([truncation(n) for n in catalog["sersic_n"]])
    pixels = np.linalg.norm(jacobians, ord=2, axis=(1, 2))
    major = np.asarray(catalog["half_light_radius"]) / np.sqrt(np.asarray(catalog["axis_ratio"]))
    radii = np.ceil(radii + np.where(galaxy, ends * major * pixels, 0.0))
    reaches = (x + radii >= 0) & (x - radii < shape[1]) & (y + radii >= 0) & (y - radii < shape[0])
    for i in np.flatnonzero(reaches):
        profile, method = psf.profile(float(x[i]), float(y[i]))
        if galaxy[i]:
            (dx_de, dx_dn), (dy_de, dy_dn) = jacobians[i]
            shape_on_sky = galaxy_profile(catalog[i]).transform(dx_de, dx_dn, dy_de, dy_dn).withFlux(1.0)
            profile = galsim.Convolve(shape_on_sky, profile)
        ix, iy, r = round(x[i]), round(y[i]), int(radii[i])
        stamp = galsim.ImageD(2 * r + 1, 2 * r + 1, scale=1.0)
        profile.drawImage(stamp, method=method, offset=(x[i] - ix, y[i] - iy))
        add_stamp(image, stamp.array * float(catalog["flux_nJy"][i]), ix - r, iy - r)
    return image


def _low_order(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw a random surface of second order with values of about 1."""
    x, y = np.meshgrid(np.linspace(-1, 1, shape[1]), np.linspace(-1, 1, shape[0]))
    a = rng.standard_normal(5) / np.sqrt(5)
    return a[0] + a[1] * x + a[2] * y + a[3] * x * y + a[4] * (1.5 * (x**2 + y**2) - 1)
