# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table
from photutils.psf import ImagePSF, PSFPhotometry
from source_fields import CELL, PSF, SIGMA, draw, kernel_of, make_images, star_grid

from lsst.drp.restore.sources.cell_psf import CellPsf
from lsst.drp.restore.sources.psf_photometry import fit_sources


def test_fluxes_are_those_of_least_squares() -> None:
    """At fixed positions the solution, and its scatter, are those of one
    system of equations for all of the image.
    """
    shape, variance = (40, 60), np.ones((40, 60))
    variance[:, 30:] = 4.0
    stars = np.array([[14.3, 18.8, 200.0], [17.4, 20.1, 120.0], [45.0, 15.4, 300.0], [41.7, 17.9, 90.0]])
    kernel = kernel_of(PSF)
    psf = CellPsf(kernel[np.newaxis, np.newaxis], shape)
    templates = [draw(np.array([[x, y, 1.0]]), PSF, shape) for x, y, _ in stars]
    clean = draw(stars, PSF, shape)
    rng = np.random.default_rng(5)
    fluxes, errors = [], []
    for _ in range(150):
        image = clean + np.sqrt(variance) * rng.standard_normal(shape)
        result, _ = fit_sources(
            image, variance, psf, stars[:, 0], stars[:, 1], link_radius=6.0, position_scatter=0.0
        )
        fluxes.append(result.flux)
        errors.append(result.flux_err)
    # The two pairs do not overlap: each with the background of its own pixels.
    for pair in (slice(0, 2), slice(2, 4)):
        rows, columns = np.indices(shape)
        used = np.zeros(shape, bool)
        for x, y, _ in stars[pair]:
            used |= (abs(rows - round(y)) <= 10) & (abs(columns - round(x)) <= 10)
        design = np.stack([*(t[used] for t in templates[pair]), np.ones(used.sum())], axis=1)
        others = sum(t * f for t, f in zip(templates, stars[:, 2], strict=True))
        others = others - sum(t * f for t, f in zip(templates[pair], stars[pair, 2], strict=True))
        expected = np.linalg.lstsq(design, (image - others)[used], rcond=None)[0][:2]
        # Not exact: the other pair was fitted, too.
        np.testing.assert_allclose(fluxes[-1][pair], expected, atol=0.3)
    scatter = np.std(fluxes, axis=0)
    np.testing.assert_allclose(np.mean(errors, axis=0), scatter, rtol=0.16)
    np.testing.assert_allclose(np.mean(fluxes, axis=0), stars[:, 2], atol=4 * scatter.max() / np.sqrt(150))


def test_parts_of_large_groups_converge_to_the_same_solution() -> None:
    rng = np.random.default_rng(2)
    stars = np.column_stack([rng.uniform(20, 60, 30), rng.uniform(20, 60, 30), rng.uniform(200, 900, 30)])
    image = draw(stars, PSF, (80, 80)) + rng.standard_normal((80, 80))
    kernel = kernel_of(PSF)
    psf = CellPsf(kernel[np.newaxis, np.newaxis], (80, 80))
    arguments = (image, np.ones((80, 80)), psf, stars[:, 0], stars[:, 1])
    whole, _ = fit_sources(*arguments, link_radius=9.0, position_scatter=0.0)
    parts, _ = fit_sources(*arguments, link_radius=9.0, position_scatter=0.0, max_group=8)
    assert parts.n_fit.max() <= 8 < whole.n_fit.max()
    # Most of a difference is that of the backgrounds.
    assert np.median(np.abs(parts.flux - whole.flux) / whole.flux_err) < 0.5


def test_weakest_sources_of_a_group_are_removed_and_the_rest_is_fitted_again() -> None:
    stars = np.array(
        [[30.2, 30.7, 200 * SIGMA], [33.0, 31.0, 0.0], [27.5, 29.0, 0.0], [31.0, 26.0, 50 * SIGMA]]
    )
    psf = CellPsf(kernel_of(PSF)[np.newaxis, np.newaxis], (60, 60))
    image = draw(stars, PSF, (60, 60)) + np.random.default_rng(3).standard_normal((60, 60))
    arguments = (image, np.ones((60, 60)), psf)
    fitted, kept = fit_sources(*arguments, *stars[:, :2].T, link_radius=7.0, min_significance=5.0)
    np.testing.assert_array_equal(kept, [True, False, False, True])
    alone, _ = fit_sources(*arguments, *stars[[0, 3], :2].T, link_radius=7.0)
    np.testing.assert_allclose(fitted.flux, alone.flux, rtol=2e-3)
    np.testing.assert_allclose(fitted.residual, alone.residual, atol=0.3)
    certain = np.array([False, True, False, False])
    _, kept = fit_sources(*arguments, *stars[:, :2].T, link_radius=7.0, min_significance=5.0, certain=certain)
    np.testing.assert_array_equal(kept, [True, True, False, True])


def test_position_is_a_compromise_of_the_given_one_and_of_the_data() -> None:
    psf = CellPsf(kernel_of(PSF)[np.newaxis, np.newaxis], (60, 60))
    image = draw(np.array([[30.0, 30.0, 20 * SIGMA]]), PSF, (60, 60))
    # Without noise in the image, but with its stated variance: errors of 0.1 pixels or so.
    results = []
    for scatter in (0.0, 0.05, 0.2, 10.0):
        fitted, _ = fit_sources(
            image,
            np.ones((60, 60)),
            psf,
            np.array([30.6]),
            np.array([30.0]),
            link_radius=7.0,
            position_scatter=scatter,
        )
        results.append((fitted.x[0], fitted.x_err[0]))
    x, error = np.transpose(results)
    assert x[0] == 30.6
    assert (np.diff(x) < 0).all() and x[3] == pytest.approx(30.0, abs=1e-3)
    assert (np.diff(error) > 0).all()
    # Two Gaussians: inverse variances add, positions are weighted with them.
    for k in (1, 2):
        weight = ((0.05, 0.2)[k - 1] / error[3]) ** -2
        assert x[k] == pytest.approx(30.0 + 0.6 * weight / (1 + weight), abs=0.02)


def test_source_without_pixels_is_not_measured() -> None:
    psf = CellPsf(kernel_of(PSF)[np.newaxis, np.newaxis], (60, 60))
    stars = np.array([[20.0, 20.0, 100 * SIGMA], [45.0, 45.0, 100 * SIGMA]])
    image = draw(stars, PSF, (60, 60))
    image[30:, 30:] = np.nan
    arguments = (image, np.ones((60, 60)), psf, *stars[:, :2].T)
    _, kept = fit_sources(*arguments, link_radius=7.0)
    np.testing.assert_array_equal(kept, [True, False])
    fitted, kept = fit_sources(*arguments, link_radius=7.0, certain=np.array([True, True]))
    assert kept.all()
    assert np.isnan(fitted.flux[1]) and np.isnan(fitted.flux_err[1])
    assert fitted.flux[0] == pytest.approx(stars[0, 2], rel=1e-3)
    nothing, _ = fit_sources(image, np.ones((60, 60)), psf, np.empty(0), np.empty(0), link_radius=7.0)
    assert nothing.flux.shape == (0,)
    np.testing.assert_array_equal(nothing.residual, image)


def test_isolated_stars_are_as_with_photutils() -> None:
    """Given the background that we fit, photutils solves the same least-squares
    problem by a general optimizer.
    """
    stars = star_grid((20, 60), seed=4, spacing=45)
    _, measured = make_images(stars, seed=4)
    start = stars[:, :2] + 0.2 * np.random.default_rng(5).standard_normal((len(stars), 2))
    psf = CellPsf(np.asarray(measured.kernels), CELL)
    ours, _ = fit_sources(
        measured.image, measured.variance, psf, *start.T, link_radius=7.0, position_scatter=5.0
    )
    theirs = PSFPhotometry(ImagePSF(kernel_of(PSF)), (21, 21), aperture_radius=5)(
        measured.image.astype(float),
        error=np.sqrt(measured.variance),
        init_params=Table({"x": start[:, 0], "y": start[:, 1], "local_bkg": ours.background}),
    )
    theirs.sort("id")
    np.testing.assert_allclose((ours.flux - theirs["flux_fit"]) / ours.flux_err, 0.0, atol=0.05)
    np.testing.assert_allclose((ours.x - theirs["x_fit"]) / ours.x_err, 0.0, atol=0.1)
    np.testing.assert_allclose((ours.y - theirs["y_fit"]) / ours.y_err, 0.0, atol=0.1)
    # Ours contain the error of the background.
    ratio = ours.flux_err / theirs["flux_err"]
    assert ratio.min() > 1.0 and ratio.max() < 1.12
    np.testing.assert_allclose(ours.x_err, theirs["x_err"], rtol=0.02)
