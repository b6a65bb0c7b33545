# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Kernels that are fitted together with a network."""

from __future__ import annotations

import numpy as np
import pytest
from stacks import star_field

from lsst.drp.restore.errors import DivergedError
from lsst.drp.restore.psf_fitting.fit_kernels import FitKernelsConfig, FitKernelsTask
from lsst.drp.restore.psf_fitting.kernel_fit import KernelFit
from lsst.drp.restore.restoration.seeds import Seeds
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.kernel_shape import fwhm
from lsst.drp.restore.stack.reference_coadd import reference_coadd


def fit_with_network(stack: ExposureStack, **fields: object) -> KernelFit:
    config = FitKernelsConfig()
    config.update(method="network", **fields)
    config.network.update(stepsPerEpoch=40, maxEpochs=2)
    config.validate()
    result = FitKernelsTask(config=config).run(stack, reference_coadd(stack), seeds=Seeds(42))
    assert result is not None
    return result


@pytest.mark.slow
def test_fitted_together_with_the_network() -> None:
    stack, _, _ = star_field(seed=6, n=4, shape=(128, 128), n_stars=16, flux=(500.0, 9000.0))
    true = np.array([fwhm(kernel) for kernel in stack.kernels.mean(axis=(1, 2))])
    given = stack.kernels.copy()
    result = fit_with_network(stack, mode="gaussian", initialFwhm=[float(0.8 * w) for w in true])
    assert result.method == "network"
    np.testing.assert_allclose(result.fwhm, true, rtol=0.05)
    assert (result.cell_kernels >= 0).all()
    np.testing.assert_allclose(result.cell_kernels.sum(axis=(-2, -1)), 1.0, atol=0.03)
    np.testing.assert_array_equal(stack.kernels, given)


@pytest.mark.slow
def test_right_kernels_stay() -> None:
    """Each cell keeps its variation."""
    stack, _, _ = star_field(seed=6, n=3, shape=(96, 96), n_stars=9, flux=(2000.0, 9000.0))
    result = fit_with_network(stack, mode="refined")
    widths = np.array(
        [[fwhm(k) for k in kernels.reshape(-1, 25, 25)] for kernels in (stack.kernels, result.cell_kernels)]
    )
    np.testing.assert_allclose(widths[1], widths[0], rtol=0.03)
    assert (widths[0] != widths[1]).any()


@pytest.mark.slow
def test_training_that_diverges_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    stack, _, _ = star_field(seed=6, n=3, shape=(96, 96), n_stars=9, flux=(2000.0, 9000.0))
    # Between the stars' stamps, so that only the network sees them.
    stack.image[1, [1, 32, 63], ::8] = 3e38
    with pytest.raises(DivergedError, match=r"learning rate of 0.001 diverged.*e\+38 nJy, on visit 1"):
        fit_with_network(stack, mode="refined")
    assert "from fresh weights" in caplog.text
