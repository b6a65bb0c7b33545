# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The restored coadd as the deconvolved coadd of the Science Pipelines."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from warps import GEOMETRY, make_afw_warp, make_warp

from lsst.drp.restore import (
    TARGET_FWHM,
    DeconvolveDeepCoaddConnections,
    DeconvolveDeepCoaddTask,
    RestoreCoaddConfig,
)
from lsst.drp.restore.stack.kernel_shape import gaussian_kernel
from lsst.images.cells import CellCoadd
from lsst.pipe.base import Pipeline
from lsst.pipe.base.pipelineIR import ContractError
from lsst.pipe.base.testUtils import lintConnections

PIPELINE = "resource://lsst.drp.restore/pipelines/deconvolveDeepCoadd.yaml"


def make_restored() -> CellCoadd:
    """Return a restored coadd of one star in an empty sky, which is not
    restored at an edge.
    """
    restored = make_warp(border=0)
    restored.image.array[:] = 0.0
    restored.image.array[20:45, 40:65] = 1000.0 * gaussian_kernel(TARGET_FWHM, 25)
    restored.image.array[-5:] = np.nan
    return restored


def test_connections() -> None:
    lintConnections(DeconvolveDeepCoaddConnections)
    output = DeconvolveDeepCoaddConnections.deconvolved_coadd
    assert (output.name, output.storageClass) == ("deconvolved_deep_coadd", "ExposureF")
    assert set(output.dimensions) == {"skymap", "tract", "patch", "band"}


@pytest.mark.parametrize(("mean", "unit", "scale"), [(1.0, "nJy", 1.0), (57.54, None, 57.54)])
def test_pixels(mean: float, unit: str | None, scale: float) -> None:
    """The image is the star with the model PSF of the deblender, in the
    coadd's unit; all else is the coadd's.
    """
    coadd = make_afw_warp(mean=mean, unit=unit)
    coadd.mask.array[20] |= coadd.mask.getPlaneBitMask(["SAT"])
    before = coadd.image.array.copy()
    result = DeconvolveDeepCoaddTask().run(make_restored(), coadd).deconvolved_coadd
    inside = GEOMETRY.outer_bbox.slice_within(GEOMETRY.outer_bbox.padded(7))
    pixels = scale * result.image.array[inside]
    assert (pixels >= 0.0).all() and pixels.sum() == pytest.approx(1000.0, rel=1e-4)
    edges = (np.arange(26) - 12.5) / (0.8 * np.sqrt(2.0))
    profile = 0.5 * np.diff(scipy.special.erf(edges))
    np.testing.assert_allclose(
        pixels[20:45, 40:65], 1000.0 * np.outer(profile, profile), atol=0.01 * pixels.max()
    )
    # Neither what is not restored nor the coadd's border has light.
    assert not result.image.array[:7].any() and not pixels[-5:].any()
    np.testing.assert_array_equal(result.variance.array, coadd.variance.array)
    np.testing.assert_array_equal(result.mask.array, coadd.mask.array)
    assert result.getPhotoCalib().getCalibrationMean() == mean
    # The coadd itself is left alone.
    np.testing.assert_array_equal(coadd.image.array, before)


def test_pipeline() -> None:
    graph = Pipeline.from_uri(PIPELINE).to_graph()
    assert set(graph.tasks) == {"restoreCoadd", "deconvolveDeepCoadd"}
    config = graph.tasks["restoreCoadd"].config
    assert isinstance(config, RestoreCoaddConfig) and config.inputType == "coadd"
    assert graph.producing_edge_of("deconvolved_deep_coadd").task_label == "deconvolveDeepCoadd"
    pipeline = Pipeline.from_uri(PIPELINE)
    pipeline.addConfigOverride("restoreCoadd", "superResolution", 2)
    with pytest.raises(ContractError, match="pixels of the deep coadd"):
        pipeline.to_graph()
