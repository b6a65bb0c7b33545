# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The figures of the benchmark."""

from __future__ import annotations

__all__ = ("plot_completeness", "plot_cutouts", "plot_fluxes")

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lsst.drp.restore.restoration.target_psf import TARGET_FWHM

from .fields import SNR_BINS, Field
from .pictures import draw_panels
from .sky_image import Cutout
from .tables import IMAGES
from .true_images import bring_to, truth_at

_COLORS = {
    "naive mean": "0.6",
    "reference coadd": "black",
    "proper coadd": "0.35",
    "Rubin deconvolution": "tab:brown",
    "SGP": "tab:olive",
    "STARRED": "tab:purple",
    "network as published": "tab:orange",
    "ImageMM": "tab:green",
    "restored_coadd": "tab:blue",
    "restored_coadd_measurable": "tab:red",
}


_COLUMNS = 4


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110)


def plot_cutouts(
    images: Mapping[str, np.ndarray],
    widths: Mapping[str, float],
    field: Field,
    cutout: Cutout,
    sigma: float,
    path: Path,
) -> None:
    """Draw the same part of all images side by side, at the target PSF where
    they are sharper.

    Parameters
    ----------
    images : `~collections.abc.Mapping` [`str`, `numpy.ndarray`]
        The images, nJy per pixel.
    widths : `~collections.abc.Mapping` [`str`, `float`]
        FWHM of their stars, pixels.
    field : `Field`
        The field.
    cutout : `Cutout`
        The part that all methods restore: it is shown with its surroundings.
    sigma : `float`
        Noise of the reference coadd, nJy: unit of the arcsinh stretch.
    path : `pathlib.Path`
        File to write.
    """
    shape = field.truth.shape
    size = min(2 * cutout.size, *shape)
    row, column = (
        int(np.clip(start + (cutout.size - size) // 2, 0, end - size))
        for start, end in zip((cutout.row, cutout.column), shape, strict=True)
    )
    part = (slice(row, row + size), slice(column, column + size))
    panels = [
        (name, bring_to(images[name], widths[name], TARGET_FWHM)[part]) for name in IMAGES if name in images
    ]
    panels.append(("truth at the target PSF", truth_at(field, TARGET_FWHM)[part]))
    rows = [panels[n : n + _COLUMNS] for n in range(0, len(panels), _COLUMNS)]
    draw_panels(rows, [sigma] * len(rows), f"{sigma:.2g} nJy, sigma of the reference coadd", path)


def _collect(by_seed: Mapping[str, Mapping[str, Any]], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return S/N and relative flux error of the sources of all seeds."""
    snr = np.concatenate([one[kind]["snr"] for one in by_seed.values()])
    error = np.concatenate([one[kind]["error"] for one in by_seed.values()])
    return snr[np.isfinite(error)], error[np.isfinite(error)]


def plot_fluxes(results: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path) -> None:
    """Draw the flux errors by S/N: sources of the images one measures on, and
    the medians of all.

    Parameters
    ----------
    results : `~collections.abc.Mapping`
        Measurements by image and seed.
    path : `pathlib.Path`
        File to write.
    """
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, kind in zip(axes, ("points", "galaxies"), strict=True):
        for n, name in enumerate(name for name in IMAGES if name in results):
            snr, error = _collect(results[name], kind)
            if name == "restored_coadd_measurable":
                ax.plot(snr, 100 * error, ".", ms=4, alpha=0.35, color=_COLORS[name], zorder=1)
            centers, medians, errors = [], [], []
            for low, high in SNR_BINS:
                inside = (snr >= low) & (snr < high)
                if inside.sum() < 3:
                    continue
                centers.append(np.exp(np.log(snr[inside]).mean()) * 1.03 ** (n - 4))
                medians.append(100 * np.median(error[inside]))
                scatter = 148.26 * np.median(np.abs(error[inside] - np.median(error[inside])))
                errors.append(1.25 * scatter / np.sqrt(inside.sum()))
            if centers:
                ax.errorbar(centers, medians, errors, fmt="o-", ms=4, lw=1.3, color=_COLORS[name], label=name)
        ax.axhline(0, color="0.5", lw=0.8, zorder=0)
        ax.set_xscale("log")
        ax.set_yscale("symlog", linthresh=10, linscale=2)
        ax.set_ylim(-100, 100)
        ax.set_yticks([-100, -50, -20, -10, -5, -2, 0, 2, 5, 10, 20, 50, 100])
        ax.yaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_xlabel("S/N on the reference coadd")
        ax.set_title(f"isolated {kind}")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("flux error, %: median, its error; dots: sources, measurable")
    axes[1].legend(fontsize=8)
    _save(figure, path)


def plot_completeness(medians: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw the fractions of sources that are detected and of pairs that are
    split.

    Parameters
    ----------
    medians : `~collections.abc.Mapping`
        Medians over the seeds by image.
    path : `pathlib.Path`
        File to write.
    """
    keys = {
        **{f"completeness {label}": f"S/N {label}" for label in ("3-5", "5-10", "10-20")},
        "pairs": "pairs split in two",
    }
    names = [name for name in IMAGES if name in medians]
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    ax = figure.subplots()
    width = 0.85 / len(names)
    for n, name in enumerate(names):
        values = [medians[name][key] for key in keys]
        places = np.arange(len(keys)) + (n - (len(names) - 1) / 2) * width
        bars = ax.bar(places, values, width, color=_COLORS[name], label=name)
        labels = ["" if np.isnan(value) else f"{value:.2f}" for value in values]
        ax.bar_label(bars, labels, fontsize=6, padding=1)
    ax.set_xticks(range(len(keys)), list(keys.values()))
    ax.set_ylim(0, 1.12)
    ax.set_ylabel("fraction, at equal false rate")
    ax.grid(axis="y", alpha=0.3)
    ax.set_axisbelow(True)
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)
