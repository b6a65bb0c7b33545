# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figures of images: fields made of real images, and HSC beside HST."""

from __future__ import annotations

__all__ = ("draw_panels", "plot_hst", "plot_scenes")

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .tables import IMAGES, MEASURABLE, REFERENCE

_BORDER = 3  # around the image of HST, pixels
_SHOWN = 288  # height and width of the part of a scene that is shown, pixels


def draw_panels(
    rows: Sequence[Sequence[tuple[str, np.ndarray]]], sigmas: Sequence[float], label: str, path: Path
) -> None:
    """Draw images side by side, all with the same arcsinh stretch in units of
    the noise of the sky.

    Parameters
    ----------
    rows : `~collections.abc.Sequence`
        Title and image of each panel, by row.
    sigmas : `~collections.abc.Sequence` [`float`]
        Unit of the stretch of each row.
    label : `str`
        What the unit is.
    path : `pathlib.Path`
        File to write.
    """
    columns = max(map(len, rows))
    figure = Figure(figsize=(3.1 * columns, 3.6 * len(rows) + 0.8))
    figure.set_layout_engine("constrained", h_pad=0.12)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    picture = None
    for row, (panels, sigma) in enumerate(zip(rows, sigmas, strict=True)):
        for ax in axes[row, len(panels) :]:
            ax.set_visible(False)
        for ax, (title, image) in zip(axes[row], panels, strict=False):
            ax.set_facecolor("0.8")
            picture = ax.imshow(
                np.arcsinh(image / sigma),
                **{"vmin": -1.5, "vmax": 5.5, "origin": "lower", "cmap": "magma", "interpolation": "nearest"},
            )
            ax.set_title(title, fontsize=9)
            ax.set_xticks([])
            ax.set_yticks([])
    if picture is not None:
        figure.colorbar(
            picture,
            ax=axes,
            orientation="horizontal",
            shrink=0.4,
            aspect=50,
            label=f"arcsinh(flux / {label})",
        )
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110)


def plot_scenes(
    scenes: Mapping[str, tuple[Any, Mapping[str, np.ndarray]]], results: Mapping[str, Any], path: Path
) -> None:
    """Draw the middle of fields that are made of given images.

    Parameters
    ----------
    scenes : `~collections.abc.Mapping`
        `Scene` and images by name; a row each.
    results : `~collections.abc.Mapping`
        Results of `measure_scene` by scene and image.
    path : `pathlib.Path`
        File to write.
    """
    rows = []
    for name, (scene, images) in scenes.items():
        start = [max(0, (n - _SHOWN) // 2) for n in scene.truth.shape]
        part = tuple(slice(first, first + _SHOWN) for first in start)
        panels = []
        for image in (image for image in IMAGES if image in images and image != MEASURABLE):
            psnr = results[name][image]["target psnr"]
            panels.append((f"{image}, {psnr:.1f} dB", images[image][part]))
        rows.append([*panels, (f"truth: {name}", scene.truth[part])])
    draw_panels(rows, [scene.softening for scene, _ in scenes.values()], "sigma of the reference coadd", path)


def plot_hst(images: Mapping[str, Mapping[str, np.ndarray]], results: Mapping[str, Any], path: Path) -> None:
    """Draw HSC's coadds, the images restored from them, and HST's images.

    Parameters
    ----------
    images : `~collections.abc.Mapping`
        Images of `run_on_coadd` by cutout.
    results : `~collections.abc.Mapping`
        Their correlations with HST's, by cutout and image.
    path : `pathlib.Path`
        File to write.
    """
    rows = []
    for name, restored in images.items():
        # What HST sees, and a bit around it.
        row, column = (np.flatnonzero(np.isfinite(restored["HST"]).any(axis=axis)) for axis in (1, 0))
        part = tuple(slice(max(n[0] - _BORDER, 0), n[-1] + _BORDER + 1) for n in (row, column))
        shown = [image for image in IMAGES if image in restored and image != MEASURABLE]
        panels = [
            ("HSC i coadd" if image == REFERENCE else image, results[name][image], restored[image][part])
            for image in shown
        ]
        rows.append([(f"{title}, r = {r:.3f}", image) for title, r, image in panels])
        rows[-1].append(("HST F814W at the target PSF", restored["HST"][part]))
    draw_panels(rows, [1.0] * len(rows), "sigma of the coadd's sky", path)
