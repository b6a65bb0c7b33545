# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSFs of simulated exposures."""

from __future__ import annotations

__all__ = ("SimulatedPsf",)

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from astropy.stats import gaussian_sigma_to_fwhm

from lsst.images.psfs import GaussianPointSpreadFunction, PiffWrapper, PointSpreadFunction

from ..repository.make_visit_image import kernel_psf
from .camera import SimulatedCamera, SimulatedVisit
from .config import Stream

if TYPE_CHECKING:
    import galsim
    import piff


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SimulatedPsf:
    """The PSF of a detector in a visit.

    Parameters
    ----------
    stored : `lsst.images.psfs.PointSpreadFunction`
        Model that is stored with the image.
    fwhm : `float`
        FWHM at the center of the detector without the pixel response, detector
        pixels.
    beta : `float` or `None`
        Exponent of the Moffat profile; `None` for a Gaussian.

    Notes
    -----
    Sources are drawn with the stored model, pixel response included, so that
    the model has no error.
    """

    stored: PointSpreadFunction
    fwhm: float
    beta: float | None

    @classmethod
    def draw(cls, camera: SimulatedCamera, visit: SimulatedVisit, detector: int) -> SimulatedPsf:
        """Draw the PSF of a detector in a visit at random.

        Parameters
        ----------
        camera : `SimulatedCamera`
            The camera.
        visit : `SimulatedVisit`
            The visit.
        detector : `int`
            ID of the detector.

        Returns
        -------
        psf : `SimulatedPsf`
            The PSF.
        """
        config = camera.config
        # A 5x5 grid, on which polynomials of second order are fitted exactly.
        grid = np.linspace(0, camera.size - 1, 5)
        x, y = (a.ravel() for a in np.meshgrid(grid, grid))
        fwhm, g1, g2 = _optics(camera, visit, detector, x, y)
        middle = len(x) // 2
        bounds = camera.bbox
        if config.psf == "gaussian":
            stamp_size = _odd(gaussian_radius(fwhm[middle], config.psf_loss))
            gaussian = GaussianPointSpreadFunction(fwhm[middle] / gaussian_sigma_to_fwhm, bounds, stamp_size)
            return cls(stored=gaussian, fwhm=float(fwhm[middle]), beta=None)
        stamp_size = _odd(moffat_radius(fwhm.max(), config.moffat_beta, config.psf_loss))
        model = _moffat_psf(config.moffat_beta, x, y, fwhm, g1, g2)
        stored = PiffWrapper(model, bounds=bounds, stamp_size=stamp_size)
        if config.psf == "kernel":
            kernels = [stored.compute_kernel_image(x=a, y=b).array.ravel() for a, b in zip(x, y, strict=True)]
            basis = np.stack([np.ones_like(x), x, y], axis=1)
            planes = np.linalg.lstsq(basis, np.stack(kernels), rcond=None)[0]
            stored = kernel_psf(planes.reshape(3, stamp_size, stamp_size), bounds=bounds)
        return cls(stored=stored, fwhm=float(fwhm[middle]), beta=config.moffat_beta)

    def profile(self, x: float, y: float) -> tuple[galsim.GSObject, str]:
        """Evaluate the PSF at a position.

        Parameters
        ----------
        x, y : `float`
            Position on the detector, pixels.

        Returns
        -------
        profile : `galsim.GSObject`
            The PSF with unit flux; lengths are pixels.
        method : `str`
            GalSim's drawing method: ``no_pixel`` if the profile includes the
            pixel response.
        """
        import galsim

        if isinstance(self.stored, GaussianPointSpreadFunction):
            return galsim.Gaussian(sigma=self.stored.sigma), "no_pixel"
        assert isinstance(self.stored, PiffWrapper)
        return self.stored.piff_psf.get_profile(x, y)

    def radius(self, loss: float, faintest: float) -> float:
        """Compute the radius of the stamp of a point source.

        Parameters
        ----------
        loss : `float`
            Fraction of the flux that may fall outside.
        faintest : `float`
            Maximum flux of pixels outside, as a fraction of the source's flux.

        Returns
        -------
        radius : `float`
            Radius that fulfills both conditions, pixels.
        """
        if self.beta is None:
            return gaussian_radius(self.fwhm, loss, faintest)
        return moffat_radius(self.fwhm, self.beta, loss, faintest)


def _odd(radius: float) -> int:
    """Return the width of a stamp with a pixel in its middle (`int`)."""
    return 2 * int(np.ceil(radius)) + 1


def gaussian_radius(fwhm: float, loss: float, faintest: float = np.inf) -> float:
    """Compute the radius (`float`) beyond which a Gaussian of unit flux has at
    most the flux ``loss`` and at most ``faintest`` per pixel.
    """
    sigma = fwhm / gaussian_sigma_to_fwhm
    inside = min(loss, faintest * 2 * np.pi * sigma**2, 1.0)
    return float(sigma * np.sqrt(-2 * np.log(inside)))


def moffat_radius(fwhm: float, beta: float, loss: float, faintest: float = np.inf) -> float:
    """Compute the radius (`float`) beyond which a Moffat profile of unit flux
    has at most the flux ``loss`` and at most ``faintest`` per pixel.
    """
    scale = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    by_loss = min(loss, 1.0) ** (1 / (1 - beta))
    by_brightness = max(faintest * np.pi * scale**2 / (beta - 1), 1e-30) ** (-1 / beta)
    return float(scale * np.sqrt(max(by_loss, by_brightness, 1.0) - 1))


def _optics(
    camera: SimulatedCamera, visit: SimulatedVisit, detector: int, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute FWHM (pixels) and shear of the PSF at positions on a detector.

    Defocus, astigmatism and coma vary slowly over the camera, differently in
    each visit; each detector has an additional defocus.
    """
    config = camera.config
    axis, turn = camera.focal_plane(detector)
    u, v = turn @ (np.stack([x, y]) - axis[:, np.newaxis]) / camera.half_diagonal
    rng = config.generator(Stream.PSF, visit.visit)
    a = np.clip(rng.standard_normal((3, 5)), -2, 2) * config.psf_variation
    piston = config.generator(Stream.PSF, visit.visit, detector).uniform(-0.5, 0.5) * config.psf_variation
    terms = np.stack([u, v, u**2 - v**2, 2 * u * v, u**2 + v**2])
    size, g1, g2 = np.tensordot(a, terms, axes=1)
    drift = rng.uniform(-0.5, 0.5, 2) * config.psf_variation
    fwhm = visit.seeing / config.pixel_scale * (1 + size + piston)
    return fwhm, g1 + drift[0], g2 + drift[1]


def _moffat_psf(
    beta: float, x: np.ndarray, y: np.ndarray, fwhm: np.ndarray, g1: np.ndarray, g2: np.ndarray
) -> piff.SimplePSF:
    """Fit a Moffat PSF whose size and shape are polynomials of second order in
    the position to values at given positions (all of shape ``(n,)``).
    """
    import galsim
    import piff

    per_fwhm = galsim.Moffat(beta=beta, fwhm=1.0).half_light_radius
    interpolation = piff.BasisPolynomial(order=2)
    # In Piff's order of the terms: the power of x grows slowest.
    basis = np.stack([np.ones_like(x), y, y**2, x, x * y, x**2], axis=1)
    values = np.stack([fwhm * per_fwhm, g1, g2], axis=1)
    interpolation.q = np.linalg.lstsq(basis, values, rcond=None)[0].T
    psf = piff.SimplePSF(piff.Moffat(beta=beta), interpolation)
    psf.wcs = {0: galsim.PixelScale(1.0)}
    psf.pointing = None
    psf.stars = []
    return psf
