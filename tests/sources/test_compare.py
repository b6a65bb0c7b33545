# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from source_lists import make_sources

from lsst.drp.restore.sources.compare import compare_sources, format_source_metrics, match_positions
from lsst.drp.restore.sources.find_sources import FoundSources
from lsst.drp.restore.sources.source_table import PatchFrame, make_source_table

FRAME = PatchFrame(
    tract=0,
    patch=0,
    x0=0,
    y0=0,
    inner=(slice(0, 60), slice(0, 40)),
    pixel_to_sky=lambda x, y: SkyCoord(x, y, unit="arcsec"),
)


def compare(restored: FoundSources, reference: FoundSources) -> dict[str, Any]:
    table = make_source_table(restored, FRAME, {}, edge=np.zeros((60, 80), bool))
    metrics = compare_sources(restored, reference, table, match_radius=2.5, pixel_scale=0.2)
    return metrics | {"reference_noise_scale": 1.0}


def test_matches_are_nearest_to_each_other() -> None:
    first = np.array([[10.0, 10.0], [11.0, 10.0], [30.0, 30.0], [50.0, 50.0]])
    second = np.array([[30.0, 31.0], [10.8, 10.0], [50.0, 54.0]])
    # The first one's nearest partner is nearer to the second one; the last pair is too far apart.
    in_first, in_second, distance = match_positions(first, second, 2.0)
    np.testing.assert_array_equal(in_first, [1, 2])
    np.testing.assert_array_equal(in_second, [1, 0])
    np.testing.assert_allclose(distance, [0.2, 1.0])
    assert [len(values) for values in match_positions(first, np.empty((0, 2)), 2.0)] == [0, 0, 0]


def test_counts_separations_and_flux_ratios() -> None:
    restored = make_sources(
        [10.0, 30.0, 33.0, 50.0, 70.0],
        [10.0, 30.0, 30.0, 50.0, 10.0],
        [100.0, 80.0, 40.0, 8.0, 50.0],
        footprint=[1, 2, 2, 3, 4],
    )
    # The first one is the same, the pair is one, the faint one has another flux.
    reference = make_sources([10.3, 31.0, 50.0, 20.0], [10.4, 30.0, 50.1, 50.0], [125.0, 120.0, 2.0, 30.0])
    metrics = compare(restored, reference)
    assert (metrics["n_restored"], metrics["n_reference"]) == (5, 4)
    assert (metrics["n_primary"], metrics["n_blends"], metrics["n_blended"]) == (3, 1, 2)
    assert (metrics["n_not_restored"], metrics["n_split"]) == (0, 1)
    assert metrics["matched_fraction"] == {"restored": 0.6, "reference": 0.75}
    assert metrics["median_separation_pixels"] == pytest.approx(0.5)
    assert metrics["median_separation_arcsec"] == pytest.approx(0.1)
    # Neither the source that is split nor the faint one is compared.
    assert metrics["flux_ratio"] == {"median": 0.8, "scatter": 0.0, "n": 1}
    assert metrics["median_flux_error"] == 1.0
    assert metrics["psf_fwhm_pixels"] == {"measurable": 3.6, "reference": 3.6}


def test_nothing_to_compare() -> None:
    metrics = compare(make_sources([], [], []), make_sources([5.0], [5.0], [100.0]))
    assert (metrics["n_restored"], metrics["n_reference"], metrics["n_split"]) == (0, 1, 0)
    assert metrics["matched_fraction"]["reference"] == 0.0
    assert np.isnan([metrics["matched_fraction"]["restored"], metrics["flux_ratio"]["median"]]).all()
    assert "0 on the restored coadd" in format_source_metrics(metrics)


def test_format_says_the_numbers() -> None:
    sources = make_sources([10.0, 50.0], [10.0, 20.0], [100.0, 300.0])
    lines = format_source_metrics(compare(sources, sources)).splitlines()
    assert [line.split()[0] for line in lines] == ["sources", "reference", "agreement", "depth"]
    assert "2 on the restored coadd, 1 of them in the patch's inner region" in lines[0]
    assert "100.0% matched" in lines[1]
    assert "fluxes 1.0000 +- 0.0000" in lines[2]
    assert "5 nJy at 5 sigma" in lines[3]
