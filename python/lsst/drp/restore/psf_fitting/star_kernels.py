# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSF kernels fitted to stars: points whose flux and position are fitted with
them.
"""

from __future__ import annotations

__all__ = ("HUBER_DELTA", "KERNEL_FREEDOM", "StarFit", "find_points", "fit_star_kernels", "place_stars")

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.optimize

from ..stack.kernel_shape import moffat
from .cell_variation import center, move
from .star_stamps import StarStamps

HUBER_DELTA = 2.0
"""Residual in units of sigma beyond which the loss is linear: that of the
restoration.
"""

KERNEL_FREEDOM = 0.2
"""Prior for a kernel's pixels, which decides where stars do not: standard
deviation from the best Moffat profile, as a fraction of it.  About what is left
of seeing and optics beyond such a profile.
"""

# How often stars and kernels are fitted in turns: afterwards kernels change far less than by the noise.
_ROUNDS = 4

# Steps of the inner solvers: enough for changes far below the noise.
_POSITION_STEPS = 3
_CONJUGATE_GRADIENT_STEPS = 40
_REWEIGHTINGS = 2

# Difference of positions by which the model is differentiated, pixels.
_POSITION_DIFFERENCE = 0.05

# Largest movement of a star in one step, pixels.
_MAX_MOVE = 0.3

# The exponent of Moffat profiles: wings of a smaller one have no finite flux, and a larger one is a Gaussian.
_BETA_RANGE = (1.5, 50.0)

# Prior of the seeing: the exponent and the scatter of its logarithm, and the scatter of both components of
# the ellipticity.
_BETA, _BETA_SCATTER = 3.5, 0.5
_ELLIPTICITY = 0.1

# A star is no point if its image is broader or narrower than the kernel by this fraction of the kernel's
# variance and this many of the difference's standard deviations.
_EXTENDED_FRACTION = 0.1
_EXTENDED_SIGMA = 4.0

# Radius within which that variance is measured, pixels: beyond it there are wings and noise.
_CORE_RADIUS = 6.0


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
        Position of the stars of an exposure from their mean position, y and x,
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


def fit_star_kernels(stamps: StarStamps, start: np.ndarray) -> StarFit:
    """Fit kernels, fluxes and positions in turns.

    Parameters
    ----------
    stamps : `StarStamps`
        Stamps of the stars.
    start : `numpy.ndarray`
        Kernels to start from, shape ``(n, k, k)``.

    Returns
    -------
    fit : `StarFit`
        The kernels, and the stars they were fitted to.

    Notes
    -----
    The latent image of a star is one point, so that the width of its image is
    all the kernel's: the pair of a sharper kernel and a broader latent image,
    which describes the exposures as well, is excluded.

    Each of 4 rounds fits the flux and the position of each star to all
    exposures; to each exposure an elliptical Moffat profile with a flux scale
    and a shift of its own; and the kernel's pixels, with that profile as the
    mean of a Gaussian prior whose standard deviation is a fraction of it, so
    that they follow the stars where these are significant.  The difference of
    the start's kernels from their own best Moffat profile is added to the mean.
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
    candidates, is_point = stamps, None
    for i in range(_ROUNDS):
        shifted = np.stack([move(kernel, offset) for kernel, offset in zip(kernels, shift, strict=True)])
        candidates = place_stars(candidates, shifted, scale)
        stamps = candidates if is_point is None else candidates.select(is_point)
        for t in range(n):
            profiles[t] = _fit_profile(stamps, t, profiles[t], axis)
            profile = _unit(moffat(profiles[t, 3:], y, x))
            mean = _unit(np.maximum(profile + features[t], 0.3 * profile))
            kernels[t] = _fit_pixels(stamps.of_exposure(t, profiles[t, 1:3]), mean)
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
            is_point = find_points(candidates, shifted)
            if np.count_nonzero(is_point) < 2:
                is_point[:] = True
    total = np.array(
        [
            moffat(p[3:], y, x).sum() / (np.pi * (0.5 * p[3]) ** 2 / (2 ** (1 / p[4]) - 1) / (p[4] - 1))
            for p in profiles
        ]
    )
    assert is_point is not None
    return StarFit(
        kernels=kernels,
        fraction=np.clip(total, 0.9, 1.0),
        shift=shift,
        stamps=candidates.select(is_point),
        is_point=is_point,
    )


def place_stars(stamps: StarStamps, kernels: np.ndarray, scale: np.ndarray) -> StarStamps:
    """Fit fluxes and positions to all exposures.

    Parameters
    ----------
    stamps : `StarStamps`
        The stars, with fluxes and positions to start from.
    kernels : `numpy.ndarray`
        The exposures' mean kernels, shape ``(n, k, k)``.
    scale : `numpy.ndarray`
        Factor on all fluxes of an exposure, shape ``(n,)``.

    Returns
    -------
    stamps : `StarStamps`
        The stars with the fluxes and positions found.
    """
    step = _POSITION_DIFFERENCE
    scaled = kernels * scale[:, np.newaxis, np.newaxis]
    for _ in range(_POSITION_STEPS):
        star = stamps.predict(scaled)
        gradient = [star]
        for axis in ("dy", "dx"):
            ahead, behind = (
                dataclasses.replace(stamps, **{axis: getattr(stamps, axis) + difference}).predict(scaled)
                for difference in (step, -step)
            )
            gradient.append((ahead - behind) / (2.0 * step))
        residual = stamps.image - stamps.flux[:, np.newaxis, np.newaxis, np.newaxis] * star
        basis = np.stack(gradient, axis=1)
        weighted = basis * stamps.robust_weight(residual, HUBER_DELTA)[:, np.newaxis]
        matrix = np.einsum("sanyx,sbnyx->sab", weighted, basis)
        matrix += 1e-9 * np.trace(matrix, axis1=1, axis2=2)[:, np.newaxis, np.newaxis] * np.eye(3)
        change = np.linalg.solve(matrix, np.einsum("sanyx,snyx->sa", weighted, residual)[..., np.newaxis])
        flux = stamps.flux + change[:, 0, 0]
        usable = flux > 0.0
        moves = np.clip(change[:, 1:, 0] / np.where(usable, flux, 1.0)[:, np.newaxis], -_MAX_MOVE, _MAX_MOVE)
        stamps = dataclasses.replace(
            stamps,
            flux=np.where(usable, flux, stamps.flux),
            dy=stamps.dy + np.where(usable, moves[:, 0], 0.0),
            dx=stamps.dx + np.where(usable, moves[:, 1], 0.0),
        )
    return stamps


def find_points(stamps: StarStamps, kernels: np.ndarray) -> np.ndarray:
    """Tell which stars are no broader than a point.

    Parameters
    ----------
    stamps : `StarStamps`
        The stars.
    kernels : `numpy.ndarray`
        The exposures' mean kernels, shape ``(n, k, k)``.

    Returns
    -------
    is_point : `numpy.ndarray`
        `bool`, shape ``(s,)``.

    Notes
    -----
    A slightly broader image differs from a point's by half of the difference in
    variance times the kernel's Laplacian, which is fitted to the residuals.
    """
    padded = np.pad(kernels, ((0, 0), (1, 1), (1, 1)))
    laplacian = (
        padded[:, 2:, 1:-1]
        + padded[:, :-2, 1:-1]
        + padded[:, 1:-1, 2:]
        + padded[:, 1:-1, :-2]
        - 4.0 * kernels
    )
    flux = stamps.flux[:, np.newaxis, np.newaxis, np.newaxis]
    residual = stamps.image - flux * stamps.predict(kernels)
    broader = 0.5 * flux * stamps.predict(laplacian)
    weight = stamps.robust_weight(residual, HUBER_DELTA)
    norm = np.maximum((weight * broader**2).sum(axis=(1, 2, 3)), 1e-300)
    excess = (weight * broader * residual).sum(axis=(1, 2, 3)) / norm
    excess -= np.median(excess)
    axis = np.arange(kernels.shape[-1]) - kernels.shape[-1] // 2
    core = kernels * (np.hypot(axis[:, np.newaxis], axis) <= _CORE_RADIUS)
    variance = np.median((core.sum(axis=2) * axis**2).sum(axis=1) / core.sum(axis=(1, 2)))
    limit = np.maximum(_EXTENDED_FRACTION * variance, _EXTENDED_SIGMA / np.sqrt(norm))
    return np.abs(excess) <= limit


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


def _fit_profile(stamps: StarStamps, t: int, first: np.ndarray, axis: np.ndarray) -> np.ndarray:
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
        residual, first, bounds=(_LOWER, _UPPER), loss="huber", f_scale=HUBER_DELTA, max_nfev=30
    )
    return fit.x


def _fit_pixels(stamps: StarStamps, mean: np.ndarray) -> np.ndarray:
    """Fit the pixels of an exposure's kernel to its stamps; its sum is the flux
    scale.
    """
    flux = stamps.flux[:, np.newaxis, np.newaxis, np.newaxis]
    kernel = mean
    for _ in range(_REWEIGHTINGS):
        star = stamps.predict(kernel[np.newaxis])
        weight = stamps.robust_weight(stamps.image - flux * star, HUBER_DELTA)
        # The flux scale is free: it is no part of the prior.
        norm = float((weight * (flux * star) ** 2).sum())
        scale = float((weight * flux * star * stamps.image).sum()) / norm if norm > 0.0 else 1.0
        width = KERNEL_FREEDOM * scale * mean

        def apply(z: np.ndarray, weight: np.ndarray = weight, width: np.ndarray = width) -> np.ndarray:
            return (
                z + width * stamps.back_project(flux**2 * weight * stamps.predict((width * z)[np.newaxis]))[0]
            )

        rest = stamps.image - flux * stamps.predict((scale * mean)[np.newaxis])
        z = _conjugate_gradients(apply, width * stamps.back_project(flux * weight * rest)[0])
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
