# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The papers' metrics of images (section 4.1 of the second paper), and the width
of stars.
"""

from __future__ import annotations

__all__ = ("psnr", "sharpness", "sky_noise", "ssim", "star_fwhm")

import numpy as np
import scipy.fft
import scipy.ndimage

from ..stack.kernel_shape import fwhm

# Height and width of the window of the structural similarity, pixels.
_SSIM_WINDOW = 7

# Half of the size of the stamp of a star, and radii of the ring of its
# background, pixels.
_STAR_RADIUS = 8
_STAR_RING = 12, 15


def sharpness(image: np.ndarray) -> float:
    """Measure the papers' sharpness.

    Parameters
    ----------
    image : `numpy.ndarray`
        Image, shape ``(height, width)``.  NaN counts as zero.

    Returns
    -------
    sharpness : `float`
        ``S_F``: mean over all frequencies of the decimal logarithm of the
        magnitude of the two-dimensional Fourier transform (not normalized:
        the magnitude at frequency zero is the sum of the pixels).

    Notes
    -----
    The papers do not name the base of the logarithm.  Their values (6.084 and
    7.007) fit base 10: the mean natural logarithm of their coadd could not be
    below that of its noise alone, 9.2 for 4200x4200 pixels of sigma 3.057.

    The value depends on the unit, on the number of pixels, and on the noise as
    much as on the sources: only images of the same field can be compared.
    """
    magnitude = np.abs(scipy.fft.rfft2(np.nan_to_num(np.asarray(image, np.float32), nan=0.0)))
    with np.errstate(divide="ignore"):
        logarithm = np.log10(magnitude)
    # Columns other than the first (and the last, if the width is even) are those
    # of two frequencies.
    weights = np.full(magnitude.shape[1], 2.0)
    weights[0] = 1.0
    if image.shape[1] % 2 == 0:
        weights[-1] = 1.0
    return float(np.average(logarithm.mean(axis=0, dtype=np.float64), weights=weights))


def sky_noise(image: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Measure the papers' noise of the sky.

    Parameters
    ----------
    image : `numpy.ndarray`
        Image, shape ``(height, width)``.
    mask : `numpy.ndarray`, optional
        Pixels to leave out, `bool`, same shape; NaN pixels always are.

    Returns
    -------
    sigma : `float`
        ``sigma_sky``: standard deviation of the background pixels, the
        ``globalrms`` of `sep.Background` with its defaults: the median over
        tiles of 64x64 pixels of the standard deviation of what is left of the
        tile after clipping at 3 sigma.  NaN if no pixel is left.
    """
    import sep

    left_out = np.isnan(image) if mask is None else np.isnan(image) | mask
    if left_out.all():
        return np.nan
    pixels = np.ascontiguousarray(np.where(left_out, 0, image), dtype=np.float32)
    background = sep.Background(pixels, mask=left_out)
    if background.globalrms == 1.0:
        # sep returns 1 instead of 0, which most tiles of a restored image with
        # an empty sky have.
        return max(float(np.median(background.rms())), 0.0)
    return float(background.globalrms)


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Measure the peak signal-to-noise ratio of an image to a reference.

    Parameters
    ----------
    image, reference : `numpy.ndarray`
        Images, shape ``(height, width)``.  Pixels that are NaN in one of them
        are left out.

    Returns
    -------
    ratio : `float`
        ``10 log10(range**2 / mean((image - reference)**2))``, dB, where
        ``range`` is the difference between the brightest and the darkest pixel
        of the reference.  Infinite for equal images, NaN if no pixel is left.
    """
    valid = np.isfinite(image) & np.isfinite(reference)
    if not valid.any():
        return np.nan
    difference = image[valid].astype(np.float64) - reference[valid]
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(_data_range(reference[valid]) ** 2 / np.mean(difference**2)))


def ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """Measure the structural similarity of an image to a reference.

    Parameters
    ----------
    image, reference : `numpy.ndarray`
        Images, shape ``(height, width)``.  Windows in which a pixel of one of
        them is NaN are left out.

    Returns
    -------
    similarity : `float`
        Mean of `skimage.metrics.structural_similarity` with its defaults
        (windows of 7x7 pixels) over all windows that are inside of the image;
        the data range is the difference between the brightest and the darkest
        pixel of the reference.  NaN if no window is left.
    """
    from skimage.metrics import structural_similarity

    valid = np.isfinite(image) & np.isfinite(reference)
    whole = scipy.ndimage.minimum_filter(valid, _SSIM_WINDOW, mode="constant", cval=False)
    if not whole.any():
        return np.nan
    _, similarity = structural_similarity(
        np.where(valid, image, 0).astype(np.float32),
        np.where(valid, reference, 0).astype(np.float32),
        win_size=_SSIM_WINDOW,
        data_range=_data_range(reference[valid]),
        full=True,
    )
    return float(similarity[whole].mean(dtype=np.float64))


def _data_range(pixels: np.ndarray) -> float:
    """Return the brightest minus the darkest pixel."""
    return float(pixels.max()) - float(pixels.min())


def star_fwhm(image: np.ndarray, x: float, y: float) -> float:
    """Measure the full width at half maximum of a star.

    Parameters
    ----------
    image : `numpy.ndarray`
        Image, shape ``(height, width)``.
    x, y : `float`
        Position of the star, pixels of the array; the brightest pixel within 2
        pixels is taken as its center.

    Returns
    -------
    fwhm : `float`
        Full width at half maximum, pixels, of a stamp of 17x17 pixels from
        which the median of the pixels between 12 and 15 pixels from the
        center is subtracted (see `fwhm`).  NaN where the stamp is not inside
        of the image or the measurement fails.
    """
    height, width = image.shape
    column, row = round(x), round(y)
    search = image[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
    if not np.isfinite(search).any():
        return np.nan
    brightest = np.unravel_index(np.nanargmax(search), search.shape)
    row, column = max(row - 2, 0) + int(brightest[0]), max(column - 2, 0) + int(brightest[1])
    inside = _STAR_RADIUS <= row < height - _STAR_RADIUS and _STAR_RADIUS <= column < width - _STAR_RADIUS
    if not inside:
        return np.nan
    outer = _STAR_RING[1]
    near = (slice(max(row - outer, 0), row + outer + 1), slice(max(column - outer, 0), column + outer + 1))
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot(rows[near[0]] - row, columns[:, near[1]] - column)
    ring = image[near][(distance >= _STAR_RING[0]) & (distance <= outer)]
    background = np.nanmedian(ring) if np.isfinite(ring).any() else 0.0
    stamp = image[
        row - _STAR_RADIUS : row + _STAR_RADIUS + 1, column - _STAR_RADIUS : column + _STAR_RADIUS + 1
    ]
    return fwhm(stamp - background)
