# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Lists of sources, without an image that they are of."""

from __future__ import annotations

import numpy as np

from lsst.drp.restore.sources.find_sources import FoundSources
from lsst.drp.restore.sources.psf_photometry import PsfPhotometry


def make_sources(
    x: list[float],
    y: list[float],
    flux: list[float],
    *,
    footprint: list[int] | None = None,
    moments: tuple[float, float, float] = (4.0, 3.0, 0.5),
    fwhm: float = 3.6,
) -> FoundSources:
    """Return sources of error 1 nJy; each in a footprint of its own by
    default.
    """
    n = len(x)
    one = np.ones(n)
    return FoundSources(
        photometry=PsfPhotometry(
            x=np.array(x, float),
            y=np.array(y, float),
            x_err=0.1 * one,
            y_err=0.2 * one,
            flux=np.array(flux, float),
            flux_err=one,
            background=0.01 * one,
            chi2=1.1 * one,
            n_fit=np.ones(n, int),
            residual=np.zeros((60, 80)),
        ),
        footprint=np.arange(1, n + 1) if footprint is None else np.array(footprint, int),
        footprints=np.zeros((60, 80), int),
        aperture_flux=0.9 * np.array(flux, float),
        aperture_flux_err=2.0 * one,
        moments=np.full((n, 3), moments),
        psf_moments=np.full((n, 3), (2.0, 2.0, 0.0)),
        sharp_peak=np.ones(n, bool),
        fwhm=fwhm,
    )
