# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import numpy as np
import pytest
from coadd_case import CELLS, FEW, make_geometry, make_inputs, make_restored, make_stack

from lsst.drp.restore.outputs.coadds import make_reference_coadd, make_restored_coadd
from lsst.drp.restore.outputs.pixel_flags import flag_pixels
from lsst.drp.restore.outputs.provenance_table import make_provenance
from lsst.drp.restore.warping.stack_input import StackInput


def expected_contributions(inputs: list[StackInput]) -> set[tuple]:
    """Return the rows of the contributions."""
    rows = set()
    for visit_image in inputs:
        for i in range(CELLS[0]):
            for j in range(CELLS[1]):
                if visit_image.unmasked_fraction[i, j] == 0:
                    continue
                rows.add(
                    (
                        i,
                        j,
                        visit_image.instrument,
                        visit_image.visit,
                        visit_image.detector,
                        bool(visit_image.overlaps_center[i, j]),
                        float(visit_image.overlap_fraction[i, j]),
                        float(visit_image.unmasked_fraction[i, j]),
                        float(visit_image.weight[i, j]),
                    )
                )
    return rows


def test_inputs_and_contributions() -> None:
    inputs = make_inputs(make_stack())
    provenance = make_provenance(inputs)
    assert provenance is not None
    assert len(provenance.inputs) == len(inputs)
    for row, visit_image in zip(provenance.inputs, inputs, strict=True):
        for column in ("instrument", "visit", "detector", "day_obs"):
            assert row[column] == getattr(visit_image, column)
        assert row["physical_filter"] == "i_1,i_2"
        np.testing.assert_allclose(row["polygon"].x_vertices, visit_image.polygon.x_vertices)
        np.testing.assert_allclose(row["polygon"].y_vertices, visit_image.polygon.y_vertices)
    table = provenance.contributions
    rows = {
        (
            int(row["cell_i"]),
            int(row["cell_j"]),
            str(row["instrument"]),
            int(row["visit"]),
            int(row["detector"]),
            bool(row["overlaps_center"]),
            float(row["overlap_fraction"]),
            float(row["unmasked_fraction"]),
            float(row["weight"]),
        )
        for row in table
    }
    assert rows == expected_contributions(inputs)
    assert len(table) == len(rows)
    by_key = {(visit_image.visit, visit_image.detector): visit_image for visit_image in inputs}
    flagged = 0
    for row in table:
        visit_image = by_key[int(row["visit"]), int(row["detector"])]
        i, j = int(row["cell_i"]), int(row["cell_j"])
        for axes in ("xx", "yy", "xy"):
            np.testing.assert_equal(row[f"psf_shape_{axes}"], getattr(visit_image, f"psf_{axes}")[i, j])
        assert row["psf_shape_flag"] == np.isnan(visit_image.psf_xx[i, j])
        flagged += bool(row["psf_shape_flag"])
    assert flagged == 1


def test_unknown_inputs() -> None:
    """A coadd of which the visits are not known is one without provenance."""
    assert make_provenance([]) is None
    restored = make_restored()
    coadd = make_restored_coadd(restored, flag_pixels(restored, few_exposures=FEW), [], make_geometry(), "i")
    with pytest.raises(AttributeError, match="no provenance"):
        _ = coadd.provenance


def test_every_cell_with_data_has_provenance() -> None:
    """`CellCoadd.to_legacy_cell_coadd` looks up the inputs of each cell that
    is not missing.
    """
    restored, inputs = make_restored(), make_inputs(make_stack())
    flags = flag_pixels(restored, few_exposures=FEW)
    for coadd in (
        make_restored_coadd(restored, flags, inputs, make_geometry(), "i"),
        make_reference_coadd(restored.reference, inputs, make_geometry(), "i"),
    ):
        table = coadd.provenance.contributions
        with_inputs = {(int(i), int(j)) for i, j in zip(table["cell_i"], table["cell_j"], strict=True)}
        assert with_inputs == {cell.as_tuple() for cell in coadd.bounds.cell_indices()}
        assert len(with_inputs) == 11
