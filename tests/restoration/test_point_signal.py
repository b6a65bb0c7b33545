# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Signal-to-noise ratio of point sources."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from stacks import star_field

from lsst.drp.restore.restoration.point_signal import point_signal, typical_depth


def test_depth_is_that_of_a_psf_fit() -> None:
    stack, _, _ = star_field(n=3, shape=(64, 64), cell_shape=(64, 64), n_stars=1, bad_fraction=0.0)
    stack = dataclasses.replace(stack, variance=np.full_like(stack.variance, 4.0))
    _, depth = point_signal(stack)
    assert depth.shape == stack.latent_shape and (depth >= 0).all()
    expected = (stack.kernels.astype(float) ** 2).sum() / 4.0
    np.testing.assert_allclose(depth[24:-24, 24:-24], expected, rtol=1e-5)
    assert typical_depth(depth, stack) == pytest.approx(expected, rel=0.02)
    correlated = dataclasses.replace(stack, correlation=np.full_like(stack.correlation, 2.0))
    np.testing.assert_allclose(point_signal(correlated)[1][24:-24, 24:-24], expected / 2.0, rtol=1e-5)


def test_signal_of_stars_and_of_noise() -> None:
    stack, _, stars = star_field(n=4, shape=(128, 128), n_stars=9, flux=(300.0, 2000.0))
    signal, depth = point_signal(stack)
    pad = stack.padding
    for y, x, flux in stars.astype(int):
        expected = flux * np.sqrt(depth[y + pad, x + pad])
        assert signal[y + pad, x + pad] == pytest.approx(expected, rel=0.1)
    empty = np.ones(signal.shape, bool)
    for y, x, _ in stars.astype(int):
        empty[y : y + 2 * pad, x : x + 2 * pad] = False
    empty[:24], empty[-24:], empty[:, :24], empty[:, -24:] = False, False, False, False
    assert signal[empty].std() == pytest.approx(1.0, abs=0.15)


def test_nothing_where_there_are_no_exposures() -> None:
    stack, _, _ = star_field(n=2, shape=(64, 64), n_stars=1)
    hole = np.zeros(stack.good.shape, bool)
    hole[:, :, 24:] = True
    signal, depth = point_signal(stack.without(hole))
    assert not signal[:, 24 + 25 :].any() and depth[:, 24 + 25 :].max() < 1e-3 * depth.max()
