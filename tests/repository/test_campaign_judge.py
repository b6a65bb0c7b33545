# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Criteria for suspicious images and unusual data."""

from __future__ import annotations

import math

import pytest

from lsst.drp.restore.repository.campaign.columns import COLUMNS
from lsst.drp.restore.repository.campaign.judge import find_outliers, find_problems, find_remarks

GOOD: dict[str, float | None] = dict.fromkeys(COLUMNS) | {
    "exposures": 10.0,
    "dropped": 0.0,
    "loss": 0.49,
    "inconsistent": 0.01,
    "no_data": 0.0,
    "clipped": 0.001,
    "sharper": 0.4,
    "ssim": 0.98,
    "pedestal": 0.1,
    "sky_noise": 1.0,
    "kernel": 0.99,
}


def test_good_patch() -> None:
    assert list(find_problems(GOOD, converged=True)) == []
    assert list(find_remarks(GOOD)) == []


def test_unknown_values_are_not_suspicious() -> None:
    unknown: dict[str, float | None] = dict.fromkeys(COLUMNS)
    assert list(find_problems(unknown, converged=True)) == []
    assert list(find_remarks(unknown)) == []


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"loss": 0.8}, "the exposures differ from it by more than their noise (loss 0.80, noise gives 0.5)"),
        ({"loss": math.nan}, "the loss is not a number"),
        ({"loss": math.inf}, "the loss is not a number"),
        ({"inconsistent": 0.06}, "6% of the pixels inconsistent with the exposures"),
        ({"pedestal": 0.7}, "empty sky is at 0.7 nJy per pixel (noise of the coadd: 1)"),
    ],
)
def test_problems(values: dict[str, float], problem: str) -> None:
    assert list(find_problems(GOOD | values, converged=True)) == [problem]


def test_restoration_that_did_not_converge() -> None:
    assert list(find_problems(GOOD, converged=False)) == ["did not converge"]


@pytest.mark.parametrize(
    ("values", "remark"),
    [
        ({"no_data": 0.12}, "12% of the pixels without data"),
        ({"exposures": 1.0}, "only 1 exposure"),
        ({"exposures": 2.0}, "only 2 exposures"),
        ({"dropped": 4.0}, "4 visit images could not be used"),
        ({"suspect": 2.0}, "suspect exposures: 2 (named in the log)"),
        ({"clipped": 0.03}, "3.0% of the pixels clipped as outliers"),
        ({"kernel": 0.9}, "a PSF kernel contains only 90% of the flux"),
        ({"sharper": -0.1}, "no sharper than the coadd"),
    ],
)
def test_remarks(values: dict[str, float], remark: str) -> None:
    assert list(find_remarks(GOOD | values)) == [remark]


def test_limits_are_not_exceeded_by_themselves() -> None:
    limits = {"loss": 0.75, "inconsistent": 0.05, "pedestal": 0.5, "no_data": 0.05, "exposures": 3.0}
    assert list(find_problems(GOOD | limits, converged=True)) == []
    assert list(find_remarks(GOOD | limits)) == []


def band(*losses: float | None, name: str = "loss") -> list[dict[str, float | None]]:
    return [GOOD | {name: loss} for loss in losses]


def test_outlier_among_the_patches_of_a_band() -> None:
    losses = [0.50 + 0.002 * k for k in range(9)]
    *others, last = find_outliers(band(*losses, 0.65))
    assert others == [()] * 9
    assert last == ("unusually high loss (0.650; median of the band 0.509)",)
    # A loss that is unusually low is not suspicious.
    assert find_outliers(band(*losses, 0.3)) == [()] * 10


def test_similarity_is_bad_if_it_is_low() -> None:
    values = [0.97 + 0.0001 * k for k in range(9)]
    *others, last = find_outliers(band(*values, 0.9, name="ssim"))
    assert others == [()] * 9
    assert last == ("unusually unlike the coadd (SSIM 0.900; median of the band 0.970)",)


def test_scatter_of_the_band_widens_the_limit() -> None:
    assert find_outliers(band(*(0.40 + 0.02 * k for k in range(9)), 0.65)) == [()] * 10


def test_few_patches_are_not_compared() -> None:
    assert find_outliers(band(*[0.5] * 6, 0.7)) == [()] * 7
    # Unknown values do not count, and are not judged.
    assert find_outliers(band(*[0.5] * 6, 0.7, None, math.nan)) == [()] * 9
    assert find_outliers([]) == []
