# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The targets of the default configuration, and whether they are met."""

from __future__ import annotations

__all__ = ("Target", "compare_with_targets", "format_targets")

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .tables import FROM_COADD, IMAGES, MEASURABLE, OURS, REFERENCE, RESTORED, SNR_LABELS, value_at

_KINDS = {"point": "points", "galaxy": "galaxies"}
_STATED_FILTERS = ("plain 1", "plain 3", "matched 1", "matched 3")
_REGIONS = ("empty", "points", "galaxies")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """A number that is asked for.

    Parameters
    ----------
    label : `str`
        What it is of.
    value : `float`
        What was measured; NaN if it was not.
    low, high : `float`
        The range that it must be in.
    limit : `str`
        The range as text; made from the numbers if it is empty.
    """

    label: str
    value: float
    low: float = -math.inf
    high: float = math.inf
    limit: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it is met (`bool`); `None` if it was not measured."""
        return None if math.isnan(self.value) else self.low <= self.value <= self.high

    @property
    def range(self) -> str:
        """The range as text (`str`)."""
        if self.limit:
            return self.limit
        if self.low == -math.inf:
            return f"<= {self.high:g}"
        return f">= {self.low:g}" if self.high == math.inf else f"{self.low:g} to {self.high:g}"


def compare_with_targets(results: Mapping[str, Any]) -> list[Target]:
    """Compare results with the targets.

    Parameters
    ----------
    results : `~collections.abc.Mapping`
        ``medians``, ``wide`` and ``draws`` by image; ``scenes`` by scene and
        image; ``decam`` by half and method; ``costs`` by image.

    Returns
    -------
    targets : `list` [`Target`]
        All targets, with the numbers of the default configuration.
    """
    medians, wide = results["medians"], results["wide"]
    return [
        *_fidelity(medians, wide, results["scenes"]),
        *_morphology(medians, wide),
        *_stars(medians),
        *_fluxes(medians),
        *_detection(medians),
        *_sky(wide),
        *_uncertainty(medians, results["draws"]),
        *_decam(results["decam"]),
        *_cost(results["costs"]),
        *_measurable(medians, results["draws"]),
    ]


def format_targets(targets: Iterable[Target]) -> list[str]:
    """Format targets as a table.

    Parameters
    ----------
    targets : `~collections.abc.Iterable` [`Target`]
        The targets.

    Returns
    -------
    lines : `list` [`str`]
        A title and a line for each.
    """
    lines = ["Targets of the default configuration", f"{'target':<84}{'limit':>14}{'measured':>11}  met"]
    for target in targets:
        number = "-" if math.isnan(target.value) else f"{target.value:.4g}"
        met = {None: "-", True: "yes", False: "NO"}[target.met]
        lines.append(f"{target.label:<84}{target.range:>14}{number:>11}  {met}")
    return lines


def _fidelity(
    medians: Mapping[str, Any], wide: Mapping[str, Any], scenes: Mapping[str, Any]
) -> Iterator[Target]:
    """PSNR, as a number and against all other images."""
    for field, images, low in (("designed", medians, 37.2), ("wide", wide, 37.0)):
        psnr = value_at(images, RESTORED, "common psnr")
        yield Target(label=f"arcsinh PSNR at 2.5 px, {field}", value=psnr, low=low)
    for scene, images in scenes.items():
        if scene.startswith("JWST"):
            psnr = value_at(images, RESTORED, "target psnr")
            yield Target(label=f"arcsinh PSNR at the target PSF, {scene}", value=psnr, low=31.5)
        if scene.startswith(("JWST", "COSMOS")):
            lacking = value_at(images, RESTORED, "target psnr") - value_at(images, FROM_COADD, "target psnr")
            yield Target(
                label=f"PSNR that the exposures add to the coadd's, dB, {scene}", value=lacking, high=1.0
            )
    compared = [
        *(("2.5 px, designed", medians, "common psnr"), ("the target PSF, designed", medians, "target psnr")),
        ("2.5 px, STARRED's cutout", medians, "cutout common psnr"),
        *(("2.5 px, wide", wide, "common psnr"), ("the target PSF, wide", wide, "target psnr")),
        *((f"the target PSF, {scene}", images, "target psnr") for scene, images in scenes.items()),
    ]
    for where, images, name in compared:
        values = {
            image: value_at(images, image, name) for image in IMAGES if image not in (*OURS, FROM_COADD)
        }
        best = max(
            (image for image in values if not math.isnan(values[image])), key=lambda i: values[i], default=""
        )
        own = value_at(images, RESTORED, name)
        if best:
            label = f"PSNR at {where} (best other: {best}, {values[best]:.2f})"
            yield Target(
                label=label, value=own, low=math.nextafter(values[best], math.inf), limit="> all others"
            )


def _morphology(medians: Mapping[str, Any], wide: Mapping[str, Any]) -> Iterator[Target]:
    """Galaxies and splits."""
    for field, images, high in (("designed", medians, 0.11), ("wide", wide, 0.085)):
        error = value_at(images, RESTORED, "galaxy error")
        yield Target(label=f"error norm of galaxies of S/N > 20, {field}", value=error, high=high)
    for field, images in (("designed", medians), ("wide", wide)):
        excess = value_at(images, RESTORED, "peaks") - value_at(images, RESTORED, "true peaks")
        yield Target(label=f"peaks per galaxy less the truth's, {field}", value=excess, low=-0.1, high=0.1)
    for field, images in (("designed", medians), ("wide", wide)):
        for kind, high in (("galaxies", 0.03), ("stars", 0.0)):
            value = value_at(images, RESTORED, f"{kind} split")
            yield Target(label=f"isolated {kind} split by the source list, {field}", value=value, high=high)
    for low, ellipticity, size in ((50, 0.03, 0.02), (20, 0.08, 0.04)):
        shape = medians.get(RESTORED, {}).get(f"shape {low}", {})
        label = f"galaxies, S/N {SNR_LABELS[low]}"
        yield Target(
            label=f"ellipticity error, {label}", value=value_at(shape, "ellipticity"), high=ellipticity
        )
        yield Target(label=f"size error, {label}", value=value_at(shape, "size"), low=-size, high=size)


def _stars(medians: Mapping[str, Any]) -> Iterator[Target]:
    """Width and enclosed flux of stars."""
    for name, label in (("fwhm", "FWHM"), ("flux in 5", "flux in 5 px"), ("flux in 10", "flux in 10 px")):
        value = value_at(medians, RESTORED, f"{name} / stated")
        yield Target(label=f"stars: {label} / stated", value=value, low=0.99, high=1.01)
    value = value_at(medians, RESTORED, "fwhm / reference")
    yield Target(label="stars: FWHM / reference coadd's", value=value, high=0.6)


def _fluxes(medians: Mapping[str, Any]) -> Iterator[Target]:
    """Fluxes on the restored coadd."""
    for low, limit in ((50, 0.01), (20, 0.02), (10, 0.05)):
        for kind, name in _KINDS.items():
            value = value_at(medians, RESTORED, f"{kind} {low}", "bias")
            yield Target(
                label=f"flux bias, {name}, S/N {SNR_LABELS[low]}", value=value, low=-limit, high=limit
            )


def _detection(medians: Mapping[str, Any]) -> Iterator[Target]:
    """Completeness and pairs."""
    for label, low in (("3-5", 0.75), ("5-10", 0.98)):
        value = value_at(medians, RESTORED, f"completeness {label}")
        yield Target(label=f"completeness at equal false rate, S/N {label}", value=value, low=low)
    split = [value_at(medians, RESTORED, "detection", name, "pairs") for name in _STATED_FILTERS]
    value = max((one for one in split if not math.isnan(one)), default=math.nan)
    yield Target(label="pairs split, stated variance", value=value, low=0.8)


def _sky(wide: Mapping[str, Any]) -> Iterator[Target]:
    """Noise and sharpness on the wide field."""

    def ratio(image: str, name: str) -> float:
        return value_at(wide, image, name) / value_at(wide, REFERENCE, name)

    yield Target(label="sigma_sky / reference coadd's, wide", value=ratio(RESTORED, "sigma_sky"), high=0.29)
    label = f"S_F / reference coadd's, wide (truth {ratio('truth at the target PSF', 'S_F'):.3f}; goal 1.15)"
    yield Target(label=label, value=ratio(RESTORED, "S_F"), low=1.12)


def _uncertainty(medians: Mapping[str, Any], draws: Mapping[str, Any]) -> Iterator[Target]:
    """Stated standard deviations."""
    for region in _REGIONS:
        value = value_at(medians, RESTORED, f"sigma / error, {region}")
        yield Target(label=f"sigma stated / error, {region}", value=value, low=0.8, high=1.25)
    for region in _REGIONS:
        value = value_at(draws, RESTORED, region)
        yield Target(label=f"sigma stated / scatter of draws, {region}", value=value, low=0.8, high=1.25)
    yield Target(
        label="pull width of PSF fluxes", value=value_at(medians, RESTORED, "pull width"), low=0.8, high=1.25
    )


def _decam(decam: Mapping[str, Any]) -> Iterator[Target]:
    """Predictions of real exposures."""
    limits = {"even predict odd": (1.55, 0.857), "odd predict even": (1.77, 0.862)}
    for half, (source, median) in limits.items():
        figure = decam.get(half, {}).get(RESTORED)
        values = (math.nan, math.nan) if figure is None else (figure["source"], figure["median"])
        yield Target(label=f"DECam, {half}: mean of min(chi2, 25) on sources", value=values[0], high=source)
        yield Target(label=f"DECam, {half}: median chi2", value=values[1], high=median)


def _cost(costs: Mapping[str, Any]) -> Iterator[Target]:
    """CPU time."""
    own, other = (costs[image][1] if image in costs else math.nan for image in (RESTORED, "ImageMM"))
    yield Target(label="CPU time, variance and PSF included, s", value=own, high=20.0)
    label = f"CPU time below ImageMM's ({other:.1f} s), s"
    yield Target(label=label, value=own if not math.isnan(other) else math.nan, high=other, limit="< ImageMM")


def _measurable(medians: Mapping[str, Any], draws: Mapping[str, Any]) -> Iterator[Target]:
    """Compare the measurements on the image for photometry."""
    get = medians.get(MEASURABLE, {})
    for low, limit in zip((50, 20, 10, 5), (0.01, 0.02, 0.05, 0.1), strict=True):
        for kind, name in _KINDS.items():
            label = f"measurable: flux bias, {name}, S/N {SNR_LABELS[low]}"
            yield Target(label=label, value=value_at(get, f"{kind} {low}", "bias"), low=-limit, high=limit)
    for low in (20, 50):
        label = f"measurable: flux scatter / optimal, points, S/N {SNR_LABELS[low]}"
        yield Target(label=label, value=value_at(get, f"point {low}", "relative"), high=1.2)
    yield Target(label="measurable: FWHM / stated", value=value_at(get, "fwhm / stated"), low=0.97, high=1.03)
    for radius in (5, 10):
        value = value_at(get, f"flux in {radius} / stated")
        yield Target(label=f"measurable: flux in {radius} px / stated", value=value, low=0.99, high=1.01)
    for region in _REGIONS:
        value = value_at(draws, MEASURABLE, region)
        yield Target(
            label=f"measurable: sigma stated / scatter of draws, {region}", value=value, low=0.8, high=1.25
        )
    yield Target(label="measurable: pull width", value=value_at(get, "pull width"), low=0.8, high=1.3)
    value = value_at(get, "empty mean / scatter")
    yield Target(label="measurable: empty apertures, mean / scatter", value=value, low=-0.1, high=0.1)
    for label in ("5-10", "10-20"):
        least = value_at(medians, REFERENCE, f"completeness {label}")
        yield Target(
            label=f"measurable: completeness, S/N {label} (reference coadd {least:.3f})",
            value=value_at(get, f"completeness {label}"),
            low=least,
            limit=">= coadd",
        )
