# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Visit images made from plain arrays, with any WCS and PSF kernels."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.wcs import WCS
from visit_image_examples import BBOX, BEGIN, FRAME, SHAPE, make_image, make_wcs

from lsst.daf.butler import Butler
from lsst.drp.restore.repository.make_visit_image import kernel_psf, polynomial_terms
from lsst.drp.restore.repository.register import put_visit_image
from lsst.drp.restore.warping.projections import sky_projection_from_wcs


def test_visit_image_survives_the_repository(repository: Butler) -> None:
    written = make_image()
    put_visit_image(repository, written, "run/a")
    read = repository.get("visit_image", instrument="Cam", visit=17, detector=3, collections="run/a")
    np.testing.assert_array_equal(read.image.array, written.image.array)
    np.testing.assert_array_equal(read.variance.array, written.variance.array)
    assert (read.unit, read.variance.unit) == (u.nJy, u.nJy**2)
    np.testing.assert_array_equal(np.argwhere(read.mask.get("COSMIC_RAY")), [[7, 11]])
    assert not read.mask.get("BAD").any()
    assert (read.band, read.physical_filter) == ("r", "r_1")
    assert read.obs_info.exposure_time == 30 * u.s
    assert abs((read.obs_info.datetime_begin - BEGIN).to_value(u.s)) < 1e-6
    assert (read.detector.id, read.detector.visit, read.detector.bbox) == (3, 17, BBOX)
    x, y = np.array([0.0, 79.0]), np.array([59.0, 3.0])
    sky = make_wcs().pixel_to_world(x, y)
    assert read.sky_projection.pixel_to_sky(x=x, y=y).separation(sky).arcsec.max() < 1e-6


def test_visit_image_refuses() -> None:
    with pytest.raises(ValueError, match="No mask planes .'CR'.; there are"):
        make_image(mask={"CR": np.zeros(SHAPE, bool)})
    with pytest.raises(ValueError, match="differ in shape"):
        make_image(variance=np.ones((60, 79)))


def test_kernel_is_drawn_as_it_is(repository: Butler) -> None:
    kernel = np.random.default_rng(1).uniform(-0.01, 1.0, (25, 25))  # centroid and shape are arbitrary
    kernel[:, :5] *= 0.1
    kernel /= kernel.sum()
    put_visit_image(repository, make_image(kernel_psf(kernel, BBOX)), "run/a")
    psf = repository.get("visit_image.psf", instrument="Cam", visit=17, detector=3, collections="run/a")
    assert psf.bounds == BBOX
    np.testing.assert_allclose(psf.compute_kernel_image(x=30.0, y=41.0).array, kernel, atol=1e-9)
    np.testing.assert_allclose(psf.compute_stellar_image(x=30.0, y=41.0).array, kernel, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_polynomial_of_kernels(repository: Butler, order: int) -> None:
    rng = np.random.default_rng(order)
    terms = polynomial_terms(order)
    kernels = rng.uniform(-0.05, 0.05, (len(terms), 9, 9))
    kernels[0] += 1.0
    origin, scale = (40.0, 30.0), (40.0, 25.0)
    put_visit_image(repository, make_image(kernel_psf(kernels, BBOX, origin=origin, scale=scale)), "run/a")
    psf = repository.get("visit_image.psf", instrument="Cam", visit=17, detector=3, collections="run/a")
    for x, y in [(0.0, 0.0), (70.0, 10.0), (10.0, 55.0)]:
        a, b = (x - origin[0]) / scale[0], (y - origin[1]) / scale[1]
        expected = sum(k * a**i * b**j for k, (i, j) in zip(kernels, terms, strict=True))
        np.testing.assert_allclose(
            psf.compute_kernel_image(x=x, y=y).array, expected / expected.sum(), atol=1e-9
        )


def test_kernel_shapes_refused() -> None:
    with pytest.raises(ValueError, match="square with odd size"):
        kernel_psf(np.ones((24, 24)), BBOX)
    with pytest.raises(ValueError, match="2 kernels are not the coefficients"):
        kernel_psf(np.ones((2, 25, 25)), BBOX)


@pytest.mark.parametrize(
    ("ctype", "radesys", "epsilon"),
    [
        (("RA---TAN", "DEC--TAN"), "ICRS", 1e-6),
        (("RA---TAN", "DEC--TAN"), "FK5", 1e-5),
        (("RA---ZEA", "DEC--ZEA"), "FK4", 1e-3),
        (("GLON-TAN", "GLAT-TAN"), "", 1e-5),
        (("ELON-TAN", "ELAT-TAN"), "", 1e-3),
    ],
)
def test_wcs_of_any_frame(ctype: tuple[str, str], radesys: str, epsilon: float) -> None:
    wcs = make_wcs(ctype, radesys)
    projection = sky_projection_from_wcs(wcs, FRAME)
    x, y = np.array([0.0, 79.0, 40.0]), np.array([59.0, 3.0, 20.0])
    expected = wcs.pixel_to_world(x, y).icrs
    assert projection.pixel_to_sky(x=x, y=y).separation(expected).arcsec.max() < epsilon
    back = projection.sky_to_pixel(expected)
    np.testing.assert_allclose([back.x, back.y], [x, y], atol=4 * epsilon)


def test_wcs_with_distortion() -> None:
    header = make_wcs().to_header()
    header.update({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2})
    header.update({"A_2_0": 1e-5, "A_1_1": 4e-6, "B_0_2": -2e-5})
    sip = WCS(header)
    header = make_wcs().to_header()
    header.update({"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_0": 1e-4, "PV1_1": 1.001, "PV1_4": 0.05})
    header.update({"PV2_0": 0.0, "PV2_1": 1.0, "PV2_6": 0.04})
    tpv = WCS(header)
    x, y = np.array([0.0, 79.0, 40.0]), np.array([59.0, 3.0, 20.0])
    for wcs in (sip, tpv):
        distorted = wcs.pixel_to_world(x, y)
        assert distorted.separation(make_wcs().pixel_to_world(x, y)).arcsec.min() > 0.1
        projection = sky_projection_from_wcs(wcs, FRAME)
        assert projection.pixel_to_sky(x=x, y=y).separation(distorted).arcsec.max() < 1e-6


def test_wcs_refused() -> None:
    with pytest.raises(ValueError, match="not one of two celestial axes"):
        sky_projection_from_wcs(WCS(naxis=2), FRAME)
    swapped = WCS(naxis=2)
    swapped.wcs.ctype, swapped.wcs.crval = ("DEC--TAN", "RA---TAN"), (2.0, 150.0)
    with pytest.raises(ValueError, match="first axis of the WCS must be the longitude"):
        sky_projection_from_wcs(swapped, FRAME)
