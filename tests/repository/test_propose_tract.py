# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Grids of patches that contain given exposures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from exposure_files import SHAPE, Exposures
from frames import write_small_frame

from lsst.daf.butler import Butler
from lsst.drp.restore.repository.manifest import ManifestError
from lsst.drp.restore.repository.propose_tract import propose_tract
from lsst.drp.restore.repository.register_tract import register_tract
from lsst.drp.restore.warping.patch_geometry import PatchGeometry


def contains(butler: Butler, proposal: object, files: list[Path]) -> bool:
    """Register a proposal; return whether it contains all pixels of files."""
    geometry = register_tract(butler, "s", **vars(proposal))
    patches = [PatchGeometry.from_tract(geometry, n) for n in range(int(np.prod(proposal.n_patches)))]
    inside = []
    for file in files:
        wcs = WCS(fits.getheader(file))
        y, x = (axis.ravel() for axis in np.indices(SHAPE))
        where = patches[0].sky_projection.sky_to_pixel(wcs.pixel_to_world(x, y))
        covered = [patch.patch.inner_bbox.contains(x=where.x, y=where.y) for patch in patches]
        inside.append(np.any(covered, axis=0).all())
    return all(inside)


def test_small_exposures_are_one_patch(butler: Butler, tmp_path: Path) -> None:
    files = [write_small_frame(tmp_path / f"{n}.fits", 10.0 * n) for n in range(3)]
    proposal = propose_tract(files)
    assert proposal.n_patches == (1, 1) and proposal.cell_size == 50 and proposal.patch_border == 50
    assert (proposal.patch_size + 2 * proposal.patch_border) % proposal.cell_size == 0
    assert 84 <= proposal.patch_size < 84 + 50
    assert proposal.pixel_scale == pytest.approx(7e-5 * 3600, rel=1e-3)
    assert contains(butler, proposal, files)


def test_sizes_that_are_given_count(butler: Butler, tmp_path: Path) -> None:
    files = [write_small_frame(tmp_path / f"{n}.fits", 150.0 * n) for n in range(3)]
    proposal = propose_tract([tmp_path], patch_size=60, patch_border=20, cell_size=25, pixel_scale=0.3)
    assert (proposal.patch_size, proposal.patch_border, proposal.cell_size) == (60, 20, 25)
    # 364 pixels of 0.25 arcsec are 304 of 0.3.
    assert proposal.n_patches == (6, 1) and proposal.pixel_scale == 0.3
    assert contains(butler, proposal, files)


def test_wide_exposures_are_many_patches(tmp_path: Path) -> None:
    for n in range(3):
        write_small_frame(tmp_path / f"{n}.fits", 600.0 * n)
    proposal = propose_tract([tmp_path])
    assert (proposal.patch_size, proposal.n_patches) == (500, (3, 1))


def test_manifest(exposures: Exposures) -> None:
    exposures.add(1)
    assert propose_tract(exposures.manifest()).n_patches == (1, 1)


def test_exposures_without_a_wcs(tmp_path: Path) -> None:
    fits.writeto(tmp_path / "a.fits", np.ones(SHAPE))
    with pytest.raises(ManifestError, match="a.fits: no celestial WCS"):
        propose_tract([tmp_path / "a.fits"])
