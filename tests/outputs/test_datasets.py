# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from results import make_restored
from skies import make_geometry
from stacks import make_restoration, star_field

import lsst.pipe.base as pipeBase
from lsst.drp.restore.outputs.datasets import describe_patch, make_datasets
from lsst.drp.restore.outputs.restored_stack import RestoredStack
from lsst.drp.restore.psf_fitting.kernel_fit import KernelFit
from lsst.drp.restore.stack.kernel_shape import kernel_moments
from lsst.drp.restore.warping.stack_input import StackedInputs, StackInput
from lsst.images import Polygon

CELLS, CELL = (2, 3), 32


@pytest.fixture(scope="module")
def restored() -> RestoredStack:
    stack, latent, _ = star_field(n=2, shape=(64, 96), cell_shape=(CELL, CELL), n_stars=6)
    return make_restored(stack, make_restoration(stack, latent))


def make(restored: RestoredStack) -> pipeBase.Struct:
    geometry = make_geometry(cells=CELLS, cell_size=CELL)
    ones = np.ones(CELLS)
    visit_images = [
        StackInput(
            instrument="Cam",
            visit=t + 1,
            detector=0,
            physical_filter="i",
            day_obs=20240301,
            exposure=t,
            polygon=Polygon.from_box(geometry.outer_bbox),
            overlap_fraction=ones,
            overlaps_center=ones.astype(bool),
            unmasked_fraction=ones,
            weight=ones,
            kernel_fraction=ones,
            psf_xx=ones,
            psf_yy=ones,
            psf_xy=0 * ones,
        )
        for t in range(2)
    ]
    inputs = StackedInputs(
        stack=restored.stack,
        inputs=visit_images,
        seeing=np.array([3.0, 3.5]),
        dropped=[("visit 9", "no PSF")],
    )
    return make_datasets(restored, inputs, geometry, "i", few_exposures=2, backend={"backend": "tensorflow"})


def test_one_dataset_per_output(restored: RestoredStack) -> None:
    outputs = make(restored)
    assert set(outputs.getDict()) == {
        "restored_coadd",
        "restored_coadd_measurable",
        "restored_coadd_reference",
        "restored_coadd_naive_mean",
        "restored_coadd_training",
        "restored_coadd_metrics",
        "restored_coadd_plot",
        "restored_coadd_training_plot",
        "restored_coadd_kernels",
        "restored_coadd_kernels_plot",
        "restored_coadd_weights",
    }
    np.testing.assert_array_equal(outputs.restored_coadd_naive_mean.array, restored.naive)
    np.testing.assert_array_equal(outputs.restored_coadd_reference.image.array, restored.reference.image)
    np.testing.assert_array_equal(outputs.restored_coadd_kernels, restored.stack.kernels)
    count = np.count_nonzero(restored.stack.good, axis=0)
    few = outputs.restored_coadd_measurable.mask.get("FEW_EXPOSURES")
    np.testing.assert_array_equal(few, count - restored.reference.clipped.sum(axis=0) < 2)
    assert outputs.restored_coadd_metrics["seeing_pixels"]["best"] == 3.0
    assert outputs.restored_coadd_metrics["dropped"] == {"visit 9": "no PSF"}
    assert outputs.restored_coadd_metrics["provenance"]["backend"] == "tensorflow"
    title = describe_patch(make_geometry(cells=CELLS, cell_size=CELL), "i")
    assert outputs.restored_coadd_plot.get_suptitle() == title


def test_fitted_kernels_have_their_width_and_figure(restored: RestoredStack) -> None:
    kernels = restored.stack.kernels
    fit = KernelFit(
        start=kernels[:, 0, 0],
        kernels=kernels[:, 0, 0],
        cell_kernels=kernels,
        start_fwhm=np.array([4.0, 4.0]),
        fwhm=np.array([2.0, 2.5]),
        snr=np.full(2, 50.0),
        shift=np.zeros((2, 2)),
        stars=np.zeros((3, 3)),
        method="gaussian",
        seconds=1.0,
    )
    outputs = make(dataclasses.replace(restored, kernel_fit=fit))
    assert outputs.restored_coadd_metrics["seeing_pixels"]["worst"] == 2.5
    assert outputs.restored_coadd_metrics["kernel_fit"] == fit.metrics(restored.stack.names)
    # The fitted kernels' moments, not those that the inputs came with.
    moments = np.asarray(outputs.restored_coadd.provenance.contributions["psf_shape_xx"])
    expected = kernel_moments(kernels[0, 0, 0])[0]
    assert moments[0] == pytest.approx(expected) and expected != 1.0
    assert outputs.restored_coadd_kernel_fit_plot.get_suptitle().endswith("kernels fitted to 3 stars")
