# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Source lists of two images of the same sky: detection on an image with white
noise, deblending on a sharp one, photometry on the former.
"""

from __future__ import annotations

__all__ = ("FIT_RADIUS", "FindSourcesConfig", "FindSourcesTask", "FoundSources")

import dataclasses
from typing import ClassVar

import numpy as np
import scipy.ndimage
from scipy.signal import fftconvolve
from scipy.spatial import cKDTree

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from ..stack.kernel_shape import fwhm
from ..stack.oversampling import bin_pixels, split_pixels
from .cell_psf import CellPsf
from .find_peaks import find_peaks, interpolate_peaks
from .isolated_sources import measure_isolated
from .psf_photometry import PsfPhotometry, fit_sources
from .saturated_cores import find_saturated_cores
from .source_image import SourceImage, nearest_pixel

# Half of the size of the square around a source in which the PSF is fitted,
# pixels: nearly all of the flux for seeing of 3 to 5 pixels FWHM.
FIT_RADIUS = 10

# Half of the size of the matched filter, pixels: pixels beyond it contribute
# less than a per cent to the signal-to-noise ratio.
_FILTER_RADIUS = 6

# Footprints are grown by this many FWHM, so that those of blended sources are
# one.
_FOOTPRINT_GROWTH = 1.0

# Sources closer than this many FWHM are fitted simultaneously: the PSFs hardly
# overlap beyond it.
_GROUP_RADIUS = 2.0

# Standard deviation of the positions of peaks of the sharp image, pixels, as a
# prior of the positions fitted to the measured one; that of the middle of a
# saturated core, in FWHM.
_POSITION_SCATTER = 0.3
_CORE_POSITION_SCATTER = 0.5

# Largest height and width of a saturated core, pixels: a star of which more is
# missing has no pixel in the square that is fitted.
_MAX_CORE = 2 * FIT_RADIUS

# Deblending parameters of sep.extract for sources that only the measured image
# shows: its defaults.
_DEBLEND_LEVELS, _DEBLEND_CONTRAST = 32, 0.005

# Most parts that sep may split one source into: the stars of a cluster.
_MAX_PARTS = 8192


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FoundSources:
    """Sources, arrays of shape ``(n,)``.

    Parameters
    ----------
    photometry : `PsfPhotometry`
        Their positions and fluxes.
    footprint : `numpy.ndarray`
        Number of the footprint of each source, from 1.
    footprints : `numpy.ndarray`
        Number of the footprint of each pixel, 0 outside of all, shape
        ``(height, width)``.
    aperture_flux, aperture_flux_err : `numpy.ndarray`
        Flux in a circular aperture and its standard deviation, nJy (see
        `IsolatedSources`).
    moments, psf_moments : `numpy.ndarray`
        Second moments xx, yy and xy of the sources and of the PSF there,
        pixels**2, NaN where the measurement fails, shape ``(n, 3)``.
    sharp_peak : `numpy.ndarray`
        `True` for peaks of the sharp image and saturated stars, `False` for
        sources that only the measured image shows, `bool`.
    fwhm : `float`
        Full width at half maximum of the measured image's PSF, pixels; NaN if
        it has none.
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


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Candidates:
    """Places to fit PSFs at: first saturated cores, then peaks of the sharp
    image, then other detections on the measured one.

    ``positions`` x, y and their standard deviations ``scatter``, pixels, have
    shapes ``(n, 2)`` and ``(n,)``.
    """

    positions: np.ndarray
    scatter: np.ndarray
    n_cores: int
    n_sharp: int


class FindSourcesConfig(pexConfig.Config):
    """Configuration of `FindSourcesTask`."""

    detectionSigma = pexConfig.RangeField(
        dtype=float,
        doc="Signal-to-noise ratio of a point source, in the measured image filtered with its PSF, above "
        "which pixels belong to footprints: nothing is detected outside of them. Not above minSignificance.",
        default=4.5,
        min=1.0,
    )
    minArea = pexConfig.RangeField(
        dtype=int,
        doc="Smallest number of such pixels of a footprint. Raise it against detections of one or two bad "
        "pixels that are not masked.",
        default=1,
        min=1,
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
        "galaxies, and less for artifacts in the wings of bright stars. 0 keeps faint companions there, and "
        "the artifacts.",
        default=0.2,
        min=0.0,
        max=1.0,
    )
    minSignificance = pexConfig.RangeField(
        dtype=float,
        doc="Smallest ratio of a source's flux to its standard deviation in the measured image, fitted "
        "together with its neighbors. Less significant sources are removed, however sharp they are.",
        default=5.0,
        min=0.0,
    )
    apertureRadius = pexConfig.RangeField(
        dtype=float,
        doc="Radius of the aperture, pixels. Larger ones hold more of a large galaxy's flux, and more noise.",
        default=6.0,
        min=1.0,
    )


class FindSourcesTask(pipeBase.Task):
    """Detect, deblend and measure sources.

    Notes
    -----
    The input is two images of the same sky.  The *sharp* one (the restored
    coadd) has a narrow PSF and correlated noise of a stated variance.  The
    *measured* one is linear and has white noise: filtered with its PSF it is
    the likelihood of a point source at each pixel.

    1. Footprints are where the filtered measured image is above
       ``detectionSigma``, grown.
    2. In them, peaks of the sharp image are sources (`find_peaks`) if they are
       significant, and if they are significantly above the saddle to any higher
       peak.  Sources of the measured image without such a peak are added.
       Pixels that are missing inside of a footprint are the core of one
       saturated star (`find_saturated_cores`).
    3. PSFs are fitted to the measured image at all of these positions
       (`fit_sources`), and sources below ``minSignificance`` are removed.
    4. Aperture fluxes and moments are measured on the measured image minus the
       fitted neighbors (`measure_isolated`).
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
            width, footprints = np.nan, np.zeros(valid.shape, np.int32)
            candidates = _Candidates(positions=np.empty((0, 2)), scatter=np.empty(0), n_cores=0, n_sharp=0)
        else:
            width = fwhm(kernel)
            footprints, faint = self._find_footprints(measured, kernel, width)
            peaks = np.empty((0, 2))
            if sharp is not None:
                peaks = self._find_sharp_peaks(sharp, measured, kernel, footprints)
            candidates = _merge_candidates(measured, footprints, peaks, faint, width)
        return self._measure(measured, candidates, footprints, width)

    def _find_footprints(
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
        inside = outside <= _FOOTPRINT_GROWTH * width if len(found) else segments > 0
        # Missing pixels inside of a bright star belong to it.
        inside = scipy.ndimage.binary_fill_holes(inside)
        footprints, _ = scipy.ndimage.label(inside, structure=np.ones((3, 3)))
        return footprints, np.stack([found["x"], found["y"]], axis=1).astype(float)

    def _find_sharp_peaks(
        self, sharp: SourceImage, measured: SourceImage, kernel: np.ndarray, footprints: np.ndarray
    ) -> np.ndarray:
        """Return positions x, y of the sources of the sharp image, pixels of
        the measured one.
        """
        sharp_kernel = sharp.mean_kernel()
        if sharp_kernel is None:
            return np.empty((0, 2))
        oversampling = sharp.image.shape[0] // footprints.shape[0]
        inside = split_pixels(footprints > 0, oversampling) & sharp.valid
        variance = np.where(measured.valid, measured.variance, np.median(measured.variance[measured.valid]))
        of_point = np.sqrt(variance / np.sum(kernel**2)) * sharp_kernel.max()
        row, column = find_peaks(
            sharp.image,
            np.maximum(np.sqrt(np.where(inside, sharp.variance, 0.0)), split_pixels(of_point, oversampling)),
            inside,
            min_height=self.config.peakSigma,
            min_dip=self.config.splitSigma,
        )
        blurred, blurred_point = (
            fftconvolve(bin_pixels(pixels, oversampling), kernel, mode="same")
            for pixels in (
                np.where(sharp.valid, sharp.image, 0.0),
                np.pad(sharp_kernel, (0, -len(sharp_kernel) % oversampling)),
            )
        )
        # Coordinates scale about the corner of the first pixel, not its center.
        positions = (interpolate_peaks(sharp.image, row, column) + 0.5) / oversampling - 0.5
        height = sharp.image[row, column] / sharp_kernel.max()
        total = blurred[row // oversampling, column // oversampling] / blurred_point.max()
        return positions[height > self.config.minFraction * total]

    def _measure(
        self, measured: SourceImage, candidates: _Candidates, footprints: np.ndarray, width: float
    ) -> FoundSources:
        """Fit the candidates, and measure those that are significant."""
        psf = CellPsf(measured.kernels, measured.cell_shape)
        number = np.arange(len(candidates.positions))
        photometry, kept = fit_sources(
            measured.image,
            measured.variance,
            psf,
            *candidates.positions.T,
            link_radius=_GROUP_RADIUS * width,
            fit_radius=FIT_RADIUS,
            position_scatter=candidates.scatter,
            min_significance=self.config.minSignificance,
            certain=number < candidates.n_cores,
        )
        isolated = measure_isolated(measured, psf, photometry, aperture_radius=self.config.apertureRadius)
        row, column = nearest_pixel(photometry.x, photometry.y, footprints.shape)
        return FoundSources(
            photometry=photometry,
            footprint=footprints[row, column],
            footprints=footprints,
            aperture_flux=isolated.flux,
            aperture_flux_err=isolated.flux_err,
            moments=isolated.moments,
            psf_moments=isolated.psf_moments,
            sharp_peak=(number < candidates.n_sharp)[kept],
            fwhm=width,
        )


def _merge_candidates(
    measured: SourceImage, footprints: np.ndarray, peaks: np.ndarray, faint: np.ndarray, width: float
) -> _Candidates:
    """Merge the peaks of the sharp image, the detections on the measured one
    that are further than one FWHM from any peak, and saturated cores.
    """
    if len(peaks) and len(faint):
        faint = faint[cKDTree(peaks).query(faint)[0] > width]
    valid = measured.valid
    cores, near_core = find_saturated_cores(measured.image, valid, footprints, max_size=_MAX_CORE)
    places = []
    for positions in (peaks, faint):
        row, column = nearest_pixel(positions[:, 0], positions[:, 1], valid.shape)
        places.append(positions[~near_core[row, column]])
    positions = np.concatenate([cores, *places])
    scatter = np.full(len(positions), _POSITION_SCATTER)
    scatter[: len(cores)] = _CORE_POSITION_SCATTER * width
    return _Candidates(
        positions=positions, scatter=scatter, n_cores=len(cores), n_sharp=len(cores) + len(places[0])
    )


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
    sep.set_sub_object_limit(_MAX_PARTS)
    return sep.extract(
        np.ascontiguousarray(np.where(missing, 0, image), dtype=np.float32),
        threshold,
        err=np.ascontiguousarray(np.where(missing, typical, sigma), dtype=np.float32),
        mask=missing,
        minarea=min_area,
        filter_kernel=np.ascontiguousarray(kernel, dtype=np.float32),
        filter_type="matched",
        deblend_nthresh=_DEBLEND_LEVELS,
        deblend_cont=_DEBLEND_CONTRAST,
        clean=False,
        segmentation_map=True,
    )


def _middle(kernel: np.ndarray) -> np.ndarray:
    """Cut the matched filter out of a PSF kernel."""
    middle = len(kernel) // 2
    radius = min(_FILTER_RADIUS, middle)
    return kernel[middle - radius : middle + radius + 1, middle - radius : middle + radius + 1]
