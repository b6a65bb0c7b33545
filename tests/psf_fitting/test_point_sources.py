# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
import numpy as np
from stacks import star_field

from lsst.drp.restore.psf_fitting.point_sources import find_point_sources
from lsst.drp.restore.stack.reference_coadd import reference_coadd


def test_stars_are_found() -> None:
    field, _, truth = star_field(seed=3, n=5, shape=(192, 192), n_stars=25, flux=(300.0, 20000.0))
    stars = find_point_sources(field, reference_coadd(field), min_snr=15, max_count=100)
    assert len(stars) >= 20
    distance = np.hypot(stars.y[:, None] - truth[:, 0], stars.x[:, None] - truth[:, 1])
    assert distance.min(axis=1).max() < 0.3
    assert (np.diff(stars.snr) <= 0).all()
    assert len(find_point_sources(field, reference_coadd(field), min_snr=15, max_count=3)) == 3


def test_sources_near_others_and_near_holes_are_left_out() -> None:
    field, _, _ = star_field(seed=3, n=5, shape=(192, 192), n_stars=25, flux=(2000.0, 20000.0))
    stars = find_point_sources(field, reference_coadd(field), min_snr=15, max_count=100)
    # A neighbor beside the brightest, and the core of the second one masked.
    (y, blind), (x, column) = (np.rint(values[:2]).astype(int) for values in (stars.y, stars.x))
    field.image[:, y : y + 25, x - 6 : x + 19] += 3000 * field.kernels[:, 0, 0]
    hole = np.zeros(field.good.shape, bool)
    hole[:, blind - 1 : blind + 2, column - 1 : column + 2] = True
    field = field.without(hole)
    again = find_point_sources(field, reference_coadd(field), min_snr=15, max_count=100)
    assert np.hypot(again.y - blind, again.x - column).min() > 5
    assert len(again) < len(stars)
