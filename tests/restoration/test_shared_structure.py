# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from stacks import star_field

from lsst.drp.restore.restoration.restoration import BandImage
from lsst.drp.restore.restoration.target_psf import convolution_kernels
from lsst.drp.restore.stack.exposure_stack import ExposureStack

COLOR = 0.5


def two_bands(noise: float = 5.0) -> tuple[ExposureStack, np.ndarray, np.ndarray]:
    """The model of a shallow band, its true sky at the target resolution, and
    the same sky in a deep band, where all sources are brighter by 1/COLOR.
    """
    from lsst.drp.restore.restoration.forward_model import ForwardModel

    stack, latent, _ = star_field(n=1, shape=(96, 96), n_stars=9, flux=(1000.0, 4000.0), bad_fraction=0.0)
    truth = gaussian_filter(latent, 0.8).astype(np.float32)
    model = dataclasses.replace(
        stack,
        kernels=convolution_kernels(stack.kernels),
        variance=np.full_like(stack.variance, noise**2),
    )
    image = ForwardModel(model).forward(truth)
    image += np.random.default_rng(2).normal(scale=noise, size=image.shape)
    return dataclasses.replace(model, image=image.astype(np.float32)), truth, truth / COLOR


def errors(image: np.ndarray, floor: float, slope: float = 0.3) -> np.ndarray:
    return (floor + slope * image).astype(np.float32)


def test_a_deep_band_improves_a_shallow_one() -> None:
    from lsst.drp.restore.restoration.shared_structure import share_structure

    model, truth, deep = two_bands()
    # A network's image that is too smooth.
    blurred = gaussian_filter(truth, 1.5)
    other = BandImage(latent=deep.astype(np.float32), error=errors(deep, 0.1, 0.05), noise=1.0)
    image, error = share_structure(blurred, errors(blurred, 1.0), model, [other])
    assert (image >= 0).all()
    assert (error > 0).all()
    assert (error <= errors(blurred, 1.0) * (1 + 1e-6)).all()
    assert np.linalg.norm(image - truth) < 0.8 * np.linalg.norm(blurred - truth)
    # Without other bands, or with those of a restorer that states no error, nothing happens.
    for other_bands in ((), (dataclasses.replace(other, error=None),)):
        same, _ = share_structure(blurred, errors(blurred, 1.0), model, other_bands)
        np.testing.assert_allclose(same, blurred, rtol=1e-5, atol=1e-5)


def test_mean_is_weighted_by_the_inverse_variance() -> None:
    """A wide window on one source: color and weights by hand."""
    from lsst.drp.restore.restoration.forward_model import ForwardModel
    from lsst.drp.restore.restoration.shared_structure import share_structure

    model, truth, deep = two_bands(noise=0.5)
    other = BandImage(latent=deep.astype(np.float32), error=errors(deep, 0.0), noise=1.0)
    zero = np.zeros_like(truth)
    stated = np.full_like(truth, 50.0)
    image, error = share_structure(zero, stated, model, [other])
    y, x = np.unravel_index(np.argmax(truth), truth.shape)
    seen = ForwardModel(model).forward(other.latent)[0]
    rows, columns = np.indices(seen.shape)
    window = np.exp(-0.5 * ((rows - y + 12) ** 2 + (columns - x + 12) ** 2) / 2.0**2)
    power = (window * seen**2).sum() / 0.25
    color = (window * seen * model.image[0]).sum() / 0.25 / power
    assert color == pytest.approx(COLOR, rel=0.02)
    # The prior on the color has no weight beside such a signal.
    light = deep[y, x]
    variance = light**2 / power + (color * 0.3 * light) ** 2 + (0.15 * color * light) ** 2
    variance = max(variance, 25.0**2)
    expected = color * light / variance / (1 / 50.0**2 + 1 / variance)
    assert image[y, x] == pytest.approx(expected, rel=0.02)
    assert error[y, x] == pytest.approx((1 / 50.0**2 + 1 / variance) ** -0.5, rel=0.02)


def test_source_in_this_band_alone_stays() -> None:
    from lsst.drp.restore.restoration.shared_structure import share_structure

    model, truth, deep = two_bands()
    y, x = np.unravel_index(np.argmax(truth), truth.shape)
    # The deep band does not have the brightest star.
    lacking = deep.copy()
    lacking[y - 6 : y + 7, x - 6 : x + 7] = 0.0
    other = BandImage(latent=lacking.astype(np.float32), error=errors(lacking, 0.1), noise=1.0)
    image, error = share_structure(truth, errors(truth, 1.0), model, [other])
    # A quarter of the weight at worst; the exposures decide afterwards.
    assert image[y, x] > 0.19 * truth[y, x]
    assert error[y, x] > 0.4 * errors(truth, 1.0)[y, x]
