# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The pipeline task that lists the sources of a restored coadd."""

from __future__ import annotations

__all__ = (
    "DetectRestoredSourcesConfig",
    "DetectRestoredSourcesConnections",
    "DetectRestoredSourcesTask",
    "format_source_metrics",
    "make_source_table",
)

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import astropy.table
import astropy.units as u
import numpy as np
import scipy.ndimage
from scipy.spatial import cKDTree

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from lsst.images.cells import CellCoadd

from .errors import InputError
from .outputs.plot_sources import plot_sources
from .sources.find_sources import FindSourcesTask, FoundSources, SourceImage
from .stack.oversampling import bin_pixels
from .warping.patch_geometry import PatchGeometry

_PATCH = ("skymap", "tract", "patch", "band")

# Pixels around a source whose mask it gets: half of the square's size.
_MASK_RADIUS = 1

# Name, type, unit and description of the columns of the table.
_COLUMNS: tuple[tuple[str, type, str, str], ...] = (
    ("id", np.int64, "", "Number of the source in this patch and band, from 1."),
    ("parent", np.int64, "", "id of the blend that the source was split from; 0 if it is alone, or a blend."),
    ("deblend_nChild", np.int32, "", "Number of sources this blend was split into; 0 for sources."),
    ("tract", np.int64, "", "Tract of the skymap."),
    ("patch", np.int64, "", "Patch of the tract."),
    ("coord_ra", np.float64, "deg", "Right ascension, ICRS; of blends that of the middle of its sources."),
    ("coord_dec", np.float64, "deg", "Declination, ICRS."),
    ("x", np.float64, "pix", "Position along x in the tract's pixels: that of the fitted PSF."),
    ("y", np.float64, "pix", "Position along y in the tract's pixels."),
    ("xErr", np.float32, "pix", "Standard deviation of x."),
    ("yErr", np.float32, "pix", "Standard deviation of y."),
    (
        "psfFlux",
        np.float64,
        "nJy",
        "Flux of the PSF that fits the measurable coadd best, together with its neighbors: that of point "
        "sources. NaN for blends.",
    ),
    ("psfFluxErr", np.float64, "nJy", "Standard deviation of psfFlux."),
    ("psfChi2", np.float32, "", "Chi squared per pixel of that fit, within 5 pixels; high for galaxies."),
    (
        "apFlux",
        np.float64,
        "nJy",
        "Flux in a circle (apertureRadius) of the measurable coadd without neighbors, above the median of "
        "a ring around it, divided by the fraction of the PSF's flux in the circle: that of small galaxies.",
    ),
    ("apFluxErr", np.float64, "nJy", "Standard deviation of apFlux."),
    ("background", np.float32, "nJy", "Level of the sky fitted together with psfFlux, per pixel."),
    ("shape_xx", np.float32, "pix2", "Second moment along x on the measurable coadd, its PSF included."),
    ("shape_yy", np.float32, "pix2", "Second moment along y."),
    ("shape_xy", np.float32, "pix2", "Mixed second moment."),
    ("psf_xx", np.float32, "pix2", "Second moment of the PSF along x, measured as that of the source."),
    ("psf_yy", np.float32, "pix2", "Second moment of the PSF along y."),
    ("psf_xy", np.float32, "pix2", "Mixed second moment of the PSF."),
    ("a", np.float32, "pix", "Semi-major axis (sigma) of the ellipse with moments shape_*."),
    ("b", np.float32, "pix", "Semi-minor axis (sigma) of that ellipse."),
    ("theta", np.float32, "deg", "Angle of its major axis from x towards y, -90 to 90."),
    ("detect_isPatchInner", np.bool_, "", "In the inner region of the patch."),
    (
        "detect_isPrimary",
        np.bool_,
        "",
        "In the inner region of the patch and not a blend: counted once where patches overlap.",
    ),
    ("flag_blended", np.bool_, "", "Split from a blend."),
    ("flag_edge", np.bool_, "", "Pixels without data, or the patch's edge, are among those of the fit."),
    ("flag_noData", np.bool_, "", "No exposure has a good pixel at its center: saturated, or a gap."),
    ("flag_fewExposures", np.bool_, "", "Few exposures have data at its center."),
    ("flag_inconsistent", np.bool_, "", "The exposures contradict the restored coadd: variable or moving?"),
    ("flag_notConverged", np.bool_, "", "The restored coadd did not converge."),
    ("flag_inexactPsf", np.bool_, "", "The PSF of the measurable coadd is not exact here: missing pixels."),
    ("flag_notRestored", np.bool_, "", "The restored coadd has no peak here, only the measurable one does."),
    ("flag_psfFlux", np.bool_, "", "psfFlux could not be measured."),
    ("flag_apFlux", np.bool_, "", "apFlux could not be measured."),
    ("flag_shape", np.bool_, "", "The second moments could not be measured."),
)

# Flags that are those of a mask plane at the center of the source.
_MASK_FLAGS = {
    "NO_DATA": "flag_noData",
    "FEW_EXPOSURES": "flag_fewExposures",
    "INCONSISTENT": "flag_inconsistent",
    "NOT_CONVERGED": "flag_notConverged",
    "INEXACT_PSF": "flag_inexactPsf",
}


class DetectRestoredSourcesConnections(pipeBase.PipelineTaskConnections, dimensions=_PATCH):
    """Datasets of `DetectRestoredSourcesTask`."""

    restored_coadd = cT.Input(
        doc="The restored coadd, to tell sources apart on.",
        name="restored_coadd",
        storageClass="CellCoadd",
        dimensions=_PATCH,
    )
    restored_coadd_measurable = cT.Input(
        doc="The measurable coadd, to measure sources on.",
        name="restored_coadd_measurable",
        storageClass="CellCoadd",
        dimensions=_PATCH,
    )
    restored_coadd_reference = cT.Input(
        doc="The reference coadd, whose sources are compared with.",
        name="restored_coadd_reference",
        storageClass="CellCoadd",
        dimensions=_PATCH,
    )
    restored_source = cT.Output(
        doc="Sources of the restored coadd.",
        name="restored_source",
        storageClass="ArrowAstropy",
        dimensions=_PATCH,
    )
    restored_source_metrics = cT.Output(
        doc="Comparison of these sources with those that are detected on the reference coadd.",
        name="restored_source_metrics",
        storageClass="StructuredDataDict",
        dimensions=_PATCH,
    )
    restored_source_plot = cT.Output(
        doc="The sources, marked on the reference and on the restored coadd.",
        name="restored_source_plot",
        storageClass="Plot",
        dimensions=_PATCH,
    )


class DetectRestoredSourcesConfig(
    pipeBase.PipelineTaskConfig, pipelineConnections=DetectRestoredSourcesConnections
):
    """Configuration of `DetectRestoredSourcesTask`."""

    find: pexConfig.ConfigurableField = pexConfig.ConfigurableField(
        target=FindSourcesTask, doc="Detects, deblends and measures sources."
    )
    matchRadius = pexConfig.RangeField(
        dtype=float,
        doc="Sources of the restored and of the reference coadd are the same if they are closer than this, "
        "pixels.",
        default=2.5,
        min=0.0,
        inclusiveMin=False,
    )
    compareSignificance = pexConfig.RangeField(
        dtype=float,
        doc="Smallest ratio of flux and standard deviation of the sources whose fluxes are compared.",
        default=10.0,
        min=0.0,
    )


class DetectRestoredSourcesTask(pipeBase.PipelineTask):
    """List the sources of a patch that was restored in one band."""

    ConfigClass = DetectRestoredSourcesConfig
    _DefaultName: ClassVar[str] = "detectRestoredSources"
    config: DetectRestoredSourcesConfig
    find: FindSourcesTask

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.makeSubtask("find")

    def run(
        self,
        restored_coadd: CellCoadd,
        restored_coadd_measurable: CellCoadd,
        restored_coadd_reference: CellCoadd,
    ) -> pipeBase.Struct:
        """List the sources of a patch.

        Parameters
        ----------
        restored_coadd : `lsst.images.cells.CellCoadd`
            The restored coadd.
        restored_coadd_measurable : `lsst.images.cells.CellCoadd`
            The measurable coadd.
        restored_coadd_reference : `lsst.images.cells.CellCoadd`
            The reference coadd.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            One attribute by output connection:

            ``restored_source``
                Table of the sources (`make_source_table`).
            ``restored_source_metrics``
                Nested `dict` of numbers, see `format_source_metrics`.
            ``restored_source_plot``
                The figure, see `plot_sources`.

        Raises
        ------
        InputError
            Raised if the coadds are not on the same pixels.
        """
        geometry = PatchGeometry.from_coadd(restored_coadd_measurable)
        # The restored coadd may have smaller pixels.
        factor = max(1, restored_coadd.bbox.y.size // geometry.outer_bbox.y.size)
        for name, coadd, bbox in (
            ("restored_coadd", restored_coadd, geometry.refined(factor).outer_bbox),
            ("restored_coadd_reference", restored_coadd_reference, geometry.outer_bbox),
        ):
            if coadd.bbox != bbox:
                raise InputError(
                    f"Dataset {name} has the pixels {coadd.bbox}, restored_coadd_measurable "
                    f"{geometry.outer_bbox}: they are of different runs; take all three from the same one."
                )
        restored, measurable, reference = (
            _source_image(coadd)
            for coadd in (restored_coadd, restored_coadd_measurable, restored_coadd_reference)
        )
        # There it only repeats the restored coadd: the cores of saturated
        # stars.  Their wings tell how bright they are.
        measurable.variance[restored_coadd_measurable.mask.get("NO_DATA")] = np.nan
        found = self.find.run(restored, measurable)
        table = make_source_table(
            found,
            geometry,
            _planes(geometry.outer_bbox.shape, restored_coadd, restored_coadd_measurable),
            edge=_near_missing(measurable.valid, self.config.find.value.fitRadius),
        )
        # The pixels of a mean of warped exposures are correlated, those of the
        # measurable coadd (nearly) are not: compare at the same significance.
        widths = reference.sky_width(), measurable.sky_width()
        scale = widths[0] / widths[1] if min(widths) > 0 else 1.0
        reference = dataclasses.replace(reference, variance=reference.variance * scale**2)
        compared = self.find.run(None, reference)
        metrics = self._compare(found, compared, table, geometry)
        metrics["reference_noise_scale"] = float(scale)
        title = f"{geometry.skymap}, tract {geometry.tract}, patch {geometry.patch.id}, {restored_coadd.band}"
        self.log.info("Sources of %s:\n%s", title, format_source_metrics(metrics))
        return pipeBase.Struct(
            restored_source=table,
            restored_source_metrics=metrics,
            restored_source_plot=plot_sources(
                reference.image, bin_pixels(restored.image, factor), table, geometry=geometry, title=title
            ),
        )

    def _compare(
        self,
        found: FoundSources,
        compared: FoundSources,
        table: astropy.table.Table,
        geometry: PatchGeometry,
    ) -> dict[str, Any]:
        """Compare the sources with those of the reference coadd."""
        ours, theirs = (np.stack([p.x, p.y], axis=1) for p in (found.photometry, compared.photometry))
        radius = self.config.matchRadius
        first, second, distance = _match(ours, theirs, radius)
        near = [0] * len(theirs)
        if len(ours) and len(theirs):
            near = cKDTree(ours).query_ball_point(theirs, max(compared.fwhm, radius), return_length=True)
        significance = found.photometry.flux / found.photometry.flux_err
        bright = (significance[first] > self.config.compareSignificance) & (np.asarray(near)[second] == 1)
        ratio = (found.photometry.flux[first] / compared.photometry.flux[second])[bright]
        ratio = ratio[np.isfinite(ratio)]
        middle = float(np.median(ratio)) if len(ratio) else np.nan
        errors = found.photometry.flux_err[np.isfinite(found.photometry.flux_err)]
        separation = float(np.median(distance)) if len(distance) else np.nan
        return {
            "n_restored": len(found),
            "n_reference": len(compared),
            "n_primary": int(np.count_nonzero(table["detect_isPrimary"])),
            "n_blends": int(np.count_nonzero(table["deblend_nChild"])),
            "n_blended": int(np.count_nonzero(table["flag_blended"])),
            "n_not_restored": int(np.count_nonzero(table["flag_notRestored"])),
            "matched_fraction": {
                "restored": len(first) / len(found) if len(found) else np.nan,
                "reference": len(first) / len(compared) if len(compared) else np.nan,
            },
            "median_separation_pixels": separation,
            "median_separation_arcsec": separation * geometry.pixel_scale,
            "n_split": int(np.count_nonzero(np.asarray(near) > 1)),
            "flux_ratio": {
                "median": middle,
                "scatter": float(1.4826 * np.median(np.abs(ratio - middle))) if len(ratio) else np.nan,
                "n": len(ratio),
            },
            "median_flux_error": float(np.median(errors)) if len(errors) else np.nan,
            "psf_fwhm_pixels": {"measurable": float(found.fwhm), "reference": float(compared.fwhm)},
        }


def make_source_table(
    found: FoundSources,
    geometry: PatchGeometry,
    planes: Mapping[str, np.ndarray],
    *,
    edge: np.ndarray,
) -> astropy.table.Table:
    """Make the dataset ``restored_source``.

    Parameters
    ----------
    found : `FoundSources`
        The sources.
    geometry : `PatchGeometry`
        The pixel grid of the patch.
    planes : `~collections.abc.Mapping` [`str`, `numpy.ndarray`]
        Pixels of the mask planes, `bool`, shape ``(height, width)``, by name.
    edge : `numpy.ndarray`
        Pixels which are so close to missing ones or to the edge that a fit
        there lacks some, same shape.

    Returns
    -------
    table : `astropy.table.Table`
        Sources and blends: each source that shares its footprint with others
        has the ``id`` of the blend as ``parent``, and blends have rows without
        fluxes of their own.  All columns have descriptions, and units where
        they have one.  A table without sources has the same columns.
    """
    photometry, box = found.photometry, geometry.outer_bbox
    n = len(found)
    order = np.lexsort((photometry.x, photometry.y))
    inverse = np.empty(n, int)
    inverse[order] = np.arange(n)
    # Blends follow the sources.
    labels, counts = np.unique(found.footprint, return_counts=True)
    blends = labels[counts > 1]
    parent = np.zeros(n, np.int64)
    for number, label in enumerate(blends):
        parent[found.footprint == label] = n + 1 + number
    total = n + len(blends)

    values: dict[str, np.ndarray] = {}
    for name, dtype, _, _ in _COLUMNS:
        missing = np.nan if np.issubdtype(dtype, np.floating) else 0
        values[name] = np.full(total, missing, dtype)
    source = slice(0, n)
    x, y = np.empty(total), np.empty(total)
    x[source], y[source] = photometry.x[order], photometry.y[order]
    for number, label in enumerate(blends):
        members = inverse[found.footprint == label]
        x[n + number], y[n + number] = x[members].mean(), y[members].mean()
        values["deblend_nChild"][n + number] = len(members)
    values["id"][:] = np.arange(1, total + 1)
    values["parent"][source] = parent[order]
    values["tract"][:], values["patch"][:] = geometry.tract, geometry.patch.id
    values["x"], values["y"] = x + box.x.start, y + box.y.start
    if total:
        sky = geometry.sky_projection.pixel_to_sky(x=values["x"], y=values["y"])
        values["coord_ra"], values["coord_dec"] = sky.icrs.ra.deg, sky.icrs.dec.deg
    for name, column in (
        ("xErr", photometry.x_err),
        ("yErr", photometry.y_err),
        ("psfFlux", photometry.flux),
        ("psfFluxErr", photometry.flux_err),
        ("psfChi2", photometry.chi2),
        ("background", photometry.background),
        ("apFlux", found.aperture_flux),
        ("apFluxErr", found.aperture_flux_err),
        ("flag_notRestored", ~found.sharp_peak),
    ):
        values[name][source] = column[order]
    for k, axes in enumerate(("xx", "yy", "xy")):
        values[f"shape_{axes}"][source] = found.moments[order, k]
        values[f"psf_{axes}"][source] = found.psf_moments[order, k]
    values["a"][source], values["b"][source], values["theta"][source] = _ellipse(found.moments[order])

    inner = geometry.patch.inner_bbox
    row, column = np.rint(values["y"]).astype(int), np.rint(values["x"]).astype(int)
    inside = (row >= inner.y.start) & (row < inner.y.stop)
    inside &= (column >= inner.x.start) & (column < inner.x.stop)
    values["detect_isPatchInner"] = inside
    values["detect_isPrimary"] = inside & (values["deblend_nChild"] == 0)
    values["flag_blended"] = values["parent"] > 0
    row = np.clip(row - box.y.start, 0, box.y.size - 1)
    column = np.clip(column - box.x.start, 0, box.x.size - 1)
    values["flag_edge"] = edge[row, column]
    size = 2 * _MASK_RADIUS + 1
    for name, flag in _MASK_FLAGS.items():
        if name in planes:
            values[flag] = scipy.ndimage.maximum_filter(planes[name], size)[row, column]
    values["flag_psfFlux"] = ~np.isfinite(values["psfFlux"])
    values["flag_apFlux"] = ~np.isfinite(values["apFlux"])
    values["flag_shape"] = ~np.isfinite(values["shape_xx"])

    table = astropy.table.Table(
        [
            astropy.table.Column(
                np.asarray(values[name], dtype), name=name, unit=unit or None, description=description
            )
            for name, dtype, unit, description in _COLUMNS
        ]
    )
    return table


def format_source_metrics(metrics: Mapping[str, Any]) -> str:
    """Format the dataset ``restored_source_metrics`` for a terminal or a log.

    Parameters
    ----------
    metrics : `~collections.abc.Mapping`
        With these keys:

        ``n_restored``, ``n_reference``
            Number of sources, blends not counted, on the patch with its
            border, and that on the reference coadd.
        ``n_primary``
            Number of sources in the inner region of the patch.
        ``n_blends``, ``n_blended``
            Number of blends and of the sources in them.
        ``n_not_restored``
            Number of sources that only the measurable coadd shows.
        ``matched_fraction``
            Fraction of the sources of ``restored`` and ``reference`` that are
            in the other list, too.
        ``median_separation_pixels``, ``median_separation_arcsec``
            Between the same sources of both.
        ``n_split``
            Number of sources of the reference coadd that are several of the
            restored one.
        ``flux_ratio``
            ``median`` and robust ``scatter`` of the ratios of PSF fluxes,
            restored to reference, of ``n`` bright sources that are not split.
        ``median_flux_error``
            Median standard deviation of PSF fluxes, nJy.
        ``psf_fwhm_pixels``
            Width of the PSFs of the ``measurable`` and ``reference`` coadds,
            on which fluxes are measured.
        ``reference_noise_scale``
            By what the errors of the reference coadd were multiplied for the
            correlation of its pixels.

    Returns
    -------
    text : `str`
        Some lines.
    """
    ratio, fraction = metrics["flux_ratio"], metrics["matched_fraction"]
    return "\n".join(
        [
            f"sources     {metrics['n_restored']} on the restored coadd, {metrics['n_primary']} of them in "
            f"the patch's inner region, {metrics['n_blended']} from {metrics['n_blends']} blends; "
            f"{metrics['n_not_restored']} have no peak in it",
            f"reference   {metrics['n_reference']} on the reference coadd, {fraction['reference']:.1%} of "
            f"them found again, {metrics['n_split']} split further; {fraction['restored']:.1%} of those of "
            "the restored coadd are among them",
            f'agreement   positions {metrics["median_separation_arcsec"]:.3f}" (median), fluxes '
            f"{ratio['median']:.4f} +- {ratio['scatter']:.4f} of the reference coadd's ({ratio['n']} bright "
            "sources)",
            f"depth       {5 * metrics['median_flux_error']:.4g} nJy are 5 sigma (median)",
        ]
    )


def _source_image(coadd: CellCoadd) -> SourceImage:
    """Take what is needed to find sources out of a coadd."""
    grid, missing = coadd.psf.grid, coadd.psf.bounds.missing
    indices = [index for index in coadd.psf.bounds.cell_indices() if index not in missing]
    size = coadd.psf.kernel_bbox.shape
    kernels = np.zeros((grid.grid_size.i, grid.grid_size.j, *size), np.float32)
    for index in indices:
        kernels[index.i, index.j] = coadd.psf[index].array
    return SourceImage(
        image=coadd.image.quantity.to_value(u.nJy),
        variance=coadd.variance.quantity.to_value(u.nJy**2).copy(),
        kernels=kernels,
        cell_shape=(grid.cell_shape.y, grid.cell_shape.x),
    )


def _planes(shape: tuple[int, ...], *coadds: CellCoadd) -> dict[str, np.ndarray]:
    """Return the mask planes of coadds by name: set where it is in any part of
    a pixel of any.
    """
    planes: dict[str, np.ndarray] = {}
    for coadd in coadds:
        for name in coadd.mask.schema.names:
            pixels = coadd.mask.get(name)
            pixels = pixels.reshape(shape[0], pixels.shape[0] // shape[0], shape[1], -1).any(axis=(1, 3))
            planes[name] = planes[name] | pixels if name in planes else pixels
    return planes


def _near_missing(valid: np.ndarray, radius: int) -> np.ndarray:
    """Tell which pixels have missing ones, or the image's edge, in a square
    around them.
    """
    return scipy.ndimage.maximum_filter(~valid, 2 * radius + 1, mode="constant", cval=True)


def _ellipse(moments: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return semi-axes and angle (degrees) of ellipses with second moments
    xx, yy, xy, shape ``(n, 3)``.
    """
    xx, yy, xy = moments.T
    mean, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    with np.errstate(invalid="ignore"):
        return np.sqrt(mean + half), np.sqrt(mean - half), np.degrees(0.5 * np.arctan2(2 * xy, xx - yy))


def _match(first: np.ndarray, second: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the indices of positions, shapes ``(n, 2)`` and ``(m, 2)``, that
    are the nearest to each other, and their distances.
    """
    if not len(first) or not len(second):
        empty = np.empty(0, int)
        return empty, empty, np.empty(0)
    distance, partner = cKDTree(second).query(first)
    back = cKDTree(first).query(second)[1]
    mutual = np.flatnonzero((back[partner] == np.arange(len(first))) & (distance <= radius))
    return mutual, partner[mutual], distance[mutual]
