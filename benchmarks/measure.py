# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Measurements on images of fields with a known truth."""

from __future__ import annotations

__all__ = ("GALAXY_APERTURE", "PointFluxes", "measure_image", "measure_points", "measure_sky", "measure_wide")

import dataclasses
import itertools
from typing import Any

import numpy as np
from scipy.signal import fftconvolve

from lsst.drp.restore.outputs.image_quality import psnr, sharpness, sky_noise, ssim, star_fwhm
from lsst.drp.restore.restoration.target_psf import TARGET_FWHM

from .detection import detect, match_sources, pairs_split
from .fields import SNR_BINS
from .photometry import aperture_flux, psf_flux, psf_stamp
from .robust import GAUSSIAN_MEDIAN, median, robust_scatter
from .shapes import COMMON_FWHM, count_splits, measure_galaxies, measure_shapes
from .sky_image import Cutout, SkyImage
from .true_images import blur, bring_to, truth_at
from .truth import APERTURE, PSF_RADIUS, Truth

GALAXY_APERTURE = 6.0
"""Radius of the apertures around galaxies, pixels."""

# PSFs narrower than this change shape with the fraction of a pixel; at the
# target resolution, a kernel shifted by the phases of its Fourier transform
# rings by a thousandth of its peak.
_SAMPLED_FWHM = 1.9
_FWHMS = (TARGET_FWHM, COMMON_FWHM)
_FALSE_PER_PIXEL = 5 / 512**2
# Of the local background in empty sky, pixels: inside of the empty region.
_EMPTY_RING = (6.5, 10.5)


def measure_image(truth: Truth, sky: SkyImage, cutout: Cutout, measured: SkyImage) -> dict[str, Any]:
    """Measure everything on one image.

    Parameters
    ----------
    truth : `Truth`
        The truth.
    sky : `SkyImage`
        The image.
    cutout : `Cutout`
        Part of the patch on which all methods, also those that restore only
        it, are compared with the truth.
    measured : `SkyImage`
        The image that the source list measures on, see `count_splits`.

    Returns
    -------
    results : `dict` [`str`, `object`]
        Plain numbers, and lists of numbers by source.
    """
    results: dict[str, Any] = {}
    results.update(_measure_points(truth, sky))
    results.update(_measure_galaxies(truth, sky))
    results.update(_measure_stars(truth, sky))
    results.update(_measure_detection(truth, sky))
    results.update(_measure_morphology(truth, sky, results["fwhm"], measured))
    results.update(measure_sky(truth, sky))
    results.update(_measure_errors(truth, sky))
    results.update(_measure_fidelity(truth, sky, results["fwhm"], cutout))
    return results


def measure_wide(truth: Truth, sky: SkyImage, cutout: Cutout, measured: SkyImage) -> dict[str, Any]:
    """Measure fidelity, morphology and sky on a random sky.

    Parameters
    ----------
    truth, sky, cutout, measured
        See `measure_image`.

    Returns
    -------
    results : `dict` [`str`, `object`]
        Some of the results of `measure_image`.
    """
    width = _measure_stars(truth, sky)["fwhm"]
    if np.isnan(width):
        width = sky.stated_fwhm
    return {
        "fwhm": width,
        **_measure_morphology(truth, sky, width, measured),
        **measure_sky(truth, sky),
        **_measure_fidelity(truth, sky, width, cutout),
    }


def _bins(snr: np.ndarray) -> list[np.ndarray]:
    return [(snr >= low) & (snr < high) for low, high in SNR_BINS]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PointFluxes:
    """Fluxes of the isolated points of a field, arrays of shape ``(n,)``.

    Parameters
    ----------
    true, aperture, flux, sigma, optimal : `numpy.ndarray`
        True flux; the flux in an aperture; that of the image's PSF and its
        standard deviation (NaN where the image states none); the flux of PSF
        photometry on the reference coadd; nJy.
    snr : `numpy.ndarray`
        Signal-to-noise ratio on the reference coadd.
    """

    true: np.ndarray
    aperture: np.ndarray
    flux: np.ndarray
    sigma: np.ndarray
    optimal: np.ndarray
    snr: np.ndarray


def measure_points(truth: Truth, sky: SkyImage) -> PointFluxes:
    """Measure the isolated points.

    Parameters
    ----------
    truth : `Truth`
        The truth.
    sky : `SkyImage`
        The image.

    Returns
    -------
    fluxes : `PointFluxes`
        The fluxes.
    """
    field = truth.field
    catalog, cell_shape = field.catalog, field.stack.cell_shape
    chosen = np.flatnonzero((catalog["role"] == "point") & truth.usable & np.isfinite(truth.optimal))
    x, y = np.asarray(catalog["x"])[chosen], np.asarray(catalog["y"])[chosen]
    if sky.kernels is None:
        flux = sigma = np.full(len(x), np.nan)
    else:
        variance = sky.variance if sky.variance is not None else np.ones(sky.image.shape)
        fits = [
            psf_flux(sky.image, variance, *place, psf_stamp(sky.kernels, cell_shape, *place, PSF_RADIUS))
            for place in zip(x, y, strict=True)
        ]
        flux, sigma = np.array(fits).reshape(-1, 2).T
    if sky.variance is None:
        sigma = np.full(len(x), np.nan)
    return PointFluxes(
        true=np.asarray(catalog["flux_nJy"])[chosen],
        aperture=aperture_flux(sky.image, x, y, APERTURE),
        flux=flux,
        sigma=sigma,
        optimal=truth.optimal[chosen],
        snr=truth.snr[chosen],
    )


def _measure_points(truth: Truth, sky: SkyImage) -> dict[str, Any]:
    """Fluxes of isolated points, by bin of S/N."""
    points = measure_points(truth, sky)
    # A PSF narrower than that is undersampled: it has another shape at any
    # other fraction of a pixel, and fits nothing there.
    sampled = sky.stated_fwhm > _SAMPLED_FWHM
    error = (points.flux if sampled else points.aperture) / points.true - 1
    optimal = points.optimal / points.true - 1
    pull = (points.flux - points.true) / points.sigma
    results: dict[str, Any] = {}
    for (low, _), inside in zip(SNR_BINS, _bins(points.snr), strict=True):
        valid = inside & np.isfinite(error)
        results[f"point {low:.0f}"] = {
            "bias": median(error[valid]),
            "scatter": robust_scatter(error[valid]),
            "relative": robust_scatter(error[valid]) / robust_scatter(optimal[valid]),
            "n": int(valid.sum()),
        }
    bright_enough = points.snr >= SNR_BINS[0][0]
    results["pull median"] = median(pull[bright_enough])
    results["pull width"] = robust_scatter(pull[bright_enough])
    results["points"] = {
        "snr": points.snr.tolist(),
        "error": error.tolist(),
        "pull": pull.tolist(),
        "optimal": optimal.tolist(),
    }
    return results


def _measure_galaxies(truth: Truth, sky: SkyImage) -> dict[str, Any]:
    """Aperture fluxes of isolated galaxies, by bin of S/N, relative to the
    same aperture on the truth at the image's resolution.
    """
    field = truth.field
    catalog, cell_shape = field.catalog, field.stack.cell_shape
    chosen = [n for n in field.stamps if truth.usable[n]]
    snr = truth.snr[chosen]
    error = np.full(len(chosen), np.nan)
    for k, n in enumerate(chosen):
        x, y, model = float(catalog["x"][n]), float(catalog["y"][n]), field.stamps[n]
        if sky.kernels is not None:
            i, j = round(y) // cell_shape[0], round(x) // cell_shape[1]
            model = fftconvolve(model, sky.kernels[i, j], mode="same")
        middle = len(model) // 2
        center = np.array([middle + x - round(x)]), np.array([middle + y - round(y)])
        expected = aperture_flux(model, *center, GALAXY_APERTURE)[0]
        error[k] = aperture_flux(sky.image, x, y, GALAXY_APERTURE)[0] / expected - 1
    results: dict[str, Any] = {}
    for (low, _), inside in zip(SNR_BINS, _bins(snr), strict=True):
        valid = inside & np.isfinite(error)
        results[f"galaxy {low:.0f}"] = {
            "bias": median(error[valid]),
            "scatter": robust_scatter(error[valid]),
            "n": int(valid.sum()),
        }
    return results | {"galaxies": {"snr": snr.tolist(), "error": error.tolist()}}


def _measure_stars(truth: Truth, sky: SkyImage) -> dict[str, Any]:
    """Width and enclosed flux of bright stars, and of the stated PSF."""
    field = truth.field
    catalog = field.catalog
    chosen = np.flatnonzero((catalog["role"] == "point") & truth.usable & (truth.snr > 50))
    rows: list[tuple[float, ...]] = []
    for n in chosen:
        x, y, flux = (float(catalog[name][n]) for name in ("x", "y", "flux_nJy"))
        row = [star_fwhm(sky.image, x, y)]
        row += [aperture_flux(sky.image, x, y, r, (12.0, 15.0))[0] / flux for r in (5.0, 10.0)]
        if sky.kernels is None:
            row += [np.nan] * 3
        else:
            # The stated PSF in place of the star, measured as the star is.
            radius = 20
            stamp = psf_stamp(sky.kernels, field.stack.cell_shape, x, y, radius)
            place = radius + x - round(x), radius + y - round(y)
            row.append(star_fwhm(stamp, *place))
            row += [aperture_flux(stamp, *place, r, (12.0, 15.0))[0] for r in (5.0, 10.0)]
        rows.append(tuple(row))
    columns = np.array(rows).reshape(-1, 6).T
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "fwhm": median(columns[0]),
            "fwhm / reference": median(columns[0]) / truth.reference_fwhm,
            "stated fwhm": median(columns[3]),
            "fwhm / stated": median(columns[0] / columns[3]),
            "flux in 5": median(columns[1]),
            "flux in 10": median(columns[2]),
            "flux in 5 / stated": median(columns[1] / columns[4]),
            "flux in 10 / stated": median(columns[2] / columns[5]),
        }


def _measure_detection(truth: Truth, sky: SkyImage) -> dict[str, Any]:
    """Completeness and split pairs at a fixed number of false detections."""
    field = truth.field
    catalog = field.catalog
    positions = np.stack([catalog["x"], catalog["y"]], axis=1)
    seen = truth.far & np.isfinite(sky.image)
    max_false = round(_FALSE_PER_PIXEL * np.count_nonzero(seen))
    real = positions[~(truth.snr < 2.0)]
    kernels = sky.kernels if sky.kernels is not None else field.stack.kernels.mean(axis=0)
    kernel = kernels.mean(axis=(0, 1))
    if sky.variance is not None:
        sigma = np.sqrt(sky.variance)
    else:
        # Only relative: the threshold is the one that gives the false rate.
        sigma = np.full(sky.image.shape, truth.softening, np.float32)
    row, column = np.rint(positions[:, ::-1]).astype(int).T
    inside = (row >= 0) & (column >= 0) & (row < seen.shape[0]) & (column < seen.shape[1])
    present = np.zeros(len(catalog), dtype=bool)
    present[inside] = seen[row[inside], column[inside]]
    isolated = np.isin(catalog["role"], ("point", "galaxy")) & truth.usable & present
    groups = [g for g in np.unique(catalog["group"]) if g >= 0]
    pairs = [np.flatnonzero(catalog["group"] == g) for g in groups]
    pairs = [pair for pair in pairs if len(pair) == 2 and (truth.usable & present)[pair].all()]
    pair_positions = positions[np.array(pairs, dtype=int).reshape(-1, 2)]
    bins = {"3-5": (3.0, 5.0), "5-10": SNR_BINS[0], "10-20": SNR_BINS[1]}
    results: dict[str, Any] = {}
    # Also with the same noise everywhere: the variance that an image states
    # may be that of its sources, too, which makes a source of any brightness
    # one of few sigma.
    noises = {"": sigma, " flat": np.full_like(sigma, truth.softening)}
    if sky.variance is None:
        del noises[" flat"]
    for filter_kernel, min_area, flat in itertools.product((None, _cut(kernel)), (1, 3), noises):
        name = f"{'plain' if filter_kernel is None else 'matched'} {min_area}{flat}"
        found = detect(sky.image, noises[flat], filter_kernel, real, seen, max_false, min_area)
        detected = match_sources(positions, found.positions)
        one: dict[str, Any] = {"threshold": found.threshold, "false": found.n_false}
        for label, (low, high) in bins.items():
            members = isolated & (truth.snr >= low) & (truth.snr < high)
            one[label] = float(detected[members].mean()) if members.any() else np.nan
        split = pairs_split(pair_positions, found.positions)
        one["pairs"] = float(split.mean()) if len(split) else np.nan
        one["n pairs"] = len(split)
        results[name] = one
    # Each image with the settings that suit it.
    best = max(results, key=lambda name: (results[name]["5-10"], results[name]["3-5"]))
    best_pairs = max(results, key=lambda name: results[name]["pairs"])
    return {
        "detection": results,
        "filter": best,
        "pair filter": best_pairs,
        **{f"completeness {label}": results[best][label] for label in bins},
        "false": results[best]["false"],
        "pairs": results[best_pairs]["pairs"],
    }


def _cut(kernel: np.ndarray, radius: int = 6) -> np.ndarray:
    """Return the middle of a kernel: the rest only takes time."""
    middle = len(kernel) // 2
    radius = min(radius, middle)
    return kernel[middle - radius : middle + radius + 1, middle - radius : middle + radius + 1]


def measure_sky(truth: Truth, sky: SkyImage) -> dict[str, Any]:
    """Measure sharpness, noise, and fluxes in empty sky.

    Parameters
    ----------
    truth : `Truth`
        The truth.
    sky : `SkyImage`
        The image.

    Returns
    -------
    results : `dict` [`str`, `object`]
        Numbers.
    """
    flux = aperture_flux(sky.image, truth.empty[:, 0], truth.empty[:, 1], APERTURE, _EMPTY_RING)
    flux = flux[np.isfinite(flux)]
    scatter = float(flux.std(ddof=1)) if len(flux) > 2 else np.nan
    mean = float(flux.mean()) if len(flux) else np.nan
    # Not of an image of a part of the patch.
    whole = np.isfinite(sky.image).mean() > 0.9
    return {
        "S_F": sharpness(sky.image) if whole else np.nan,
        "sigma_sky": sky_noise(sky.image) if whole else np.nan,
        "empty mean": mean,
        "empty scatter": scatter,
        "empty mean / scatter": mean / scatter if scatter else np.nan,
        "empty n": len(flux),
    }


def _measure_morphology(truth: Truth, sky: SkyImage, width: float, measured: SkyImage) -> dict[str, Any]:
    """Errors, peaks, shapes and splits of isolated sources."""
    return {
        **measure_galaxies(truth, sky.image, width),
        **measure_shapes(truth, sky, width),
        **count_splits(truth, sky, width, measured),
    }


def _measure_errors(truth: Truth, sky: SkyImage) -> dict[str, float]:
    """Stated standard deviation of pixels over their error, by region: from
    the median of the squares of their ratio, which is that of a Gaussian.
    Images at the target PSF only: the truth is not known at others.
    """
    names = ("empty", "points", "galaxies")
    if sky.variance is None or not sky.at_target:
        return {f"sigma / error, {name}": np.nan for name in names}
    with np.errstate(invalid="ignore", divide="ignore"):
        pull = (sky.image - truth_at(truth.field, TARGET_FWHM)) ** 2 / sky.variance
    medians = {name: np.float64(median(pull[pixels])) for name, pixels in truth.regions().items()}
    with np.errstate(divide="ignore"):
        return {f"sigma / error, {name}": float(np.sqrt(GAUSSIAN_MEDIAN / m)) for name, m in medians.items()}


def _measure_fidelity(truth: Truth, sky: SkyImage, width: float, cutout: Cutout) -> dict[str, Any]:
    """Similarity to the truth after arcsinh: to the pixel truth; to its
    convolution with a Gaussian of 2.5 pixels (``common``), which is a bit wider
    than that because the pixel truth has a width; and to the truth at a PSF
    of exactly 2.5 pixels (``exact``) and of the target (``target``).
    """
    pixel, images = truth.field.truth, {fwhm: bring_to(sky.image, width, fwhm) for fwhm in _FWHMS}
    pairs = {
        "": (sky.image, pixel),
        "common ": (images[COMMON_FWHM], blur(pixel, COMMON_FWHM)),
        "exact ": (images[COMMON_FWHM], truth_at(truth.field, COMMON_FWHM)),
        "target ": (images[TARGET_FWHM], truth_at(truth.field, TARGET_FWHM)),
    }
    results: dict[str, float] = {}
    for where, part in (("", (slice(None), slice(None))), ("cutout ", cutout.slices)):
        # Of an image of the cutout alone the numbers are those on the cutout.
        missing = not where and np.isfinite(sky.image).mean() < 0.9
        for label, (image, target) in pairs.items():
            a, b = (np.arcsinh(pixels[part] / truth.softening) for pixels in (image, target))
            results[f"{where}{label}psnr"] = np.nan if missing else psnr(a, b)
            results[f"{where}{label}ssim"] = np.nan if missing else ssim(a, b)
    return results
