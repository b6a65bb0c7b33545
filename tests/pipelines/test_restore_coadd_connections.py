# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The datasets that a configuration asks for."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import lsst.pipe.base.connectionTypes as cT
from lsst.drp.restore import PublishedNetTask, RestoreCoaddConfig, RestoreCoaddConnections
from lsst.pex.config import FieldValidationError
from lsst.pipe.base.testUtils import lintConnections

PATCH = {"skymap", "tract", "patch", "band"}


def connections(**fields: Any) -> RestoreCoaddConnections:
    config = RestoreCoaddConfig()
    config.update(**fields)
    config.validate()
    return RestoreCoaddConnections(config=config)


def test_connections() -> None:
    lintConnections(RestoreCoaddConnections)
    # Every output is one of a patch, named as its dataset type.
    for name in connections().outputs:
        connection = getattr(RestoreCoaddConnections, name)
        assert connection.name == name and set(connection.dimensions) == PATCH and connection.doc


@pytest.mark.parametrize(
    ("fields", "inputs"),
    [
        ({}, {"visit_images", "tract_geometry"}),
        ({"inputType": "direct_warp"}, {"direct_warps", "tract_geometry"}),
        ({"patchGeometry": "skymap"}, {"visit_images", "sky_map"}),
        ({"patchGeometry": "coadd"}, {"visit_images", "coadd"}),
        # A CellCoadd has its own grid, whatever patchGeometry is.
        ({"inputType": "coadd"}, {"coadd"}),
        ({"inputType": "coadd", "patchGeometry": "skymap"}, {"coadd"}),
        (
            {"inputType": "coadd", "coaddStorageClass": "ExposureF", "patchGeometry": "skymap"},
            {"coadd", "sky_map"},
        ),
    ],
)
def test_inputs(fields: dict[str, str], inputs: set[str]) -> None:
    assert set(connections(**fields).inputs) == inputs


def test_a_coadd_to_compare_with_is_optional() -> None:
    optional = connections()
    assert set(optional.prerequisiteInputs) == {"coadd"} and optional.coadd.minimum == 0
    assert optional.coadd.storageClass == "CellCoadd"
    assert connections(coaddStorageClass="ExposureF").coadd.storageClass == "ExposureF"
    # The source of the grid is none.
    assert isinstance(connections(patchGeometry="coadd").coadd, cT.Input)


def test_kernels_of_a_coadd_are_not_fitted() -> None:
    config = RestoreCoaddConfig()
    config.inputType = "coadd"
    config.fitKernels.mode = "refined"
    with pytest.raises(FieldValidationError, match="mode='given' if inputType='coadd'"):
        config.validate()


@pytest.mark.parametrize("storage_class", ["CellCoadd", "ExposureF"])
def test_storage_class_of_warps(storage_class: str) -> None:
    """By the configuration alone, with and without lsst.afw."""
    warps = connections(inputType="direct_warp", warpStorageClass=storage_class).direct_warps
    assert warps.storageClass == storage_class
    assert connections(inputType="direct_warp").direct_warps.storageClass == "CellCoadd"


def test_outputs_of_fits() -> None:
    plain = connections()
    assert not {"restored_coadd_weights", "restored_coadd_kernel_fit_plot"} & set(plain.outputs)
    config = RestoreCoaddConfig()
    config.fitKernels.mode = "refined"
    config.restorer.fineTuneSteps = 10
    fitted = RestoreCoaddConnections(config=config)
    assert {"restored_coadd_weights", "restored_coadd_kernel_fit_plot"} <= set(fitted.outputs)
    config = RestoreCoaddConfig()
    config.restorer.retarget(PublishedNetTask)
    assert "restored_coadd_weights" in RestoreCoaddConnections(config=config).outputs


def test_calexps_without_afw(caplog: pytest.LogCaptureFixture) -> None:
    config = RestoreCoaddConfig()
    config.connections.visit_images = "calexp"
    with caplog.at_level(logging.WARNING):
        RestoreCoaddConnections(config=config)
        try:
            import lsst.afw  # noqa: F401
        except ImportError:
            assert "butler ingest-exposures" in caplog.text
        else:
            assert not caplog.text
