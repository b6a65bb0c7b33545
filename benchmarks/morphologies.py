# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fields made of real images of JWST and HST, with the morphologies that no
simulator has.
"""

from __future__ import annotations

__all__ = ("DATA_VARIABLE", "DEPTHS", "cosmos_scene", "jwst_scene", "real_images_folder")

import os
from pathlib import Path

import astropy.io.fits
import numpy as np
import scipy.ndimage

from lsst.drp.restore.restoration.target_psf import TARGET_FWHM

from .scenes import Scene, make_scene
from .true_images import blur

DATA_VARIABLE = "DRP_RESTORE_HIRES"
"""Environment variable that names the folder of the images."""

DEPTHS = {"": 300.0, ", 5x fainter": 60.0}
"""Fields by depth: the brightest pixel of the sky at the target PSF, in units
of the sky's sigma in an exposure (`dict`).
"""

_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "hires_truth"
_JWST = "jw02561001002-02561-o001_t003_nircam_clear-f200w_i2d_stamp.fits"
_COSMOS = "cosmos_real_galaxies"
_COSMOS_CATALOG = "real_galaxy_catalog_26_extension_example.fits"
_BINNING = 2  # JWST pixels along each axis in one of ours
_JWST_SIZE = 448
# Of COSMOS galaxies: pixels of HST in one of ours, how many of the least noisy
# ones are used, and number on a field.
_COSMOS_BINNING = 3
_COSMOS_SIZE = 384
_COSMOS_USED = 40
_COSMOS_NUMBER = 90
_MARGIN = 24
# Pixels of a galaxy's image, smoothed with a Gaussian of this sigma (pixels),
# that are above this many sigma of its border belong to it.
_SEGMENT_SMOOTHING = 2.0
_SEGMENT_SIGMA = 2.0


def real_images_folder() -> Path:
    """Return the folder of the real images (`pathlib.Path`): from the
    environment, else ``shared/data/hires_truth`` beside the checkout.
    """
    return Path(os.environ.get(DATA_VARIABLE) or _FOLDER)


def jwst_scene(folder: Path, brightest: float) -> Scene:
    """Make exposures of a JWST image.

    Parameters
    ----------
    folder : `pathlib.Path`
        Folder of the images.
    brightest : `float`
        Brightest pixel of the sky at the target PSF, in units of the sky's
        sigma in an exposure.

    Returns
    -------
    scene : `Scene`
        448x448 pixels, each of 2x2 pixels of NIRCam's F200W image of Abell
        2744; its background, the median, is subtracted and negative pixels
        are zero.

    Raises
    ------
    FileNotFoundError
        Raised if the image is missing.
    """
    image = _read(folder / _JWST)
    image = np.where(np.isfinite(image), image, np.nanmedian(image))
    sky = np.maximum(_bin(image, _BINNING)[:_JWST_SIZE, :_JWST_SIZE], 0.0)
    # A level that is left would be sky, which is subtracted before exposures
    # are restored.
    sky = np.maximum(sky - np.median(sky), 0.0)
    return make_scene(_scaled(sky, brightest), seed=1)


def cosmos_scene(folder: Path, brightest: float) -> Scene:
    """Make exposures of a field of galaxies of the COSMOS survey.

    Parameters
    ----------
    folder : `pathlib.Path`
        Folder of the images.
    brightest : `float`
        Brightest pixel of the sky at the target PSF, in units of the sky's
        sigma in an exposure.

    Returns
    -------
    scene : `Scene`
        384x384 pixels with 90 images of the 40 galaxies with the least noise
        at random places, orientations and fluxes; each pixel has 3x3 of HST's.
        Of a stamp the pixels that belong to its galaxy are used.

    Raises
    ------
    FileNotFoundError
        Raised if the images are missing.
    """
    import galsim

    path = folder / _COSMOS
    if not (path / _COSMOS_CATALOG).is_file():
        raise FileNotFoundError(f"there is no {_COSMOS_CATALOG} in {path} ({DATA_VARIABLE} says where)")
    catalog = galsim.RealGalaxyCatalog(_COSMOS_CATALOG, dir=str(path))
    rng = np.random.default_rng(2)
    sky = np.zeros((_COSMOS_SIZE, _COSMOS_SIZE))
    stamps = [_segment(catalog.getGalImage(n).array.astype(float)) for n in range(catalog.nobjects)]
    stamps.sort(key=lambda one: one[1])
    for index in rng.integers(len(stamps[-_COSMOS_USED:]), size=_COSMOS_NUMBER):
        stamp = np.rot90(_bin(stamps[-1 - index][0], _COSMOS_BINNING), rng.integers(4))
        stamp = stamp[:: rng.choice((-1, 1))]
        # A range of brightness as on a sky.
        stamp = stamp / stamp.max() * np.exp(rng.uniform(np.log(0.03), 0.0))
        row, column = rng.integers(_MARGIN, _COSMOS_SIZE - _MARGIN, 2) - np.array(stamp.shape) // 2
        _add(sky, stamp, int(row), int(column))
    return make_scene(_scaled(sky, brightest), seed=2)


def _read(path: Path) -> np.ndarray:
    """Read the first image of a FITS file that has one."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path.name} in {path.parent} ({DATA_VARIABLE} says where)")
    with astropy.io.fits.open(path) as units:
        data = next(unit.data for unit in units if unit.data is not None)
    return np.asarray(data, dtype=float)


def _bin(image: np.ndarray, factor: int) -> np.ndarray:
    """Sum blocks of pixels; an incomplete block at the end is left out."""
    height, width = (n // factor for n in image.shape)
    part = image[: height * factor, : width * factor]
    return part.reshape(height, factor, width, factor).sum(axis=(1, 3))


def _scaled(sky: np.ndarray, brightest: float) -> np.ndarray:
    """Bring a sky to the target PSF and to a brightness."""
    truth = blur(sky, TARGET_FWHM)
    return truth * (brightest / truth.max())


def _segment(stamp: np.ndarray) -> tuple[np.ndarray, float]:
    """Keep the pixels of a stamp that belong to the source in its middle,
    above its background; return also its signal-to-noise ratio, that of the
    brightest pixel of the smoothed stamp.
    """
    smooth = scipy.ndimage.gaussian_filter(stamp, _SEGMENT_SMOOTHING)
    border = np.concatenate([smooth[0], smooth[-1], smooth[:, 0], smooth[:, -1]])
    sky, sigma = float(np.median(border)), float(border.std())
    labels, _ = scipy.ndimage.label(smooth > sky + _SEGMENT_SIGMA * sigma)
    middle = tuple(n // 2 for n in stamp.shape)
    inside = scipy.ndimage.binary_dilation((labels == labels[middle]) & (labels > 0), iterations=2)
    return np.where(inside, np.maximum(stamp - sky, 0.0), 0.0), float((smooth[middle] - sky) / sigma)


def _add(sky: np.ndarray, stamp: np.ndarray, row: int, column: int) -> None:
    """Add a stamp to a sky in place, where they overlap."""
    rows = slice(max(row, 0), min(row + stamp.shape[0], sky.shape[0]))
    columns = slice(max(column, 0), min(column + stamp.shape[1], sky.shape[1]))
    sky[rows, columns] += stamp[
        rows.start - row : rows.stop - row, columns.start - column : columns.stop - column
    ]
