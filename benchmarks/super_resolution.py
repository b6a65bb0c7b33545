# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Compare restored coadds on the patch's pixels with those on smaller ones.

Run by ``python -m benchmarks.super_resolution``.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from .command import Command, add_fields, add_jobs
from .jobs import Job, run_jobs, write_fields
from .tables import block


def restore_finer(path: Path, oversampling: int) -> dict[str, float]:
    """Restore a field on smaller pixels and measure it.

    Parameters
    ----------
    path : `pathlib.Path`
        File from `write_fields`.
    oversampling : `int`
        Pixels of the restored coadd along each axis in one of the patch.

    Returns
    -------
    measurements : `dict` [`str`, `float`]
        Fractions of the pairs that are resolved, of stars closer and not closer
        than 0.75 of the seeing's FWHM; the FWHM of stars, pixels of the patch;
        median flux errors of points on the measurable image, by S/N; CPU time
        (s) and peak memory (GB).
    """
    import pickle
    import time

    from lsst.drp.restore.outputs.image_quality import star_fwhm
    from lsst.drp.restore.stack.oversampling import split_pixels
    from lsst.utils.usage import get_peak_mem_usage

    from .detection import detect, pairs_split
    from .measure import measure_points
    from .methods import default_task
    from .robust import median
    from .sky_image import SkyImage

    field, truth = pickle.loads(path.read_bytes())
    start = time.process_time()
    result = default_task().restore(dataclasses.replace(field.stack, oversampling=oversampling), n_threads=1)
    seconds = time.process_time() - start
    image, catalog = result.restoration.image, field.catalog
    positions = np.stack([catalog["x"], catalog["y"]], axis=1)
    seen = split_pixels(truth.far, oversampling)
    found = detect(
        image,
        np.full(image.shape, truth.softening / oversampling**2, np.float32),
        None,
        (positions[~(truth.snr < 2.0)] + 0.5) * oversampling - 0.5,
        seen,
        round(5 * truth.far.sum() / 512**2),
        1,
    )
    groups = [np.flatnonzero(catalog["group"] == g) for g in np.unique(catalog["group"]) if g >= 0]
    pairs = np.array([group for group in groups if len(group) == 2 and truth.usable[group].all()])
    apart = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1) / field.seeing
    split = pairs_split(positions[pairs], (found.positions + 0.5) / oversampling - 0.5)
    stars = np.flatnonzero((catalog["role"] == "point") & truth.usable & (truth.snr > 50))
    widths = [star_fwhm(image, *((positions[n] + 0.5) * oversampling - 0.5)) / oversampling for n in stars]
    sky = SkyImage(
        image=result.measurable.image, variance=result.measurable.variance, kernels=result.measurable.kernels
    )
    points = measure_points(truth, sky)
    error = points.flux / points.true - 1
    return {
        "close pairs": float(split[apart < 0.75].mean()),
        "wide pairs": float(split[apart >= 0.75].mean()),
        "FWHM": median(np.array(widths)),
        "bias% 10-20": 100 * median(error[(points.snr >= 10) & (points.snr < 20)]),
        "bias% 20-50": 100 * median(error[(points.snr >= 20) & (points.snr < 50)]),
        "bias% >50": 100 * median(error[points.snr >= 50]),
        "CPU s": seconds,
        "memory GB": float(get_peak_mem_usage()[0].to_value("GB")),
    }


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    add_fields(parser, seeds=(911, 912, 913), size=320, visits=8)
    parser.add_argument("--oversampling", type=int, nargs="+", default=[1, 2], help="values to compare")
    add_jobs(parser)


def _run(options: argparse.Namespace, folder: Path) -> None:
    """Restore all fields on pixels of all sizes and print the table."""
    paths = write_fields(options, folder)
    jobs: list[Job] = [
        (f"oversampling {oversampling}, seed {seed}", restore_finer, (path, oversampling))
        for oversampling in options.oversampling
        for seed, path in paths.items()
    ]
    done: dict[str, dict[str, float]] = run_jobs(jobs, options.workers, options.log)
    names = list(next(iter(done.values())))
    rows = {name: [done[name][key] for key in names] for name, *_ in jobs}
    for oversampling in options.oversampling:
        by_seed = [rows[f"oversampling {oversampling}, seed {seed}"] for seed in options.seeds]
        rows[f"oversampling {oversampling}, median"] = np.median(by_seed, axis=0).tolist()
    title = f"{options.visits} exposures of {options.size}x{options.size} pixels"
    print("\n".join(block(title, names, rows, ".3f")))


COMMAND = Command(name="super_resolution", description=__doc__, add_options=_add_options, run=_run)
"""The command line (`Command`)."""

if __name__ == "__main__":
    COMMAND.main()
