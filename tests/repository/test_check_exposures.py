# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Check of exposures and the table of their values."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from exposure_files import SHAPE, Exposures, make_header

from lsst.drp.restore.repository.check_exposures import CheckedRow, check_exposures, table_of_values
from lsst.drp.restore.repository.manifest import Manifest, read_manifest


def check(exposures: Exposures) -> tuple[Manifest, list[CheckedRow], list[str]]:
    manifest = read_manifest(exposures.manifest())
    return manifest, *check_exposures(manifest, list(manifest.rows), "Cam")


def test_given_values_win(exposures: Exposures) -> None:
    given = {"gain": 2.0, "background": 40.0, "saturation": 3.5, "correlation": 1.7}
    exposures.add(1, variance="", psf_kind="fwhm_pixel", psf="3.0", **given)
    manifest, (item,), problems = check(exposures)
    assert not problems
    assert {name: getattr(item.row, name) for name in given} == given
    (row,) = table_of_values([item], manifest)
    assert (row["gain"], row["background"], row["saturation"]) == ("2 g", "40 g", "3.5 g")
    assert (row["correlation"], row["zero point"]) == ("1.70 g", "28.000 g")
    assert row["fwhm"].endswith(" g") and float(row["fwhm"][:-2]) == pytest.approx(3.0, abs=0.02)
    assert row["sigma"].endswith(" e") and float(row["sigma"].split()[0]) == pytest.approx(
        10 ** (-0.4 * (28.0 - 31.4)), rel=0.1
    )


def test_estimated_values(exposures: Exposures) -> None:
    exposures.add(1, variance="", psf_kind="fwhm_pixel", psf="3.0")
    exposures.add(2, mask=exposures.write("m.fits", np.zeros(SHAPE, np.int16)))
    manifest, items, problems = check(exposures)
    assert not problems
    estimated, with_variance = table_of_values(items, manifest)
    assert (estimated["gain"], estimated["saturation"]) == ("unknown", "none e")
    assert (with_variance["gain"], with_variance["sigma"][-1]) == ("none", "g")
    assert estimated["correlation"].endswith(" e")


def test_psf_without_stars(exposures: Exposures) -> None:
    row = exposures.add(1, psf_kind="stars", psf="")
    _, items, (problem,) = check(exposures)
    assert not items
    assert "v1d0.fits: its PSF cannot be measured: 0 stars found, of at least 3" in problem
    assert "psf_kind 'fwhm_arcsec'" in problem
    # An image without noise.
    exposures.rows[0] |= {"psf_kind": "fwhm_pixel", "psf": "3", "variance": ""}
    fits.writeto(exposures.folder / row["image"], np.zeros(SHAPE), make_header(), overwrite=True)
    _, items, (problem,) = check(exposures)
    assert not items and "v1d0.fits: not one" in problem
