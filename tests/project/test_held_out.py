# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the benchmark on real exposures that are held out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import decam
import numpy as np
import pytest
from stacks import star_field

from benchmarks.held_out import COMMAND, load_stack, median_chi2, predict, source_chi2, source_pixels
from lsst.drp.restore.stack.reference_coadd import reference_coadd


def test_truth_predicts_exposures_to_their_noise() -> None:
    stack, latent, _ = star_field(n=4, shape=(256, 256), cell_shape=(256, 256))
    prediction = predict(latent, stack)
    assert median_chi2(stack, prediction) == pytest.approx(1.0, abs=0.03)
    # An error of as much as the noise doubles the variance.
    error = np.random.default_rng(1).normal(size=prediction.shape) * np.sqrt(stack.noise_variance())
    assert median_chi2(stack, prediction + error) == pytest.approx(2.0, abs=0.06)


def test_sources_of_a_perfect_prediction() -> None:
    stack, latent, _ = star_field(n=4, shape=(256, 256), cell_shape=(256, 256))
    coadd = reference_coadd(stack)
    pixels = source_pixels(coadd)
    assert 0 < pixels.mean() < 0.5
    assert (coadd.image > 3 * np.sqrt(coadd.variance))[pixels].all()
    prediction = predict(latent, stack)
    assert source_chi2(stack, prediction, pixels) == pytest.approx(1.0, abs=0.2)
    # No pixel counts more than 25.
    assert source_chi2(stack, prediction + 1e6, pixels) == pytest.approx(25.0)


def test_edges_and_bad_pixels_do_not_count() -> None:
    stack, latent, _ = star_field(n=2, shape=(128, 128), cell_shape=(128, 128))
    prediction = predict(latent, stack)
    expected = median_chi2(stack, prediction)
    image = stack.image.copy()
    image[:, :16] = image[:, :, -16:] = 1e6
    image[~stack.good] = 1e6
    assert median_chi2(dataclasses.replace(stack, image=image), prediction) == expected
    holes = prediction.copy()
    holes[:, 64, 64] = np.nan
    assert median_chi2(stack, holes) == pytest.approx(expected, rel=1e-3)


def test_coadd_of_real_exposures() -> None:
    """The figure that the definition was found by."""
    decam.require()
    even, odd = (load_stack(decam.FOLDER, range(first, 10, 2)) for first in (0, 1))
    assert not set(even.names) & set(odd.names)
    assert median_chi2(odd, reference_coadd(even).image) == pytest.approx(1.021, abs=0.003)


def test_missing_data_are_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    COMMAND.main(["--data", str(tmp_path)])
    first, last = capsys.readouterr().out.splitlines()
    assert "skipped, there is no load.py in" in first
    assert last.endswith("minutes in all")
