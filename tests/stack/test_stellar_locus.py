# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Stars among sources of many widths."""

from __future__ import annotations

import numpy as np
import pytest

from lsst.drp.restore.stack.stellar_locus import stellar


@pytest.mark.parametrize("n_galaxies", [0, 30])
def test_stars_have_the_smallest_common_width(n_galaxies: int) -> None:
    rng = np.random.default_rng(4)
    widths = np.concatenate(
        [rng.normal(3.5, 0.05, 20), rng.uniform(4.5, 9.0, n_galaxies), [1.2]]  # a cosmic ray
    )
    np.testing.assert_array_equal(np.flatnonzero(stellar(widths)), np.arange(20))
    assert stellar(np.zeros(0)).shape == (0,)
