# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSF kernels fitted to stars: points whose flux and position are fitted with
them.
"""

from __future__ import annotations

__all__ = ("StarFit", "StarStamps", "center", "fit_star_kernels", "moffat", "move")

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.optimize

from ..stack.exposure_stack import ExposureStack
from ..stack.subpixel import shift_matrix
from .point_sources import PointSources

# Steps of the inner solvers: enough for changes far below the noise.
_POSITION_STEPS = 3
_CONJUGATE_GRADIENT_STEPS = 40
_REWEIGHTINGS = 2
_TILT_STEPS = 30

# Largest movement of a star in one step, pixels.
_MAX_MOVE = 0.3

# The exponent of Moffat profiles: wings of a smaller one have no finite flux, and a larger one is a Gaussian.
_BETA_RANGE = (1.5, 50.0)

# What is known about seeing before any star is looked at: the exponent and the scatter of its logarithm, and
# the scatter of both components of the ellipticity.
_BETA, _BETA_SCATTER = 3.5, 0.5
_ELLIPTICITY = 0.1

# A star is no point if its image is broader or narrower than the kernel by this fraction of the kernel's
# variance and this many of the difference's standard deviations.
_EXTENDED_FRACTION = 0.1
_EXTENDED_SIGMA = 4.0


def moffat(parameters: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Evaluate an elliptical Moffat profile whose peak is 1.

    Parameters
    ----------
    parameters : `numpy.ndarray`
        Full width at half maximum (pixels), exponent, and the two components
        of the ellipticity, below 1 together.
    y, x : `numpy.ndarray`
        Distance from its center, pixels.

    Returns
    -------
    profile : `numpy.ndarray`
        ``(1 + (2**(1/beta) - 1) (2 r / fwhm)**2)**-beta``, ``r`` being the
        elliptical radius that keeps the area.
    """
    width, beta, e1, e2 = parameters
    unit = np.sqrt(1.0 - e1**2 - e2**2)
    radius2 = ((1.0 - e1) * x**2 + (1.0 + e1) * y**2 - 2.0 * e2 * x * y) / unit
    return (1.0 + (2.0 ** (1.0 / beta) - 1.0) * radius2 / (0.5 * width) ** 2) ** -beta


def center(kernels: np.ndarray) -> np.ndarray:
    """Move the centroids of kernels to their middle pixels.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        Non-negative kernels, shape ``(..., k, k)``.

    Returns
    -------
    centered : `numpy.ndarray`
        `numpy.float64`, same shape and sums, non-negative: the centered
        kernels nearest to the given ones in the sense of Kullback and
        Leibler, ``f(y, x) * exp(a y + b x + c)``.  Kernels that are zero stay
        so.
    """
    size = kernels.shape[-1]
    axis = np.arange(size) - size // 2
    y, x = np.broadcast_arrays(axis[:, np.newaxis], axis)
    result = np.array(kernels, np.float64)
    flat = result.reshape(-1, size, size)
    for kernel in flat:
        total = kernel.sum()
        if total <= 0.0:
            continue
        for _ in range(_TILT_STEPS):
            weight = kernel / kernel.sum()
            mean = np.array([(weight * y).sum(), (weight * x).sum()])
            if np.abs(mean).max() < 1e-10:
                break
            dy, dx = y - mean[0], x - mean[1]
            covariance = np.array(
                [[(weight * dy * dy).sum(), (weight * dy * dx).sum()], [0.0, (weight * dx * dx).sum()]]
            )
            covariance[1, 0] = covariance[0, 1]
            # Newton's step of the convex dual, shortened where the exponential is far from linear.
            tilt = -np.linalg.lstsq(covariance, mean, rcond=1e-10)[0]
            tilt *= min(1.0, 0.2 / max(np.abs(tilt).max(), 1e-300))
            kernel *= np.exp(tilt[0] * y + tilt[1] * x)
        kernel *= total / kernel.sum()
    return result


def move(kernels: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Move kernels off center.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        Non-negative kernels, shape ``(..., k, k)``.
    shift : `numpy.ndarray`
        How far in y and x, pixels, shape ``(2,)``.

    Returns
    -------
    moved : `numpy.ndarray`
        Same shape; negative lobes of the interpolation are cut off.
    """
    size = kernels.shape[-1]
    matrix_y, matrix_x = (shift_matrix(np.asarray(value), size) for value in shift)
    return np.maximum(matrix_y @ kernels @ matrix_x.T, 0.0)


@dataclasses.dataclass(eq=False, kw_only=True)
class StarStamps:
    """Stamps of stars on all exposures, and what is known about the stars.

    Parameters
    ----------
    image : `numpy.ndarray`
        Pixels, nJy, shape ``(s, n, k, k)``.
    weight : `numpy.ndarray`
        Inverse variance, nJy**-2, zero where a pixel is not to be used, same
        shape.
    variation : `numpy.ndarray`
        The factor by which the kernel in the star's cell differs from the
        exposure's mean kernel, same shape.
    dy, dx : `numpy.ndarray`
        Position of the star from the middle of the stamp, pixels, shape
        ``(s,)``.
    flux : `numpy.ndarray`
        Flux of the star, nJy, shape ``(s,)``.
    """

    image: np.ndarray
    weight: np.ndarray
    variation: np.ndarray
    dy: np.ndarray
    dx: np.ndarray
    flux: np.ndarray
    _moved: tuple[np.ndarray, np.ndarray] | None = dataclasses.field(default=None, init=False)

    @classmethod
    def cut(cls, stack: ExposureStack, stars: PointSources, variation: np.ndarray) -> StarStamps:
        """Cut the stamps out of a stack.

        Parameters
        ----------
        stack : `ExposureStack`
            The exposures.
        stars : `PointSources`
            The stars.
        variation : `numpy.ndarray`
            The factor by which kernels differ between cells, shape ``(n,
            cells_y, cells_x, k, k)``.

        Returns
        -------
        stamps : `StarStamps`
            The stamps.
        """
        size, half = stack.kernel_size, stack.kernel_size // 2
        row, column = np.rint(stars.y).astype(int), np.rint(stars.x).astype(int)
        offset = np.arange(size) - half
        rows = (row[:, np.newaxis] + offset)[:, :, np.newaxis]
        columns = (column[:, np.newaxis] + offset)[:, np.newaxis]
        image = np.moveaxis(stack.masked_image(rows, columns), 0, 1).astype(np.float64)
        variance = np.moveaxis(stack.masked_variance(rows, columns), 0, 1).astype(np.float64)
        cells = (row // stack.cell_shape[0], column // stack.cell_shape[1])
        return cls(
            image=image,
            weight=stars.clear[:, np.newaxis] / variance,
            variation=np.moveaxis(variation[:, cells[0], cells[1]], 0, 1).astype(np.float64),
            dy=stars.y - row,
            dx=stars.x - column,
            flux=stars.flux.astype(np.float64),
        )

    def select(self, chosen: np.ndarray) -> StarStamps:
        """Return the stamps of some of the stars."""
        return StarStamps(
            **{f.name: getattr(self, f.name)[chosen] for f in dataclasses.fields(self) if f.init}
        )

    def predict(self, kernels: np.ndarray) -> np.ndarray:
        """Predict stars of unit flux.

        Parameters
        ----------
        kernels : `numpy.ndarray`
            The exposures' mean kernels, shape ``(n, k, k)``.

        Returns
        -------
        image : `numpy.ndarray`
            Shape ``(s, n, k, k)``.
        """
        matrix_y, matrix_x = self._matrices()
        return matrix_y @ (kernels * self.variation) @ np.swapaxes(matrix_x, -1, -2)

    def back_project(self, image: np.ndarray) -> np.ndarray:
        """Apply the adjoint of `predict`.

        Parameters
        ----------
        image : `numpy.ndarray`
            Shape ``(s, n, k, k)``.

        Returns
        -------
        kernels : `numpy.ndarray`
            Shape ``(n, k, k)``.
        """
        matrix_y, matrix_x = self._matrices()
        return ((np.swapaxes(matrix_y, -1, -2) @ image @ matrix_x) * self.variation).sum(axis=0)

    def _matrices(self) -> tuple[np.ndarray, np.ndarray]:
        # The conjugate gradients ask for the same ones many times.
        places = np.stack([self.dy, self.dx])
        if self._moved is None or not np.array_equal(self._moved[0], places):
            self._moved = (places, shift_matrix(places, self.image.shape[-1])[:, :, np.newaxis])
        return self._moved[1][0], self._moved[1][1]

    def robust_weight(self, residual: np.ndarray, delta: float) -> np.ndarray:
        """Return the weights that a Huber loss gives to pixels.

        Parameters
        ----------
        residual : `numpy.ndarray`
            Image minus prediction, nJy, shape ``(s, n, k, k)``.
        delta : `float`
            Residual in units of sigma beyond which the loss is linear.

        Returns
        -------
        weight : `numpy.ndarray`
            ``m / v * min(1, delta / abs(r))``, nJy**-2, same shape.
        """
        size = np.abs(residual) * np.sqrt(self.weight)
        return self.weight * np.minimum(1.0, delta / np.maximum(size, delta))

    def place(self, kernels: np.ndarray, scale: np.ndarray, delta: float) -> None:
        """Fit fluxes and positions to all exposures, in place.

        Parameters
        ----------
        kernels : `numpy.ndarray`
            The exposures' mean kernels, shape ``(n, k, k)``.
        scale : `numpy.ndarray`
            Factor on all fluxes of an exposure, shape ``(n,)``.
        delta : `float`
            See `robust_weight`.
        """
        step = 0.05
        scaled = kernels * scale[:, np.newaxis, np.newaxis]
        for _ in range(_POSITION_STEPS):
            star = self.predict(scaled)
            gradient = [star]
            for axis in ("dy", "dx"):
                start = getattr(self, axis)
                setattr(self, axis, start + step)
                ahead = self.predict(scaled)
                setattr(self, axis, start - step)
                gradient.append((ahead - self.predict(scaled)) / (2.0 * step))
                setattr(self, axis, start)
            residual = self.image - self.flux[:, np.newaxis, np.newaxis, np.newaxis] * star
            basis = np.stack(gradient, axis=1)
            weighted = basis * self.robust_weight(residual, delta)[:, np.newaxis]
            matrix = np.einsum("sanyx,sbnyx->sab", weighted, basis)
            matrix += 1e-9 * np.trace(matrix, axis1=1, axis2=2)[:, np.newaxis, np.newaxis] * np.eye(3)
            change = np.linalg.solve(matrix, np.einsum("sanyx,snyx->sa", weighted, residual)[..., np.newaxis])
            flux = self.flux + change[:, 0, 0]
            usable = flux > 0.0
            move = np.clip(
                change[:, 1:, 0] / np.where(usable, flux, 1.0)[:, np.newaxis], -_MAX_MOVE, _MAX_MOVE
            )
            self.flux = np.where(usable, flux, self.flux)
            self.dy += np.where(usable, move[:, 0], 0.0)
            self.dx += np.where(usable, move[:, 1], 0.0)

    def points(self, kernels: np.ndarray, delta: float) -> np.ndarray:
        """Tell which stars are no broader than a point.

        Parameters
        ----------
        kernels : `numpy.ndarray`
            The exposures' mean kernels, shape ``(n, k, k)``.
        delta : `float`
            See `robust_weight`.

        Returns
        -------
        is_point : `numpy.ndarray`
            `bool`, shape ``(s,)``.

        Notes
        -----
        A slightly broader image differs from a point's by half of the
        difference in variance times the kernel's Laplacian, which is fitted to
        the residuals.
        """
        padded = np.pad(kernels, ((0, 0), (1, 1), (1, 1)))
        laplacian = (
            padded[:, 2:, 1:-1]
            + padded[:, :-2, 1:-1]
            + padded[:, 1:-1, 2:]
            + padded[:, 1:-1, :-2]
            - 4.0 * kernels
        )
        flux = self.flux[:, np.newaxis, np.newaxis, np.newaxis]
        residual = self.image - flux * self.predict(kernels)
        broader = 0.5 * flux * self.predict(laplacian)
        weight = self.robust_weight(residual, delta)
        norm = np.maximum((weight * broader**2).sum(axis=(1, 2, 3)), 1e-300)
        excess = (weight * broader * residual).sum(axis=(1, 2, 3)) / norm
        excess -= np.median(excess)
        axis = np.arange(kernels.shape[-1]) - kernels.shape[-1] // 2
        core = kernels * (np.hypot(axis[:, np.newaxis], axis) <= 6.0)
        variance = np.median((core.sum(axis=2) * axis**2).sum(axis=1) / core.sum(axis=(1, 2)))
        limit = np.maximum(_EXTENDED_FRACTION * variance, _EXTENDED_SIGMA / np.sqrt(norm))
        return np.abs(excess) <= limit


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StarFit:
    """Kernels fitted to stars.

    Parameters
    ----------
    kernels : `numpy.ndarray`
        The exposures' mean kernels, non-negative, centered, with sum 1, shape
        ``(n, k, k)``.
    fraction : `numpy.ndarray`
        Fraction of the flux of the Moffat profile that fits best which is
        inside of the kernel, shape ``(n,)``.
    shift : `numpy.ndarray`
        Where the stars of an exposure are from their mean position, y and x,
        pixels, shape ``(n, 2)``.
    stamps : `StarStamps`
        The stars that were used, with the fluxes and positions found.
    is_point : `numpy.ndarray`
        `bool`: which of the stars that were given these are.
    """

    kernels: np.ndarray
    fraction: np.ndarray
    shift: np.ndarray
    stamps: StarStamps
    is_point: np.ndarray


def fit_star_kernels(
    stamps: StarStamps, start: np.ndarray, *, rounds: int, delta: float, freedom: float
) -> StarFit:
    """Fit kernels, fluxes and positions in turns.

    Parameters
    ----------
    stamps : `StarStamps`
        Stamps of the stars; changed in place.
    start : `numpy.ndarray`
        Kernels to start from, shape ``(n, k, k)``.
    rounds : `int`
        How often each is fitted.
    delta : `float`
        Residual in units of sigma beyond which the loss is linear.
    freedom : `float`
        Standard deviation of the prior for a kernel's pixels, as a fraction of
        the profile that fits best.

    Returns
    -------
    fit : `StarFit`
        What was found.

    Notes
    -----
    The latent image of a star is one point, so that the width of its image is
    all the kernel's: the pair of a sharper kernel and a broader latent image,
    which describes the exposures as well, is excluded.

    A round fits the flux and the position of each star to all exposures; to
    each exposure an elliptical Moffat profile with a flux scale and a shift of
    its own; and the kernel's pixels with that profile as the mean of a
    Gaussian prior whose standard deviation is a fraction of it, which lets
    them follow the stars where these tell more than noise.  What the start's
    kernels have beside their own best Moffat profile is part of the mean.
    """
    n, size = start.shape[0], start.shape[-1]
    axis = np.arange(size) - size // 2
    y, x = np.broadcast_arrays(axis[:, np.newaxis].astype(float), axis.astype(float))
    kernels = start / start.sum(axis=(1, 2), keepdims=True)
    features = np.empty_like(kernels)
    profiles = np.zeros((n, 7))
    for t, kernel in enumerate(kernels):
        profiles[t] = _fit_kernel(kernel, y, x)
        features[t] = kernel - _unit(moffat(profiles[t, 3:], y, x))
    scale, shift = np.ones(n), np.zeros((n, 2))
    everything, is_point = stamps, np.ones(len(stamps.flux), bool)
    for i in range(rounds):
        shifted = np.stack([move(kernel, offset) for kernel, offset in zip(kernels, shift, strict=True)])
        everything.place(shifted, scale, delta)
        if stamps is not everything:
            stamps = everything.select(is_point)
        for t in range(n):
            profiles[t] = _fit_profile(stamps, t, profiles[t], axis, delta)
            profile = _unit(moffat(profiles[t, 3:], y, x))
            mean = _unit(np.maximum(profile + features[t], 0.3 * profile))
            kernels[t] = _fit_pixels(stamps, t, mean, profiles[t, 1:3], freedom, delta)
        scale = kernels.sum(axis=(1, 2))
        kernels /= scale[:, np.newaxis, np.newaxis]
        shift = profiles[:, 1:3] + np.stack(
            [(kernels * y).sum(axis=(1, 2)), (kernels * x).sum(axis=(1, 2))], axis=1
        )
        # What all exposures have in common is the stars' position.
        shift -= np.median(shift, axis=0)
        kernels = center(kernels)
        scale /= scale.mean()
        # The first kernels may still be so wrong that stars look extended.
        if i > 0:
            is_point = everything.points(shifted, delta)
            if np.count_nonzero(is_point) < 2:
                is_point[:] = True
            stamps = everything.select(is_point)
    total = np.array(
        [
            moffat(p[3:], y, x).sum() / (np.pi * (0.5 * p[3]) ** 2 / (2 ** (1 / p[4]) - 1) / (p[4] - 1))
            for p in profiles
        ]
    )
    return StarFit(
        kernels=kernels, fraction=np.clip(total, 0.9, 1.0), shift=shift, stamps=stamps, is_point=is_point
    )


def _unit(kernel: np.ndarray) -> np.ndarray:
    return kernel / kernel.sum()


_LOWER = np.array([0.01, -3.0, -3.0, 0.7, _BETA_RANGE[0], -0.6, -0.6])
_UPPER = np.array([100.0, 3.0, 3.0, 40.0, _BETA_RANGE[1], 0.6, 0.6])


def _fit_kernel(kernel: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Fit a Moffat profile to a kernel; return flux, shift and shape."""

    def residual(p: np.ndarray) -> np.ndarray:
        profile = moffat(p[3:], y - p[1], x - p[2])
        return (p[0] * _unit(profile) - kernel).ravel() / kernel.max()

    area = np.count_nonzero(kernel > 0.5 * kernel.max())
    first = np.array([1.0, 0.0, 0.0, np.clip(2.0 * np.sqrt(area / np.pi), 1.0, 30.0), 4.0, 0.0, 0.0])
    return scipy.optimize.least_squares(residual, first, bounds=(_LOWER, _UPPER)).x


def _fit_profile(stamps: StarStamps, t: int, first: np.ndarray, axis: np.ndarray, delta: float) -> np.ndarray:
    """Fit a Moffat profile to the stars of an exposure; return flux scale,
    shift and shape.
    """
    weight = np.sqrt(stamps.weight[:, t])
    used = weight > 0.0
    if np.count_nonzero(used) < 20:
        return first
    y = (axis[:, np.newaxis] - stamps.dy[:, np.newaxis, np.newaxis]) * np.ones(axis.size)
    x = (axis - stamps.dx[:, np.newaxis, np.newaxis]) * np.ones((axis.size, 1))
    flux = (stamps.flux[:, np.newaxis, np.newaxis] * stamps.variation[:, t])[used]
    y, x, image, weight = y[used], x[used], stamps.image[:, t][used], weight[used]
    grid = np.meshgrid(axis, axis, indexing="ij")

    def residual(p: np.ndarray) -> np.ndarray:
        norm = p[0] / moffat(p[3:], *grid).sum()
        data = (image - norm * flux * moffat(p[3:], y - p[1], x - p[2])) * weight
        prior = [(np.log(p[4]) - np.log(_BETA)) / _BETA_SCATTER, p[5] / _ELLIPTICITY, p[6] / _ELLIPTICITY]
        return np.append(data, prior)

    first = np.clip(first, _LOWER + 1e-3, _UPPER - 1e-3)
    fit = scipy.optimize.least_squares(
        residual, first, bounds=(_LOWER, _UPPER), loss="huber", f_scale=delta, max_nfev=30
    )
    return fit.x


def _fit_pixels(
    stamps: StarStamps, t: int, mean: np.ndarray, shift: np.ndarray, freedom: float, delta: float
) -> np.ndarray:
    """Fit the pixels of an exposure's kernel; its sum is the flux scale."""
    one = StarStamps(
        image=stamps.image[:, t : t + 1],
        weight=stamps.weight[:, t : t + 1],
        variation=stamps.variation[:, t : t + 1],
        dy=stamps.dy + shift[0],
        dx=stamps.dx + shift[1],
        flux=stamps.flux,
    )
    flux = one.flux[:, np.newaxis, np.newaxis, np.newaxis]
    kernel = mean
    for _ in range(_REWEIGHTINGS):
        star = one.predict(kernel[np.newaxis])
        weight = one.robust_weight(one.image - flux * star, delta)
        # The flux scale is free: it is no part of the prior.
        norm = float((weight * (flux * star) ** 2).sum())
        scale = float((weight * flux * star * one.image).sum()) / norm if norm > 0.0 else 1.0
        width = freedom * scale * mean

        def apply(z: np.ndarray, weight: np.ndarray = weight, width: np.ndarray = width) -> np.ndarray:
            return z + width * one.back_project(flux**2 * weight * one.predict((width * z)[np.newaxis]))[0]

        rest = one.image - flux * one.predict((scale * mean)[np.newaxis])
        z = _conjugate_gradients(apply, width * one.back_project(flux * weight * rest)[0])
        kernel = np.maximum(scale * mean + width * z, 0.0)
    return kernel


def _conjugate_gradients(apply: Callable[[np.ndarray], np.ndarray], target: np.ndarray) -> np.ndarray:
    """Solve ``apply(z) = target`` for a positive definite operator."""
    z = np.zeros_like(target)
    residual = target.copy()
    direction = residual.copy()
    power = first = float((residual**2).sum())
    for _ in range(_CONJUGATE_GRADIENT_STEPS):
        if power <= 1e-12 * first or power == 0.0:
            break
        image = apply(direction)
        step = power / float((direction * image).sum())
        z += step * direction
        residual -= step * image
        power, previous = float((residual**2).sum()), power
        direction = residual + power / previous * direction
    return z
