# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Random skies to train on."""

from __future__ import annotations

import numpy as np

from lsst.drp.restore.restoration.target_psf import TARGET_FWHM
from lsst.drp.restore.training.skies import draw_sky

SIZE = 96


def test_skies_are_varied() -> None:
    skies = [draw_sky(np.random.default_rng(seed), SIZE, TARGET_FWHM, 3.5) for seed in range(12)]
    for sky in skies:
        assert sky.shape == (SIZE, SIZE) and sky.dtype == np.float32
        assert np.isfinite(sky).all()
        # Rounding errors of profiles that are drawn by Fourier transforms.
        assert sky.min() > -1e-3 * sky.max() - 1e-3
        assert sky.max() > 0.0
    totals = [sky.sum() for sky in skies]
    assert len(set(totals)) == 12
    assert max(totals) > 5 * min(totals)
    again = draw_sky(np.random.default_rng(3), SIZE, TARGET_FWHM, 3.5)
    np.testing.assert_array_equal(again, skies[3])
