# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Tests of the resampling: positions, fluxes, noise, bad pixels and edges."""

from __future__ import annotations

import galsim
import numpy as np
import pytest
import scipy.signal
from pixel_maps import BBOX, SIZE, make_map, patch_wcs
from skies import DEC, RA, make_geometry, tan_wcs, tpv_wcs

from lsst.drp.restore.warping.pixel_map import PixelMap
from lsst.drp.restore.warping.warp import Warp, warp
from lsst.images import YX, Box

# The library finds its weights in a table, and rounding may find either of two
# neighbors there: as a part of the scatter between pixels, 0.005 rms.
TABLE = 0.04


def warp_all(image: np.ndarray, pixel_map: PixelMap, variance: np.ndarray | None = None, **kwargs) -> Warp:
    """Warp an image of good pixels."""
    variance = variance if variance is not None else np.ones_like(image)
    return warp(image, variance, np.ones(image.shape, bool), Box.from_shape(image.shape), pixel_map, **kwargs)


def draw_stars(profile: galsim.GSObject, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Draw the same star at several positions of a detector."""
    image = galsim.ImageD(SIZE, SIZE, xmin=0, ymin=0)
    for xs, ys in zip(x, y, strict=True):
        xi, yi = round(xs), round(ys)
        stamp = profile.drawImage(
            nx=41, ny=41, scale=1.0, method="no_pixel", dtype=float, offset=(xs - xi, ys - yi)
        )
        stamp.setCenter(xi, yi)
        image[stamp.bounds] += stamp
    return image.array


def centroid(stamp: np.ndarray, sigma: float) -> tuple[float, float]:
    """Return the centroid about the middle under a Gaussian weight that
    follows it.
    """
    y, x = np.indices(stamp.shape) - stamp.shape[0] // 2
    cx = cy = 0.0
    for _ in range(20):
        weight = stamp * np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / sigma**2)
        cx += 2.0 * (weight * (x - cx)).sum() / weight.sum()
        cy += 2.0 * (weight * (y - cy)).sum() / weight.sum()
    return cx, cy


# -- stars


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("angle", [0.0, 6.0, 45.0, 180.0, 263.0])
def test_stars_keep_position_and_flux(angle, flip):
    """To 0.02 pixel and 0.2 % for each star of 0.7 arcsec in 0.2 arcsec
    pixels, wherever in its pixel it is.
    """
    rng = np.random.default_rng(11)
    profile = galsim.Convolve(galsim.Moffat(beta=3.5, fwhm=3.5).shear(g1=0.03), galsim.Pixel(1.0))
    wcs = tan_wcs(center=(148.3, 151.1), angle=angle, flip=flip)
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(40, 261, 55), np.arange(40, 261, 55)))
    x, y = x + rng.uniform(-0.5, 0.5, x.shape), y + rng.uniform(-0.5, 0.5, y.shape)
    pixel_map = make_map(wcs)
    result = warp_all(draw_stars(profile, x, y), pixel_map)

    x_patch, y_patch = patch_wcs().world_to_pixel(wcs.pixel_to_world(x, y))
    r = 20
    checked = 0
    for xs, ys in zip(x_patch, y_patch, strict=True):
        xi, yi = round(xs), round(ys)
        stamp = np.s_[yi - r : yi + r + 1, xi - r : xi + r + 1]
        if min(xi, yi) < r or max(xi, yi) >= SIZE - r or not result.good[stamp].all():
            continue
        jacobian = galsim.JacobianWCS(*pixel_map.jacobian(xs, ys).ravel())
        expected = profile.drawImage(
            galsim.ImageD(2 * r + 1, 2 * r + 1, wcs=jacobian), method="no_pixel", offset=(xs - xi, ys - yi)
        ).array
        star = result.image[stamp].astype(float)
        assert centroid(star, 1.5) == pytest.approx(centroid(expected, 1.5), abs=0.02)
        assert centroid(star, 1.5) == pytest.approx((xs - xi, ys - yi), abs=0.02)
        assert star.sum() == pytest.approx(expected.sum(), rel=0.002)
        assert np.abs(star - expected).max() < 0.01 * expected.max()
        checked += 1
    assert checked >= 9


@pytest.mark.parametrize("scale", [0.168, 0.27])
def test_fluxes_do_not_depend_on_pixel_sizes(scale):
    """The mean over 25 stars, to 0.1 %, on a distorted detector: single stars
    scatter by 0.1 % where the patch's pixels are larger.
    """
    rng = np.random.default_rng(12)
    profile = galsim.Convolve(galsim.Moffat(beta=3.5, fwhm=0.75 / scale), galsim.Pixel(1.0))
    wcs = tpv_wcs(center=(150.0, 150.0), scale=scale, angle=25.0)
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(100, 201, 25), np.arange(100, 201, 25)))
    x, y = x + rng.uniform(-0.5, 0.5, x.shape), y + rng.uniform(-0.5, 0.5, y.shape)
    image = draw_stars(profile, x, y)
    result = warp_all(image, make_map(wcs))
    assert result.image.sum(dtype=float) == pytest.approx(image.sum(), rel=1e-3)


def test_surface_brightness_is_per_patch_pixel():
    """A flat sky scales with the local area of the pixels, and has no ripple
    from the interpolation.
    """
    pixel_map = make_map(tpv_wcs(center=(150.0, 150.0), scale=0.25, angle=10.0))
    result = warp_all(np.full((SIZE, SIZE), 100.0), pixel_map)
    expected = 100.0 * pixel_map.area(BBOX)
    assert result.good.mean() > 0.95
    assert np.allclose(result.image[result.good], expected[result.good], rtol=1e-5)


# -- noise


@pytest.mark.parametrize(("scale", "angle"), [(0.2, 0.0), (0.2, 31.0), (0.26, 77.0), (0.17, -50.0)])
def test_variance_is_the_scatter_of_noise(scale, angle):
    """On flat sky and near a bright star, against the scatter of 600 noise
    draws in each pixel.
    """
    size, draws = 60, 600
    rng = np.random.default_rng(13)
    bbox = Box.from_shape((size, size))
    y, x = np.indices((size, size))
    star = 300.0 * np.exp(-0.5 * ((x - 30.2) ** 2 + (y - 28.7) ** 2) / 1.3**2)
    variance = 4.0 + star
    geometry = make_geometry(cells=(2, 2))
    wcs = tan_wcs(center=(29.8, 29.6), scale=scale, angle=angle)
    pixel_map = make_map(wcs, geometry=geometry, detector_bbox=bbox)
    planes = [warp_all(rng.normal(star, np.sqrt(variance)), pixel_map, variance) for _ in range(draws)]
    good, predicted = planes[0].good, planes[0].variance
    scatter = np.var([plane.image for plane in planes], axis=0, ddof=1)
    mean = np.mean([plane.image for plane in planes], axis=0)
    assert np.allclose(
        mean[good],
        warp_all(star, pixel_map).image[good],
        atol=6.0 * predicted[good].max() ** 0.5 / draws**0.5,
    )

    brightness = warp_all(star, pixel_map, variance).image / pixel_map.area(geometry.outer_bbox)
    ratio = scatter / predicted
    sky = good & (brightness < 0.01)
    near_star = good & (brightness > 4.0)
    assert sky.sum() > 1000 and near_star.sum() > 25
    # The scatter of each pixel is known to 6 %; that of many to 1 %.
    assert ratio[sky].mean() == pytest.approx(1.0, abs=0.01)
    assert ratio[near_star].mean() == pytest.approx(1.0, abs=0.03)
    assert np.abs(ratio[good] - 1.0).max() < 6.0 * np.sqrt(2.0 / draws)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "angle", "shift"),
    [
        *((0.2, 0.0, (0.0, 0.0)), (0.2, 0.0, (0.5, 0.5)), (0.2, 0.0, (0.3, 0.0)), (0.2, 31.0, (0.0, 0.0))),
        *((0.2, 1.0, (0.0, 0.0)), (0.27, 20.0, (0.1, 0.2)), (0.168, -50.0, (0.0, 0.0))),
    ],
)
def test_correlation_is_the_noise_of_fluxes(scale, angle, shift):
    """The scatter of fluxes in a PSF-like weight over white noise on the
    detector: the variance of the pixels does not give it, the variance times
    the correlation does.
    """
    rng = np.random.default_rng(20)
    geometry = make_geometry(cells=(10, 10))
    bbox = Box.from_shape((600, 600))  # the patch is up to 400 of its pixels wide, and rotated
    wcs = tan_wcs(center=(299.5 + shift[0], 299.5 + shift[1]), scale=scale, angle=angle)
    pixel_map = make_map(wcs, geometry=geometry, detector_bbox=bbox)
    radius = 5
    dy, dx = np.indices((2 * radius + 1, 2 * radius + 1)) - radius
    weight = np.exp(-0.5 * (dx**2 + dy**2) / (3.5 / 2.355) ** 2)
    squares = pixels = 0.0
    for _ in range(10):
        result = warp_all(3.0 * rng.normal(size=bbox.shape), pixel_map, np.full(bbox.shape, 9.0))
        inside = np.s_[20:-20, 20:-20]
        assert result.good[inside].all()
        fluxes = scipy.signal.fftconvolve(result.image.astype(float), weight, mode="same")[inside]
        variances = scipy.signal.fftconvolve(result.variance, weight**2, mode="same")[inside]
        squares += np.mean(fluxes**2)
        pixels += np.mean(variances)
    correlation = 1.0 / np.mean(result.inverse_correlation[inside])
    # About 70x70 independent fluxes in each draw: 1 % in the variance.
    assert correlation == pytest.approx(squares / pixels, rel=0.03)
    if angle == 0.0 and shift == (0.0, 0.0):
        assert correlation == pytest.approx(1.0, rel=0.01)
    elif scale < 0.2:
        # Smaller pixels on the detector: interpolation takes little noise away.
        assert 0.75 < correlation < 1.0
    else:
        assert correlation > 1.13


def test_variance_scales_with_the_square_of_the_flux():
    pixel_map = make_map(tan_wcs(center=(150.0, 150.0), angle=20.0))
    image = np.random.default_rng(14).normal(size=(SIZE, SIZE))
    one, hundred = warp_all(image, pixel_map), warp_all(image * 10.0, pixel_map, np.full(image.shape, 100.0))
    assert np.allclose(hundred.image, 10.0 * one.image, rtol=1e-4, atol=1e-4)
    assert np.allclose(hundred.variance[one.good], 100.0 * one.variance[one.good], rtol=1e-4)


# -- bad pixels and edges


@pytest.mark.parametrize("angle", [0.0, 33.0])
def test_bad_pixels_leave_no_trace(angle):
    """Masked cosmic rays, NaN and infinite pixels on and around bright stars:
    what remains good is the image without them, to 1 % of the stars' peak.
    """
    rng = np.random.default_rng(15)
    profile = galsim.Gaussian(sigma=1.6, flux=1e5)
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(60, 241, 60), np.arange(60, 241, 60)))
    image = draw_stars(profile, x + 0.3, y - 0.2)
    pixel_map = make_map(tan_wcs(center=(149.7, 150.4), angle=angle))
    clean = warp_all(image, pixel_map)
    good = rng.uniform(size=image.shape) > 0.02
    values, variance = image.copy(), np.ones_like(image)
    values[~good] = rng.choice([1e7, np.nan, np.inf, -np.inf], size=(~good).sum())
    variance[~good] = rng.choice([0.0, -1.0, np.nan, np.inf], size=(~good).sum())
    result = warp(values, variance, good, BBOX, pixel_map)
    assert np.isfinite(result.image).all()
    assert np.isfinite(result.variance[result.good]).all() and (result.variance[result.good] > 0.0).all()
    assert np.abs(result.image - clean.image)[result.good].max() < 0.01 * image.max()
    # A bad pixel costs itself, and about twenty pixels that depend on it.
    lost = clean.good & ~result.good
    assert 0.02 < lost.mean() < 0.4
    assert not (result.good & ~clean.good).any()


def test_what_is_not_good_has_no_weight():
    result = warp_all(np.ones((SIZE, SIZE)), make_map(tan_wcs(center=(20.0, 30.0), angle=10.0)))
    assert 0 < result.good.sum() < result.good.size
    assert not result.image[~result.good].any()
    assert not result.inverse_correlation[~result.good].any()
    assert np.isinf(result.variance[~result.good]).all()
    assert result.image.dtype == result.variance.dtype == np.float32


@pytest.mark.parametrize("angle", [0.0, 90.0, 180.0, 37.0])
def test_pixels_near_the_edge_of_the_detector(angle):
    """All pixels that good ones depend on are on the detector: they are those
    more than two pixels inside of its outermost pixel's center, except where
    the grids coincide and every pixel is good.
    """
    wcs = tan_wcs(center=(60.25, 80.25), angle=angle)
    pixel_map = make_map(wcs, detector_bbox=Box.from_shape((120, 90)))
    image = np.ones((120, 90))
    result = warp_all(image, pixel_map)
    x, y = pixel_map.positions(BBOX)
    depth = np.minimum.reduce([x, y, 89.0 - x, 119.0 - y])
    assert not result.good[depth < -0.02].any()
    assert result.good[depth > 2.0].all()
    assert not result.good[(depth > 0.3) & (depth < 0.7)].any() or angle % 90.0 == 0.0


def test_coinciding_grids_keep_every_pixel():
    image = np.random.default_rng(16).normal(size=(SIZE, SIZE))
    result = warp_all(image, make_map(patch_wcs()))
    inside = result.good[1:-1, 1:-1]
    assert inside.all()
    assert np.allclose(result.image[1:-1, 1:-1], image[1:-1, 1:-1], atol=TABLE)


def test_detector_elsewhere_gives_nothing():
    result = warp_all(np.ones((SIZE, SIZE)), make_map(tan_wcs(center=(5000.0, 150.0))))
    assert not result.good.any()
    nothing = warp(
        np.ones((SIZE, SIZE)),
        np.ones((SIZE, SIZE)),
        np.zeros((SIZE, SIZE), bool),
        BBOX,
        make_map(patch_wcs()),
    )
    assert not nothing.good.any() and not nothing.image.any()


def test_correlation_of_the_image():
    """It changes the noise of wide areas, not that of the pixels."""
    image = np.random.default_rng(16).normal(size=(SIZE, SIZE))
    pixel_map = make_map(tan_wcs(center=(150.0, 150.0), angle=40.0))
    plain, correlated = warp_all(image, pixel_map), warp_all(image, pixel_map, correlation=2.0)
    assert np.array_equal(plain.variance, correlated.variance)
    assert np.allclose(correlated.inverse_correlation, 0.5 * plain.inverse_correlation, rtol=1e-6)


def test_tiles_do_not_show():
    """The result does not depend on how the patch is divided."""
    rng = np.random.default_rng(17)
    image = rng.normal(size=(SIZE, SIZE))
    good = rng.uniform(size=image.shape) > 0.01
    pixel_map = make_map(tan_wcs(center=(150.0, 150.0), angle=40.0))
    whole, tiled = (warp(image, np.exp(image), good, BBOX, pixel_map, tile_size=size) for size in (SIZE, 37))
    assert np.array_equal(whole.good, tiled.good)
    assert np.allclose(whole.image, tiled.image, atol=TABLE)
    assert np.allclose(whole.variance[whole.good], tiled.variance[whole.good], rtol=TABLE)


def test_cutout_gives_what_the_whole_gives():
    """Arrays that start anywhere on the detector."""
    image = np.random.default_rng(18).normal(size=(SIZE, SIZE))
    pixel_map = make_map(tan_wcs(center=(150.0, 150.0), angle=40.0))
    whole = warp_all(image, pixel_map)
    box = Box.factory[50:201, 93:240]
    part = box.slice_within(BBOX)
    ones = np.ones(box.shape)
    cutout = warp(image[part], ones, ones > 0.0, box, pixel_map)
    assert cutout.good.sum() > 10000
    assert np.allclose(cutout.image[cutout.good], whole.image[cutout.good], atol=TABLE)


def test_far_from_the_origin_positions_are_as_good():
    """Pixel coordinates of thousands, as on real tracts and detectors."""
    offset = YX(y=3700, x=2900)
    image = np.random.default_rng(19).normal(size=(SIZE, SIZE))
    near = warp_all(image, make_map(tan_wcs(center=(150.0, 150.0), angle=17.0)))
    geometry = make_geometry(cells=(10, 10), start=(17000, 23000))
    box = Box.from_shape((SIZE, SIZE), start=offset)
    wcs = tan_wcs(center=(150.0 + offset.x, 150.0 + offset.y), angle=17.0)
    pixel_map = make_map(wcs, geometry=geometry, detector_bbox=box)
    ones = np.ones(image.shape)
    far = warp(image, ones, ones > 0.0, box, pixel_map)
    assert (far.good == near.good).mean() > 0.999
    both = far.good & near.good
    assert np.allclose(far.image[both], near.image[both], atol=TABLE)


def test_ra_dec_is_in_the_middle_of_the_patch():
    """The tests' own geometry: a guard against comparing nothing."""
    geometry = make_geometry(cells=(10, 10), start=(100, 200))
    sky = geometry.sky_projection.pixel_to_sky(x=200 + 149.5, y=100 + 149.5)
    assert (sky.ra.deg, sky.dec.deg) == pytest.approx((RA, DEC), abs=1e-9)
