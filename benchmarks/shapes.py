# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The morphology of isolated sources: error, peaks, ellipticity and size, and
whether the source list splits them.
"""

from __future__ import annotations

__all__ = ("COMMON_FWHM", "count_peaks", "count_splits", "error_norm", "measure_galaxies", "measure_shapes")

from typing import Any

import numpy as np
import scipy.ndimage

from lsst.drp.restore.restoration.target_psf import TARGET_FWHM
from lsst.drp.restore.sources.find_sources import FindSourcesTask
from lsst.drp.restore.sources.source_image import SourceImage
from lsst.drp.restore.stack.kernel_shape import gaussian_kernel

from .fields import PIXEL_SCALE, SNR_BINS
from .robust import median
from .sky_image import SkyImage
from .true_images import bring_to, convolve_truth, truth_at
from .truth import Truth

COMMON_FWHM = 2.5
"""FWHM of the Gaussian at which the errors of galaxies are measured, pixels."""

_APERTURE = 8  # around isolated galaxies, pixels
_MIN_SNR = 20.0  # of galaxies whose errors and peaks are measured, and of sources that may be split
_PEAK_FRACTION = 0.05  # of the brightest peak that the others must have
_PEAK_SNR = 3.0
_STAMP_RADIUS = 20  # of the stamps that shapes are measured in, pixels
# Entries of the source list that belong to a source: within this many times
# its half-light radius or the FWHM of the coadd, whichever is larger.
_SPLIT_RADIUS = 1.5


def measure_galaxies(truth: Truth, image: np.ndarray, width: float) -> dict[str, Any]:
    """Measure errors and peaks of the isolated galaxies of S/N over 20, at
    2.5 pixels FWHM.

    Parameters
    ----------
    truth : `Truth`
        The truth.
    image : `numpy.ndarray`
        The image, nJy per pixel, shape of the patch.
    width : `float`
        FWHM of its stars, pixels: sharper images are convolved to 2.5 pixels.

    Returns
    -------
    results : `dict` [`str`, `float`]
        ``galaxy error``, median of `error_norm`; ``peaks`` and ``true
        peaks``, means of `count_peaks`; ``n galaxies``, number of galaxies.
        The faint sources that are in a galaxy's aperture by chance are part
        of the truth.
    """
    brought, expected = bring_to(image, width, COMMON_FWHM), truth_at(truth.field, COMMON_FWHM)
    faintest = _PEAK_SNR * truth.point_sigma * float(gaussian_kernel(COMMON_FWHM).max())
    errors, peaks, true_peaks = [], [], []
    for n in truth.isolated("galaxy", _MIN_SNR):
        x, y = (float(truth.field.catalog[name][n]) for name in ("x", "y"))
        stamps = [_stamp(pixels, x, y, _APERTURE + 1) for pixels in (brought, expected)]
        if all(np.isfinite(stamp).all() and stamp.size for stamp in stamps):
            errors.append(error_norm(*stamps))
            peaks.append(count_peaks(stamps[0], faintest))
            true_peaks.append(count_peaks(stamps[1], faintest))
    return {
        "galaxy error": median(np.array(errors)),
        "peaks": float(np.mean(peaks)) if peaks else np.nan,
        "true peaks": float(np.mean(true_peaks)) if peaks else np.nan,
        "n galaxies": len(errors),
    }


def error_norm(image: np.ndarray, truth: np.ndarray) -> float:
    """Compare stamps of a galaxy.

    Parameters
    ----------
    image, truth : `numpy.ndarray`
        Stamps, shape ``(2*r+1, 2*r+1)``.

    Returns
    -------
    error : `float`
        Norm of their difference divided by that of the truth, in a circle
        that leaves out a pixel at each edge.
    """
    inside = _circle(len(image))
    return float(np.linalg.norm((image - truth)[inside]) / np.linalg.norm(truth[inside]))


def count_peaks(stamp: np.ndarray, faintest: float) -> int:
    """Count the peaks of a galaxy.

    Parameters
    ----------
    stamp : `numpy.ndarray`
        Stamp of the galaxy, shape ``(2*r+1, 2*r+1)``.
    faintest : `float`
        Smallest height of a peak: that of a point source of 3 sigma.

    Returns
    -------
    number : `int`
        Pixels that are the brightest of the 3x3 around them, above
        ``faintest`` and above 5 % of the brightest pixel, in a circle that
        leaves out a pixel at each edge.
    """
    inside = _circle(len(stamp))
    highest = scipy.ndimage.maximum_filter(stamp, 3) == stamp
    return int(np.sum(highest & inside & (stamp > max(faintest, _PEAK_FRACTION * stamp[inside].max()))))


def measure_shapes(truth: Truth, sky: SkyImage, width: float) -> dict[str, dict[str, float]]:
    """Measure ellipticities and sizes of the isolated galaxies.

    Parameters
    ----------
    truth : `Truth`
        The truth.
    sky : `SkyImage`
        The image.
    width : `float`
        FWHM of its stars, pixels.

    Returns
    -------
    results : `dict` [`str`, `dict`]
        By bin of S/N (``shape 20`` and so on): ``ellipticity``, median length
        of the difference of the distortions ``(e1, e2)`` that `galsim.hsm`
        measures (adaptive moments, no PSF correction) from those of the truth
        at the same PSF; ``size``, median relative error of its
        ``moments_sigma``; ``n``, number of galaxies; ``failed``, how many of
        them the measurement failed for.

    Notes
    -----
    Images that are sharper than the target Gaussian, or state no PSF, are
    brought to it; others are compared with the truth at the PSF that they
    state.
    """
    field = truth.field
    wide = sky.stated_fwhm > TARGET_FWHM and not sky.at_target
    image = sky.image if wide else bring_to(sky.image, width, TARGET_FWHM)
    expected = truth_at(field, TARGET_FWHM)
    results: dict[str, dict[str, float]] = {}
    for low, high in SNR_BINS:
        ellipticities, sizes, failed = [], [], 0
        for n in truth.isolated("galaxy", low, high):
            x, y = (float(field.catalog[name][n]) for name in ("x", "y"))
            stamp = _stamp(image, x, y, _STAMP_RADIUS)
            true_stamp = _stamp(expected, x, y, _STAMP_RADIUS)
            if wide and sky.kernels is not None:
                i, j = (
                    round(place) // cell for place, cell in zip((y, x), field.stack.cell_shape, strict=True)
                )
                true_stamp = _wide_stamp(field.truth, x, y, sky.kernels[i, j])
            if not (stamp.size and np.isfinite(stamp).all()) or not true_stamp.size:
                continue
            found, true = _moments(stamp), _moments(true_stamp)
            if found is None or true is None:
                failed += 1
                continue
            ellipticities.append(np.hypot(found[0] - true[0], found[1] - true[1]))
            sizes.append(found[2] / true[2] - 1)
        results[f"shape {low:.0f}"] = {
            "ellipticity": median(np.array(ellipticities)),
            "size": median(np.array(sizes)),
            "n": len(sizes) + failed,
            "failed": failed,
        }
    return results


def count_splits(truth: Truth, sharp: SkyImage, width: float, measured: SkyImage) -> dict[str, float]:
    """Run the project's source list and count the isolated sources that have
    several entries.

    Parameters
    ----------
    truth : `Truth`
        The truth.
    sharp : `SkyImage`
        The image that the list tells sources apart on.
    width : `float`
        FWHM of its stars, pixels: its PSF, where it states none.
    measured : `SkyImage`
        The image that the list measures on, with variance and PSF.

    Returns
    -------
    results : `dict` [`str`, `float`]
        ``galaxies split``, ``stars split``, fractions of the isolated ones of
        S/N over 20 that have more than one entry within 1.5 times the larger
        of their half-light radius and the FWHM of the reference coadd;
        ``entries``, length of the list.  NaN for an image of a part of the
        patch.
    """
    names = {"point": "stars split", "galaxy": "galaxies split"}
    if np.isfinite(sharp.image).mean() < 0.9:
        return dict.fromkeys((*names.values(), "entries"), np.nan)
    if measured.variance is None or measured.kernels is None:
        raise ValueError("The image to measure on must state its variance and PSF.")
    cell_shape = truth.field.stack.cell_shape
    kernels = sharp.kernels
    if kernels is None:
        kernels = np.broadcast_to(gaussian_kernel(width), (*measured.kernels.shape[:2], 25, 25))
    found = FindSourcesTask(config=FindSourcesTask.ConfigClass()).run(
        SourceImage(
            image=sharp.image,
            variance=measured.variance if sharp.variance is None else sharp.variance,
            kernels=kernels,
            cell_shape=cell_shape,
        ),
        SourceImage(
            image=measured.image, variance=measured.variance, kernels=measured.kernels, cell_shape=cell_shape
        ),
    )
    places = np.stack([found.photometry.x, found.photometry.y], axis=1)
    catalog = truth.field.catalog
    results: dict[str, float] = {"entries": float(len(places))}
    for role, name in names.items():
        entries = []
        for n in truth.isolated(role, _MIN_SNR):
            radius = max(float(catalog["half_light_radius"][n]) / PIXEL_SCALE, truth.reference_fwhm)
            distance = np.hypot(*(places - (catalog["x"][n], catalog["y"][n])).T)
            entries.append(np.count_nonzero(distance < _SPLIT_RADIUS * radius))
        results[name] = float(np.mean(np.array(entries) > 1)) if entries else np.nan
    return results


def _wide_stamp(truth: np.ndarray, x: float, y: float, kernel: np.ndarray) -> np.ndarray:
    """Cut a stamp of the truth at a PSF; empty if its surroundings are not
    inside of the image.
    """
    border = len(kernel) // 2
    around = _stamp(truth, x, y, _STAMP_RADIUS + border)
    return convolve_truth(around, kernel)[border:-border, border:-border] if around.size else around


def _moments(stamp: np.ndarray) -> tuple[float, float, float] | None:
    """Measure distortion and size (pixels); `None` if that fails."""
    import galsim

    moments: Any = galsim.hsm.FindAdaptiveMom(galsim.Image(np.ascontiguousarray(stamp, float)), strict=False)
    if moments.moments_status != 0 or not moments.moments_sigma > 0:
        return None
    shape = moments.observed_shape
    return float(shape.e1), float(shape.e2), float(moments.moments_sigma)


def _circle(size: int) -> np.ndarray:
    """Return which pixels of a stamp are in a circle with a margin of one."""
    offset = np.arange(size) - size // 2
    return np.hypot(offset[:, np.newaxis], offset) <= size // 2 - 1


def _stamp(image: np.ndarray, x: float, y: float, radius: int) -> np.ndarray:
    """Cut a stamp around the pixel nearest to a position; empty if it is not
    inside of the image.
    """
    row, column = round(y), round(x)
    if not (radius <= row < image.shape[0] - radius and radius <= column < image.shape[1] - radius):
        return np.empty((0, 0))
    return image[row - radius : row + radius + 1, column - radius : column + radius + 1]
