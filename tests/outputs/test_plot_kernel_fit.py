# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import numpy as np
import pytest
from figures import render

from lsst.drp.restore.outputs.plot_kernel_fit import plot_kernel_fit, radial_profile
from lsst.drp.restore.psf_fitting.kernel_fit import KernelFit
from lsst.drp.restore.stack.kernel_shape import gaussian_kernel


def make_fit(widths: list[float]) -> KernelFit:
    """Return Gaussians that were fitted from a wider one."""
    kernels = np.array([gaussian_kernel(width) for width in widths])
    n = len(widths)
    return KernelFit(
        start=np.repeat(gaussian_kernel(5.0)[np.newaxis], n, axis=0),
        kernels=kernels,
        cell_kernels=kernels[:, np.newaxis, np.newaxis].astype(np.float32),
        start_fwhm=np.full(n, 5.0),
        fwhm=np.array(widths),
        snr=np.full(n, 100.0),
        shift=np.zeros((n, 2)),
        stars=np.zeros((7, 3)),
        method="network",
        seconds=1.0,
    )


def test_exposures_are_ordered_by_width() -> None:
    fit = make_fit([4.0, 2.5, 3.0])
    figure = plot_kernel_fit(fit, ("visit 1", "visit 2", "visit 3"), title="a patch")
    shown = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title() for ax in shown] == ["visit 2", "visit 3", "visit 1"]
    initial, fitted = shown[0].get_lines()
    np.testing.assert_allclose(initial.get_ydata(), radial_profile(fit.start[1])[1])
    np.testing.assert_allclose(fitted.get_ydata(), radial_profile(fit.kernels[1])[1])
    labels = [text.get_text() for text in shown[0].get_legend().get_texts()]
    assert labels == ["initial: 5.00 pixels", "fitted: 2.50 pixels"]
    assert figure.get_suptitle() == "a patch: kernels fitted to 7 stars"
    assert render(figure).std() > 10


@pytest.mark.parametrize(("n", "n_shown"), [(1, 1), (12, 12), (30, 12)])
def test_of_many_exposures_twelve_are_shown(n: int, n_shown: int) -> None:
    widths = list(np.linspace(2.0, 5.0, n))
    figure = plot_kernel_fit(make_fit(widths), tuple(f"visit {t}" for t in range(n)))
    titles = [ax.get_title() for ax in figure.axes if ax.axison]
    assert len(titles) == n_shown
    assert titles[0] == "visit 0" and titles[-1] == f"visit {n - 1}"
    assert figure.get_suptitle() == "7 stars"


def test_radial_profile_is_the_mean_in_rings() -> None:
    radius, profile = radial_profile(gaussian_kernel(4.0))
    assert len(radius) == 13
    expected = gaussian_kernel(4.0).max() * np.exp(-4 * np.log(2) * (radius / 4.0) ** 2)
    np.testing.assert_allclose(profile[:6], expected[:6], rtol=0.15)
    _, flat = radial_profile(np.ones((7, 7)))
    np.testing.assert_array_equal(flat, np.ones(4))
