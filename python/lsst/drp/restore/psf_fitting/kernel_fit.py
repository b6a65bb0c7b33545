# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The result of a fit of PSF kernels."""

from __future__ import annotations

__all__ = ("KernelFit",)

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class KernelFit:
    """Kernels that `FitKernelsTask` fitted to the exposures.

    Parameters
    ----------
    start : `numpy.ndarray`
        Kernels at the start, the mean over the cells, shape ``(n, k, k)``.
    kernels : `numpy.ndarray`
        The same of the fitted kernels.
    cell_kernels : `numpy.ndarray`
        The fitted kernels by cell: ``kernels`` of the stack to restore,
        `numpy.float32`, shape ``(n, cells_y, cells_x, k, k)``.
    start_fwhm, fwhm : `numpy.ndarray`
        Their full widths at half maximum, pixels, shape ``(n,)``.
    snr : `numpy.ndarray`
        Signal-to-noise ratio of all stars of an exposure together, shape
        ``(n,)``: the relative error of a width is about its inverse.
    shift : `numpy.ndarray`
        Position of the stars of an exposure from their mean position, y and x,
        pixels, shape ``(n, 2)``: errors of the astrometry.
    stars : `numpy.ndarray`
        The stars that were used: columns y, x (pixels of the patch) and flux
        (nJy), shape ``(s, 3)``.
    method : `str`
        How they were fitted: ``stars``, ``network``, or ``none`` if there are no
        stars.
    seconds : `float`
        Wall time, s.
    """

    start: np.ndarray
    kernels: np.ndarray
    cell_kernels: np.ndarray
    start_fwhm: np.ndarray
    fwhm: np.ndarray
    snr: np.ndarray
    shift: np.ndarray
    stars: np.ndarray
    method: str
    seconds: float

    def metrics(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return the entries of ``restored_coadd_metrics``.

        Parameters
        ----------
        names : `tuple` [`str`, ...]
            The exposures' labels.

        Returns
        -------
        metrics : `dict`
            ``method``, ``n_stars``, ``seconds``, and by exposure
            ``start_fwhm_pixels``, ``fwhm_pixels``, ``star_snr``,
            ``shift_y_pixels`` and ``shift_x_pixels``.
        """
        columns = {
            "start_fwhm_pixels": self.start_fwhm,
            "fwhm_pixels": self.fwhm,
            "star_snr": self.snr,
            "shift_y_pixels": self.shift[:, 0],
            "shift_x_pixels": self.shift[:, 1],
        }
        by_name = {
            key: {name: float(value) for name, value in zip(names, values, strict=True)}
            for key, values in columns.items()
        }
        return {"method": self.method, "n_stars": len(self.stars), "seconds": float(self.seconds), **by_name}
