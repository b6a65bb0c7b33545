# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The quantities listed for each restored patch of a campaign."""

from __future__ import annotations

__all__ = ("COLUMNS", "Column", "finite_values")

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A quantity listed for each patch.

    Parameters
    ----------
    name : `str`
        Column name in tables, and argument of ``--sort``.
    title : `str`
        Title on the terminal and on the page.
    doc : `str`
        Definition, with unit.
    style : `str`
        Format string of a value.
    high_is_worse : `bool`
        Whether high values, rather than low ones, come first in the order
        "worst first".
    key : `tuple` [`str`, ...]
        Path to the value in the nested mappings of the metrics.
    minus : `tuple` [`str`, ...]
        Path to a value that is subtracted; none if empty.
    shown : `bool`
        Whether the terminal and the page show it; tables have all columns.
    """

    name: str
    title: str
    doc: str
    style: str
    high_is_worse: bool
    key: tuple[str, ...]
    minus: tuple[str, ...] = ()
    shown: bool = False

    def read(self, metrics: Any) -> float | None:
        """Read the value from the metrics of a patch.

        Parameters
        ----------
        metrics : `~collections.abc.Mapping`
            Dataset ``restored_coadd_metrics``, of any version.

        Returns
        -------
        value : `float` or `None`
            The value, which may be NaN; `None` if the metrics lack it.
        """
        value = _number(metrics, self.key)
        if self.minus and value is not None:
            other = _number(metrics, self.minus)
            value = None if other is None else value - other
        return value

    def format(self, value: float | None) -> str:
        """Format a value.

        Parameters
        ----------
        value : `float` or `None`
            The value.

        Returns
        -------
        text : `str`
            The formatted value; an en dash for `None`.
        """
        return "\N{EN DASH}" if value is None else self.style.format(value)


COLUMNS = {
    column.name: column
    for column in (
        Column(
            name="exposures",
            title="exp.",
            doc="Number of exposures used.",
            style="{:.0f}",
            high_is_worse=False,
            key=("n_exposures",),
            shown=True,
        ),
        Column(
            name="dropped",
            title="dropped",
            doc="Number of visit images dropped as unusable.",
            style="{:.0f}",
            high_is_worse=True,
            key=("n_dropped",),
        ),
        Column(
            name="suspect",
            title="suspect",
            doc="Number of exposures whose noise, fluxes, positions or PSF contradict the other exposures "
            "or their own statements.",
            style="{:.0f}",
            high_is_worse=True,
            key=("n_suspect",),
            shown=True,
        ),
        Column(
            name="seeing",
            title='seeing "',
            doc="Median FWHM of the exposures' PSFs, arcsec.",
            style="{:.2f}",
            high_is_worse=True,
            key=("seeing_arcsec", "median"),
            shown=True,
        ),
        Column(
            name="loss",
            title="loss",
            doc="Mean Huber loss per good pixel of the residuals between the exposures and their model "
            "from the restored image; 0.5 or slightly less for noise alone.",
            style="{:.3f}",
            high_is_worse=True,
            key=("loss",),
            shown=True,
        ),
        Column(
            name="inconsistent",
            title="incons.",
            doc="Fraction of the pixels flagged as inconsistent with the exposures.",
            style="{:.1%}",
            high_is_worse=True,
            key=("inconsistent_fraction",),
            shown=True,
        ),
        Column(
            name="no_data",
            title="no data",
            doc="Fraction of the pixels without data in any exposure.",
            style="{:.1%}",
            high_is_worse=True,
            key=("no_data_fraction",),
            shown=True,
        ),
        Column(
            name="clipped",
            title="clipped",
            doc="Fraction of the exposures' good pixels clipped as outliers.",
            style="{:.2%}",
            high_is_worse=True,
            key=("clipped_fraction",),
        ),
        Column(
            name="sharper",
            title="sharper",
            doc="Sharpness S_F of the restored image minus that of the reference coadd, dex.",
            style="{:+.2f}",
            high_is_worse=False,
            key=("sharpness", "restored"),
            minus=("sharpness", "reference_coadd"),
            shown=True,
        ),
        Column(
            name="ssim",
            title="SSIM",
            doc="Structural similarity of the restored image and the reference coadd.",
            style="{:.3f}",
            high_is_worse=False,
            key=("ssim", "reference_coadd"),
            shown=True,
        ),
        Column(
            name="psnr",
            title="PSNR",
            doc="Peak signal-to-noise ratio of the restored image against the reference coadd, dB.",
            style="{:.1f}",
            high_is_worse=False,
            key=("psnr", "reference_coadd"),
        ),
        Column(
            name="pedestal",
            title="pedestal",
            doc="Level of the restored image in empty sky, nJy per pixel.",
            style="{:.3g}",
            high_is_worse=True,
            key=("pedestal",),
        ),
        Column(
            name="sky_noise",
            title="sky noise",
            doc="Noise of the reference coadd in empty sky, nJy per pixel.",
            style="{:.3g}",
            high_is_worse=True,
            key=("sky_noise", "reference_coadd"),
        ),
        Column(
            name="kernel",
            title="kernel",
            doc="Lowest fraction of a PSF's flux within its kernel.",
            style="{:.1%}",
            high_is_worse=False,
            key=("kernel_fraction", "lowest"),
        ),
        Column(
            name="steps",
            title="steps",
            doc="Number of optimizer steps.",
            style="{:.0f}",
            high_is_worse=True,
            key=("steps",),
        ),
        Column(
            name="seconds",
            title="time s",
            doc="Wall-clock time of the restoration, s.",
            style="{:.0f}",
            high_is_worse=True,
            key=("seconds",),
        ),
        Column(
            name="memory",
            title="GiB",
            doc="Peak memory of the process, GiB.",
            style="{:.1f}",
            high_is_worse=True,
            key=("peak_memory_gib",),
        ),
    )
}


def finite_values(values: Iterable[float | None]) -> np.ndarray:
    """Select the values that are known and finite.

    Parameters
    ----------
    values : `~collections.abc.Iterable` [`float` or `None`]
        Values of one column.

    Returns
    -------
    finite : `numpy.ndarray`
        The finite ones, shape ``(n,)``.
    """
    return np.array([value for value in values if value is not None and math.isfinite(value)])


def _number(metrics: Any, key: Sequence[str]) -> float | None:
    """Return a number of nested mappings, `None` if there is none."""
    for name in key:
        metrics = metrics.get(name) if isinstance(metrics, Mapping) else None
    return float(metrics) if isinstance(metrics, int | float) and not isinstance(metrics, bool) else None
