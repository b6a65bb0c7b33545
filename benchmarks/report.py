# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The table of the benchmark: numbers to text."""

from __future__ import annotations

__all__ = ("IMAGES", "combine", "format_report", "summarize_draws", "targets")

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .fields import SNR_BINS
from .jobs import Draw
from .measure import COMMON_FWHM, GALAXY_APERTURE
from .methods import DECONVOLUTION_STEPS, IMAGEMM_STEPS, STARRED_FWHM
from .truth import APERTURE

IMAGES = (
    *("naive mean", "reference coadd", "deconvolved coadd", "STARRED", "network as published", "ImageMM"),
    *("restored_coadd, fast", "restored_coadd", "restored_coadd_measurable"),
)
"""The images in the order of the table (`tuple`)."""

_REFERENCE, _OURS = "reference coadd", IMAGES[-3:]
_, _LATENT, _MEASURABLE = _OURS
_LABELS = {low: f">{low:.0f}" if math.isinf(high) else f"{low:.0f}-{high:.0f}" for low, high in SNR_BINS}
_WIDTH = 26
# Noise that a detection is told: what the image states, or one number.
_PAIR_FILTERS = {
    "stated sigma": ("plain 1", "plain 3", "matched 1", "matched 3"),
    "flat sigma": ("plain 1 flat", "plain 3 flat", "matched 1 flat", "matched 3 flat"),
}
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
        By image: ``empty`` and ``source``, root of the mean stated variance
        over the mean variance over the draws, of the pixels in empty sky and
        on sources; ``flux``, median over the isolated points of the same
        ratio of PSF fluxes; ``draws``, their number.
    """
    summary: dict[str, dict[str, float]] = {}
    empty = np.logical_and.reduce([draw.empty for draw in draws])
    source = np.logical_and.reduce([draw.source for draw in draws])
    for name in draws[0].images:
        if draws[0].variances[name] is None:
            summary[name] = {"empty": math.nan, "source": math.nan, "flux": math.nan}
            continue
        found = np.var([draw.images[name] for draw in draws], axis=0, ddof=1)
        stated = np.mean([draw.variances[name] for draw in draws], axis=0)
        valid = np.isfinite(found) & np.isfinite(stated)
        ratios = {
            label: float(np.sqrt(stated[pixels & valid].mean() / found[pixels & valid].mean()))
            for label, pixels in (("empty", empty), ("source", source))
        }
        fluxes = np.array([draw.fluxes[name] for draw in draws])
        with np.errstate(invalid="ignore"):
            by_point = np.sqrt((fluxes[..., 1] ** 2).mean(axis=0) / fluxes[..., 0].var(axis=0, ddof=1))
        summary[name] = ratios | {"flux": float(np.nanmedian(by_point))}
    for one in summary.values():
        one["draws"] = len(draws)
    return summary


def targets(
    medians: Mapping[str, Mapping[str, Any]],
    wide: Mapping[str, Mapping[str, float]],
    draws: Mapping[str, Mapping[str, float]],
) -> list[tuple[str, str, float, bool | None]]:
    """Compare the results with the targets of the default configuration.

    Parameters
    ----------
    medians : `~collections.abc.Mapping`
        Medians over the seeds by image.
    wide : `~collections.abc.Mapping`
        Noise and sharpness on the wide field by image.
    draws : `~collections.abc.Mapping`
        Results of `summarize_draws`.

    Returns
    -------
    rows : `list` [`tuple`]
        What is asked for, the limit, the number, and whether it is met
        (`None`: not measured).
    """
    rows: list[tuple[str, str, float, bool | None]] = []

    def add(
        label: str, value: float, low: float = -math.inf, high: float = math.inf, limit: str = ""
    ) -> None:
        limit = limit or (f"{low:g} to {high:g}" if low > -math.inf else f"<= {high:g}")
        rows.append((label, limit, value, None if math.isnan(value) else bool(low <= value <= high)))

    def get(image: str, *names: str) -> float:
        value: Any = medians.get(image, {})
        for name in names:
            value = value.get(name, {}) if isinstance(value, Mapping) else {}
        return math.nan if isinstance(value, Mapping) else float(value)

    for low, limit in zip((50, 20, 10, 5), (0.01, 0.02, 0.05, 0.1), strict=True):
        for kind in ("point", "galaxy"):
            label = f"flux bias, {_PLURAL[kind]}, S/N {_LABELS[low]}"
            add(label, get(_MEASURABLE, f"{kind} {low}", "bias"), -limit, limit)
    for low in (20, 50):
        add(
            f"flux scatter / optimal, points, S/N {_LABELS[low]}",
            get(_MEASURABLE, f"point {low}", "relative"),
            high=1.2,
        )
    add("FWHM / reference coadd, restored_coadd", get(_LATENT, "fwhm / reference"), high=0.6)
    for image in (_MEASURABLE, _LATENT):
        add(f"FWHM / stated, {image}", get(image, "fwhm / stated"), 0.97, 1.03)
        for radius in (5, 10):
            value = get(image, f"flux in {radius} / stated")
            add(f"flux in {radius} px / stated, {image}", value, 0.99, 1.01)
    for image in (_MEASURABLE, _LATENT):
        for label in ("empty", "source"):
            value = draws.get(image, {}).get(label, math.nan)
            add(f"sigma stated / draws, {label}, {image}", value, 0.8, 1.25)
    add("pull width", get(_MEASURABLE, "pull width"), 0.8, 1.3)
    add("empty apertures, mean / scatter", get(_MEASURABLE, "empty mean / scatter"), -0.1, 0.1)
    for label in ("5-10", "10-20"):
        least = get(_REFERENCE, f"completeness {label}")
        name = f"completeness {label} (reference {least:.3f})"
        add(name, get(_MEASURABLE, f"completeness {label}"), least, limit=">= reference")
    for label, filters in _PAIR_FILTERS.items():
        split, own = (
            max(get(image, "detection", name, "pairs") for name in filters) for image in (_REFERENCE, _LATENT)
        )
        label = f"pairs split, restored_coadd, {label} (ref. {split:.3f})"
        add(label, own, max(2 * split, math.ulp(0.0)), limit=">= 2x reference")
    for name in ("psnr", "common psnr"):
        others = [get(image, name) for image in IMAGES if image not in _OURS]
        most = max((value for value in others if not math.isnan(value)), default=math.nan)
        own = max(get(_LATENT, name), get(_MEASURABLE, name))
        add(f"arcsinh {name} (best other {most:.2f})", own, most, limit="> all others")
    if wide:
        reference = wide[_REFERENCE]
        for image in (_LATENT, _MEASURABLE):
            noise = wide[image]["sigma_sky"] / reference["sigma_sky"]
            add(f"sigma_sky / reference, wide, {image}", noise, high=0.29)
            sharp = wide[image]["S_F"] / reference["S_F"]
            add(f"S_F / reference, wide, {image}", sharp, 1.15, limit=">= 1.15")
    return rows


def _row(label: str, values: Sequence[float | str], form: str, width: int = 8) -> str:
    cells = []
    for value in values:
        if isinstance(value, str):
            text = value
        else:
            text = "-" if math.isnan(value) else format(value, form)
        cells.append(text.rjust(width))
    return f"{label:<{_WIDTH}}" + "".join(cells)


def format_report(results: Mapping[str, Any]) -> str:
    """Write the table.

    Parameters
    ----------
    results : `~collections.abc.Mapping`
        ``options``; ``medians``, ``costs`` and ``notes`` by image; ``truth``; ``wide``;
        ``draws``; ``targets``; ``held_out``: what the benchmark on real
        exposures printed.

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
    ]
    names = [name for name in IMAGES if name in medians]

    def block(
        title: str, header: Sequence[str], rows: Mapping[str, Sequence[float | str]], form: str
    ) -> None:
        width = max(9, *(len(text) + 2 for text in header))
        lines.extend([title, _row("", header, "", width)])
        lines.extend(_row(name, row, form, width) for name, row in rows.items())
        lines.append("")

    lows = list(_LABELS)
    for kind, how in (
        ("point", f"PSF fits where a well sampled PSF is stated, else apertures of {APERTURE:g} px"),
        ("galaxy", f"apertures of {GALAXY_APERTURE:g} px against the truth at the stated PSF"),
    ):
        measure = f"isolated {_PLURAL[kind]} by coadd S/N ({how})"
        header = [f"{what} {_LABELS[low]}" for what in ("bias%", "scat%") for low in lows]
        scale = {
            name: [
                100 * medians[name][f"{kind} {low:.0f}"][what] for what in ("bias", "scatter") for low in lows
            ]
            for name in names
        }
        block(f"Fluxes of {measure}: median error and robust scatter, per cent", header, scale, ".2f")
        base = medians[_REFERENCE]
        relative = {
            name: [
                medians[name][f"{kind} {low:.0f}"]["relative"]
                if kind == "point"
                else medians[name][f"{kind} {low:.0f}"]["scatter"] / base[f"{kind} {low:.0f}"]["scatter"]
                for low in lows
            ]
            + [medians[name][f"{kind} {low:.0f}"]["n"] for low in lows]
            for name in names
        }
        of = "optimal PSF photometry on" if kind == "point" else "the same apertures on"
        header = [f"rel {_LABELS[low]}" for low in lows] + [f"N {_LABELS[low]}" for low in lows]
        block(f"... scatter relative to {of} the reference coadd; number of sources", header, relative, ".3g")
    keys: tuple[str, ...] = ("fwhm", "fwhm / reference", "stated fwhm", "fwhm / stated")
    keys += ("flux in 5 / stated", "flux in 10 / stated", "pull median", "pull width")
    header = ["FWHM", "/coadd", "stated", "/stated", "f5/stated", "f10/stated", "pull med", "pull wid"]
    block(
        "Stars of S/N > 50: FWHM (pixels), enclosed flux in 5 and 10 px; pulls of points of S/N > 5",
        header,
        {name: [medians[name][key] for key in keys] for name in names},
        ".3f",
    )
    keys = ("filter", "false", *(f"completeness {label}" for label in ("3-5", "5-10", "10-20")))
    keys += ("pair filter", "pairs")
    block(
        "Detection by sep at equal false rate (5 on 512x512 pixels), each image with the best of plain and "
        "matched filter,\nminimal area 1 and 3, the variance it states and a flat one",
        ("filter", "false", "S/N 3-5", "S/N 5-10", "S/N 10-20", "for pairs", "split"),
        {name: [medians[name][key] for key in keys] for name in names},
        ".3f",
    )
    keys = ("psnr", "ssim", "common psnr", "common ssim")
    block(
        "arcsinh(image / coadd's sky sigma): PSNR (dB) and SSIM against the pixel truth and against the "
        f"truth at {COMMON_FWHM:g} px FWHM\n(@G: sharper images are convolved to it, coadds are compared as "
        "they are), and on STARRED's cutout",
        ("PSNR", "SSIM", "PSNR@G", "SSIM@G", "cut PSNR", "cut SSIM", "cut PSNR@G", "cut SSIM@G"),
        {name: [medians[name][key] for key in (*keys, *(f"cutout {k}" for k in keys))] for name in names},
        ".3f",
    )
    keys = ("S_F", "sigma_sky", "empty mean", "empty scatter", "empty mean / scatter", "empty n")
    block(
        f"Sky: sharpness S_F, noise (nJy), flux in empty apertures of {APERTURE:g} px (nJy)",
        ("S_F", "sigma_sky", "mean", "scatter", "mean/scat", "N"),
        {name: [medians[name][key] for key in keys] for name in names}
        | {"truth": [results["truth"][key] for key in keys]},
        ".4g",
    )
    block(
        "Cost: wall and CPU time (s) and peak memory (GB) of a process with one thread",
        ("wall", "CPU", "memory"),
        {name: results["costs"][name] for name in names},
        ".2f",
    )
    for name, note in results["notes"].items():
        lines.append(f"{name}: {note}")
    lines += [
        f"STARRED: no known positions, Gaussian of {STARRED_FWHM:g} px, a cutout of "
        f"{options['cutout']}x{options['cutout']} pixels; ImageMM: {IMAGEMM_STEPS} steps; deconvolved coadd: "
        f"{DECONVOLUTION_STEPS} projected gradient steps.",
        "",
    ]
    if results["wide"]:
        wide = results["wide"]
        counts = ", ".join(f"{k} {v:.1f}" for k, v in wide["counts"].items())
        rows = {
            name: [one["S_F"], one["S_F"] / wide[_REFERENCE]["S_F"], one["sigma_sky"]]
            + [one["sigma_sky"] / wide[_REFERENCE]["sigma_sky"]]
            for name, one in wide.items()
            if name != "counts"
        }
        block(
            f"Wide field, one seed, random sky (sources per square arcmin: {counts})",
            ("S_F", "/coadd", "sigma_sky", "/coadd"),
            rows,
            ".4g",
        )
    if results["draws"]:
        number = int(next(iter(results["draws"].values()))["draws"])
        block(
            f"Stated sigma over scatter of {number} draws of the noise, {options['draw_visits']} exposures "
            f"of {options['draw_size']}x{options['draw_size']} pixels, each restored from scratch",
            ("empty sky", "sources", "PSF flux"),
            {name: [one[k] for k in ("empty", "source", "flux")] for name, one in results["draws"].items()},
            ".3f",
        )
    lines += ["Targets of the default configuration", f"{'target':<58}{'limit':>16}{'measured':>12}  met"]
    for label, limit, value, met in results["targets"]:
        number_text = "-" if math.isnan(value) else f"{value:.4g}"
        lines.append(
            f"{label:<58}{limit:>16}{number_text:>12}  {'-' if met is None else 'yes' if met else 'NO'}"
        )
    lines.append(results["held_out"])
    return "\n".join(lines)
