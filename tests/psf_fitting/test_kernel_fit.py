# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
import numpy as np

from lsst.drp.restore.psf_fitting.kernel_fit import KernelFit
from lsst.drp.restore.stack.kernel_shape import gaussian_kernel


def test_metrics_are_numbers_by_exposure() -> None:
    kernels = np.stack([gaussian_kernel(3.0), gaussian_kernel(4.0)])
    fit = KernelFit(
        start=kernels,
        kernels=kernels,
        cell_kernels=kernels[:, np.newaxis, np.newaxis].astype(np.float32),
        start_fwhm=np.array([2.5, 5.0]),
        fwhm=np.array([3.0, 4.0]),
        snr=np.array([100.0, 0.0]),
        shift=np.array([[0.1, -0.2], [0.0, 0.3]]),
        stars=np.ones((7, 3)),
        method="stars",
        seconds=1.5,
    )
    metrics = fit.metrics(("a", "b"))
    assert metrics == {
        "method": "stars",
        "n_stars": 7,
        "seconds": 1.5,
        "start_fwhm_pixels": {"a": 2.5, "b": 5.0},
        "fwhm_pixels": {"a": 3.0, "b": 4.0},
        "star_snr": {"a": 100.0, "b": 0.0},
        "shift_y_pixels": {"a": 0.1, "b": 0.0},
        "shift_x_pixels": {"a": -0.2, "b": 0.3},
    }
    assert all(type(value) is float for value in metrics["fwhm_pixels"].values())
