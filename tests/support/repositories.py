# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Small repositories with simulated exposures."""

from __future__ import annotations

from pathlib import Path

from lsst.daf.butler import Butler
from lsst.drp.restore.repository.register_tract import register_tract
from lsst.drp.restore.simulation.config import SimulationConfig
from lsst.drp.restore.simulation.simulate import simulate_exposures


def simulate_repository(
    root: Path,
    *simulations: SimulationConfig,
    patch_size: int,
    cell_size: int,
    patch_border: int = 15,
    n_patches: tuple[int, int] = (1, 1),
    dec: float = 2.0,
) -> Path:
    """Make a repository with a tract of the skymap ``test``, and simulate
    exposures of its patches.

    Parameters
    ----------
    root : `pathlib.Path`
        Where to make it.
    *simulations : `SimulationConfig`
        What to simulate.
    patch_size, patch_border : `int`
        Width of a patch without its border, and width of the border, pixels.
    cell_size : `int`
        Width of a cell, pixels.
    n_patches : `tuple` [`int`, `int`], optional
        Columns and rows of patches.
    dec : `float`, optional
        Declination of the tract, degrees.

    Returns
    -------
    root : `pathlib.Path`
        The same.
    """
    Butler.makeRepo(root)
    with Butler.from_config(str(root), writeable=True) as butler:
        register_tract(
            butler,
            "test",
            ra=150.0,
            dec=dec,
            pixel_scale=0.2,
            patch_size=patch_size,
            patch_border=patch_border,
            cell_size=cell_size,
            n_patches=n_patches,
        )
        for config in simulations:
            simulate_exposures(butler, config)
    return root
