# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Figure of the loss by step."""

from __future__ import annotations

__all__ = ("plot_history",)

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import astropy.table
    from matplotlib.figure import Figure


def plot_history(history: astropy.table.Table, *, title: str = "") -> Figure:
    """Plot the loss of a restoration by step.

    Parameters
    ----------
    history : `astropy.table.Table`
        ``Restoration.history``: columns ``step``, ``loss``,
        ``validation_loss`` and ``learning_rate``.
    title : `str`, optional
        Title of the figure.

    Returns
    -------
    figure : `matplotlib.figure.Figure`
        The figure.
    """
    from lsst.utils.plotting import make_figure

    figure = make_figure(figsize=(8, 5), dpi=120, layout="constrained")
    ax = figure.subplots()
    step = np.asarray(history["step"], dtype=float)
    ax.plot(step, history["loss"], color="C0", label="exposures")
    held_out = np.asarray(history["validation_loss"], dtype=float)
    known = np.isfinite(held_out)
    if known.any():
        ax.plot(step[known], held_out[known], color="C1", marker="o", ms=3, label="held-out crops")
    ax.set(xlabel="optimizer step", ylabel="mean Huber loss per good pixel (dimensionless)")
    lowest, highest = ax.get_ylim()
    if lowest > 0 and highest > 3 * lowest:
        # A logarithmic axis has few ticks where values differ by less.
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        if highest < 10 * lowest:
            ax.yaxis.set_minor_formatter("{x:g}")
    ax.grid(alpha=0.3, which="both")
    ax.legend(frameon=False)
    if title:
        ax.set_title(title)
    return figure
