# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Metrics of a restored patch: the papers' two tables (section 4.1 of the second
paper), and the circumstances of the restoration.
"""

from __future__ import annotations

__all__ = ("format_metrics", "measure_metrics")

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np

from lsst.utils.usage import get_peak_mem_usage

from ..stack.oversampling import bin_pixels
from .image_quality import psnr, sharpness, sky_noise, ssim
from .pixel_flags import PixelFlags
from .restored_stack import RestoredStack

if TYPE_CHECKING:
    from lsst.images import MaskedImage

    from ..stack.exposure_stack import ExposureStack
    from ..warping.patch_geometry import PatchGeometry

# Titles of the images that are compared, in the order of the tables.
_TITLES = {
    "exposures": "exposures",
    "naive_mean": "naive mean",
    "reference_coadd": "reference coadd",
    "pipeline_coadd": "pipeline coadd",
    "restored": "restored",
    "measurable": "measurable",
}


def measure_metrics(
    restored: RestoredStack,
    flags: PixelFlags,
    *,
    geometry: PatchGeometry,
    seeing: np.ndarray,
    dropped: Sequence[tuple[str, str]] = (),
    coadd: MaskedImage | None = None,
) -> dict[str, Any]:
    """Measure everything that is reported about a restored patch.

    Parameters
    ----------
    restored : `RestoredStack`
        The restored exposures.
    flags : `PixelFlags`
        Quality of the exposures' pixels.
    geometry : `PatchGeometry`
        The pixel grid of the patch.
    seeing : `numpy.ndarray`
        Full width at half maximum of the PSF of each exposure, pixels, shape
        ``(n,)``.
    dropped : `~collections.abc.Sequence` [`tuple` [`str`, `str`]], optional
        Labels of the visit images that could not be used, and the reasons.
    coadd : `lsst.images.MaskedImage`, optional
        The pipeline's own coadd.

    Returns
    -------
    metrics : `dict`
        Nested `dict` of `float`, `int`, `bool` and `str`:

        ``sharpness``, ``sky_noise``
            ``S_F`` and ``sigma_sky`` (nJy) of ``exposures`` (median over the
            exposures), ``naive_mean``, ``reference_coadd``,
            ``pipeline_coadd`` (if there is one), ``restored`` and
            ``measurable``.
        ``psnr``, ``ssim``
            Of the restored image against ``exposures`` (average over the
            exposures), ``reference_coadd`` and ``pipeline_coadd``.
        ``n_exposures``, ``n_dropped``, ``dropped``
            Number of exposures that were used, number of visit images that
            could not be used, and reasons by label.
        ``exposures``, ``n_suspect``, ``n_contradicted``
            Properties of each exposure by its name (`ExposureChecks`), and
            number of exposures with findings and of those that were dropped
            because of them.
        ``seeing_arcsec``, ``seeing_pixels``
            ``median``, ``best`` and ``worst`` full width at half maximum.
        ``kernel_fraction``
            ``median`` and ``lowest`` fraction of the PSF's flux inside of
            the kernels.
        ``clipped_fraction``
            Fraction of the good pixels that were clipped as outliers.
        ``no_data_fraction``
            Fraction of the pixels for which no exposure has data.
        ``pedestal``
            Level of the restored image in empty sky, nJy per pixel.
        ``inconsistent_fraction``
            Fraction of its pixels that are inconsistent with the exposures.
        ``residuals``
            Residuals of the restored image in the exposures' white-noise coadd,
            by starlet scale (``1`` to ``16`` pixels): the ``largest`` residual
            in units of its standard deviation, and the number of pixels
            ``beyond`` the limit (`CharacterizeConfig.residualLimit`), all of
            which have the mask plane ``INCONSISTENT``.
        ``steps``, ``loss``, ``converged``, ``seconds``, ``device``
            Of the restoration: optimizer steps, final loss, whether it
            converged, wall time (s), device.
        ``n_retries``
            Trainings that diverged and were repeated with a smaller learning
            rate.
        ``peak_memory_gib``
            Largest memory of this process so far, GiB.

    Notes
    -----
    Bad pixels of an exposure would be sharp edges in ``S_F``: they are replaced
    by those of the reference coadd.  The restored image is measured where the
    exposures constrain it, binned to their pixels if its own are smaller.
    """
    stack, reference, restoration = restored.stack, restored.reference, restored.restoration
    characterization = restored.characterization
    images = {"naive_mean": restored.naive, "reference_coadd": reference.image}
    if coadd is not None:
        images["pipeline_coadd"] = _on_patch(coadd, geometry)
    images["restored"] = flags.blank(bin_pixels(restoration.image, stack.oversampling))
    images["measurable"] = restored.measurable.image
    fractions = stack.kernels.sum(axis=(-2, -1), dtype=np.float64)[stack.has_kernel]
    seeing_pixels = {
        "median": float(np.median(seeing)),
        "best": float(np.min(seeing)),
        "worst": float(np.max(seeing)),
    }
    n_contradicted = int(np.count_nonzero(restored.checks.dropped))
    n_clipped = int(np.count_nonzero(reference.clipped))
    n_good = sum(int(np.count_nonzero(good | reference.clipped[t])) for t, _, _, good in stack.planes())
    return {
        **_measure_images(stack, images),
        "n_exposures": stack.n_exposures - n_contradicted,
        "n_dropped": len(dropped),
        "dropped": {str(label): str(reason) for label, reason in dropped},
        "exposures": restored.checks.metrics(),
        "n_suspect": sum(bool(found) for found in restored.checks.findings),
        "n_contradicted": n_contradicted,
        "seeing_arcsec": {key: value * geometry.pixel_scale for key, value in seeing_pixels.items()},
        "seeing_pixels": seeing_pixels,
        "kernel_fraction": {"median": float(np.median(fractions)), "lowest": float(fractions.min())},
        "clipped_fraction": n_clipped / max(n_good, 1),
        "no_data_fraction": float(flags.no_data.mean()),
        "pedestal": float(characterization.pedestal),
        "inconsistent_fraction": float(flags.inconsistent.mean()),
        "residuals": {
            str(2**scale): {"largest": float(largest), "beyond": int(beyond)}
            for scale, (largest, beyond) in enumerate(
                zip(characterization.residuals, characterization.beyond, strict=True)
            )
        },
        "steps": int(restoration.steps),
        "loss": float(restoration.loss),
        "converged": bool(restoration.converged),
        "n_retries": int(restoration.n_retries),
        "seconds": float(restoration.seconds),
        "device": str(restoration.device),
        "peak_memory_gib": float(get_peak_mem_usage()[0].to_value(u.GiB)),
    }


def _measure_images(stack: ExposureStack, images: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Measure the papers' metrics of the exposures and of images by name."""
    reference, restored = images["reference_coadd"], images["restored"]
    exposures: dict[str, list[float]] = {"sharpness": [], "sky_noise": [], "psnr": [], "ssim": []}
    for _, pixels, _, good in stack.planes():
        exposures["sharpness"].append(sharpness(np.where(good, pixels, reference)))
        exposures["sky_noise"].append(sky_noise(pixels, ~good))
        masked = np.where(good, pixels, np.float32(np.nan))
        exposures["psnr"].append(psnr(restored, masked))
        exposures["ssim"].append(ssim(restored, masked))
    coadds = {name: images[name] for name in ("reference_coadd", "pipeline_coadd") if name in images}
    return {
        "sharpness": {"exposures": float(np.median(exposures["sharpness"]))}
        | {name: sharpness(image) for name, image in images.items()},
        "sky_noise": {"exposures": float(np.nanmedian(exposures["sky_noise"]))}
        | {name: sky_noise(image) for name, image in images.items()},
        "psnr": {"exposures": float(np.nanmean(exposures["psnr"]))}
        | {name: psnr(restored, coadd) for name, coadd in coadds.items()},
        "ssim": {"exposures": float(np.nanmean(exposures["ssim"]))}
        | {name: ssim(restored, coadd) for name, coadd in coadds.items()},
    }


def _on_patch(coadd: MaskedImage, geometry: PatchGeometry) -> np.ndarray:
    """Return the pixels of a coadd on the patch's outer box in nJy, NaN where
    it has no data.
    """
    result = np.full(geometry.outer_bbox.shape, np.nan, np.float32)
    common = geometry.outer_bbox.intersection(coadd.bbox)
    pixels = coadd.image[common].quantity.to_value(u.nJy).astype(np.float32)
    if "NO_DATA" in coadd.mask.schema.names:
        pixels[coadd.mask[common].get("NO_DATA")] = np.nan
    result[common.slice_within(geometry.outer_bbox)] = pixels
    return result


def format_metrics(metrics: Mapping[str, Any]) -> str:
    """Format the metrics of `measure_metrics` for a terminal or a log.

    Parameters
    ----------
    metrics : `~collections.abc.Mapping`
        The metrics, or the dataset ``restored_coadd_metrics``.

    Returns
    -------
    text : `str`
        The papers' two tables and the circumstances, several lines.
    """
    lines = _table(
        "",
        [
            ("sharpness S_F", "{:.3f}", metrics["sharpness"]),
            ("sky noise sigma_sky, nJy", "{:.4g}", metrics["sky_noise"]),
        ],
    )
    lines += [
        "",
        *_table(
            "restored against",
            [
                ("PSNR, dB", "{:.2f}", metrics["psnr"]),
                ("SSIM", "{:.4f}", metrics["ssim"]),
            ],
        ),
    ]
    seeing, pixels = metrics["seeing_arcsec"], metrics["seeing_pixels"]
    state = "converged" if metrics["converged"] else "not converged"
    lines += [
        "",
        f"exposures   {metrics['n_exposures']} used; visit images dropped: {metrics['n_dropped']}; "
        f"good pixels clipped: {metrics['clipped_fraction']:.3%}",
        f'seeing      {seeing["median"]:.2f}" = {pixels["median"]:.2f} pixels (median), '
        f'{seeing["best"]:.2f}" to {seeing["worst"]:.2f}"; '
        f"kernels hold {metrics['kernel_fraction']['median']:.1%} of the flux, "
        f"at least {metrics['kernel_fraction']['lowest']:.1%}",
        f"restoration {metrics['steps']} steps in {metrics['seconds']:.0f} s on {metrics['device']}, "
        f"{state}, loss {metrics['loss']:.4f}, peak memory {metrics['peak_memory_gib']:.1f} GiB",
        f"restored    {metrics['pedestal']:.3g} nJy per pixel in empty sky, "
        f"{metrics['inconsistent_fraction']:.2%} of the pixels inconsistent with the exposures",
    ]
    residuals = metrics["residuals"]
    lines.append(
        "residuals   at most "
        + ", ".join(f"{one['largest']:.1f}" for one in residuals.values())
        + " sigma at scales of "
        + ", ".join(residuals)
        + " pixels, flagged pixels included"
    )
    if metrics.get("n_retries"):
        lines.append(f"diverged    {metrics['n_retries']} trainings, repeated with a smaller learning rate")
    lines += [
        f"{'dropped' if found['dropped'] else 'check':11} {name}: {found['findings']}"
        for name, found in metrics["exposures"].items()
        if found["findings"]
    ]
    lines += [f"dropped     {label}: {reason}" for label, reason in metrics["dropped"].items()]
    return "\n".join(lines)


def _table(corner: str, rows: list[tuple[str, str, Mapping[str, float]]]) -> list[str]:
    """Format rows of a label, a number format and values by image."""
    names = [name for name in _TITLES if name in rows[0][2]]
    cells = [[corner, *(_TITLES[name] for name in names)]]
    cells += [[label, *(style.format(values[name]) for name in names)] for label, style, values in rows]
    label_width = max(24, *(len(row[0]) for row in cells))
    return [
        row[0].ljust(label_width)
        + "".join(
            cell.rjust(max(len(title), 9) + 2) for cell, title in zip(row[1:], cells[0][1:], strict=True)
        )
        for row in cells
    ]
