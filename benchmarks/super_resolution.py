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
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .fields import FieldOptions
from .jobs import Job, quiet, run_jobs, write_field


def restore_finer(path: Path, factor: int) -> dict[str, float]:
    """Restore a field on smaller pixels and measure it.

    Parameters
    ----------
    path : `pathlib.Path`
        File from `write_field`.
    factor : `int`
        Pixels of the restored coadd along each axis in one of the patch.

    Returns
    -------
    measurements : `dict` [`str`, `float`]
        Fractions of the pairs that come apart, of stars closer and not closer
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

    quiet()
    field, truth = pickle.loads(path.read_bytes())
    start = time.process_time()
    result = default_task().restore(dataclasses.replace(field.stack, oversampling=factor), n_threads=1)
    seconds = time.process_time() - start
    image, catalog = result.restoration.image, field.catalog
    positions = np.stack([catalog["x"], catalog["y"]], axis=1)
    seen = split_pixels(truth.far, factor)
    found = detect(
        image,
        np.full(image.shape, truth.softening / factor**2, np.float32),
        None,
        (positions[~(truth.snr < 2.0)] + 0.5) * factor - 0.5,
        seen,
        round(5 * truth.far.sum() / 512**2),
        1,
    )
    groups = [np.flatnonzero(catalog["group"] == g) for g in np.unique(catalog["group"]) if g >= 0]
    pairs = np.array([group for group in groups if len(group) == 2 and truth.usable[group].all()])
    apart = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1) / field.seeing
    split = pairs_split(positions[pairs], (found.positions + 0.5) / factor - 0.5)
    stars = np.flatnonzero((catalog["role"] == "point") & truth.usable & (truth.snr > 50))
    widths = [star_fwhm(image, *((positions[n] + 0.5) * factor - 0.5)) / factor for n in stars]
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


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark.

    Parameters
    ----------
    arguments : `list` [`str`], optional
        Arguments of the command line.

    Returns
    -------
    status : `int`
        Exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.super_resolution", description=__doc__)
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[911, 912, 913], help="seeds of the fields")
    add("--factors", type=int, nargs="+", default=[1, 2], help="pixels along each axis in one of the patch")
    add("--size", type=int, default=320, help="height and width of a field, pixels")
    add("--visits", type=int, default=8, help="number of exposures")
    add("--workers", type=int, default=2, help="processes side by side, one thread each")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        paths = {seed: Path(folder) / f"{seed}.pickle" for seed in options.seeds}
        fields: list[Job] = [
            (
                f"field {seed}",
                write_field,
                (FieldOptions(seed=seed, size=options.size, visits=options.visits), path),
            )
            for seed, path in paths.items()
        ]
        run_jobs(fields, options.workers, log)
        jobs: list[Job] = [
            (f"factor {factor}, seed {seed}", restore_finer, (path, factor))
            for factor in options.factors
            for seed, path in paths.items()
        ]
        done: dict[str, dict[str, Any]] = run_jobs(jobs, options.workers, log)
    names = list(next(iter(done.values())))
    print(f"{'':<24}" + "".join(name.rjust(13) for name in names))
    for name, row in done.items():
        print(f"{name:<24}" + "".join(f"{row[key]:13.3f}" for key in names))
    for factor in options.factors:
        rows = [done[f"factor {factor}, seed {seed}"] for seed in options.seeds]
        medians = [float(np.median([row[key] for row in rows])) for key in names]
        print(f"{f'factor {factor}, median':<24}" + "".join(f"{value:13.3f}" for value in medians))
    return 0


if __name__ == "__main__":
    sys.exit(main())
