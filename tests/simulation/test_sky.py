# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Catalogs of simulated skies."""

from __future__ import annotations

import dataclasses

import astropy.table
import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from lsst.drp.restore.simulation.config import SimulationConfig
from lsst.drp.restore.simulation.sky import (
    color_catalog,
    complete_catalog,
    galaxy_profile,
    locate,
    random_sky,
    star_catalog,
    truncation,
)
from lsst.drp.restore.warping.patch_geometry import PatchGeometry


def test_random_sky(geometry: PatchGeometry) -> None:
    """Counts and sizes follow the stated laws."""
    config = SimulationConfig(skymap="field", seed=11, bright_stars=4)
    catalog = random_sky(config, geometry, 240.0)
    area = np.pi * 4.0**2
    magnitudes = 31.4 - 2.5 * np.log10(catalog["flux_nJy"])
    stars, galaxies = (np.asarray(catalog["kind"] == kind) for kind in ("star", "galaxy"))
    assert stars.sum() + galaxies.sum() == len(catalog)
    for selected, limit, expected in (
        (galaxies, 25.0, 46.0 - 46 * 10 ** (0.31 * -7)),
        (galaxies, 23.0, 46 * 10**-0.62 - 46 * 10 ** (0.31 * -7)),
        (stars, 24.0, 0.45 * 10**0.9 - 0.45 * 10**-0.45),
    ):
        number = np.sum(selected & (magnitudes < limit))
        assert abs(number - expected * area) < 4 * np.sqrt(expected * area) + 4, (limit, number)
    # Half-light radius of a face-on disc of 23 mag.
    near = galaxies & (abs(magnitudes - 23) < 0.5) & (catalog["sersic_n"] == 1)
    major = catalog["half_light_radius"][near] / np.sqrt(catalog["axis_ratio"][near])
    assert np.median(major) == pytest.approx(1.678 * np.exp(-1.145), rel=0.1)
    # Everywhere in the circle: half of the sources in half of the area.
    box = geometry.patch.outer_bbox
    center = geometry.sky_projection.pixel_to_sky(x=box.x.center, y=box.y.center)
    distance = SkyCoord(catalog["ra"], catalog["dec"]).separation(center).arcsec
    assert distance.max() <= 240.01
    assert np.mean(distance < 240 / np.sqrt(2)) == pytest.approx(0.5, abs=0.03)
    denser = random_sky(dataclasses.replace(config, star_density=3.0), geometry, 240.0)
    assert np.sum(denser["kind"] == "star") > 2.5 * stars.sum()
    assert np.sum(denser["kind"] == "galaxy") == galaxies.sum()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dec": None}, "lacks the columns"),
        ({"kind": ["comet", "star"]}, "neither star nor galaxy, first in row 0"),
        ({"kind": ["star", "galaxy"]}, "without a size, first in row 1"),
        ({"flux_nJy": [1.0, np.nan]}, "fluxes that are not finite, first in row 1"),
        ({"kind": ["galaxy"] * 2, "half_light_radius": [1.0, 1.0], "sersic_n": [1.0, 9.0]}, "Sersic"),
        (
            {
                "kind": ["galaxy"] * 2,
                "half_light_radius": [1.0, 1.0],
                "sersic_n": [1.0] * 2,
                "axis_ratio": [0.0] * 2,
            },
            "axis ratios",
        ),
    ],
)
def test_bad_catalog(changes: dict[str, object], message: str) -> None:
    """A catalog that cannot be drawn is refused with the reason."""
    columns = {"ra": [150.0, 150.0], "dec": [2.0, 2.0], "flux_nJy": [1.0, 1.0], **changes}
    table = astropy.table.Table({name: value for name, value in columns.items() if value is not None})
    with pytest.raises(ValueError, match=message):
        complete_catalog(table)


def test_catalog_of_stars_is_completed() -> None:
    table = astropy.table.Table({"ra": [1.0, 2.0], "dec": [3.0, 4.0], "flux_nJy": [5e-3, 6e-3] * u.uJy})
    catalog = complete_catalog(table)
    np.testing.assert_allclose(catalog["flux_nJy"], [5.0, 6.0])
    assert list(catalog["kind"]) == ["star", "star"] and list(catalog["id"]) == [0, 1]
    assert (catalog["ra"].unit, catalog["flux_nJy"].unit) == (u.deg, u.nJy)
    assert table.colnames == ["ra", "dec", "flux_nJy"]


def test_positions_and_derivatives(geometry: PatchGeometry) -> None:
    """North is up and east to the left in the tract."""
    catalog = star_catalog(geometry, [10.25, 120.0], [30.5, 99.0], 1.0)
    x, y, jacobian = locate(catalog, geometry.sky_projection)
    np.testing.assert_allclose(x, [10.25, 120.0], atol=1e-6)
    np.testing.assert_allclose(y, [30.5, 99.0], atol=1e-6)
    np.testing.assert_allclose(jacobian, [[[-5.0, 0.0], [0.0, 5.0]]] * 2, atol=1e-2)
    assert [array.shape for array in locate(catalog[:0], geometry.sky_projection)] == [(0,), (0,), (0, 2, 2)]


def test_colors(geometry: PatchGeometry) -> None:
    def fluxes(band: str, color: tuple[float, float]) -> np.ndarray:
        catalog = star_catalog(geometry, np.arange(200.0), np.arange(200.0), 1.0)
        color_catalog(SimulationConfig(skymap="field", band=band, color=color), catalog)
        return np.asarray(catalog["flux_nJy"])

    np.testing.assert_array_equal(fluxes("g", (0.0, 0.0)), 1.0)
    np.testing.assert_array_equal(fluxes("i", (0.5, 0.2)), 1.0)
    np.testing.assert_allclose(fluxes("g", (0.5, 0.0)), 10**-0.4)
    # A source has the same color in all bands.
    np.testing.assert_allclose(fluxes("r", (0.5, 0.2)), 1 / fluxes("z", (0.5, 0.2)))
    assert np.std(np.log10(fluxes("z", (0.5, 0.2)))) == pytest.approx(0.4 * 0.2, rel=0.2)


def test_profile_of_a_galaxy() -> None:
    table = astropy.table.Table(
        {
            **{"ra": [1.0], "dec": [2.0], "flux_nJy": [3.0], "kind": ["galaxy"]},
            **{"half_light_radius": [0.8], "sersic_n": [1.0], "axis_ratio": [0.5], "position_angle": [0.0]},
        }
    )
    profile = galaxy_profile(complete_catalog(table)[0])
    assert profile.flux == pytest.approx(1.0)
    # Elongated to the north; it ends where the truncation says.
    assert profile.xValue(0.0, 0.8) > 3 * profile.xValue(0.8, 0.0)
    end = truncation(1.0) * 0.8 / np.sqrt(0.5)
    assert profile.xValue(0.0, 0.99 * end) > 0.0 == profile.xValue(0.0, 1.01 * end)
    assert (truncation(1.0), truncation(4.0)) == (4.0, 8.0)
