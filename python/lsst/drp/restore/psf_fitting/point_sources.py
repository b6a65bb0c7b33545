# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Stars of an exposure stack, found without knowing its PSFs."""

from __future__ import annotations

__all__ = ("PointSources", "find_point_sources")

import dataclasses

import numpy as np
import scipy.ndimage

from ..stack.exposure_stack import ExposureStack, expand_cells
from ..stack.kernel_shape import fwhm
from ..stack.reference_coadd import ReferenceCoadd

# Sources are found above this many standard deviations of a pixel of the coadd, in this many pixels.
_THRESHOLD = 3.0
_MIN_AREA = 5

# Signal-to-noise ratios are those of the flux in squares of this half width, pixels.
_APERTURE = 4

# Another source extends over this many pixels beyond its segment, and has to be further from a star than this
# radius, pixels.
_GROW = 2
_CLEAR_RADIUS = 4.0

# At least this fraction of the pixels within these radii, in all exposures that see the star, is good: the
# mean of saturated stars is as broad as the exposures that show their cores.
_MIN_GOOD = 0.5
_GOOD_RADII = (1.5, _CLEAR_RADIUS)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PointSources:
    """Isolated stars.

    Parameters
    ----------
    y, x : `numpy.ndarray`
        Positions, pixels of the patch, shape ``(s,)``.
    flux : `numpy.ndarray`
        Rough fluxes, nJy, shape ``(s,)``.
    snr : `numpy.ndarray`
        Signal-to-noise ratio on the coadd, shape ``(s,)``.
    width : `numpy.ndarray`
        Full width at half maximum on the coadd, pixels, shape ``(s,)``.
    clear : `numpy.ndarray`
        `bool`, shape ``(s, k, k)``: the pixels of a stamp as large as a PSF
        kernel, around the pixel the star is on, that no other source
        reaches.
    """

    y: np.ndarray
    x: np.ndarray
    flux: np.ndarray
    snr: np.ndarray
    width: np.ndarray
    clear: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, chosen: np.ndarray) -> PointSources:
        """Return some of the stars."""
        fields = {f.name: getattr(self, f.name)[chosen] for f in dataclasses.fields(self)}
        return PointSources(**fields)


def find_point_sources(
    stack: ExposureStack, reference: ReferenceCoadd, *, min_snr: float, max_count: int
) -> PointSources:
    """Find isolated sources on the mean of the exposures; see
    `.stack.stellar_locus.stellar` for which are stars.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.  Of their kernels only the size is used.
    reference : `ReferenceCoadd`
        Their mean.
    min_snr : `float`
        Smallest signal-to-noise ratio on the mean.
    max_count : `int`
        Largest number of sources; the brightest are taken.

    Returns
    -------
    sources : `PointSources`
        The sources, the brightest first; possibly none.
    """
    import sep

    half = stack.kernel_size // 2
    covered = np.isfinite(reference.image)
    noise = reference.variance * expand_cells(reference.correlation, stack.cell_shape)
    pixels = np.where(covered, reference.image, 0).astype(np.float32)
    sigma = np.where(covered, np.sqrt(noise), 1).astype(np.float32)
    # The default is for images of some million pixels.
    sep.set_extract_pixstack(max(300000, pixels.size))
    objects, segments = sep.extract(
        pixels, _THRESHOLD, err=sigma, mask=~covered, minarea=_MIN_AREA, segmentation_map=True
    )
    stamps = np.ogrid[-half : half + 1, -half : half + 1]
    distance = np.hypot(*stamps)
    rows: list[tuple] = []
    for index in np.argsort(-objects["flux"], kind="stable"):
        if len(rows) >= max_count:
            break
        y, x = float(objects["y"][index]), float(objects["x"][index])
        row, column = round(y), round(x)
        window = (slice(row - half, row + half + 1), slice(column - half, column + half + 1))
        inside = half <= row < stack.shape[0] - half and half <= column < stack.shape[1] - half
        if not inside or not covered[window][distance <= _CLEAR_RADIUS].all():
            continue
        core = (
            slice(row - _APERTURE, row + _APERTURE + 1),
            slice(column - _APERTURE, column + _APERTURE + 1),
        )
        flux = float(pixels[core].sum())
        snr = flux / float(np.sqrt(np.sum(sigma[core] ** 2)))
        if snr < min_snr:
            continue
        others = (segments[window] > 0) & (segments[window] != index + 1)
        reached = scipy.ndimage.binary_dilation(others, iterations=_GROW) if others.any() else others
        good = stack.good[(slice(None), *window)]
        good = good[good.any(axis=(1, 2))]
        if reached[distance <= _CLEAR_RADIUS].any() or any(
            good[:, distance <= radius].mean() < _MIN_GOOD for radius in _GOOD_RADII
        ):
            continue
        width = (
            fwhm(pixels[row - 8 : row + 9, column - 8 : column + 9]) if half >= 8 else fwhm(pixels[window])
        )
        if np.isfinite(width):
            rows.append((y, x, flux, snr, width, ~reached))
    columns = [np.array(column) for column in zip(*rows, strict=True)] or [np.zeros(0)] * 5
    clear = columns[5] if rows else np.zeros((0, stack.kernel_size, stack.kernel_size), bool)
    names = ("y", "x", "flux", "snr", "width")
    stars = PointSources(**dict(zip(names, columns[:5], strict=True)), clear=clear)
    return stars[np.argsort(-stars.snr, kind="stable")]
