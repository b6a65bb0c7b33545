# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Which sources are stars, by their widths alone."""

from __future__ import annotations

__all__ = ("stellar",)

import numpy as np

# Stars have the smallest common width: that of a range of widths, this wide as a fraction, with at least this
# fraction of the sources that the fullest such range has.
_LOCUS_WIDTH = 0.15
_LOCUS_SHARE = 0.3


def stellar(width: np.ndarray) -> np.ndarray:
    """Tell which sources have the smallest width that is common.

    Parameters
    ----------
    width : `numpy.ndarray`
        Full widths at half maximum, in any unit, shape ``(s,)``.

    Returns
    -------
    is_star : `numpy.ndarray`
        `bool`, shape ``(s,)``.

    Notes
    -----
    The PSF is not known, except that it is the same for all stars and that no
    source is sharper.  The widths of stars accumulate at one value, those of
    galaxies are spread above it.  The result may contain compact galaxies:
    test for them once the PSF is known.
    """
    if not len(width):
        return np.zeros(0, bool)
    narrowest = width[:, np.newaxis]
    within = (width >= narrowest) & (width <= (1.0 + _LOCUS_WIDTH) * narrowest)
    count = within.sum(axis=1)
    most = int(count.max())
    common = count >= max(_LOCUS_SHARE * most, min(2, most))
    return np.asarray(within[np.flatnonzero(common)[np.argmin(width[common])]])
