# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Stars and galaxies drawn with GalSim, as images to find sources on."""

from __future__ import annotations

import galsim
import numpy as np

from lsst.drp.restore.sources.source_image import SourceImage

SHAPE = (180, 240)
CELL = (60, 60)
FWHM = 3.6
PSF = galsim.Moffat(beta=3.5, fwhm=FWHM).shear(g1=0.04, g2=0.02)
# The PSF of a restored coadd.
SHARP_PSF = galsim.Gaussian(sigma=0.8)


def kernel_of(psf: galsim.GSObject, size: int = 25) -> np.ndarray:
    """Draw a PSF kernel."""
    return psf.drawImage(nx=size, ny=size, scale=1.0, method="no_pixel").array


# Standard deviation of the flux of a star in noise of 1 per pixel.
SIGMA = 1.0 / np.sqrt(np.sum(kernel_of(PSF, 61) ** 2))


def draw(
    stars: np.ndarray, psf: galsim.GSObject, shape: tuple[int, int] = SHAPE, galaxy: float = 0.0
) -> np.ndarray:
    """Draw sources x, y, flux; all as exponential galaxies of a half-light
    radius if one is given.
    """
    image = galsim.ImageD(shape[1], shape[0], xmin=0, ymin=0, scale=1.0)
    for x, y, flux in stars:
        source = psf * flux
        if galaxy:
            source = galsim.Convolve(galsim.Exponential(half_light_radius=galaxy), source)
        size = 101
        stamp = source.drawImage(
            nx=size, ny=size, scale=1.0, center=galsim.PositionD(x, y), method="no_pixel", dtype=float
        )
        overlap = stamp.bounds & image.bounds
        if overlap.isDefined():
            image[overlap] += stamp[overlap]
    return image.array


def make_images(
    stars: np.ndarray, *, seed: int = 1, sigma: float = 1.0, galaxy: float = 0.0
) -> tuple[SourceImage, SourceImage]:
    """Return a sharp image and one of white noise."""
    rng = np.random.default_rng(seed)
    cells = (SHAPE[0] // CELL[0], SHAPE[1] // CELL[1])
    images = []
    for psf, noise in ((SHARP_PSF, 0.0), (PSF, sigma)):
        kernel = kernel_of(psf)
        pixels = draw(stars, psf, galaxy=galaxy) + noise * rng.standard_normal(SHAPE)
        images.append(
            SourceImage(
                image=pixels.astype(np.float32),
                variance=np.full(SHAPE, max(noise, 0.1) ** 2, np.float32),
                kernels=np.broadcast_to(kernel.astype(np.float32), (*cells, 25, 25)),
                cell_shape=CELL,
            )
        )
    return images[0], images[1]


def star_grid(significance: tuple[float, float], *, seed: int = 3, spacing: int = 30) -> np.ndarray:
    """Return stars x, y, flux at any fraction of a pixel, apart from each
    other.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[spacing // 2 : SHAPE[0] : spacing, spacing // 2 : SHAPE[1] : spacing]
    places = np.stack([x.ravel(), y.ravel()], axis=1) + rng.uniform(-3, 3, (x.size, 2))
    flux = SIGMA * np.exp(rng.uniform(*np.log(significance), x.size))
    return np.column_stack([places, flux])
