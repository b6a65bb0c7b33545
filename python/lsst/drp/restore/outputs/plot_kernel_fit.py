# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figure of PSF kernels before and after their fit to the exposures."""

from __future__ import annotations

__all__ = ("plot_kernel_fit", "radial_profile")

from typing import TYPE_CHECKING

import numpy as np

from .plot_tools import spaced_indices

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..psf_fitting.kernel_fit import KernelFit

# Largest number of exposures that are shown, and of panels in a row.
_MAX_PANELS = 12
_MAX_COLUMNS = 4

# Faintest value that is shown, as a fraction of the peak.
_FLOOR = 1e-4


def radial_profile(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average a kernel in rings.

    Parameters
    ----------
    kernel : `numpy.ndarray`
        Kernel, shape ``(k, k)``.

    Returns
    -------
    radius, profile : `numpy.ndarray`
        Mean distance from the middle pixel, pixels, and mean value of the
        pixels of each ring of one pixel, shape ``(k // 2 + 1,)``.
    """
    half = kernel.shape[0] // 2
    axis = np.arange(-half, half + 1)
    distance = np.hypot(axis[:, np.newaxis], axis)
    ring = np.rint(distance).astype(int)
    inside = ring <= half
    count = np.bincount(ring[inside])
    return (
        np.bincount(ring[inside], distance[inside]) / count,
        np.bincount(ring[inside], kernel[inside]) / count,
    )


def plot_kernel_fit(fit: KernelFit, names: tuple[str, ...], *, title: str = "") -> Figure:
    """Plot the radial profiles of kernels before and after the fit.

    Parameters
    ----------
    fit : `KernelFit`
        The kernels.
    names : `tuple` [`str`, ...]
        Labels of the exposures.
    title : `str`, optional
        Title of the figure.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        One panel by exposure, ordered by width, with the profiles and an
        image of the fitted kernel; of more than twelve, twelve are shown.
    """
    from matplotlib.colors import LogNorm

    from lsst.utils.plotting import make_figure

    order = np.argsort(fit.fwhm, kind="stable")
    order = order[spaced_indices(len(order), _MAX_PANELS)]
    rows = -(-len(order) // _MAX_COLUMNS)
    columns = -(-len(order) // rows)
    figure = make_figure(figsize=(3.9 * columns, 3.1 * rows + 0.8), dpi=120, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for ax in axes.flat[len(order) :]:
        ax.set_axis_off()
    top = max(fit.kernels.max(), fit.start.max())
    for ax, t in zip(axes.flat, order, strict=False):
        radius, start = radial_profile(fit.start[t])
        _, fitted = radial_profile(fit.kernels[t])
        ax.plot(radius, start, color="0.55", ls="--", label=f"initial: {fit.start_fwhm[t]:.2f} pixels")
        ax.plot(radius, fitted, color="C0", marker="o", ms=3, label=f"fitted: {fit.fwhm[t]:.2f} pixels")
        ax.set_yscale("log")
        ax.set_ylim(_FLOOR * top, 1.6 * top)
        ax.set_title(names[t], fontsize=10)
        ax.grid(alpha=0.3)
        ax.legend(frameon=False, fontsize=8, loc="lower left", title="FWHM", title_fontsize=8)
        inset = ax.inset_axes((0.64, 0.55, 0.34, 0.42))
        norm = LogNorm(vmin=_FLOOR * top, vmax=top)
        inset.imshow(np.maximum(fit.kernels[t], _FLOOR * top), norm=norm, cmap="gray", origin="lower")
        inset.set(xticks=[], yticks=[])
    for ax in axes[:, 0]:
        ax.set_ylabel("fraction of the flux per pixel")
    for column in axes.T:
        lowest = [ax for ax in column if ax.axison][-1]
        lowest.set_xlabel("radius (pixels)")
        lowest.tick_params(labelbottom=True)
    label = f"{title}: kernels fitted to {len(fit.stars)} stars" if title else f"{len(fit.stars)} stars"
    figure.suptitle(label, fontsize=12)
    return figure
