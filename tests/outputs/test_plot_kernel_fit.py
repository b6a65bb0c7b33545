# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
import numpy as np
from stacks import star_field

from lsst.drp.restore.outputs.plot_kernel_fit import plot_kernel_fit, radial_profile
from lsst.drp.restore.psf_fitting.fit_kernels import FitKernelsConfig, FitKernelsTask
from lsst.drp.restore.stack.kernel_shape import gaussian_kernel
from lsst.drp.restore.stack.reference_coadd import reference_coadd


def test_plot() -> None:
    field, _, _ = star_field(seed=3, n=5, shape=(128, 128), n_stars=9, flux=(2000.0, 20000.0))
    config = FitKernelsConfig()
    config.mode = "gaussian"
    result = FitKernelsTask(config=config).run(field, reference_coadd(field))
    assert result is not None
    figure = plot_kernel_fit(result, field.names, "a patch")
    shown = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title() for ax in shown] == [field.names[t] for t in np.argsort(result.fwhm)]
    line = shown[0].get_lines()[1]
    t = int(np.argmin(result.fwhm))
    np.testing.assert_allclose(line.get_ydata(), radial_profile(result.kernels[t])[1])


def test_radial_profile() -> None:
    radius, profile = radial_profile(gaussian_kernel(4.0))
    assert len(radius) == 13
    expected = gaussian_kernel(4.0).max() * np.exp(-4 * np.log(2) * (radius / 4.0) ** 2)
    np.testing.assert_allclose(profile[:6], expected[:6], rtol=0.15)
