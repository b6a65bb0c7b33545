# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Provenance of a coadd: its visit images and their contributions to each
cell.
"""

from __future__ import annotations

__all__ = ("make_provenance",)

from collections.abc import Sequence

import numpy as np

from lsst.images.cells import CoaddProvenance

from ..warping.stack_input import StackInput


def make_provenance(inputs: Sequence[StackInput]) -> CoaddProvenance | None:
    """Tabulate the visit images of a coadd and their contributions.

    Parameters
    ----------
    inputs : `~collections.abc.Sequence` [`StackInput`]
        The visit images.

    Returns
    -------
    provenance : `lsst.images.cells.CoaddProvenance` or `None`
        One row per visit image, and one per visit image and cell in which it
        has good pixels.  Several instruments or filters become one
        comma-separated name.  `None` without visit images, as for a coadd whose
        visit images are not known.
    """
    if not inputs:
        return None
    table = CoaddProvenance.make_empty_input_table(len(inputs))
    for row, visit_image in zip(table, inputs, strict=True):
        for name in table.colnames:
            row[name] = getattr(visit_image, name)
    # lsst-images 30.2026.4300 can neither write nor read a table with more
    # than one name in these columns (as of HSC's two i filters).
    common = {name: ",".join(sorted(set(table[name]))) for name in ("instrument", "physical_filter")}
    for name, value in common.items():
        table[name] = np.full(len(table), value, dtype=object)

    contributing = [np.argwhere(visit_image.unmasked_fraction > 0) for visit_image in inputs]
    contributions = CoaddProvenance.make_empty_contribution_table(sum(map(len, contributing)))
    start = 0
    for visit_image, cells in zip(inputs, contributing, strict=True):
        rows = slice(start, start + len(cells))
        i, j = cells.T
        contributions["cell_i"][rows], contributions["cell_j"][rows] = i, j
        contributions["instrument"][rows] = common["instrument"]
        for name in ("visit", "detector"):
            contributions[name][rows] = getattr(visit_image, name)
        for name in ("overlaps_center", "overlap_fraction", "unmasked_fraction", "weight"):
            contributions[name][rows] = getattr(visit_image, name)[i, j]
        for axes in ("xx", "yy", "xy"):
            contributions[f"psf_shape_{axes}"][rows] = getattr(visit_image, f"psf_{axes}")[i, j]
        contributions["psf_shape_flag"][rows] = ~np.isfinite(visit_image.psf_xx[i, j])
        start = rows.stop
    return CoaddProvenance(inputs=table, contributions=contributions)
