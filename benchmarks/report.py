# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The report of the benchmark: numbers to text."""

from __future__ import annotations

__all__ = ("combine", "format_report", "summarize_draws")

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .hallucinations import FALSE_BINS
from .jobs import Draw
from .measure import GALAXY_APERTURE
from .methods import IMAGEMM_STEPS
from .peers import RUBIN_STEPS, SGP_STEPS
from .scenes import CROWDED_BINS
from .shapes import COMMON_FWHM
from .starred_peer import STARRED_FWHM, STARRED_LAMBDAS
from .tables import DEEP_SIZE, DEEP_VISITS, IMAGES, REFERENCE, SNR_LABELS, block, value_at
from .targets import format_targets
from .truth import APERTURE

_PLURAL = {"point": "points", "galaxy": "galaxies"}


def combine(by_seed: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Take the median of each number over the seeds.

    Parameters
    ----------
    by_seed : `~collections.abc.Mapping`
        Results of `measure_image` by seed.

    Returns
    -------
    medians : `dict` [`str`, `object`]
        The same with one number each; of text the most common one; without
        the lists by source.
    """
    every = list(by_seed.values())
    medians: dict[str, Any] = {}
    for name, value in every[0].items():
        values = [one[name] for one in every]
        if isinstance(value, Mapping):
            if name not in ("points", "galaxies"):
                medians[name] = combine({str(k): one for k, one in enumerate(values)})
        elif isinstance(value, str):
            medians[name] = statistics.mode(values)
        else:
            finite = [v for v in values if np.isfinite(v)]
            medians[name] = float(np.median(finite)) if finite else math.nan
    return medians


def summarize_draws(draws: Sequence[Draw]) -> dict[str, dict[str, float]]:
    """Compare stated uncertainties with the scatter over draws of the noise.

    Parameters
    ----------
    draws : `~collections.abc.Sequence` [`Draw`]
        The draws, of the same sky.

    Returns
    -------
    ratios : `dict` [`str`, `dict`]
        By image: root of the mean stated variance over the mean variance over
        the draws, of the pixels of each of `Truth.regions`; ``flux``, median
        over the isolated points of the same ratio of PSF fluxes; ``draws``,
        their number.
    """
    summary: dict[str, dict[str, float]] = {}
    regions = {
        name: np.logical_and.reduce([draw.regions[name] for draw in draws]) for name in draws[0].regions
    }
    for name in draws[0].images:
        summary[name] = dict.fromkeys((*regions, "flux"), math.nan) | {"draws": len(draws)}
        if draws[0].variances[name] is None:
            continue
        found = np.var([draw.images[name] for draw in draws], axis=0, ddof=1)
        stated = np.mean([draw.variances[name] for draw in draws], axis=0)
        valid = np.isfinite(found) & np.isfinite(stated)
        for label, pixels in regions.items():
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = stated[pixels & valid].mean() / found[pixels & valid].mean()
            summary[name][label] = float(np.sqrt(ratio))
        fluxes = np.array([draw.fluxes[name] for draw in draws])
        with np.errstate(invalid="ignore", divide="ignore"):
            by_point = np.sqrt((fluxes[..., 1] ** 2).mean(axis=0) / fluxes[..., 0].var(axis=0, ddof=1))
        summary[name]["flux"] = float(np.nanmedian(by_point))
    return summary


def format_report(results: Mapping[str, Any]) -> str:
    """Write the report.

    Parameters
    ----------
    results : `~collections.abc.Mapping`
        ``options``; ``medians``, ``costs`` and ``notes`` by image; ``truth``;
        ``wide`` and ``deep`` by image, ``counts``; ``scenes`` by scene and
        image; ``hst`` by cutout and image; ``decam`` by half and method;
        ``draws``; ``targets``; ``skipped``: fields and methods left out, with the reasons.

    Returns
    -------
    text : `str`
        Several blocks of lines.
    """
    options, medians = results["options"], results["medians"]
    seeds = ", ".join(map(str, options["seeds"]))
    lines = [
        f"Seeds {seeds}: {options['visits']} exposures of {options['size']}x{options['size']} pixels of 0.2 "
        "arcsec; medians over the seeds.",
        "",
        *_fluxes(medians),
        *_stars(medians),
        *_detection(medians),
        *_fidelity(medians),
        *_morphology("Galaxies and stars of the designed fields", medians),
        *_shapes(medians),
        *_sky(medians, results["truth"]),
        *_cost(results["costs"], results["notes"], options),
    ]
    if results["wide"]:
        counts = ", ".join(f"{k} {v:.1f}" for k, v in results["counts"].items())
        title = f"Wide field, one seed, random sky (sources per square arcmin: {counts})"
        lines += _random_sky(title, results["wide"])
    if results["deep"]:
        title = f"Deep field: {DEEP_VISITS} exposures of {DEEP_SIZE}x{DEEP_SIZE} pixels, random sky"
        lines += _random_sky(title, results["deep"])
    lines += _scenes(results["scenes"])
    if results["hst"]:
        lines += _images_by_case(
            "HSC i coadds, restored from the coadd alone: correlation with HST (F814W) at the target PSF",
            results["hst"],
            {f"cutout {name or 0}": (name, ()) for name in results["hst"]},
            ".4f",
        )
    lines += _uncertainty(medians, results["draws"], options)
    lines += _decam(results["decam"])
    lines += [f"Skipped: {reason}" for reason in results["skipped"]]
    return "\n".join([*lines, *format_targets(results["targets"])])


def _named(images: Mapping[str, Any]) -> list[str]:
    """Return the images that there are, in order."""
    return [name for name in IMAGES if name in images]


def _columns(images: Mapping[str, Any], *keys: str) -> dict[str, list[float]]:
    """Look up numbers of each image."""
    return {name: [value_at(images, name, key) for key in keys] for name in _named(images)}


def _fluxes(medians: Mapping[str, Any]) -> list[str]:
    """Fluxes of isolated sources by S/N."""
    lines: list[str] = []
    names, lows = _named(medians), list(SNR_LABELS)
    for kind, how in (
        ("point", f"PSF fits where a well sampled PSF is stated, else apertures of {APERTURE:g} px"),
        ("galaxy", f"apertures of {GALAXY_APERTURE:g} px against the truth at the stated PSF"),
    ):
        scale = {
            name: [
                100 * medians[name][f"{kind} {low:.0f}"][key] for key in ("bias", "scatter") for low in lows
            ]
            for name in names
        }
        lines += block(
            f"Fluxes of isolated {_PLURAL[kind]} by coadd S/N ({how}):\n"
            "median error and robust scatter, per cent",
            [f"{key} {SNR_LABELS[low]}" for key in ("bias%", "scat%") for low in lows],
            scale,
            ".2f",
        )
        base = medians[REFERENCE]
        relative = {}
        for name in names:
            bins = [(medians[name][f"{kind} {low:.0f}"], base[f"{kind} {low:.0f}"]) for low in lows]
            relative[name] = [
                one["relative"] if kind == "point" else one["scatter"] / reference["scatter"]
                for one, reference in bins
            ] + [one["n"] for one, _ in bins]
        of = "optimal PSF photometry on" if kind == "point" else "the same apertures on"
        lines += block(
            f"... scatter relative to {of} the reference coadd; number of sources",
            [f"rel {SNR_LABELS[low]}" for low in lows] + [f"N {SNR_LABELS[low]}" for low in lows],
            relative,
            ".3g",
        )
    return lines


def _stars(medians: Mapping[str, Any]) -> list[str]:
    """Width and enclosed flux of stars, pulls of points."""
    return block(
        "Stars of S/N > 50: FWHM (pixels), enclosed flux in 5 and 10 px; pulls of points of S/N > 5",
        ["FWHM", "/coadd", "stated", "/stated", "f5/stated", "f10/stated", "pull med", "pull wid"],
        _columns(
            medians,
            *("fwhm", "fwhm / reference", "stated fwhm", "fwhm / stated"),
            *("flux in 5 / stated", "flux in 10 / stated", "pull median", "pull width"),
        ),
        ".3f",
    )


def _detection(medians: Mapping[str, Any]) -> list[str]:
    """Completeness and pairs."""
    keys = ("filter", "false", *(f"completeness {label}" for label in ("3-5", "5-10", "10-20")))
    keys += ("pair filter", "pairs")
    return block(
        "Detection by sep at equal false rate (5 on 512x512 pixels), each image with the best of plain and "
        "matched filter,\nminimal area 1 and 3, the variance it states and a flat one",
        ("filter", "false", "S/N 3-5", "S/N 5-10", "S/N 10-20", "for pairs", "split"),
        {name: [medians[name][key] for key in keys] for name in _named(medians)},
        ".3f",
    )


def _fidelity(medians: Mapping[str, Any]) -> list[str]:
    """PSNR and SSIM of the designed fields."""
    keys = (
        *("psnr", "ssim", "common psnr", "common ssim", "exact psnr", "target psnr", "target ssim"),
        *("cutout common psnr", "cutout target psnr"),
    )
    header = ("PSNR", "SSIM", "PSNR@2.5", "SSIM@2.5", "exact@2.5", "PSNR@T", "SSIM@T", "cut @2.5", "cut @T")
    return block(
        "arcsinh(image / coadd's sky sigma): PSNR (dB) and SSIM against the pixel truth; against it "
        f"convolved with a\nGaussian of {COMMON_FWHM:g} px (@2.5), against the truth at a PSF of exactly "
        "that (exact) and at the target PSF (@T), also on\nSTARRED's cutout. Sharper images are convolved "
        "to it, others are compared as they are.",
        header,
        _columns(medians, *keys),
        ".3f",
    )


def _morphology(title: str, images: Mapping[str, Any]) -> list[str]:
    """Errors, peaks and splits."""
    rows = _columns(
        images, "galaxy error", "peaks", "true peaks", "n galaxies", "galaxies split", "stars split"
    )
    return block(
        f"{title}, S/N > 20: error norm at {COMMON_FWHM:g} px, peaks per galaxy, split by the source list",
        ("error", "peaks", "in truth", "N", "gal. split", "stars split"),
        rows,
        ".3f",
    )


def _shapes(medians: Mapping[str, Any]) -> list[str]:
    """Ellipticity and size by S/N."""
    keys = [(f"shape {low:.0f}", key) for key in ("ellipticity", "size", "n") for low in SNR_LABELS]
    return block(
        "Isolated galaxies by galsim.hsm against the truth at the same PSF: median error of the distortion, "
        "median relative error of the size",
        [f"{label} {SNR_LABELS[low]}" for label in ("e", "size", "N") for low in SNR_LABELS],
        {name: [value_at(medians, name, *key) for key in keys] for name in _named(medians)},
        ".3f",
    )


def _sky(medians: Mapping[str, Any], truth: Mapping[str, Any]) -> list[str]:
    """Sharpness, noise and empty apertures."""
    keys = ("S_F", "sigma_sky", "empty mean", "empty scatter", "empty mean / scatter", "empty n")
    return block(
        f"Sky: sharpness S_F, noise (nJy), flux in empty apertures of {APERTURE:g} px (nJy)",
        ("S_F", "sigma_sky", "mean", "scatter", "mean/scat", "N"),
        _columns(medians, *keys) | {name: [value_at(truth, name, key) for key in keys] for name in truth},
        ".4g",
    )


def _cost(costs: Mapping[str, Any], notes: Mapping[str, str], options: Mapping[str, Any]) -> list[str]:
    """Time and memory, and the methods that were run."""
    lines = block(
        "Cost: wall and CPU time (s) and peak memory (GB) of a process with one thread",
        ("wall", "CPU", "memory"),
        {name: costs[name] for name in _named(costs)},
        ".2f",
    )
    scales, finest = STARRED_LAMBDAS
    return [
        *lines,
        *(f"{name}: {note}" for name, note in notes.items()),
        f"STARRED: points at the narrow peaks of the coadd, Gaussian of {STARRED_FWHM:g} px, lambda_scales "
        f"{scales:g}, lambda_hf {finest:g}, a cutout of {options['cutout']}x{options['cutout']} pixels; "
        f"ImageMM: {IMAGEMM_STEPS} steps; SGP: {SGP_STEPS};\nRubin deconvolution: {RUBIN_STEPS} projected "
        "gradient steps without weights, one PSF.",
        "",
    ]


def _random_sky(title: str, images: Mapping[str, Any]) -> list[str]:
    """Fidelity, sky and morphology on a random sky."""
    keys = ("common psnr", "exact psnr", "target psnr", "target ssim", "S_F", "sigma_sky")
    rows = {
        name: [value_at(images, name, key) for key in keys]
        + [value_at(images, name, key) / value_at(images, REFERENCE, key) for key in ("S_F", "sigma_sky")]
        for name in [*_named(images), *(name for name in images if name not in IMAGES)]
    }
    header = ("PSNR@2.5", "exact@2.5", "PSNR@T", "SSIM@T", "S_F", "sigma_sky", "S_F/coadd", "sigma/coadd")
    return [*block(title, header, rows, ".4g"), *_morphology("... its isolated galaxies and stars", images)]


def _images_by_case(
    title: str, results: Mapping[str, Any], columns: Mapping[str, tuple[str, tuple[str, ...]]], form: str
) -> list[str]:
    """Format a table of images by columns, each of a case and keys."""
    names = _named({name: None for case in results.values() for name in case})
    rows = {name: [value_at(results[case], name, *keys) for case, keys in columns.values()] for name in names}
    return block(title, list(columns), rows, form)


def _scenes(scenes: Mapping[str, Any]) -> list[str]:
    """Fields made of given images."""
    lines: list[str] = []
    real = [scene for scene in scenes if scene.startswith(("JWST", "COSMOS"))]
    if real:
        lines += _images_by_case(
            "Real morphologies, 16 exposures: arcsinh PSNR (dB) at the target PSF and at "
            f"{COMMON_FWHM:g} px, SSIM at the target PSF",
            scenes,
            {
                f"{label} {scene}": (scene, (key,))
                for label, key in (("@T", "target psnr"), ("@2.5", "common psnr"), ("SSIM", "target ssim"))
                for scene in real
            },
            ".3f",
        )
    if "crowded" in scenes:
        keys = {"PSNR@T": "target psnr", "PSNR@2.5": "common psnr", "false share": "false share"}
        for low, high in CROWDED_BINS:
            keys[f"S/N {low:.0f}-{high:.0f}" if high < math.inf else f"S/N >{low:.0f}"] = f"found {low:.0f}"
        keys |= {"bias": "bias", "scatter": "scatter"}
        lines += _images_by_case(
            "Crowded field, 8000 stars on 512x512 pixels: peaks of S/N > 10 that are no star (within 1 px "
            "and a factor of 2),\nstars found, fluxes of stars of S/N > 100",
            scenes,
            {label: ("crowded", (key,)) for label, key in keys.items()},
            ".3f",
        )
    keys = {f"false {low:.0f}": f"S/N {low:.0f}" for low, _ in FALSE_BINS}
    keys |= {"denied": "denied%", "deepest": "deepest"}
    for scene in scenes:
        lines += _images_by_case(
            f"Hallucinations, {scene}: false sources on 512x512 pixels by the least S/N that they claim;\n"
            "flux that the exposures contradict: pixels with a residual point flux below -3 sigma (noise: "
            "0.13 per cent), the lowest",
            scenes,
            {label: (scene, (key,)) for key, label in keys.items()},
            ".3g",
        )
    return lines


def _uncertainty(
    medians: Mapping[str, Any], draws: Mapping[str, Any], options: Mapping[str, Any]
) -> list[str]:
    """Stated standard deviations."""
    regions = ("empty", "points", "galaxies")
    lines = block(
        "Stated sigma of pixels over their error (images at the target PSF)",
        regions,
        {
            name: row
            for name, row in _columns(medians, *(f"sigma / error, {region}" for region in regions)).items()
            if not all(map(math.isnan, row))
        },
        ".3f",
    )
    if draws:
        number = int(next(iter(draws.values()))["draws"])
        lines += block(
            f"Stated sigma over scatter of {number} draws of the noise, {options['draw_visits']} exposures "
            f"of {options['draw_size']}x{options['draw_size']} pixels, each restored from scratch",
            (*regions, "PSF flux"),
            {name: [one[k] for k in (*regions, "flux")] for name, one in draws.items()},
            ".3f",
        )
    return lines


def _decam(decam: Mapping[str, Any]) -> list[str]:
    """Predictions of real exposures."""
    if not decam:
        return []
    return _images_by_case(
        "DECam, five exposures predict five others: median chi2, and mean of min(chi2, 25) on sources",
        decam,
        {f"{half}, {key}": (half, (key,)) for half in decam for key in ("median", "source")},
        ".4f",
    )
