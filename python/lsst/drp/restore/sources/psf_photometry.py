# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fluxes and positions of many point sources by simultaneous PSF fits."""

from __future__ import annotations

__all__ = ("PsfPhotometry", "fit_sources")

import dataclasses

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from .cell_psf import CellPsf
from .source_image import nearest_pixel

# Passes over all groups.  Positions are fixed in the first one; in each of the
# others a source may move by this much, pixels: the PSF is not linear in the
# position beyond it.
_PASSES = 6
_LARGEST_STEP = 0.4

# Passes over a group from which a source was removed; positions are fixed in
# the last one.
_REFIT_PASSES = 3

# A source with less than this fraction of the PSF's flux on valid pixels is
# not measured.
_MIN_COVERAGE = 0.02

# Smallest standard deviation of a given position, pixels: 0 is a prior without
# inverse.
_SMALLEST_SCATTER = 1e-3


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PsfPhotometry:
    """Positions and fluxes of point sources, arrays of shape ``(n,)``.

    Parameters
    ----------
    x, y, x_err, y_err : `numpy.ndarray`
        Positions and their standard deviations, pixels.
    flux, flux_err : `numpy.ndarray`
        Fluxes and their standard deviations, nJy; NaN where too few pixels are
        valid.
    background : `numpy.ndarray`
        Background that was fitted together with the source, nJy per pixel.
    chi2 : `numpy.ndarray`
        Chi squared per pixel around the source.
    n_fit : `numpy.ndarray`
        Number of sources that were fitted simultaneously, `int`.
    residual : `numpy.ndarray`
        The image minus the sources, nJy per pixel, shape ``(height, width)``.
    """

    x: np.ndarray
    y: np.ndarray
    x_err: np.ndarray
    y_err: np.ndarray
    flux: np.ndarray
    flux_err: np.ndarray
    background: np.ndarray
    chi2: np.ndarray
    n_fit: np.ndarray
    residual: np.ndarray


def fit_sources(
    image: np.ndarray,
    variance: np.ndarray,
    psf: CellPsf,
    x: np.ndarray,
    y: np.ndarray,
    *,
    link_radius: float,
    fit_radius: int = 10,
    position_scatter: float | np.ndarray = 0.3,
    min_significance: float = 0.0,
    certain: np.ndarray | None = None,
    max_group: int = 150,
) -> tuple[PsfPhotometry, np.ndarray]:
    """Fit fluxes and positions of sources, neighbors simultaneously.

    Parameters
    ----------
    image, variance : `numpy.ndarray`
        Image, nJy, and its variance, nJy**2, shape ``(height, width)``; not
        finite where a pixel is not valid.
    psf : `CellPsf`
        The PSF of the image.
    x, y : `numpy.ndarray`
        Approximate positions, pixels, shape ``(n,)``.
    link_radius : `float`
        Sources closer to each other than this are fitted simultaneously,
        pixels.
    fit_radius : `int`, optional
        Half of the size of the square around each source whose pixels are
        fitted, pixels.
    position_scatter : `float` or `numpy.ndarray`, optional
        Standard deviation of the given positions, pixels, of all or of each;
        0 fixes them.
    min_significance : `float`, optional
        Sources whose flux is below this many standard deviations are removed,
        the least significant one of each group first, and the remaining ones
        are fitted again.
    certain : `numpy.ndarray`, optional
        Sources that are never removed, even if they cannot be measured,
        `bool`, shape ``(n,)``.
    max_group : `int`, optional
        Largest number of sources that are fitted simultaneously: larger groups
        (star clusters) are divided, and their parts fitted one after another.
        Time and memory of a fit grow as the cube and the square of it.

    Returns
    -------
    photometry : `PsfPhotometry`
        The remaining sources.
    kept : `numpy.ndarray`
        Which of the given sources these are, `bool`, shape ``(n,)``.

    Notes
    -----
    The model of a group of sources is ``sum_i F_i P(r - r_i) + b`` with the
    PSF ``P`` and a constant ``b``.  All pixels have the same weight: with the
    inverse variance, which contains the photon noise of the source, fluxes
    would depend on the noise and on errors of the PSF.  The stated errors are
    those of this estimator under the given variance, for uncorrelated noise.
    Positions are fitted by Gauss-Newton steps with the given positions as a
    prior, so that sources too close to be separated stay where they were
    detected.  Each group is fitted to the image minus all other groups;
    several passes over the groups converge to the simultaneous solution.
    """
    scatter = np.broadcast_to(np.asarray(position_scatter, float), np.shape(x))
    scene = _Scene(image, variance, psf, np.array(x, float), np.array(y, float), fit_radius, scatter)
    movable = bool(np.any(scatter > 0))
    groups = _make_groups(scene.x, scene.y, link_radius, max_group)
    for number in range(_PASSES):
        for group in groups:
            scene.fit(group, move=number > 0 and movable)
    kept = _remove_insignificant(scene, groups, min_significance, certain, movable=movable)
    # At the final positions, and with the final fit of the adjacent groups.
    for group in groups:
        scene.fit(group, move=False)
    for group in groups:
        scene.n_fit[group] = len(group)
    return scene.result(kept), kept


def _remove_insignificant(
    scene: _Scene,
    groups: list[np.ndarray],
    min_significance: float,
    certain: np.ndarray | None,
    *,
    movable: bool,
) -> np.ndarray:
    """Remove the sources that are not significant, of each group (changed in
    place) the least significant one first; return which are kept.
    """
    kept = np.ones(len(scene.x), dtype=bool)
    while True:
        with np.errstate(invalid="ignore", divide="ignore"):
            significance = np.nan_to_num(scene.flux / scene.flux_err, nan=-np.inf, posinf=-np.inf)
        if certain is not None:
            significance[certain] = np.inf
        changed = []
        for number, group in enumerate(groups):
            if len(group) and significance[group].min() < min_significance:
                weakest = group[np.argmin(significance[group])]
                scene.remove(weakest)
                kept[weakest] = False
                groups[number] = group[group != weakest]
                changed.append(groups[number])
        if not changed:
            return kept
        # Neighbors had lost flux to the removed source.
        for number in range(_REFIT_PASSES):
            for group in changed:
                scene.fit(group, move=movable and number < _REFIT_PASSES - 1)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _LinearSystem:
    """The linearized model of a group of n sources and the pixels around them.

    The 3n + 1 parameters are the flux of each source and the steps of its x
    and y, and the background of the group.

    Parameters
    ----------
    design : `numpy.ndarray`
        Derivatives of the pixels by the parameters, shape ``(n_pixels, 3n +
        1)``; zero for sources that cannot be measured.
    data, noise : `numpy.ndarray`
        The pixels, nJy, and their variance, nJy**2, shape ``(n_pixels,)``.
    typical_noise : `float`
        Median of ``noise``.
    prior : `numpy.ndarray`
        Inverse variance of the prior of each parameter in units of
        ``1 / typical_noise``, shape ``(3n + 1,)``.
    pull : `numpy.ndarray`
        Steps of x and of y to the mean of the prior, pixels, shape ``(2, n)``.
    """

    design: np.ndarray
    data: np.ndarray
    noise: np.ndarray
    typical_noise: float
    prior: np.ndarray
    pull: np.ndarray

    def solve(self, *, move: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return the parameters and their standard deviations, shape ``(3n +
        1,)``.

        Without ``move`` the steps are zero, but the errors of the fluxes are
        still those with free positions.
        """
        n_parameters = len(self.prior)
        normal = self.design.T @ self.design + np.diag(self.prior)
        right = self.design.T @ self.data
        for axis in range(2):
            steps = slice(1 + axis, n_parameters - 1, 3)
            right[steps] += self.prior[steps] * self.pull[axis]
        inverse = scipy.linalg.pinvh(normal)
        # All pixels have the same weight, but not the same noise.
        spread = self.design.T @ (self.design * self.noise[:, np.newaxis])
        spread = spread + np.diag(self.typical_noise * self.prior)
        error = np.sqrt(np.maximum(((inverse @ spread) * inverse).sum(axis=1), 0.0))
        if move:
            return inverse @ right, error
        solution = np.zeros(n_parameters)
        fixed = np.append(np.arange(0, n_parameters - 1, 3), n_parameters - 1)
        solution[fixed] = scipy.linalg.lstsq(normal[np.ix_(fixed, fixed)], right[fixed])[0]
        return solution, error


class _Scene:
    """The parameters of all sources and the image minus these sources."""

    def __init__(
        self,
        image: np.ndarray,
        variance: np.ndarray,
        psf: CellPsf,
        x: np.ndarray,
        y: np.ndarray,
        radius: int,
        scatter: np.ndarray,
    ) -> None:
        self.psf, self.x, self.y, self.scatter = psf, x, y, scatter
        self.x0, self.y0 = x.copy(), y.copy()
        self.margin = psf.size // 2 + 1
        self.radius = min(radius, psf.size // 2)
        # Padded by what stamps reach beyond the image.
        self.residual = np.pad(np.asarray(image, np.float64), self.margin, constant_values=np.nan)
        self.variance = np.pad(np.asarray(variance, np.float64), self.margin, constant_values=np.nan)
        self.valid = np.isfinite(self.residual) & np.isfinite(self.variance) & (self.variance > 0)
        self.variance[~self.valid] = 0.0
        n = len(x)
        self.flux = np.zeros(n)
        self.flux_err, self.x_err, self.y_err = (np.full(n, np.nan) for _ in range(3))
        self.background, self.chi2 = np.full(n, np.nan), np.full(n, np.nan)
        self.n_fit = np.ones(n, dtype=int)

    def fit(self, group: np.ndarray, *, move: bool) -> None:
        """Fit the fluxes, and with ``move`` the positions, of a group to the
        image minus all other groups.
        """
        if not len(group):
            return
        stamps = self.psf.stamps(self.x[group], self.y[group])
        self._add(group, stamps[:, 0], self.flux[group])
        system, measurable = self._linearize(group, stamps)
        solution, error = system.solve(move=move)
        (flux, *steps), level = solution[:-1].reshape(-1, 3).T, solution[-1]
        (flux_err, x_err, y_err) = error[:-1].reshape(-1, 3).T
        self.flux[group] = np.where(measurable, flux, 0.0)
        self.flux_err[group] = np.where(measurable, flux_err, np.nan)
        self.x_err[group], self.y_err[group] = x_err, y_err
        self.background[group] = level
        if move:
            for values, step in zip((self.x, self.y), steps, strict=True):
                values[group] += np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
            stamps = self.psf.stamps(self.x[group], self.y[group])
        self._add(group, stamps[:, 0], -self.flux[group])
        if not move:
            self._measure_chi2(group)

    def remove(self, source: np.intp) -> None:
        """Put a source back into the image and set its flux to zero."""
        one = np.array([source])
        self._add(one, self.psf.stamps(self.x[one], self.y[one])[:, 0], self.flux[one])
        self.flux[source] = 0.0

    def _linearize(self, group: np.ndarray, stamps: np.ndarray) -> tuple[_LinearSystem, np.ndarray]:
        """Return the linear system of a group that is not subtracted from the
        image, and which of its sources can be measured (`bool`).

        ``stamps`` has shape ``(n, 3, k, k)``, see `CellPsf.stamps`.
        """
        n = len(group)
        middle, radius = self.psf.size // 2, self.radius
        part = slice(middle - radius, middle + radius + 1)
        profiles = stamps[:, :, part, part]
        rows, columns = self._windows(group, radius)
        index = rows[:, :, np.newaxis] * self.residual.shape[1] + columns[:, np.newaxis, :]
        valid = self.valid.ravel()[index]
        covered = (profiles[:, 0] * valid).sum(axis=(1, 2))
        measurable = covered > _MIN_COVERAGE * profiles[:, 0].sum(axis=(1, 2))
        # A source without flux has no position that could be fitted.
        flux_scale = np.where(self.flux[group] > 0, self.flux[group], 0.0)
        flux_scale[~measurable] = 0.0
        scales = np.stack([measurable.astype(float), flux_scale, flux_scale], axis=1)
        profiles = profiles * scales[:, :, np.newaxis, np.newaxis]

        pixels, place = np.unique(index[valid], return_inverse=True)
        design = np.zeros((len(pixels), 3 * n + 1))
        design[:, -1] = 1.0
        first = 0
        for k, (profile, inside) in enumerate(zip(profiles, valid, strict=True)):
            last = first + int(np.count_nonzero(inside))
            design[place[first:last], 3 * k : 3 * k + 3] = profile[:, inside].T
            first = last

        noise = self.variance.ravel()[pixels]
        typical = float(np.median(noise)) if len(noise) else 1.0
        # Columns of zeros need a prior in any case.
        prior = np.zeros(3 * n + 1)
        of_position = typical / np.maximum(self.scatter[group], _SMALLEST_SCATTER) ** 2
        prior[1 : 3 * n : 3] = prior[2 : 3 * n : 3] = of_position
        prior[0 : 3 * n : 3][~measurable] = typical
        prior[-1] = 1e-12 * max(len(pixels), 1)
        system = _LinearSystem(
            design=design,
            data=self.residual.ravel()[pixels],
            noise=noise,
            typical_noise=typical,
            prior=prior,
            pull=np.stack([self.x0[group] - self.x[group], self.y0[group] - self.y[group]]),
        )
        return system, measurable

    def _measure_chi2(self, group: np.ndarray) -> None:
        """Measure chi squared per pixel around the sources of a group."""
        rows, columns = self._windows(group, max(self.radius // 2, 2))
        for k, r, c in zip(group, rows, columns, strict=True):
            box = (slice(r[0], r[-1] + 1), slice(c[0], c[-1] + 1))
            good = self.valid[box]
            if good.any():
                residual = self.residual[box][good] - self.background[k]
                self.chi2[k] = np.mean(residual**2 / self.variance[box][good])

    def _windows(self, group: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and columns of squares around sources in the padded
        image, shape ``(n, 2*radius+1)``.
        """
        offset = np.arange(-radius, radius + 1) + self.margin
        # A position far outside of the image would not be in the padding.
        height, width = (size - 2 * self.margin for size in self.residual.shape)
        row, column = nearest_pixel(self.x[group], self.y[group], (height, width))
        return row[:, np.newaxis] + offset, column[:, np.newaxis] + offset

    def _add(self, group: np.ndarray, stamps: np.ndarray, flux: np.ndarray) -> None:
        """Add sources to the image."""
        rows, columns = self._windows(group, self.psf.size // 2)
        for r, c, stamp, f in zip(rows, columns, stamps, flux, strict=True):
            self.residual[r[0] : r[-1] + 1, c[0] : c[-1] + 1] += f * stamp

    def result(self, kept: np.ndarray) -> PsfPhotometry:
        """Return the sources that are kept."""
        m = self.margin
        return PsfPhotometry(
            x=self.x[kept],
            y=self.y[kept],
            x_err=self.x_err[kept],
            y_err=self.y_err[kept],
            flux=np.where(np.isfinite(self.flux_err), self.flux, np.nan)[kept],
            flux_err=self.flux_err[kept],
            background=self.background[kept],
            chi2=self.chi2[kept],
            n_fit=self.n_fit[kept],
            residual=self.residual[m:-m, m:-m],
        )


def _make_groups(x: np.ndarray, y: np.ndarray, radius: float, max_group: int) -> list[np.ndarray]:
    """Return the indices of the sources of each group: those that are linked by
    separations below a radius.
    """
    if not len(x):
        return []
    positions = np.stack([x, y], axis=1)
    pairs = cKDTree(positions).query_pairs(radius, output_type="ndarray")
    links = scipy.sparse.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(x), len(x)))
    _, label = connected_components(links, directed=False)
    order = np.argsort(label, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    return [part for group in groups for part in _split_group(group, positions, max_group)]


def _split_group(group: np.ndarray, positions: np.ndarray, max_group: int) -> list[np.ndarray]:
    """Halve a group until no part is larger than allowed."""
    if len(group) <= max_group:
        return [group]
    place = positions[group]
    axis = int(np.argmax(np.ptp(place, axis=0)))
    order = group[np.argsort(place[:, axis], kind="stable")]
    half = len(order) // 2
    return [
        *_split_group(order[:half], positions, max_group),
        *_split_group(order[half:], positions, max_group),
    ]
