# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Source lists: detection on an image of white noise, deblending on a sharp
one, photometry on the former.
"""

from __future__ import annotations

__all__ = ("FindSourcesConfig", "FindSourcesTask", "FoundSources", "SourceImage")

import dataclasses
from typing import ClassVar

import numpy as np
import scipy.ndimage
from scipy.signal import fftconvolve
from scipy.spatial import cKDTree

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from ..stack.kernel_shape import fwhm, kernel_moments
from ..stack.oversampling import bin_pixels, split_pixels
from .psf_photometry import CellPsf, PsfPhotometry, fit_sources

# Half of the size of the matched filter, pixels: the rest only takes time.
_FILTER_RADIUS = 6

# Smallest number of missing pixels that can be the core of a saturated star.
_MIN_CORE = 5

# The brightest pixel next to it, as a fraction of the footprint's.
_CORE_CONTRAST = 0.8

# Half of the size of the stamps in which shapes are measured, and inner and
# outer radius of the ring around an aperture, pixels beyond it.
_SHAPE_RADIUS = 10
_RING = (2.0, 7.0)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SourceImage:
    """An image with its noise and PSF.

    Parameters
    ----------
    image, variance : `numpy.ndarray`
        Flux per pixel, nJy, and its variance, nJy**2, shape ``(height,
        width)``; not finite where there is no data.
    kernels : `numpy.ndarray`
        PSF by cell, shape ``(cells_y, cells_x, k, k)``; zero or not finite in
        cells that have none.
    cell_shape : `tuple` [`int`, `int`]
        Height and width of a cell, pixels.
    """

    image: np.ndarray
    variance: np.ndarray
    kernels: np.ndarray
    cell_shape: tuple[int, int]

    @property
    def valid(self) -> np.ndarray:
        """Pixels with data (`numpy.ndarray` of `bool`)."""
        return np.isfinite(self.image) & np.isfinite(self.variance) & (self.variance > 0)

    def mean_kernel(self) -> np.ndarray | None:
        """Return the average PSF (`numpy.ndarray`), `None` if there is
        none.
        """
        kernels = self.kernels.reshape(-1, *self.kernels.shape[-2:])
        kernels = kernels[np.isfinite(kernels).all(axis=(1, 2)) & (kernels != 0).any(axis=(1, 2))]
        return kernels.mean(axis=0, dtype=np.float64) if len(kernels) else None

    def sky_width(self) -> float:
        """Measure the width of the distribution of the signal-to-noise ratio of
        point sources, in the sky and on faint sources.

        Returns
        -------
        width : `float`
            Robust standard deviation of its lower half; NaN if there is none.
            It is above 1 even if the variance is right, because of faint
            sources, but equally in all images of the same sky.
        """
        kernel, valid = self.mean_kernel(), self.valid
        if kernel is None or not valid.any():
            return np.nan
        kernel = kernel[::-1, ::-1]
        flux = fftconvolve(np.where(valid, self.image, 0.0), kernel, mode="same")
        noise = fftconvolve(np.where(valid, self.variance, 0.0), kernel**2, mode="same")
        ratio = flux[valid] / np.sqrt(np.maximum(noise[valid], np.finfo(np.float32).tiny))
        median = np.median(ratio)
        return float(1.4826 * np.median(median - ratio[ratio <= median]))


@dataclasses.dataclass(eq=False, kw_only=True)
class FoundSources:
    """Sources, arrays of shape ``(n,)``.

    Parameters
    ----------
    photometry : `PsfPhotometry`
        Their positions and fluxes.
    footprint : `numpy.ndarray`
        Number of the footprint that each is in, from 1.
    footprints : `numpy.ndarray`
        Number of the footprint that each pixel is in, 0 outside of all, shape
        ``(height, width)``.
    aperture_flux, aperture_flux_err : `numpy.ndarray`
        Flux in a circle without neighbors, above the local background,
        divided by the fraction of the PSF's flux in the circle, nJy; and its
        standard deviation.
    moments, psf_moments : `numpy.ndarray`
        Second moments xx, yy and xy of the sources and of the PSF there,
        pixels**2, NaN where the measurement fails, shape ``(n, 3)``.
    sharp_peak : `numpy.ndarray`
        Whether the sharp image shows the source (else only the measured one
        does).
    fwhm : `float`
        Width of the measured image's PSF, pixels; NaN if it has none.
    """

    photometry: PsfPhotometry
    footprint: np.ndarray
    footprints: np.ndarray
    aperture_flux: np.ndarray
    aperture_flux_err: np.ndarray
    moments: np.ndarray
    psf_moments: np.ndarray
    sharp_peak: np.ndarray
    fwhm: float

    def __len__(self) -> int:
        return len(self.footprint)


class FindSourcesConfig(pexConfig.Config):
    """Configuration of `FindSourcesTask`."""

    detectionSigma = pexConfig.RangeField(
        dtype=float,
        doc="Signal-to-noise ratio of a point source, in the measured image filtered with its PSF, above "
        "which pixels belong to footprints: nothing is detected outside of them.",
        default=4.5,
        min=1.0,
    )
    minArea = pexConfig.RangeField(
        dtype=int, doc="Smallest number of such pixels of a footprint.", default=1, min=1
    )
    growFootprint = pexConfig.RangeField(
        dtype=float,
        doc="Footprints are grown by this many FWHM of the measured image's PSF; those that then touch are "
        "one.",
        default=1.0,
        min=0.0,
    )
    peakSigma = pexConfig.RangeField(
        dtype=float,
        doc="Peaks of the sharp image inside of footprints count as sources above this many standard "
        "deviations: the larger one of that which the sharp image states and of the height of a point source "
        "with the flux error of the measured image.",
        default=2.5,
        min=0.0,
    )
    splitSigma = pexConfig.RangeField(
        dtype=float,
        doc="Two peaks are two sources if the fainter one is more than this many of the same standard "
        "deviations above the saddle between them. The default is for restored images, where isolated "
        "sources hardly ever have a second peak; of an image with independent noise, 3 or more.",
        default=0.5,
        min=0.0,
    )
    minFraction = pexConfig.RangeField(
        dtype=float,
        doc="Smallest ratio of a peak to that of a point source with all of the flux that the sharp image "
        "has there at the resolution of the measured one: 1 for isolated stars, about 0.3 on the largest "
        "galaxies, and less for artifacts in the wings of bright stars.",
        default=0.2,
        min=0.0,
        max=1.0,
    )
    minSignificance = pexConfig.RangeField(
        dtype=float,
        doc="Smallest ratio of a source's flux to its standard deviation in the measured image, fitted "
        "together with its neighbors. What is less significant is no source, however sharp it looks.",
        default=5.0,
        min=0.0,
    )
    fitRadius = pexConfig.RangeField(
        dtype=int, doc="Half of the size of the square in which PSFs are fitted, pixels.", default=10, min=3
    )
    groupRadius = pexConfig.RangeField(
        dtype=float,
        doc="Sources closer than this many FWHM of the measured image's PSF are fitted simultaneously.",
        default=2.0,
        min=0.0,
    )
    positionScatter = pexConfig.RangeField(
        dtype=float,
        doc="Standard deviation of the positions in the sharp image, pixels, for the fit of positions to "
        "the measured image; 0 keeps those of the sharp image.",
        default=0.3,
        min=0.0,
    )
    apertureRadius = pexConfig.RangeField(
        dtype=float, doc="Radius of the aperture, pixels.", default=6.0, min=1.0
    )


class FindSourcesTask(pipeBase.Task):
    """Detect, deblend and measure sources.

    Notes
    -----
    Two images of the same sky take part.  The *sharp* one (the restored coadd)
    has a narrow PSF and correlated noise of a stated variance.  The *measured*
    one is linear and has white noise: filtered with its PSF it is the
    likelihood of a point source at each pixel.

    1. Footprints are where the filtered measured image is above
       ``detectionSigma``, grown.
    2. In them, peaks of the sharp image are sources (`find_peaks`) if they are
       significant, and if they are significantly above the saddle to any higher
       peak.  Sources of the measured image without such a peak are added.
       Pixels that are missing inside of a footprint are the core of one
       saturated star.
    3. PSFs are fitted to the measured image at all of these positions, and what
       is less significant than ``minSignificance`` is taken out.
    """

    ConfigClass = FindSourcesConfig
    _DefaultName: ClassVar[str] = "findSources"
    config: FindSourcesConfig

    def run(self, sharp: SourceImage | None, measured: SourceImage) -> FoundSources:
        """Find sources.

        Parameters
        ----------
        sharp : `SourceImage` or `None`
            Image to deblend sources on.  Its pixels may be a whole number of
            times smaller than those of ``measured``.  Without one, the sources
            are those that the filtered ``measured`` shows.
        measured : `SourceImage`
            Image to detect and measure sources on.

        Returns
        -------
        sources : `FoundSources`
            The sources, in no particular order.
        """
        kernel, valid = measured.mean_kernel(), measured.valid
        if kernel is None or not valid.any():
            nothing = np.zeros(valid.shape, np.int32)
            return self._measure(
                measured, np.empty((0, 2)), nothing, 0, np.nan, np.empty(0), np.empty(0, bool)
            )
        width = fwhm(kernel)
        footprints, faint = self._footprints(measured, kernel, width)
        peaks = np.empty((0, 2)) if sharp is None else self._peaks(sharp, measured, kernel, footprints)
        # What the sharp image does not show.
        if len(peaks) and len(faint):
            faint = faint[cKDTree(peaks).query(faint)[0] > width]
        holes, near_hole = _saturated_cores(measured.image, valid, footprints, 2 * self.config.fitRadius)
        places = []
        for positions in (peaks, faint):
            row, column = _pixels(positions[:, 0], positions[:, 1], valid.shape)
            places.append(positions[~near_hole[row, column]])
        n_sharp = len(places[0]) + len(holes)
        positions = np.concatenate([holes, *places])
        scatter = np.full(len(positions), self.config.positionScatter)
        scatter[: len(holes)] = width / 2
        certain = np.arange(len(positions)) < len(holes)
        return self._measure(measured, positions, footprints, n_sharp, width, scatter, certain)

    def _footprints(
        self, measured: SourceImage, kernel: np.ndarray, width: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of the footprint of each pixel, and positions x, y
        of the sources that the measured image shows by itself.
        """
        found, segments = _extract(
            measured.image,
            np.sqrt(np.where(measured.valid, measured.variance, np.nan)),
            self.config.detectionSigma,
            _middle(kernel),
            self.config.minArea,
        )
        outside = scipy.ndimage.distance_transform_edt(segments == 0)
        inside = outside <= self.config.growFootprint * width if len(found) else segments > 0
        # What is missing inside of a bright star belongs to it.
        inside = scipy.ndimage.binary_fill_holes(inside)
        footprints, _ = scipy.ndimage.label(inside, structure=np.ones((3, 3)))
        return footprints, np.stack([found["x"], found["y"]], axis=1).astype(float)

    def _peaks(
        self, sharp: SourceImage, measured: SourceImage, kernel: np.ndarray, footprints: np.ndarray
    ) -> np.ndarray:
        """Return positions x, y of the sources of the sharp image, pixels of
        the measured one.
        """
        sharp_kernel = sharp.mean_kernel()
        if sharp_kernel is None:
            return np.empty((0, 2))
        # Parts of a measured pixel that the sharp image has.
        parts = sharp.image.shape[0] // footprints.shape[0]
        inside = split_pixels(footprints > 0, parts) & sharp.valid
        variance = np.where(measured.valid, measured.variance, np.median(measured.variance[measured.valid]))
        of_point = np.sqrt(variance / np.sum(kernel**2)) * sharp_kernel.max()
        row, column = find_peaks(
            sharp.image,
            np.maximum(np.sqrt(np.where(inside, sharp.variance, 0.0)), split_pixels(of_point, parts)),
            inside,
            min_height=self.config.peakSigma,
            min_dip=self.config.splitSigma,
        )
        blurred, blurred_point = (
            fftconvolve(bin_pixels(pixels, parts), kernel, mode="same")
            for pixels in (
                np.where(sharp.valid, sharp.image, 0.0),
                np.pad(sharp_kernel, (0, -len(sharp_kernel) % parts)),
            )
        )
        # From the corner of a measured pixel, and back to its center.
        positions = (_vertices(sharp.image, row, column) + 0.5) / parts - 0.5
        height = sharp.image[row, column] / sharp_kernel.max()
        whole = blurred[row // parts, column // parts] / blurred_point.max()
        return positions[height > self.config.minFraction * whole]

    def _measure(
        self,
        measured: SourceImage,
        positions: np.ndarray,
        footprints: np.ndarray,
        n_sharp: int,
        width: float,
        scatter: np.ndarray,
        certain: np.ndarray,
    ) -> FoundSources:
        """Fit the sources and measure what is left of them."""
        psf = CellPsf(measured.kernels, measured.cell_shape)
        photometry, kept = fit_sources(
            measured.image,
            measured.variance,
            psf,
            *positions.T,
            link_radius=self.config.groupRadius * width,
            fit_radius=self.config.fitRadius,
            position_scatter=scatter,
            min_significance=self.config.minSignificance,
            certain=certain,
        )
        n = len(photometry.x)
        row, column = _pixels(photometry.x, photometry.y, footprints.shape)
        flux, error = np.full(n, np.nan), np.full(n, np.nan)
        moments, psf_moments = np.full((n, 3), np.nan), np.full((n, 3), np.nan)
        of_cell: dict[tuple[int, int], tuple[float, float, float]] = {}
        for k, (i, j) in enumerate(zip(*psf.cell_of(photometry.x, photometry.y), strict=True)):
            if not np.isfinite(photometry.flux[k]):
                continue
            if (i, j) not in of_cell:
                of_cell[i, j] = kernel_moments(psf.kernels[i, j])
            psf_moments[k] = of_cell[i, j]
            one = slice(k, k + 1)
            stamp = psf.stamps(photometry.x[one], photometry.y[one])[0, 0]
            flux[k], error[k], moments[k] = self._one(measured, photometry, k, row[k], column[k], stamp)
        return FoundSources(
            photometry=photometry,
            footprint=footprints[row, column],
            footprints=footprints,
            aperture_flux=flux,
            aperture_flux_err=error,
            moments=moments,
            psf_moments=psf_moments,
            sharp_peak=(np.arange(len(kept)) < n_sharp)[kept],
            fwhm=width,
        )

    def _one(
        self,
        measured: SourceImage,
        photometry: PsfPhotometry,
        k: int,
        row: int,
        column: int,
        stamp: np.ndarray,
    ) -> tuple[float, float, tuple[float, float, float]]:
        """Return a source's aperture flux with its error, and its moments."""
        import sep

        aperture = self.config.apertureRadius
        ring = aperture + _RING[0], aperture + _RING[1]
        radius = int(np.ceil(ring[1])) + 1
        image = _cutout(photometry.residual, row, column, radius, np.nan)
        variance = _cutout(measured.variance, row, column, radius, np.nan)
        own = _cutout(stamp, stamp.shape[0] // 2, stamp.shape[1] // 2, radius, 0.0)
        good = np.isfinite(image) & np.isfinite(variance)
        offset = np.arange(-radius, radius + 1)
        dx, dy = photometry.x[k] - column, photometry.y[k] - row
        distance = np.hypot(offset - dx, (offset - dy)[:, np.newaxis])
        around = good & (distance >= ring[0]) & (distance < ring[1])
        level = float(np.median(image[around])) if np.count_nonzero(around) > 30 else photometry.background[k]
        alone = image - level + photometry.flux[k] * own

        inner = slice(max(radius - _SHAPE_RADIUS, 0), radius + _SHAPE_RADIUS + 1)
        moments = (np.nan, np.nan, np.nan)
        if good[inner, inner].all():
            moments = kernel_moments(alone[inner, inner])

        if not good[distance < aperture + 1].all():
            return np.nan, np.nan, moments
        place = (np.array([radius + dx]), np.array([radius + dy]), aperture)
        values = [
            float(sep.sum_circle(np.ascontiguousarray(pixels, np.float64), *place, subpix=0)[0][0])
            for pixels in (np.where(good, alone, 0), np.where(good, variance, 0), own)
        ]
        total, noise, fraction = values
        # The median's noise is pi/2 times that of the mean.
        noise += (np.pi * aperture**2) ** 2 * np.pi / 2 * np.mean(variance[around]) / max(around.sum(), 1)
        return total / fraction, float(np.sqrt(noise)) / fraction, moments


def find_peaks(
    image: np.ndarray,
    sigma: np.ndarray,
    inside: np.ndarray,
    *,
    min_height: float,
    min_dip: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the significant peaks of an image.

    Parameters
    ----------
    image, sigma : `numpy.ndarray`
        Image and its standard deviation, shape ``(height, width)``.
    inside : `numpy.ndarray`
        `bool`, same shape: the pixels to search.
    min_height : `float`
        Smallest height of a peak, in units of ``sigma`` there.
    min_dip : `float`
        Smallest height of a peak above the saddle to any higher one, in units
        of ``sigma`` at the peak.

    Returns
    -------
    row, column : `numpy.ndarray`
        Pixels of the peaks, shape ``(n,)``.

    Notes
    -----
    Each pixel belongs to the maximum that the steepest ascent over the eight
    pixels around leads to.  Where two such regions touch, the highest pixel
    from which both can be reached is their saddle.  Regions are joined from the
    highest saddle down, and the lower one of their peaks counts if it is
    significantly above the saddle (the persistence of a peak); no threshold
    levels are needed.
    """
    rows, columns = np.nonzero(inside)
    order = np.argsort(image[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    height, noise = image[rows, columns], sigma[rows, columns]
    # A rank instead of a value: no two pixels are equal.
    rank = np.full((image.shape[0] + 2, image.shape[1] + 2), -1)
    rank[rows + 1, columns + 1] = np.arange(len(rows))
    top = scipy.ndimage.maximum_filter(rank, 3)[rows + 1, columns + 1]
    while not np.array_equal(higher := top[top], top):
        top = higher
    peak = np.flatnonzero(top == np.arange(len(top)))

    joined = np.arange(len(top))
    significant = np.ones(len(top), bool)
    for saddle, *pair in _saddles(rank, rows, columns, top):
        low, high = sorted(_root(joined, member) for member in pair)
        if low != high:
            significant[low] = height[low] - height[saddle] > min_dip * noise[low]
            joined[low] = high
    peak = peak[significant[peak] & (height[peak] > min_height * noise[peak])]
    return rows[peak], columns[peak]


def _saddles(
    rank: np.ndarray, rows: np.ndarray, columns: np.ndarray, top: np.ndarray
) -> list[tuple[int, int, int]]:
    """Return the ranks of the saddles between adjacent regions and of the two
    peaks, the highest saddle first.
    """
    found = []
    own = np.arange(len(top))
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        other = rank[rows + 1 + down, columns + 1 + right]
        border = (other >= 0) & (top[other] != top)
        first, second = top[border], top[other[border]]
        saddle = np.minimum(own[border], other[border])
        found.append(np.stack([saddle, np.minimum(first, second), np.maximum(first, second)]))
    saddles = np.concatenate(found, axis=1)
    saddles = saddles[:, np.argsort(-saddles[0], kind="stable")]
    _, highest = np.unique(saddles[1] * len(top) + saddles[2], return_index=True)
    return [tuple(one) for one in saddles[:, np.sort(highest)].T.tolist()]


def _root(joined: np.ndarray, member: int) -> int:
    """Return the highest peak of the regions that one was joined with."""
    while joined[member] != member:
        joined[member] = joined[joined[member]]
        member = joined[member]
    return member


def _vertices(image: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return the positions x, y of peaks between pixels: those of a Gaussian
    through the peak and the pixels next to it, along each axis.
    """
    padded = np.pad(image, 1, constant_values=np.nan)
    positions = []
    for index, (down, right) in ((column, (0, 1)), (row, (1, 0))):
        before, middle, after = (
            padded[row + 1 + k * down, column + 1 + k * right].astype(np.float64) for k in (-1, 0, 1)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            falls = np.log(middle / before), np.log(middle / after)
            shift = 0.5 * (falls[0] - falls[1]) / (falls[0] + falls[1])
        positions.append(index + np.clip(np.nan_to_num(shift, posinf=0.0, neginf=0.0), -0.5, 0.5))
    return np.stack(positions, axis=1)


def _saturated_cores(
    image: np.ndarray, valid: np.ndarray, footprints: np.ndarray, largest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find the cores of saturated stars: holes in the data with the brightest
    pixels of their footprint at their edge.

    Parameters
    ----------
    image : `numpy.ndarray`
        The image, nJy.
    valid : `numpy.ndarray`
        `bool`: pixels with data.
    footprints : `numpy.ndarray`
        Number of the footprint of each pixel.
    largest : `int`
        Height and width from which on something else is missing, pixels.

    Returns
    -------
    positions : `numpy.ndarray`
        Middle of each core, x and y, shape ``(n, 2)``.
    near : `numpy.ndarray`
        `bool`: pixels in cores and next to them.  Whatever a sharp image shows
        there is not constrained by data.
    """
    near = np.zeros(valid.shape, dtype=bool)
    positions = []
    square = np.ones((3, 3))
    light = np.where(valid, image, -np.inf)
    brightest = scipy.ndimage.maximum(light, footprints, np.arange(footprints.max() + 1))
    labels, _ = scipy.ndimage.label(scipy.ndimage.binary_closing(~valid & (footprints > 0), square))
    for number, box in enumerate(scipy.ndimage.find_objects(labels), start=1):
        if (labels[box] == number).sum() < _MIN_CORE or max(s.stop - s.start for s in box) > largest:
            continue
        around = tuple(slice(max(s.start - 2, 0), s.stop + 2) for s in box)
        core = labels[around] == number
        rim = scipy.ndimage.binary_dilation(core, square) & valid[around]
        limit = _CORE_CONTRAST * brightest[footprints[around][core].max()]
        if not rim.any() or light[around][rim].max() < limit:
            continue
        rows, columns = np.nonzero(core)
        positions.append((columns.mean() + around[1].start, rows.mean() + around[0].start))
        near[around] |= scipy.ndimage.binary_dilation(core, square, 2)
    return np.array(positions).reshape(-1, 2), near


def _extract(
    image: np.ndarray,
    sigma: np.ndarray,
    threshold: float,
    kernel: np.ndarray,
    min_area: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Extract sources with sep; return them and the segmentation map.  Pixels
    that are not finite are masked.
    """
    import sep

    missing = ~(np.isfinite(image) & np.isfinite(sigma))
    typical = float(np.median(sigma[~missing])) if not missing.all() else 1.0
    sep.set_extract_pixstack(max(300000, image.size))
    # As many parts of one source as a cluster of stars can have.
    sep.set_sub_object_limit(8192)
    return sep.extract(
        np.ascontiguousarray(np.where(missing, 0, image), dtype=np.float32),
        threshold,
        err=np.ascontiguousarray(np.where(missing, typical, sigma), dtype=np.float32),
        mask=missing,
        minarea=min_area,
        filter_kernel=np.ascontiguousarray(kernel, dtype=np.float32),
        filter_type="matched",
        deblend_nthresh=32,
        deblend_cont=0.005,
        clean=False,
        segmentation_map=True,
    )


def _middle(kernel: np.ndarray) -> np.ndarray:
    """Return the middle of a kernel."""
    middle = len(kernel) // 2
    radius = min(_FILTER_RADIUS, middle)
    return kernel[middle - radius : middle + radius + 1, middle - radius : middle + radius + 1]


def _pixels(x: np.ndarray, y: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of the pixels nearest to positions."""
    row = np.clip(np.rint(y).astype(int), 0, shape[0] - 1)
    return row, np.clip(np.rint(x).astype(int), 0, shape[1] - 1)


def _cutout(image: np.ndarray, row: int, column: int, radius: int, outside: float) -> np.ndarray:
    """Cut a square out of an image, padded where it reaches beyond it."""
    result = np.full((2 * radius + 1, 2 * radius + 1), outside)
    y0, x0 = max(row - radius, 0), max(column - radius, 0)
    part = image[y0 : row + radius + 1, x0 : column + radius + 1]
    y, x = y0 - row + radius, x0 - column + radius
    result[y : y + part.shape[0], x : x + part.shape[1]] = part
    return result
