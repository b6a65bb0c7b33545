# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Checks of each exposure against the others: noise, flux scale, astrometry
and PSF.
"""

from __future__ import annotations

__all__ = ("CheckExposuresConfig", "CheckExposuresTask", "ExposureChecks", "Finding")

import dataclasses
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import scipy.ndimage
import scipy.spatial

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase

from ..errors import RestorationError
from .exposure_catalogs import Catalog, ExposureNoise, measure_catalog
from .exposure_stack import ExposureStack
from .stellar_locus import stellar

# Shifts are looked for up to this many pixels, in squares of 3 pixels; pairs of sources agree within this
# radius of the best one, pixels.
_MAX_SHIFT = 64
_PAIR_RADIUS = 2.0

# Smallest number of sources that a comparison is based on, and from which on an exposure without a source in
# common with the others must be somewhere else on the sky.
_MIN_COMMON = 3
_MIN_UNMATCHED = 10

# Smallest number of sources of the smallest common width: fewer may be galaxies.
_MIN_STARS = 5

# Noise this many times the stated one is no background of faint sources.
_NEVER_CROWDING = 10.0

# An exposure whose noise or PSF width is beyond the limit is dropped only if it differs by this factor from
# the others: faint sources and compact galaxies are in all of them.
_UNLIKE = 1.5

# Sources whose peak is this many standard deviations above the sky show whether the variance has their
# photons: it then rises in the peak by at least peak / sigma / sqrt(number of photoelectrons that have the
# sky's noise), and no exposure has more than this many per pixel.
_BRIGHT_PEAK = 100.0
_MAX_ELECTRONS = 1e9

# Root mean square of a background, in units of the pixels' noise, that no sky subtraction leaves.
_HIGH_SKY = 5.0

# At least this fraction of the exposures agrees, or it is not known which ones are wrong.
_MIN_KEPT = 0.5

# Pixels of a kernel above this fraction of its peak give its center.
_KERNEL_CORE = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A property of an exposure that is beyond a limit.

    Parameters
    ----------
    text : `str`
        The property and its likely cause.
    is_fatal : `bool`
        Whether the exposure is dropped for it.
    """

    text: str
    is_fatal: bool


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ExposureChecks:
    """Properties of each exposure, and the exposures that can be used.

    All arrays have shape ``(n,)`` unless stated, and are NaN where a property
    cannot be measured: too few bright, isolated sources, or no empty sky.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures; those that are dropped have neither good pixels nor
        kernels.
    noise : `numpy.ndarray`
        Scatter of the sky's pixels over the stated standard deviation.
    flux_noise : `numpy.ndarray`
        Scatter of sums over 4x4 pixels of the sky over that of the stated
        variance and correlation.
    sky : `numpy.ndarray`
        Root mean square of the subtracted background in units of the pixels'
        noise.
    flux_scale : `numpy.ndarray`
        Fluxes of common bright sources over the median of the exposures.
    shift : `numpy.ndarray`
        Position of common sources minus that in the other exposures, y and
        x, pixels, shape ``(n, 2)``.
    n_common : `numpy.ndarray`
        Number of these sources, `int`.
    kernel_offset : `numpy.ndarray`
        Distance of the PSF kernel's center from the middle pixel, pixels.
    width_ratio : `numpy.ndarray`
        Width of the stars over that of the PSF kernel.
    photons : `numpy.ndarray`
        Relative increase of the variance in the peaks of bright sources, over
        peak / sigma: the inverse root of the number of photoelectrons in a pixel
        that would have the sky's noise; zero if the variance lacks the sources'
        photons.
    findings : `tuple` [`tuple` [`Finding`, ...], ...]
        Properties beyond a limit, by exposure.
    """

    stack: ExposureStack
    noise: np.ndarray
    flux_noise: np.ndarray
    sky: np.ndarray
    flux_scale: np.ndarray
    shift: np.ndarray
    n_common: np.ndarray
    kernel_offset: np.ndarray
    width_ratio: np.ndarray
    photons: np.ndarray
    findings: tuple[tuple[Finding, ...], ...]

    @property
    def dropped(self) -> np.ndarray:
        """Whether each exposure is dropped (`numpy.ndarray` of `bool`)."""
        return np.array([any(finding.is_fatal for finding in found) for found in self.findings])

    def table(self) -> str:
        """Format the properties.

        Returns
        -------
        text : `str`
            A title and a line for each exposure.
        """
        label = max(len("exposure"), *map(len, self.stack.names))
        lines = [
            f"{'exposure':{label}}  noise  fluxes'  sky/sigma  flux scale  shift y, x    sources"
            "  kernel off  star/kernel"
        ]
        for t, name in enumerate(self.stack.names):
            lines.append(
                f"{name:{label}}  {self.noise[t]:5.2f}  {self.flux_noise[t]:7.2f}  {self.sky[t]:9.2g}"
                f"  {self.flux_scale[t]:10.4g}  {self.shift[t, 0]:5.2f} {self.shift[t, 1]:5.2f}"
                f"  {self.n_common[t]:9d}  {self.kernel_offset[t]:10.2f}  {self.width_ratio[t]:11.2f}"
            )
        return "\n".join(lines)

    def metrics(self) -> dict[str, dict[str, float | bool | str]]:
        """Return the properties as plain values.

        Returns
        -------
        metrics : `dict` [`str`, `dict`]
            The properties of each exposure by its name, without those that
            could not be measured: numbers as above, with ``shift_y`` and
            ``shift_x``, ``dropped``, and ``findings`` (one text).
        """
        columns = {
            "noise": self.noise,
            "flux_noise": self.flux_noise,
            "sky": self.sky,
            "flux_scale": self.flux_scale,
            "shift_y": self.shift[:, 0],
            "shift_x": self.shift[:, 1],
            "kernel_offset": self.kernel_offset,
            "width_ratio": self.width_ratio,
            "photons": self.photons,
        }
        metrics: dict[str, dict[str, float | bool | str]] = {}
        for t, name in enumerate(self.stack.names):
            metrics[name] = {
                key: float(values[t]) for key, values in columns.items() if np.isfinite(values[t])
            }
            metrics[name]["n_common"] = int(self.n_common[t])
            metrics[name]["dropped"] = any(finding.is_fatal for finding in self.findings[t])
            metrics[name]["findings"] = "; ".join(finding.text for finding in self.findings[t])
        return metrics


def _limits(default: tuple[float, float], lowest: float, doc: str) -> pexConfig.ListField:
    """Return a field with two limits."""
    return pexConfig.ListField[float](
        doc=f"{doc}: limit of a warning, and limit beyond which the exposure is dropped ('inf' for never).",
        default=list(default),
        length=2,
        listCheck=lambda pair: lowest <= pair[0] <= pair[1],
    )


class CheckExposuresConfig(pexConfig.Config):
    """Configuration of `CheckExposuresTask`."""

    noise = _limits((1.4, 3.0), 1.0, "Factor between the scatter of the sky and the stated noise")
    fluxScale = _limits((1.25, 2.0), 1.0, "Factor between fluxes and those of the other exposures")
    shift = _limits((0.5, 2.0), 0.0, "Distance of sources from where the others have them, pixels")
    kernelOffset = _limits((0.5, 1.5), 0.0, "Distance of a PSF kernel's center from its middle pixel, pixels")
    widthRatio = _limits((1.4, 1.7), 1.0, "Factor between the width of stars and that of the PSF kernel")


class CheckExposuresTask(pipeBase.Task):
    """Check each exposure against the others, and drop those that are wrong.

    Notes
    -----
    Errors of zero points, astrometry, variances and PSFs that exposures bring
    along become structure of a restored image, and no later step can tell them
    from the sky.  Fluxes and positions are compared with those of the other
    exposures, noise and PSF with the exposure's own statements.  A photometric
    system that is wrong in all exposures (Vega for AB) cannot be seen.
    """

    ConfigClass = CheckExposuresConfig
    _DefaultName: ClassVar[str] = "checkExposures"
    config: CheckExposuresConfig

    def run(
        self, stack: ExposureStack, sky_rms: np.ndarray | None = None, *, check_kernels: bool = True
    ) -> ExposureChecks:
        """Check the exposures.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures, sky-subtracted.
        sky_rms : `numpy.ndarray`, optional
            Root mean square of the background that was subtracted, nJy, shape
            ``(n,)``.
        check_kernels : `bool`, optional
            Whether the kernels matter: not if they are fitted.

        Returns
        -------
        checks : `ExposureChecks`
            The properties of the exposures, and the exposures to use.

        Raises
        ------
        RestorationError
            Raised if so many exposures are wrong that it is not known which
            ones are right.
        """
        n = stack.n_exposures
        noises: list[ExposureNoise] = []
        catalogs: list[Catalog] = []
        for t in range(n):
            noise, catalog = measure_catalog(stack, t)
            noises.append(noise)
            catalogs.append(catalog)
            stack.release()
        shift = np.full((n, 2), np.nan)
        pairs = []
        for t in range(n):
            shift[t], common = _match(catalogs, t)
            pairs.append(common)
        sigma = np.array([_median_sigma(stack, t) for t in range(n)])
        pixel_noise = np.array([noise.pixel for noise in noises])
        sky = np.zeros(n) if sky_rms is None else sky_rms
        checks = ExposureChecks(
            stack=stack,
            noise=pixel_noise,
            flux_noise=np.array([noise.flux for noise in noises]),
            sky=sky / (sigma * np.where(pixel_noise > 0.0, pixel_noise, 1.0)),
            flux_scale=np.array([_flux_scale(catalogs, t, pairs[t]) for t in range(n)]),
            shift=shift,
            n_common=np.array([len(set(common[:, 0].tolist())) for common in pairs]),
            kernel_offset=np.array([_kernel_offset(kernels) for kernels in stack.kernels]),
            width_ratio=np.array([_width_ratio(catalog) for catalog in catalogs]),
            photons=np.array([_photons(one, noise) for one, noise in zip(catalogs, noises, strict=True)]),
            findings=((),) * n,
        )
        findings = tuple(
            (
                *self._noise_findings(checks, t),
                *self._source_findings(checks, t, catalogs),
                *(self._kernel_findings(checks, t) if check_kernels else ()),
            )
            for t in range(n)
        )
        checks = dataclasses.replace(checks, findings=findings)
        self.log.info("Exposures, each against the others:\n%s", checks.table())
        self._report(checks)
        if not checks.dropped.any():
            return checks
        return dataclasses.replace(checks, stack=_drop(stack, checks.dropped))

    def _noise_findings(self, checks: ExposureChecks, t: int) -> Iterator[Finding]:
        """Compare the noise of an exposure with its variance."""
        noise, flux_noise, photons = checks.noise[t], checks.flux_noise[t], checks.photons[t]
        limit, fatal = self.config.noise
        inverted = photons < -1.0 / np.sqrt(_MAX_ELECTRONS)
        cause = (
            "the variance is lower in bright sources: is it a weight (1 / variance)?"
            if inverted
            else "is the variance a standard deviation, a weight (1 / variance), or in another unit?"
        )
        if noise > limit:
            # Faint sources that fill the sky do the same to all exposures.
            unlike = noise > _UNLIKE * np.nanmedian(checks.noise) or noise > _NEVER_CROWDING
            yield Finding(
                text=f"the sky scatters by {noise:.3g} times the stated noise; {cause}",
                is_fatal=bool(noise > fatal and unlike),
            )
        elif noise < 1.0 / limit:
            yield Finding(
                text=f"the sky scatters by only {noise:.3g} of the stated noise; {cause}",
                is_fatal=bool(noise < 1.0 / fatal),
            )
        elif flux_noise > limit:
            yield Finding(
                text=f"sums over 4x4 pixels of sky scatter by {flux_noise:.3g} times the stated noise; is "
                "the noise correlated more than stated?",
                is_fatal=False,
            )
        elif inverted:
            yield Finding(text=cause, is_fatal=False)
        if abs(photons) <= 1.0 / np.sqrt(_MAX_ELECTRONS):
            yield Finding(
                text="the variance is the same in bright sources as in the sky; does it lack the sources' "
                "photon noise?",
                is_fatal=False,
            )
        if checks.sky[t] > _HIGH_SKY:
            yield Finding(
                text=f"its background was {checks.sky[t]:.3g} times the noise of a pixel (rms); is its sky "
                "not subtracted?",
                is_fatal=False,
            )

    def _source_findings(
        self, checks: ExposureChecks, t: int, catalogs: Sequence[Catalog]
    ) -> Iterator[Finding]:
        """Compare fluxes and positions with those of the other exposures."""
        if checks.n_common[t] == 0:
            others = [one.positions for s, one in enumerate(catalogs) if s != t]
            rows = np.rint(np.concatenate([np.zeros((0, 2)), *others])).astype(int)
            expected = int(np.count_nonzero(checks.stack.good[t, rows[:, 0], rows[:, 1]]))
            if min(len(catalogs[t]), expected) >= _MIN_UNMATCHED:
                yield Finding(
                    text=f"none of its {len(catalogs[t])} bright sources is in the other exposures within "
                    f"{_MAX_SHIFT} pixels; is its WCS wrong, or mirrored?",
                    is_fatal=True,
                )
            return
        limit, fatal = self.config.shift
        distance = float(np.hypot(*checks.shift[t]))
        if distance > limit:
            y, x = checks.shift[t]
            yield Finding(
                text=f"its sources are off by {y:+.1f} pixels in y and {x:+.1f} in x; is its WCS wrong?",
                is_fatal=distance > fatal,
            )
        limit, fatal = self.config.fluxScale
        scale = float(checks.flux_scale[t])
        if max(scale, 1.0 / scale) > limit:
            yield Finding(
                text=f"its sources have {scale:.3g} times the flux ({-2.5 * np.log10(scale):+.2f} mag) they "
                "have in the other exposures; is its zero point or exposure time wrong, or was it taken "
                "through clouds?",
                is_fatal=max(scale, 1.0 / scale) > fatal,
            )

    def _kernel_findings(self, checks: ExposureChecks, t: int) -> Iterator[Finding]:
        """Compare the PSF kernels with the stars."""
        limit, fatal = self.config.kernelOffset
        offset = float(checks.kernel_offset[t])
        if offset > limit:
            yield Finding(
                text=f"its PSF kernel is {offset:.1f} pixels off center; is the PSF model not centered, or "
                "the pixel origin of its file another one?",
                is_fatal=offset > fatal,
            )
        limit, fatal = self.config.widthRatio
        ratio = float(checks.width_ratio[t])
        if ratio > limit:
            # Galaxies without a star among them are too broad in all exposures.
            unlike = ratio > _UNLIKE * np.nanmedian(checks.width_ratio)
            yield Finding(
                text=f"its stars are {ratio:.2f} times as wide as its PSF kernel; is the FWHM stated in "
                "another unit, or without the pixel? (Or there is no star among its sources.)",
                is_fatal=bool(ratio > fatal and unlike),
            )
        elif ratio < 1.0 / limit:
            yield Finding(
                text=f"its stars are only {ratio:.2f} times as wide as its PSF kernel; is the FWHM stated in "
                "another unit?",
                is_fatal=ratio < 1.0 / fatal,
            )

    def _report(self, checks: ExposureChecks) -> None:
        """Warn of findings; refuse a stack of which too little is left."""
        names, dropped = checks.stack.names, checks.dropped
        for name, found, is_dropped in zip(names, checks.findings, dropped, strict=True):
            if found:
                self.log.warning(
                    "%s%s: %s",
                    "Dropping " if is_dropped else "",
                    name,
                    "; ".join(finding.text for finding in found),
                )
        n_kept = int(np.count_nonzero(~dropped))
        if n_kept < max(1, _MIN_KEPT * len(names)):
            reasons = [
                f"{name}: {'; '.join(finding.text for finding in found if finding.is_fatal)}"
                for name, found, is_dropped in zip(names, checks.findings, dropped, strict=True)
                if is_dropped
            ]
            raise RestorationError(
                f"{len(reasons)} of {len(names)} exposures contradict the others or their own variance or PSF"
                f": {'. '.join(reasons)}. Correct or exclude them, or raise the limits in checkExposures.",
                n_wrong=len(reasons),
            )


def _drop(stack: ExposureStack, dropped: np.ndarray) -> ExposureStack:
    """Return the exposures, some of them without good pixels and kernels."""
    kernels = stack.kernels.copy()
    kernels[dropped] = 0.0
    pixels = np.broadcast_to(dropped[:, np.newaxis, np.newaxis], stack.good.shape)
    return dataclasses.replace(stack.without(pixels), kernels=kernels)


def _median_sigma(stack: ExposureStack, t: int) -> float:
    """Return the median stated noise of an exposure, NaN without good pixels."""
    variance = stack.variance[t][stack.good[t]]
    return float(np.sqrt(np.median(variance))) if variance.size else np.nan


def _match(catalogs: Sequence[Catalog], t: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the shift of an exposure by the votes of pairs of sources.

    Returns
    -------
    shift : `numpy.ndarray`
        Shift in y and x, shape ``(2,)``, NaN if there is none.
    pairs : `numpy.ndarray`
        Index of the source, of the other exposure and of the source in it,
        shape ``(p, 3)``.
    """
    nothing = np.full(2, np.nan), np.zeros((0, 3), int)
    own = catalogs[t].positions
    if len(own) < _MIN_COMMON:
        return nothing
    tree = scipy.spatial.cKDTree(own)
    votes = np.zeros((2 * _MAX_SHIFT + 1,) * 2)
    rows, offsets = [], []
    for s, other in enumerate(catalogs):
        if not len(other):
            continue
        found = tree.query_ball_point(other.positions, _MAX_SHIFT)
        row = np.array([(i, s, j) for j, near in enumerate(found) for i in near], int).reshape(-1, 3)
        offset = own[row[:, 0]] - other.positions[row[:, 2]]
        # Of two exposures that contradict each other both are suspect: its own sources count half.
        index = np.rint(offset).astype(int) + _MAX_SHIFT
        np.add.at(votes, (index[:, 0], index[:, 1]), 0.5 if s == t else 1.0)
        if s != t:
            rows.append(row)
            offsets.append(offset)
    if not rows:
        return nothing
    pairs, offset = np.concatenate(rows), np.concatenate(offsets)
    around = scipy.ndimage.uniform_filter(votes, 3, mode="constant") * 9
    best = np.array(np.unravel_index(np.argmax(around), around.shape)) - _MAX_SHIFT
    agree = np.hypot(*(offset - best).T) <= _PAIR_RADIUS
    chance = 9 * len(pairs) / votes.size
    n_sources = len(set(pairs[agree, 0].tolist()))
    if n_sources < _MIN_COMMON or around.max() < chance + 5.0 * np.sqrt(chance) + 2.0:
        return nothing
    return np.median(offset[agree], axis=0), pairs[agree]


def _flux_scale(catalogs: Sequence[Catalog], t: int, pairs: np.ndarray) -> float:
    """Return the median flux of common sources over the median of all
    exposures.
    """
    ratios = []
    for i in np.unique(pairs[:, 0]):
        of_source = pairs[pairs[:, 0] == i]
        flux = catalogs[t].flux[i]
        others = [catalogs[s].flux[j] for _, s, j in of_source]
        ratios.append(np.log(flux) - np.median(np.log([flux, *others])))
    return float(np.exp(np.median(ratios))) if ratios else np.nan


def _width_ratio(catalog: Catalog) -> float:
    """Return the median width of the stars over that of the kernels."""
    known = catalog.width_ratio[np.isfinite(catalog.width_ratio)]
    stars = known[stellar(known)]
    return float(np.median(stars)) if len(stars) >= _MIN_STARS else np.nan


def _photons(catalog: Catalog, noise: ExposureNoise) -> float:
    """Return the increase of the variance in bright sources, see
    `ExposureChecks`.
    """
    # In units of the noise that the sky has, not of the stated one.
    height = catalog.peak / noise.pixel
    bright = np.isfinite(catalog.variance_rise) & (height > _BRIGHT_PEAK)
    if np.count_nonzero(bright) < _MIN_COMMON:
        return np.nan
    return float(np.median(catalog.variance_rise[bright] / height[bright]))


def _kernel_offset(kernels: np.ndarray) -> float:
    """Return the distance of the core of the kernels of all cells from the
    middle pixel, NaN if there is none.
    """
    total = kernels.sum(axis=(0, 1), dtype=np.float64)
    if not total.max() > 0.0:
        return np.nan
    core = np.where(total > _KERNEL_CORE * total.max(), total, 0.0)
    return float(np.hypot(*(np.array(scipy.ndimage.center_of_mass(core)) - len(total) // 2)))
