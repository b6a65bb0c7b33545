# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import dataclasses

import numpy as np
from coadd_case import CELL, FEW, SHAPE, make_restored

from lsst.drp.restore.outputs.pixel_flags import flag_pixels


def test_flags_of_pixels() -> None:
    restored = make_restored()
    flags = flag_pixels(restored, few_exposures=FEW)
    count = np.count_nonzero(restored.stack.good, axis=0)
    np.testing.assert_array_equal(flags.no_data, count == 0)
    np.testing.assert_array_equal(flags.few_exposures, count < FEW)
    np.testing.assert_array_equal(flags.inconsistent, restored.characterization.inconsistent)
    np.testing.assert_array_equal(flags.inexact_psf, restored.measurable.coverage < 0.8)
    # Not the cell without PSF, nor what no kernel reaches from a good pixel.
    expected = np.ones(SHAPE, bool)
    expected[40:, 60:] = False
    expected[:6] = False
    np.testing.assert_array_equal(flags.constrained, expected)
    assert (flags.no_data & flags.constrained).any()


def test_inexact_psf_of_a_coadd() -> None:
    """What is known of a coadd that was restored is added."""
    restored = make_restored()
    known = np.indices(SHAPE)[1] < 5
    flags = flag_pixels(restored, few_exposures=FEW, inexact_psf=known)
    np.testing.assert_array_equal(flags.inexact_psf, (restored.measurable.coverage < 0.8) | known)


def test_refined_flags_are_those_of_the_pixel() -> None:
    flags = flag_pixels(make_restored(), few_exposures=FEW)
    fine = flags.refined(3)
    for field in dataclasses.fields(flags):
        pixels, parts = getattr(flags, field.name), getattr(fine, field.name)
        assert parts.shape == (3 * SHAPE[0], 3 * SHAPE[1])
        for i, j in np.ndindex(3, 3):
            np.testing.assert_array_equal(parts[i::3, j::3], pixels)


def test_blanked_pixels_are_those_that_nothing_constrains() -> None:
    flags = flag_pixels(make_restored(), few_exposures=FEW)
    plane = np.arange(SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(SHAPE)
    blanked = flags.blank(plane)
    assert blanked.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(blanked), ~flags.constrained)
    np.testing.assert_array_equal(blanked[flags.constrained], plane[flags.constrained])
    assert np.isfinite(plane).all()
    assert CELL == (20, 20)
