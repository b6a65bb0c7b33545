# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from figures import render
from skies import make_geometry
from stacks import moffat_kernel, star_field

from lsst.drp.restore.outputs.plot_kernels import plot_kernels
from lsst.drp.restore.stack.exposure_stack import ExposureStack


def with_kernels(stack: ExposureStack, kernels: np.ndarray) -> ExposureStack:
    return dataclasses.replace(stack, kernels=kernels.astype(np.float32))


def test_kernels_from_the_sharpest_with_their_shapes() -> None:
    stack, _, _ = star_field(n=4)
    widths = [4.0, 2.5, 3.0, 3.5]
    kernels = np.empty_like(stack.kernels)
    for t, width in enumerate(widths):
        # Longer along x or along y.
        kernels[t] = moffat_kernel(width, ellipticity=-0.1 if t == 1 else 0.1)
    geometry = make_geometry(cells=(3, 4), cell_size=32)
    figure = plot_kernels(with_kernels(stack, kernels), geometry=geometry, title="a patch")
    titles = [ax.get_title() for ax in figure.axes if ax.images]
    assert [title.split("\n")[0] for title in titles] == [f"visit {t}" for t in (1, 2, 3, 0)]
    assert titles[0].split("\n")[1].startswith('0.50"  e = 0.1')
    # North is along y, east along -x.
    assert titles[0].endswith("PA 90\N{DEGREE SIGN}")
    assert titles[1].endswith("PA 0\N{DEGREE SIGN}")
    norms = {id(ax.images[0].norm) for ax in figure.axes if ax.images}
    assert len(norms) == 1
    assert figure.get_suptitle() == "a patch"
    assert render(figure).std() > 10


def test_variation_over_the_patch() -> None:
    stack, _, _ = star_field(n=3)
    kernels = np.empty_like(stack.kernels)
    for i, j in np.ndindex(kernels.shape[1:3]):
        kernels[:, i, j] = moffat_kernel(3.0 + 0.5 * i, ellipticity=0.05)
    # An exposure that covers half of the patch, and a cell that none does.
    kernels[0, :, :2] = 0.0
    kernels[:, 0, 0] = 0.0
    figure = plot_kernels(with_kernels(stack, kernels))
    (ax,) = [ax for ax in figure.axes if ax.get_title(loc="left").startswith("Median FWHM")]
    mesh = ax.collections[0]
    shown = np.ma.filled(mesh.get_array(), np.nan)
    assert np.isnan(shown[0, 0])
    np.testing.assert_allclose(shown[:, 1:], np.repeat([[3.0], [3.5], [4.0]], 3, axis=1), rtol=0.03)
    assert render(figure).std() > 10


@pytest.mark.parametrize("n", [1, 2, 40])
def test_any_number_of_kernels(n: int) -> None:
    stack, _, _ = star_field(n=1, shape=(32, 32), n_stars=1)
    kernels = np.array([moffat_kernel(2.5 + 0.05 * t) for t in range(n)])[:, np.newaxis, np.newaxis]
    stack = ExposureStack(
        image=np.repeat(stack.image, n, axis=0),
        variance=np.repeat(stack.variance, n, axis=0),
        good=np.repeat(stack.good, n, axis=0),
        kernels=kernels,
        correlation=np.ones((n, 1, 1), np.float32),
        cell_shape=(32, 32),
        names=tuple(f"visit {t}" for t in range(n)),
    )
    figure = plot_kernels(stack)
    titles = [ax.get_title().split("\n")[0] for ax in figure.axes if ax.images]
    assert len(titles) == min(n, 36)
    assert titles[0] == "visit 0" and titles[-1] == f"visit {n - 1}"
    assert render(figure).std() > 10


def test_range_of_each_exposure() -> None:
    stack, _, _ = star_field(n=2)
    kernels = np.empty_like(stack.kernels)
    for i, j in np.ndindex(kernels.shape[1:3]):
        kernels[0, i, j], kernels[1, i, j] = moffat_kernel(4.0 + 0.2 * j), moffat_kernel(3.0)
    figure = plot_kernels(with_kernels(stack, kernels))
    (ax,) = [ax for ax in figure.axes if ax.get_title(loc="left").startswith("FWHM of each")]
    (segments,) = (lines.get_segments() for lines in ax.collections)
    # The sharper one first; of four columns of cells the outer ones and one between them.
    np.testing.assert_allclose(segments[0][:, 1], 3.0, rtol=0.02)
    np.testing.assert_allclose(segments[1][:, 1], [4.0, 4.6], rtol=0.02)
    np.testing.assert_allclose(ax.lines[0].get_ydata()[0], 3.0, rtol=0.02)
