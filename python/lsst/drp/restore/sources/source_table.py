# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The source table: its columns, units and flags."""

from __future__ import annotations

__all__ = ("COLUMNS", "PatchFrame", "SourceColumn", "make_source_table", "near_missing")

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import astropy.table
import numpy as np
import scipy.ndimage
from astropy.coordinates import SkyCoord

from ..stack.ellipses import ellipse_axes
from .find_sources import FoundSources
from .source_image import nearest_pixel

# Height and width of the square around a source whose mask planes are its
# flags, pixels: the fitted position can be off by a pixel.
_MASK_SIZE = 3


class SourceColumn(NamedTuple):
    """Name, type, unit and description of a column of the table."""

    name: str
    dtype: type
    unit: str
    description: str


COLUMNS: tuple[SourceColumn, ...] = (
    SourceColumn("id", np.int64, "", "Number of the source in this patch and band, from 1."),
    SourceColumn(
        "parent",
        np.int64,
        "",
        "id of the blend that the source was split from; 0 if it is alone, or a blend.",
    ),
    SourceColumn(
        "deblend_nChild", np.int32, "", "Number of sources this blend was split into; 0 for sources."
    ),
    SourceColumn("tract", np.int64, "", "Tract of the skymap."),
    SourceColumn("patch", np.int64, "", "Patch of the tract."),
    SourceColumn(
        "coord_ra",
        np.float64,
        "deg",
        "Right ascension, ICRS; that of a blend is the mean position of its sources.",
    ),
    SourceColumn("coord_dec", np.float64, "deg", "Declination, ICRS."),
    SourceColumn("x", np.float64, "pix", "Position along x of the fitted PSF, pixels of the tract."),
    SourceColumn("y", np.float64, "pix", "Position along y, pixels of the tract."),
    SourceColumn("xErr", np.float32, "pix", "Standard deviation of x."),
    SourceColumn("yErr", np.float32, "pix", "Standard deviation of y."),
    SourceColumn(
        "psfFlux",
        np.float64,
        "nJy",
        "PSF flux on the measurable coadd, fitted together with the neighbors: the flux of point sources. "
        "NaN for blends.",
    ),
    SourceColumn("psfFluxErr", np.float64, "nJy", "Standard deviation of psfFlux."),
    SourceColumn(
        "psfChi2", np.float32, "", "Chi squared per pixel of that fit, within 5 pixels; high for galaxies."
    ),
    SourceColumn(
        "apFlux",
        np.float64,
        "nJy",
        "Flux in a circle (apertureRadius) on the measurable coadd without neighbors, above the median of "
        "a ring, divided by the fraction of the PSF's flux in the circle: the flux of small galaxies.",
    ),
    SourceColumn("apFluxErr", np.float64, "nJy", "Standard deviation of apFlux."),
    SourceColumn("background", np.float32, "nJy", "Background fitted together with psfFlux, per pixel."),
    SourceColumn(
        "shape_xx", np.float32, "pix2", "Second moment along x on the measurable coadd, its PSF included."
    ),
    SourceColumn("shape_yy", np.float32, "pix2", "Second moment along y."),
    SourceColumn("shape_xy", np.float32, "pix2", "Mixed second moment."),
    SourceColumn(
        "psf_xx", np.float32, "pix2", "Second moment of the PSF along x, measured as that of the source."
    ),
    SourceColumn("psf_yy", np.float32, "pix2", "Second moment of the PSF along y."),
    SourceColumn("psf_xy", np.float32, "pix2", "Mixed second moment of the PSF."),
    SourceColumn("a", np.float32, "pix", "Semi-major axis (sigma) of the ellipse with moments shape_*."),
    SourceColumn("b", np.float32, "pix", "Semi-minor axis (sigma) of that ellipse."),
    SourceColumn("theta", np.float32, "deg", "Angle of its major axis from x towards y, -90 to 90."),
    SourceColumn("detect_isPatchInner", np.bool_, "", "In the inner region of the patch."),
    SourceColumn(
        "detect_isPrimary",
        np.bool_,
        "",
        "In the inner region of the patch and not a blend: unique where patches overlap.",
    ),
    SourceColumn("flag_blended", np.bool_, "", "Split from a blend."),
    SourceColumn("flag_edge", np.bool_, "", "Some pixels of the fit are missing or beyond the patch's edge."),
    SourceColumn(
        "flag_noData", np.bool_, "", "No exposure has a good pixel at its center: saturated star or gap."
    ),
    SourceColumn("flag_fewExposures", np.bool_, "", "Few exposures have data at its center."),
    SourceColumn(
        "flag_inconsistent",
        np.bool_,
        "",
        "The exposures are inconsistent with the restored coadd: possibly variable or moving.",
    ),
    SourceColumn("flag_notConverged", np.bool_, "", "The restored coadd did not converge."),
    SourceColumn(
        "flag_inexactPsf", np.bool_, "", "Missing pixels make the PSF of the measurable coadd inexact here."
    ),
    SourceColumn(
        "flag_notRestored", np.bool_, "", "No peak on the restored coadd, only on the measurable one."
    ),
    SourceColumn("flag_psfFlux", np.bool_, "", "psfFlux could not be measured."),
    SourceColumn("flag_apFlux", np.bool_, "", "apFlux could not be measured."),
    SourceColumn("flag_shape", np.bool_, "", "The second moments could not be measured."),
)

# Flags that are those of a mask plane at the center of the source.
_MASK_FLAGS = {
    "NO_DATA": "flag_noData",
    "FEW_EXPOSURES": "flag_fewExposures",
    "INCONSISTENT": "flag_inconsistent",
    "NOT_CONVERGED": "flag_notConverged",
    "INEXACT_PSF": "flag_inexactPsf",
}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PatchFrame:
    """The place of a patch's arrays in its tract and on the sky.

    Parameters
    ----------
    tract, patch : `int`
        Their IDs.
    x0, y0 : `int`
        First pixel of the arrays, pixels of the tract.
    inner : `tuple` [`slice`, `slice`]
        Rows and columns of the inner region, pixels of the tract.
    pixel_to_sky : `~collections.abc.Callable`
        Converts x and y, pixels of the tract (`numpy.ndarray`), to
        `astropy.coordinates.SkyCoord`.
    """

    tract: int
    patch: int
    x0: int
    y0: int
    inner: tuple[slice, slice]
    pixel_to_sky: Callable[[np.ndarray, np.ndarray], SkyCoord]


def make_source_table(
    found: FoundSources,
    frame: PatchFrame,
    planes: Mapping[str, np.ndarray],
    *,
    edge: np.ndarray,
) -> astropy.table.Table:
    """Make the dataset ``restored_source``.

    Parameters
    ----------
    found : `FoundSources`
        The sources.
    frame : `PatchFrame`
        The place of the patch.
    planes : `~collections.abc.Mapping` [`str`, `numpy.ndarray`]
        Mask planes by name, `bool`, shape ``(height, width)``.
    edge : `numpy.ndarray`
        Pixels at which a fit lacks some pixels (`near_missing`), same shape
        and type.

    Returns
    -------
    table : `astropy.table.Table`
        Sources and blends, with the columns `COLUMNS`: each source that shares
        its footprint with others has the ``id`` of the blend as ``parent``,
        and blends have rows without fluxes of their own.  A table without
        sources has the same columns.
    """
    values = _missing_values(len(found) + len(_find_blends(found)))
    order = np.lexsort((found.photometry.x, found.photometry.y))
    x, y = _fill_family(values, found, order)
    _fill_measurements(values, found, order)
    _fill_place(values, frame, x, y)

    row, column = nearest_pixel(x, y, edge.shape)
    values["flag_edge"] = edge[row, column]
    for name, flag in _MASK_FLAGS.items():
        if name in planes:
            values[flag] = scipy.ndimage.maximum_filter(planes[name], _MASK_SIZE)[row, column]
    values["flag_blended"] = values["parent"] > 0
    values["flag_psfFlux"] = ~np.isfinite(values["psfFlux"])
    values["flag_apFlux"] = ~np.isfinite(values["apFlux"])
    values["flag_shape"] = ~np.isfinite(values["shape_xx"])
    return astropy.table.Table(
        [
            astropy.table.Column(
                np.asarray(values[column.name], column.dtype),
                name=column.name,
                unit=column.unit or None,
                description=column.description,
            )
            for column in COLUMNS
        ]
    )


def near_missing(valid: np.ndarray, radius: int) -> np.ndarray:
    """Find the pixels with missing ones, or the edge of the image, nearby.

    Parameters
    ----------
    valid : `numpy.ndarray`
        Pixels with data, `bool`, shape ``(height, width)``.
    radius : `int`
        Half of the size of the square around a pixel that is searched, pixels.

    Returns
    -------
    near : `numpy.ndarray`
        `bool`, same shape.
    """
    return scipy.ndimage.maximum_filter(~valid, 2 * radius + 1, mode="constant", cval=True)


def _missing_values(n_rows: int) -> dict[str, np.ndarray]:
    """Return columns of NaN, zeros and `False`."""
    return {
        column.name: np.full(n_rows, np.nan if np.issubdtype(column.dtype, np.floating) else 0, column.dtype)
        for column in COLUMNS
    }


def _find_blends(found: FoundSources) -> np.ndarray:
    """Return the numbers of the footprints with more than one source."""
    labels, counts = np.unique(found.footprint, return_counts=True)
    return labels[counts > 1]


def _fill_family(
    values: dict[str, np.ndarray], found: FoundSources, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Assign IDs to the sources, in the given order, and after them to the
    blends; return the positions x and y of all, pixels of the arrays.
    """
    n, total = len(found), len(values["id"])
    inverse = np.empty(n, int)
    inverse[order] = np.arange(n)
    x, y = np.empty(total), np.empty(total)
    x[:n], y[:n] = found.photometry.x[order], found.photometry.y[order]
    values["id"][:] = np.arange(1, total + 1)
    for row, label in enumerate(_find_blends(found), start=n):
        members = inverse[found.footprint == label]
        x[row], y[row] = x[members].mean(), y[members].mean()
        values["deblend_nChild"][row] = len(members)
        values["parent"][members] = values["id"][row]
    return x, y


def _fill_measurements(values: dict[str, np.ndarray], found: FoundSources, order: np.ndarray) -> None:
    """Fill in what was measured of the sources."""
    source = slice(0, len(found))
    for name, measured in (
        ("xErr", found.photometry.x_err),
        ("yErr", found.photometry.y_err),
        ("psfFlux", found.photometry.flux),
        ("psfFluxErr", found.photometry.flux_err),
        ("psfChi2", found.photometry.chi2),
        ("background", found.photometry.background),
        ("apFlux", found.aperture_flux),
        ("apFluxErr", found.aperture_flux_err),
        ("flag_notRestored", ~found.sharp_peak),
    ):
        values[name][source] = measured[order]
    for k, axes in enumerate(("xx", "yy", "xy")):
        values[f"shape_{axes}"][source] = found.moments[order, k]
        values[f"psf_{axes}"][source] = found.psf_moments[order, k]
    a, b, theta = ellipse_axes(*found.moments[order].T)
    values["a"][source], values["b"][source], values["theta"][source] = a, b, np.degrees(theta)


def _fill_place(values: dict[str, np.ndarray], frame: PatchFrame, x: np.ndarray, y: np.ndarray) -> None:
    """Fill in positions in the tract and on the sky; ``x`` and ``y`` are pixels
    of the arrays.
    """
    values["tract"][:], values["patch"][:] = frame.tract, frame.patch
    values["x"], values["y"] = x + frame.x0, y + frame.y0
    if len(x):
        sky = frame.pixel_to_sky(values["x"], values["y"])
        values["coord_ra"], values["coord_dec"] = sky.icrs.ra.deg, sky.icrs.dec.deg
    row, column = np.rint(values["y"]), np.rint(values["x"])
    rows, columns = frame.inner
    inside = (row >= rows.start) & (row < rows.stop) & (column >= columns.start) & (column < columns.stop)
    values["detect_isPatchInner"] = inside
    values["detect_isPrimary"] = inside & (values["deblend_nChild"] == 0)
