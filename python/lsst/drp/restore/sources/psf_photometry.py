# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSF fluxes and positions of many sources at once."""

from __future__ import annotations

__all__ = ("CellPsf", "PsfPhotometry", "fit_sources")

import dataclasses

import numpy as np
import scipy.fft
import scipy.linalg
import scipy.sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..stack.subpixel import phase_ramp

# Largest number of sources that are fitted simultaneously; of larger groups
# (star clusters) the parts are fitted one after the other.
_MAX_GROUP = 150

# Passes over all groups: the first one at fixed positions, and in each of the
# others a source may move by this much, pixels.
_PASSES = 6
_LARGEST_STEP = 0.4

# A source whose PSF has less than this fraction of its flux on valid pixels is
# not measured.
_MIN_COVERAGE = 0.02


class CellPsf:
    """A PSF that is constant in cells, at any position.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        Kernels by cell, centered on their middle pixel, shape ``(cells_y,
        cells_x, k, k)``, ``k`` odd.  Not finite or zero where there is none.
    cell_shape : `tuple` [`int`, `int`]
        Height and width of a cell, pixels.
    """

    def __init__(self, kernels: np.ndarray, cell_shape: tuple[int, int]) -> None:
        self.size = kernels.shape[-1]
        self.kernels = np.where(np.isfinite(kernels), kernels, 0.0)
        self.cell_shape = cell_shape
        # Nothing may come in again from the other side.
        self._grid = scipy.fft.next_fast_len(self.size + 4, real=True)
        self._transfer = scipy.fft.rfft2(self.kernels, s=(self._grid, self._grid))

    def cell_of(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices i, j of the cells of positions (`tuple` of
        `numpy.ndarray`); those outside of the grid belong to the nearest one.
        """
        i = np.clip(np.rint(y).astype(int) // self.cell_shape[0], 0, self.kernels.shape[0] - 1)
        j = np.clip(np.rint(x).astype(int) // self.cell_shape[1], 0, self.kernels.shape[1] - 1)
        return i, j

    def stamps(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Draw sources of unit flux.

        Parameters
        ----------
        x, y : `numpy.ndarray`
            Positions, pixels, shape ``(n,)``.

        Returns
        -------
        stamps : `numpy.ndarray`
            Image of each source and its derivatives by x and y of the source,
            per pixel, shape ``(n, 3, k, k)``, centered on the pixel nearest to
            the source.
        """
        transfer = self._transfer[self.cell_of(x, y)]
        fy = scipy.fft.fftfreq(self._grid)[:, np.newaxis]
        fx = scipy.fft.rfftfreq(self._grid)
        shifted = transfer * phase_ramp(y - np.rint(y), x - np.rint(x), self._grid)
        spectra = np.stack([shifted, -2j * np.pi * fx * shifted, -2j * np.pi * fy * shifted], axis=1)
        return scipy.fft.irfft2(spectra, s=(self._grid, self._grid))[..., : self.size, : self.size]


@dataclasses.dataclass(eq=False, kw_only=True)
class PsfPhotometry:
    """Sources that are described by PSFs, arrays of shape ``(n,)``.

    Parameters
    ----------
    x, y, x_err, y_err : `numpy.ndarray`
        Positions and their standard deviations, pixels.
    flux, flux_err : `numpy.ndarray`
        Fluxes and their standard deviations, nJy: NaN where too few pixels are
        valid.
    background : `numpy.ndarray`
        Level of the sky that was fitted with the source, nJy per pixel.
    chi2 : `numpy.ndarray`
        Chi squared per pixel around the source.
    n_fit : `numpy.ndarray`
        Number of sources that were fitted simultaneously.
    residual : `numpy.ndarray`
        The image without the sources, shape ``(height, width)``.
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
        Approximate positions, pixels.
    link_radius : `float`
        Sources closer to each other than this are fitted simultaneously,
        pixels.
    fit_radius : `int`, optional
        Half of the size of the square around each source that is fitted,
        pixels.
    position_scatter : `float` or `numpy.ndarray`, optional
        Standard deviation of the given positions, pixels, of all or of each;
        0 leaves them as they are.
    min_significance : `float`, optional
        Sources whose flux is smaller than this many times its standard
        deviation are taken out, the weakest of a group first, and what is left
        is fitted again.
    certain : `numpy.ndarray`, optional
        `bool`, shape of ``x``: sources that are never taken out, even if they
        cannot be measured.

    Returns
    -------
    photometry : `PsfPhotometry`
        The sources that are left.
    kept : `numpy.ndarray`
        `bool`, shape of ``x``: which these are.

    Notes
    -----
    The model of a group of sources is ``sum_i F_i P(r - r_i) + b`` with the
    PSF ``P`` and a constant ``b``.  All pixels have the same weight: with
    their inverse variance, which contains the photon noise of the source,
    fluxes would depend on the noise and on errors of the PSF.  The stated
    errors are those of this estimator with the given variance, for noise
    that is not correlated.  Positions are fitted by Gauss-Newton steps with the
    given ones as a prior, so that sources that hardly can be deblended stay
    where they were seen.  Groups see each other through the residual image;
    some passes over all of them converge to the common solution.
    """
    scatter = np.broadcast_to(np.asarray(position_scatter, float), np.shape(x))
    fit = _Fit(image, variance, psf, np.array(x, float), np.array(y, float), fit_radius, scatter)
    movable = bool(np.any(scatter > 0))
    kept = np.ones(len(fit.x), dtype=bool)
    groups = _groups(fit.x, fit.y, link_radius)
    for number in range(_PASSES):
        for group in groups:
            fit.update(group, move=number > 0 and movable)
    while True:
        # A source that is too faint takes flux from its neighbors: refit them.
        with np.errstate(invalid="ignore", divide="ignore"):
            significance = np.nan_to_num(fit.flux / fit.flux_err, nan=-np.inf, posinf=-np.inf)
        if certain is not None:
            significance[certain] = np.inf
        changed = []
        for number, group in enumerate(groups):
            if len(group) and significance[group].min() < min_significance:
                weakest = group[np.argmin(significance[group])]
                fit.remove(weakest)
                kept[weakest] = False
                groups[number] = group[group != weakest]
                changed.append(groups[number])
        if not changed:
            break
        for number in range(3):
            for group in changed:
                fit.update(group, move=movable and number < 2)
    # At the positions as they are now, neighboring groups as they are now.
    for group in groups:
        fit.update(group, move=False)
    for group in groups:
        fit.n_fit[group] = len(group)
    return fit.result(kept), kept


class _Fit:
    """The state of a fit: parameters of all sources and what they leave of the
    image.
    """

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
        # Stamps at the edge reach beyond the image.
        self.residual = np.pad(np.asarray(image, np.float64), self.margin, constant_values=np.nan)
        self.variance = np.pad(np.asarray(variance, np.float64), self.margin, constant_values=np.nan)
        self.valid = np.isfinite(self.residual) & np.isfinite(self.variance) & (self.variance > 0)
        self.variance[~self.valid] = 0.0
        n = len(x)
        self.flux = np.zeros(n)
        self.flux_err, self.x_err, self.y_err = (np.full(n, np.nan) for _ in range(3))
        self.background, self.chi2 = np.full(n, np.nan), np.full(n, np.nan)
        self.n_fit = np.ones(n, dtype=int)

    def _windows(self, group: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and columns of the stamps, ``(n, 2*radius+1)``."""
        offset = np.arange(-radius, radius + 1) + self.margin
        # A position far outside of the image would not be in the padding.
        height, width = (size - 2 * self.margin for size in self.residual.shape)
        row = np.clip(np.rint(self.y[group]).astype(int), 0, height - 1)
        column = np.clip(np.rint(self.x[group]).astype(int), 0, width - 1)
        return row[:, np.newaxis] + offset, column[:, np.newaxis] + offset

    def _add(self, group: np.ndarray, stamps: np.ndarray, flux: np.ndarray) -> None:
        """Add sources to the residual image."""
        rows, columns = self._windows(group, self.psf.size // 2)
        for r, c, stamp, f in zip(rows, columns, stamps, flux, strict=True):
            self.residual[r[0] : r[-1] + 1, c[0] : c[-1] + 1] += f * stamp

    def remove(self, source: np.intp) -> None:
        """Take a source out."""
        one = np.array([source])
        self._add(one, self.psf.stamps(self.x[one], self.y[one])[:, 0], self.flux[one])
        self.flux[source] = 0.0

    def update(self, group: np.ndarray, *, move: bool) -> None:
        """Fit a group to what the others leave of the image."""
        if not len(group):
            return
        n = len(group)
        stamps = self.psf.stamps(self.x[group], self.y[group])
        self._add(group, stamps[:, 0], self.flux[group])
        middle, radius = self.psf.size // 2, self.radius
        part = slice(middle - radius, middle + radius + 1)
        profiles = stamps[:, :, part, part]
        rows, columns = self._windows(group, radius)
        index = rows[:, :, np.newaxis] * self.residual.shape[1] + columns[:, np.newaxis, :]
        valid = self.valid.ravel()[index]
        covered = (profiles[:, 0] * valid).sum(axis=(1, 2))
        measurable = covered > _MIN_COVERAGE * profiles[:, 0].sum(axis=(1, 2))
        # Each source of flux > 0 has columns of its flux, and of its position.
        pixels, place = np.unique(index[valid], return_inverse=True)
        flux_scale = np.where(self.flux[group] > 0, self.flux[group], 0.0)
        flux_scale[~measurable] = 0.0
        profiles = (
            profiles
            * np.stack([measurable.astype(float), flux_scale, flux_scale], axis=1)[
                :, :, np.newaxis, np.newaxis
            ]
        )
        design = np.zeros((len(pixels), 3 * n + 1))
        design[:, -1] = 1.0
        first = 0
        for k, (profile, inside) in enumerate(zip(profiles, valid, strict=True)):
            last = first + int(np.count_nonzero(inside))
            design[place[first:last], 3 * k : 3 * k + 3] = profile[:, inside].T
            first = last
        noise = self.variance.ravel()[pixels]
        data = self.residual.ravel()[pixels]
        typical = float(np.median(noise)) if len(noise) else 1.0
        # The prior of the positions, in units of the pixels' noise; columns
        # that are zero need one in any case.
        prior = np.zeros(3 * n + 1)
        prior[1 : 3 * n : 3] = prior[2 : 3 * n : 3] = typical / np.maximum(self.scatter[group], 1e-3) ** 2
        prior[0 : 3 * n : 3][~measurable] = typical
        prior[-1] = 1e-12 * max(len(pixels), 1)
        normal = design.T @ design + np.diag(prior)
        inverse = scipy.linalg.pinvh(normal)
        spread = design.T @ (design * noise[:, np.newaxis]) + np.diag(typical * prior)
        error = np.sqrt(np.maximum(((inverse @ spread) * inverse).sum(axis=1), 0.0))
        right = design.T @ data
        dx0, dy0 = self.x0[group] - self.x[group], self.y0[group] - self.y[group]
        right[1 : 3 * n : 3] += prior[1 : 3 * n : 3] * dx0
        right[2 : 3 * n : 3] += prior[2 : 3 * n : 3] * dy0
        if move:
            solution = inverse @ right
            for values, step in ((self.x, solution[1 : 3 * n : 3]), (self.y, solution[2 : 3 * n : 3])):
                values[group] += np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
            stamps = self.psf.stamps(self.x[group], self.y[group])
            flux, level = solution[0 : 3 * n : 3], solution[-1]
        else:
            fixed = np.append(np.arange(0, 3 * n, 3), 3 * n)
            solution = scipy.linalg.lstsq(normal[np.ix_(fixed, fixed)], right[fixed])[0]
            flux, level = solution[:-1], solution[-1]
        self.flux[group] = np.where(measurable, flux, 0.0)
        self.flux_err[group] = np.where(measurable, error[0 : 3 * n : 3], np.nan)
        self.x_err[group], self.y_err[group] = error[1 : 3 * n : 3], error[2 : 3 * n : 3]
        self.background[group] = level
        self._add(group, stamps[:, 0], -self.flux[group])
        if not move:
            rows, columns = self._windows(group, max(radius // 2, 2))
            for k, r, c in zip(group, rows, columns, strict=True):
                box = (slice(r[0], r[-1] + 1), slice(c[0], c[-1] + 1))
                good = self.valid[box]
                if good.any():
                    self.chi2[k] = np.mean((self.residual[box][good] - level) ** 2 / self.variance[box][good])

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


def _groups(x: np.ndarray, y: np.ndarray, radius: float) -> list[np.ndarray]:
    """Return the indices of sources that are linked by steps below a
    radius.
    """
    if not len(x):
        return []
    positions = np.stack([x, y], axis=1)
    pairs = cKDTree(positions).query_pairs(radius, output_type="ndarray")
    links = scipy.sparse.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(x), len(x)))
    _, label = connected_components(links, directed=False)
    order = np.argsort(label, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    return [part for group in groups for part in _parts(group, positions)]


def _parts(group: np.ndarray, positions: np.ndarray) -> list[np.ndarray]:
    """Halve a group that is too large until its parts are not."""
    if len(group) <= _MAX_GROUP:
        return [group]
    place = positions[group]
    axis = int(np.argmax(np.ptp(place, axis=0)))
    order = group[np.argsort(place[:, axis], kind="stable")]
    half = len(order) // 2
    return [*_parts(order[:half], positions), *_parts(order[half:], positions)]
