# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Simulated exposures of the tract ``field``, which has one patch."""

from __future__ import annotations

from pathlib import Path

import astropy.table
import numpy as np

from lsst.daf.butler import Butler
from lsst.drp.restore.repository.register_tract import register_tract
from lsst.drp.restore.simulation.simulate import SimulationConfig, SimulationSummary, simulate_exposures
from lsst.images import VisitImage

# Nothing on the detector but the sources.
CLEAN = {"cosmic_rays": 0.0, "hot_pixels": 0.0, "bad_columns": 0.0, "sky_residual": 0.0, "noise": False}
ONE_DETECTOR = {"detectors": (1, 1), "detector_size": 260}
NO_SOURCES = astropy.table.Table({"ra": [0.0], "dec": [0.0], "flux_nJy": [0.0]})[:0]


def make_repository(root: Path) -> Path:
    """Make a repository with a tract of one patch of 200x200 pixels."""
    Butler.makeRepo(str(root))
    with Butler.from_config(str(root), writeable=True) as butler:
        register_tract(
            butler,
            "field",
            ra=150.0,
            dec=2.0,
            pixel_scale=0.2,
            patch_size=150,
            patch_border=25,
            cell_size=50,
            n_patches=(1, 1),
        )
    return root


def simulate(butler: Butler, collection: str = "sim", **options: object) -> SimulationSummary:
    """Simulate one visit, or what the options say."""
    options = {"skymap": "field", "n_visits": 1, "collection": collection, **options}
    return simulate_exposures(butler, SimulationConfig(**options))


def read(butler: Butler, visit: int, detector: int, collection: str = "sim") -> VisitImage:
    """Read a visit image."""
    return butler.get(
        "visit_image", instrument="SimCam", visit=visit, detector=detector, collections=collection
    )


def read_all(butler: Butler, collection: str = "sim") -> list[VisitImage]:
    """Read all visit images, by visit and detector."""
    refs = butler.query_datasets("visit_image", collections=collection)
    return [butler.get(ref) for ref in sorted(refs, key=lambda ref: ref.dataId.required_values)]


def same_pixels(a: VisitImage, b: VisitImage) -> bool:
    """Compare all planes of two images."""
    return (
        np.array_equal(a.image.array, b.image.array)
        and np.array_equal(a.variance.array, b.variance.array)
        and np.array_equal(a.mask.array, b.mask.array)
    )
