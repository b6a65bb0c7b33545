# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The footprints that the deblender of the Science Pipelines would find on
deconvolved coadds of crowded fields: on a restored coadd, and on the
deconvolution of the Science Pipelines as it is described.

Run by ``python -m benchmarks.footprints``.  Prints a table.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import scipy.ndimage
import scipy.spatial

from lsst.drp.restore.stack.reference_coadd import reference_coadd

from .command import Command, add_jobs
from .jobs import Job, run_jobs
from .scenes import Scene, crowded_scene
from .tables import REFERENCE, block

THRESHOLD = 5.0
"""Pixels of footprints are above this many sigma of the coadd."""

MIN_AREA = 9
"""Number of pixels of the smallest footprint."""

# Stars of a blend are brighter than this S/N, and closer than this many pixels.
_BLEND_SNR = 20.0
_BLEND_DISTANCE = 10.0
# A pixel of a footprint is false where the truth is below this fraction of the threshold.
_FALSE = 0.5
_TRUTH = "truth"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FootprintResult:
    """Footprints on an image.

    Parameters
    ----------
    number : `int`
        Number of footprints.
    largest : `int`
        Pixels of the largest.
    resolved : `float`
        Fraction of the blends, pairs of stars that share a footprint on the
        reference coadd and have their own on the truth, of which both stars
        have their own here.
    blends : `int`
        Number of these pairs.
    rings : `int`
        Number of footprints that enclose pixels that are not theirs.
    false : `float`
        Fraction of their pixels in which the truth is below half of the
        threshold.
    """

    number: int
    largest: int
    resolved: float
    blends: int
    rings: int
    false: float


def find_footprints(image: np.ndarray, sigma: float) -> np.ndarray:
    """Find footprints as the deblender does.

    Parameters
    ----------
    image : `numpy.ndarray`
        Deconvolved coadd, shape ``(height, width)``; NaN counts as zero.
    sigma : `float`
        Median standard deviation of a pixel of the coadd.

    Returns
    -------
    labels : `numpy.ndarray`
        Number of each pixel's footprint from 1, 0 outside, same shape.
    """
    labels, _ = scipy.ndimage.label(np.nan_to_num(image, nan=0.0) > THRESHOLD * sigma)
    area = np.bincount(labels.ravel())
    area[0] = 0
    kept = area >= MIN_AREA
    return np.where(kept, np.cumsum(kept), 0)[labels]


def measure_footprints(
    labels: np.ndarray, pairs: np.ndarray, stars: np.ndarray, truth: np.ndarray, sigma: float
) -> FootprintResult:
    """Measure the footprints of an image.

    Parameters
    ----------
    labels : `numpy.ndarray`
        From `find_footprints`.
    pairs : `numpy.ndarray`
        Blends: indices of two stars each, shape ``(n, 2)``.
    stars : `numpy.ndarray`
        Pixels of the stars, row and column, shape ``(n, 2)``.
    truth : `numpy.ndarray`
        The sky at the target PSF.
    sigma : `float`
        Median standard deviation of a pixel of the coadd.

    Returns
    -------
    result : `FootprintResult`
        The measurements.
    """
    area = np.bincount(labels.ravel())[1:]
    resolved = _own_footprints(labels, pairs, stars)
    rings = sum(
        bool((scipy.ndimage.binary_fill_holes(labels[part] == n) != (labels[part] == n)).any())
        for n, part in enumerate(scipy.ndimage.find_objects(labels), start=1)
    )
    return FootprintResult(
        number=len(area),
        largest=int(area.max(initial=0)),
        resolved=float(resolved.mean()) if len(resolved) else np.nan,
        blends=len(resolved),
        rings=rings,
        false=float((truth[labels > 0] < _FALSE * THRESHOLD * sigma).mean()) if len(area) else np.nan,
    )


def measure_field(seed: int, size: int) -> dict[str, FootprintResult]:
    """Measure all images of a crowded field.

    Parameters
    ----------
    seed : `int`
        Seed of the field.
    size : `int`
        Height and width, pixels, a multiple of 64.

    Returns
    -------
    results : `dict` [`str`, `FootprintResult`]
        The measurements by image; of the truth at the target PSF, too.
    """
    from .methods import METHODS

    scene = crowded_scene(seed, size)
    coadd = reference_coadd(scene.stack)
    sigma = float(np.sqrt(np.nanmedian(coadd.variance)))
    images = {_TRUTH: scene.truth, REFERENCE: coadd.image}
    for method in ("rubin", "from_coadd", "default"):
        skies = METHODS[method](scene.stack, None)
        # The first is the deconvolved one.
        name = next(iter(skies))
        images[name] = skies[name].image
    labels = {name: find_footprints(image, sigma) for name, image in images.items()}
    stars, pairs = find_blends(scene, labels[REFERENCE], labels[_TRUTH])
    return {name: measure_footprints(one, pairs, stars, scene.truth, sigma) for name, one in labels.items()}


def find_blends(scene: Scene, blended: np.ndarray, apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find pairs of stars that share a footprint on the coadd, and have their
    own on the truth.

    Parameters
    ----------
    scene : `Scene`
        The field.
    blended, apart : `numpy.ndarray`
        Footprints of the reference coadd and of the truth.

    Returns
    -------
    stars : `numpy.ndarray`
        Pixels of the bright stars, row and column, shape ``(n, 2)``.
    pairs : `numpy.ndarray`
        Indices of two stars each, shape ``(m, 2)``.
    """
    height, width = blended.shape
    stars = np.stack([np.rint(scene.y), np.rint(scene.x)], axis=1).astype(int)
    inside = (stars >= 0).all(axis=1) & (stars[:, 0] < height) & (stars[:, 1] < width)
    stars = stars[inside & (scene.snr > _BLEND_SNR)]
    pairs = scipy.spatial.KDTree(stars).query_pairs(_BLEND_DISTANCE, output_type="ndarray")
    shared = blended[tuple(stars[pairs].T)]
    one_footprint = (shared[0] == shared[1]) & (shared[0] > 0)
    return stars, pairs[one_footprint & _own_footprints(apart, pairs, stars)]


def _own_footprints(labels: np.ndarray, pairs: np.ndarray, stars: np.ndarray) -> np.ndarray:
    """Return whether both stars of each pair have their own footprint."""
    first, second = labels[tuple(stars[pairs].T)]
    return (first > 0) & (second > 0) & (first != second)


def format_table(results: list[dict[str, FootprintResult]]) -> str:
    """Format the means over fields.

    Parameters
    ----------
    results : `list` [`dict`]
        Results of `measure_field`.

    Returns
    -------
    table : `str`
        A line for each image.
    """
    names = [field.name for field in dataclasses.fields(FootprintResult)]
    rows = {
        image: [float(np.mean([getattr(one[image], name) for one in results])) for name in names]
        for image in results[0]
    }
    title = f"Footprints of at least {MIN_AREA} pixels above {THRESHOLD:g} sigma of the coadd"
    return "\n".join(block(title, names, rows, ".3g"))


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--seeds", type=int, nargs="+", default=[8101, 8102], help="seeds of the fields")
    parser.add_argument("--size", type=int, default=256, help="height and width, pixels")
    add_jobs(parser)


def _run(options: argparse.Namespace, folder: Path) -> None:
    """Measure all fields and print the table."""
    jobs: list[Job] = [(f"field {seed}", measure_field, (seed, options.size)) for seed in options.seeds]
    done = run_jobs(jobs, options.workers, options.log)
    print(format_table([done[name] for name, *_ in jobs]))


COMMAND = Command(name="footprints", description=__doc__, add_options=_add_options, run=_run)
"""The command line (`Command`)."""

if __name__ == "__main__":
    COMMAND.main()
