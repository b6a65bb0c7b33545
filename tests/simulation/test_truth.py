# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The true image."""

from __future__ import annotations

import warnings

import astropy.table
import astropy.units as u
import galsim
import numpy as np
import pytest

from lsst.drp.restore.simulation.sky import (
    complete_catalog,
    star_catalog,
)
from lsst.drp.restore.simulation.truth import add_stamp, draw_truth
from lsst.drp.restore.warping.patch_geometry import PatchGeometry


def test_truth_image(geometry: PatchGeometry) -> None:
    """The truth has the flux and the positions of the catalog."""
    stars = star_catalog(geometry, [50.25, 120.0], [60.5, 30.0], [1000.0, 200.0])
    image = draw_truth(stars, geometry)
    # Shared in proportion between the pixels around a star.
    assert image[60, 50] == pytest.approx(1000 * 0.75 * 0.5, rel=1e-3)
    assert image[61, 51] == pytest.approx(1000 * 0.25 * 0.5, rel=1e-3)
    assert image.sum() == pytest.approx(1200, rel=1e-5)


@pytest.mark.parametrize(("sersic_n", "size"), [(1.0, 0.6), (1.0, 1.6), (4.0, 0.5)])
def test_truth_galaxies(geometry: PatchGeometry, sersic_n: float, size: float) -> None:
    """Galaxies of the truth are those that GalSim draws."""
    sky = geometry.sky_projection.pixel_to_sky(x=100.25, y=100.5)
    table = astropy.table.Table(
        {
            "ra": [sky.ra.deg],
            "dec": [sky.dec.deg],
            "flux_nJy": [1e-3] * u.mJy,
            "kind": ["galaxy"],
            "half_light_radius": [size * 1000] * u.mas,
            "sersic_n": [sersic_n],
            "axis_ratio": [0.6],
            "position_angle": [30.0] * u.deg,
        }
    )
    image = draw_truth(complete_catalog(table), geometry)
    assert image.sum() == pytest.approx(1000.0, rel=2e-4)
    # North is up and east to the left in the tract: from north through east is
    # from y towards -x.
    end = 8 if sersic_n > 2 else 4
    profile = galsim.Sersic(sersic_n, half_light_radius=size / 0.2, trunc=end * size / 0.2, flux=1000.0)
    profile = profile.shear(q=0.6, beta=(90 + 30.0) * galsim.degrees)
    # Two pixels make the bilinear response.
    pixel = galsim.Pixel(1.0)
    params = galsim.GSParams(folding_threshold=1e-3, maxk_threshold=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", galsim.GalSimWarning)  # Ringing of hard edges, here below 1e-4.
        expected = galsim.Convolve(profile, pixel, pixel, gsparams=params).drawImage(
            nx=199, ny=199, scale=1.0, method="no_pixel", offset=(0.25, 0.5)
        )
    assert np.abs(image[1:, 1:] - expected.array).max() < 4e-3 * expected.array.max()


@pytest.mark.parametrize(
    ("x0", "y0", "total"),
    [(1, 1, 12.0), (-1, 0, 8.0), (4, 0, 8.0), (1, 2, 9.0), (4, 3, 4.0), (9, 0, 0.0), (-4, 0, 0.0)],
)
def test_stamps_are_cut_at_the_edges(x0: int, y0: int, total: float) -> None:
    image = np.zeros((5, 6))
    add_stamp(image, np.ones((4, 3)), x0, y0)
    assert image.sum() == total
