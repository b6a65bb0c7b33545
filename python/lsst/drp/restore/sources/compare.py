# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Comparison of the sources of the restored coadd with those of the reference
coadd.
"""

from __future__ import annotations

__all__ = ("compare_sources", "format_source_metrics", "match_positions")

from collections.abc import Mapping
from typing import Any

import astropy.table
import numpy as np
from scipy.spatial import cKDTree

from .find_sources import FoundSources

# Smallest ratio of flux and standard deviation of the sources whose fluxes are
# compared: the ratio of noisier fluxes is biased.
_MIN_SIGNIFICANCE = 10.0


def compare_sources(
    restored: FoundSources,
    reference: FoundSources,
    table: astropy.table.Table,
    *,
    match_radius: float,
    pixel_scale: float,
) -> dict[str, Any]:
    """Compare two source lists of the same patch.

    Parameters
    ----------
    restored, reference : `FoundSources`
        Sources of the restored and of the reference coadd.
    table : `astropy.table.Table`
        The former as `make_source_table` lists them.
    match_radius : `float`
        Largest distance of two detections of the same source, pixels.
    pixel_scale : `float`
        Size of a pixel, arcsec.

    Returns
    -------
    metrics : `dict`
        Nested `dict` of `float` and `int`, see `format_source_metrics`.
    """
    ours, theirs = (np.stack([p.x, p.y], axis=1) for p in (restored.photometry, reference.photometry))
    first, second, distance = match_positions(ours, theirs, match_radius)
    near = [0] * len(theirs)
    if len(ours) and len(theirs):
        near = cKDTree(ours).query_ball_point(theirs, max(reference.fwhm, match_radius), return_length=True)
    significance = restored.photometry.flux / restored.photometry.flux_err
    bright = (significance[first] > _MIN_SIGNIFICANCE) & (np.asarray(near)[second] == 1)
    ratio = (restored.photometry.flux[first] / reference.photometry.flux[second])[bright]
    ratio = ratio[np.isfinite(ratio)]
    middle = float(np.median(ratio)) if len(ratio) else np.nan
    errors = restored.photometry.flux_err[np.isfinite(restored.photometry.flux_err)]
    separation = float(np.median(distance)) if len(distance) else np.nan
    return {
        "n_restored": len(restored),
        "n_reference": len(reference),
        "n_primary": int(np.count_nonzero(table["detect_isPrimary"])),
        "n_blends": int(np.count_nonzero(table["deblend_nChild"])),
        "n_blended": int(np.count_nonzero(table["flag_blended"])),
        "n_not_restored": int(np.count_nonzero(table["flag_notRestored"])),
        "matched_fraction": {
            "restored": len(first) / len(restored) if len(restored) else np.nan,
            "reference": len(first) / len(reference) if len(reference) else np.nan,
        },
        "median_separation_pixels": separation,
        "median_separation_arcsec": separation * pixel_scale,
        "n_split": int(np.count_nonzero(np.asarray(near) > 1)),
        "flux_ratio": {
            "median": middle,
            "scatter": float(1.4826 * np.median(np.abs(ratio - middle))) if len(ratio) else np.nan,
            "n": len(ratio),
        },
        "median_flux_error": float(np.median(errors)) if len(errors) else np.nan,
        "psf_fwhm_pixels": {"measurable": float(restored.fwhm), "reference": float(reference.fwhm)},
    }


def match_positions(
    first: np.ndarray, second: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Match two lists of positions.

    Parameters
    ----------
    first, second : `numpy.ndarray`
        Positions, pixels, shapes ``(n, 2)`` and ``(m, 2)``.
    radius : `float`
        Largest distance of a match, pixels.

    Returns
    -------
    in_first, in_second : `numpy.ndarray`
        Indices of the pairs that are nearest to each other, `int`, shape
        ``(n_matches,)``.
    distance : `numpy.ndarray`
        Their separations, pixels, same shape.
    """
    if not len(first) or not len(second):
        empty = np.empty(0, int)
        return empty, empty, np.empty(0)
    distance, partner = cKDTree(second).query(first)
    back = cKDTree(first).query(second)[1]
    mutual = np.flatnonzero((back[partner] == np.arange(len(first))) & (distance <= radius))
    return mutual, partner[mutual], distance[mutual]


def format_source_metrics(metrics: Mapping[str, Any]) -> str:
    """Format the dataset ``restored_source_metrics`` for a terminal or a log.

    Parameters
    ----------
    metrics : `~collections.abc.Mapping`
        With these keys:

        ``n_restored``, ``n_reference``
            Number of sources, blends not counted, on the restored and on the
            reference coadd, border of the patch included.
        ``n_primary``
            Number of sources in the inner region of the patch.
        ``n_blends``, ``n_blended``
            Number of blends and of the sources in them.
        ``n_not_restored``
            Number of sources that only the measurable coadd shows.
        ``matched_fraction``
            Fraction of the sources of the ``restored`` and of the
            ``reference`` coadd with a match in the other list.
        ``median_separation_pixels``, ``median_separation_arcsec``
            Median separation of matched sources.
        ``n_split``
            Number of sources of the reference coadd that are resolved into
            several on the restored one.
        ``flux_ratio``
            ``median`` and robust ``scatter`` of the ratios of PSF fluxes,
            restored to reference, of ``n`` bright sources that are not split.
        ``median_flux_error``
            Median standard deviation of PSF fluxes, nJy.
        ``psf_fwhm_pixels``
            Width of the PSFs of the ``measurable`` and ``reference`` coadds,
            on which fluxes are measured.
        ``reference_noise_scale``
            Factor applied to the errors of the reference coadd for the
            correlation of its pixels.

    Returns
    -------
    text : `str`
        Four lines.
    """
    ratio, fraction = metrics["flux_ratio"], metrics["matched_fraction"]
    return "\n".join(
        [
            f"sources     {metrics['n_restored']} on the restored coadd, {metrics['n_primary']} of them in "
            f"the patch's inner region, {metrics['n_blended']} from {metrics['n_blends']} blends; "
            f"{metrics['n_not_restored']} without a peak on it",
            f"reference   {metrics['n_reference']} on the reference coadd, {fraction['reference']:.1%} "
            f"matched, {metrics['n_split']} resolved into several; {fraction['restored']:.1%} of those on "
            "the restored coadd matched",
            f'agreement   positions {metrics["median_separation_arcsec"]:.3f}" (median), fluxes '
            f"{ratio['median']:.4f} +- {ratio['scatter']:.4f} times those of the reference coadd "
            f"({ratio['n']} bright sources)",
            f"depth       {5 * metrics['median_flux_error']:.4g} nJy at 5 sigma (median)",
        ]
    )
