# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from source_fields import SIGMA, make_images, star_grid

from lsst.drp.restore.sources.cell_psf import CellPsf
from lsst.drp.restore.sources.isolated_sources import IsolatedSources, measure_isolated
from lsst.drp.restore.sources.psf_photometry import PsfPhotometry, fit_sources
from lsst.drp.restore.sources.source_image import SourceImage


def measure(
    stars: np.ndarray, image: SourceImage, aperture_radius: float = 6.0
) -> tuple[PsfPhotometry, IsolatedSources]:
    psf = CellPsf(np.asarray(image.kernels), image.cell_shape)
    photometry, _ = fit_sources(
        image.image,
        image.variance,
        psf,
        *stars[:, :2].T,
        link_radius=7.0,
        certain=np.ones(len(stars), bool),
    )
    return photometry, measure_isolated(image, psf, photometry, aperture_radius=aperture_radius)


def test_fluxes_of_stars_and_their_errors() -> None:
    pulls = []
    for seed in range(4):
        stars = star_grid((100, 300), seed=seed)
        _, image = make_images(stars, seed=seed)
        photometry, isolated = measure(stars, image)
        pulls.append((isolated.flux - stars[:, 2]) / isolated.flux_err)
        # An aperture is noisier than a PSF fit.
        assert (isolated.flux_err > 1.3 * photometry.flux_err).all()
        np.testing.assert_allclose(
            np.median(isolated.moments / isolated.psf_moments, axis=0)[:2], 1.0, atol=0.05
        )
    pull = np.concatenate(pulls)
    assert abs(np.mean(pull)) < 0.25
    assert np.std(pull) == pytest.approx(1.0, abs=0.15)


def test_smaller_aperture_is_corrected_for_its_fraction_of_the_psf() -> None:
    stars = star_grid((300, 600))
    _, image = make_images(stars, sigma=0.01)
    for radius in (3.0, 6.0, 9.0):
        _, isolated = measure(stars, image, radius)
        np.testing.assert_allclose(isolated.flux, stars[:, 2], rtol=0.02)


def test_neighbors_do_not_count() -> None:
    alone = star_grid((200, 300))
    neighbors = alone + (6.0, 3.0, 100 * SIGMA)
    _, image = make_images(np.concatenate([alone, neighbors]), sigma=0.1)
    _, isolated = measure(np.concatenate([alone, neighbors]), image)
    _, expected = measure(alone, make_images(alone, sigma=0.1)[1])
    np.testing.assert_allclose(isolated.flux[: len(alone)], expected.flux, rtol=0.02)
    np.testing.assert_allclose(isolated.moments[: len(alone), :2], expected.moments[:, :2], rtol=0.06)


def test_missing_pixels_leave_no_aperture_flux_and_no_psf_leaves_nothing() -> None:
    stars = star_grid((200, 300))
    _, image = make_images(stars)
    pixels = image.image.copy()
    x, y = np.rint(stars[5, :2]).astype(int)
    pixels[y + 4, x] = np.nan
    kernels = np.array(image.kernels)
    kernels[1, 2] = 0.0
    _, isolated = measure(stars, dataclasses.replace(image, image=pixels, kernels=kernels))
    assert np.isnan(isolated.flux[5]) and np.isnan(isolated.moments[5]).all()
    assert np.isfinite(isolated.psf_moments[5]).all()
    row, column = np.rint(stars[:, 1]).astype(int), np.rint(stars[:, 0]).astype(int)
    without = (row // 60 == 1) & (column // 60 == 2)
    assert without.sum() == 4
    for values in (isolated.flux, isolated.flux_err, isolated.moments[:, 0], isolated.psf_moments[:, 0]):
        assert np.isnan(values[without]).all()
    others = ~without
    others[5] = False
    assert np.isfinite(isolated.flux[others]).all()
