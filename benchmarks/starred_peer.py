# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""STARRED (M. Millon et al. 2024, AJ 168, 55), with its two channels."""

from __future__ import annotations

__all__ = ("STARRED_FWHM", "STARRED_LAMBDAS", "point_candidates", "restore_starred")

import numpy as np

from lsst.drp.restore.outputs.image_quality import star_fwhm
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.kernel_shape import fwhm, gaussian_kernel
from lsst.drp.restore.stack.reference_coadd import ReferenceCoadd

from .peers import divide_kernels
from .photometry import psf_flux, psf_stamp
from .sky_image import Cutout

STARRED_FWHM = 2.0
"""FWHM of the Gaussian that STARRED restores the sky to, pixels: its own
choice.
"""

STARRED_LAMBDAS = (1.0, 1.0)
"""Strengths of the penalty of the background channel's starlets, on
intermediate scales and on the finest: the defaults of STARRED's loss.

With 3 and 3, the defaults of its graphical interface, the cutout of seed 931
lost 2.1 dB (PSNR at 2.5 pixels), with 1 and 10 it lost 1.3 dB; with 1 and 1000,
the defaults of its routine for several steps, neither of its optimizers came
near the end in minutes.
"""

# Steps with the positions of the points fixed, and with free ones.
_ITERATIONS = (50, 150)
_THRESHOLD = 5.0
# By how much the width of a point's peak may differ from the PSF's: this
# fraction, and this one divided by its signal-to-noise ratio.
_TOLERANCE = (0.1, 2.0)
_PSF_RADIUS = 10
_ASTROMETRIC_BOUND = 0.5


def point_candidates(coadd: ReferenceCoadd, cell_shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Find the peaks of a coadd that are as narrow as its PSF.

    Parameters
    ----------
    coadd : `ReferenceCoadd`
        The coadd.
    cell_shape : `tuple` [`int`, `int`]
        Height and width of a cell, pixels.

    Returns
    -------
    positions : `numpy.ndarray`
        Positions x, y of peaks above 5 sigma, pixels, shape ``(n, 2)``.
    fluxes : `numpy.ndarray`
        Their PSF fluxes, nJy, shape ``(n,)``.
    """
    import sep

    missing = ~np.isfinite(coadd.image)
    image = np.ascontiguousarray(np.where(missing, 0, coadd.image), np.float32)
    noise = np.sqrt(np.where(missing, np.nanmedian(coadd.variance), coadd.variance))
    found = sep.extract(image, _THRESHOLD, err=np.ascontiguousarray(noise, np.float32), mask=missing)
    width = fwhm(coadd.kernels.mean(axis=(0, 1)))
    positions, fluxes = [], []
    for x, y in zip(found["x"], found["y"], strict=True):
        ratio = star_fwhm(coadd.image, x, y) / width
        stamp = psf_stamp(coadd.kernels, cell_shape, x, y, _PSF_RADIUS)
        flux, sigma = psf_flux(coadd.image, coadd.variance, x, y, stamp)
        if flux > 0 and abs(ratio - 1) <= _TOLERANCE[0] + _TOLERANCE[1] * sigma / flux:
            positions.append((x, y))
            fluxes.append(flux)
    return np.array(positions).reshape(-1, 2), np.array(fluxes)


def restore_starred(stack: ExposureStack, coadd: ReferenceCoadd, cutout: Cutout) -> np.ndarray:
    """Restore a cutout with STARRED.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures, without outliers.
    coadd : `ReferenceCoadd`
        Their coadd: its narrow peaks are the points.
    cutout : `Cutout`
        The cutout; it is restored with a border for sources just outside.

    Returns
    -------
    image : `numpy.ndarray`
        Points and background at STARRED's resolution, nJy per pixel, shape
        ``(size, size)`` of the cutout.

    Raises
    ------
    ImportError
        Raised if the extra ``benchmarks`` is not installed.

    Notes
    -----
    First fluxes and background are fitted at the coadd's positions, then the
    positions, too, within half a pixel.  The optimizer is L-BFGS-B with
    bounds in place of STARRED's penalty of negative pixels, whose kink stops
    it where it starts; STARRED's other optimizer is far from the end after as
    long a time.
    """
    from starred.deconvolution.deconvolution import setup_model
    from starred.deconvolution.loss import Loss
    from starred.deconvolution.parameters import ParametersDeconv
    from starred.optim.optimization import Optimizer
    from starred.utils.noise_utils import propagate_noise

    border = stack.padding
    size = cutout.size + 2 * border
    row = int(np.clip(cutout.row - border, 0, stack.shape[0] - size))
    column = int(np.clip(cutout.column - border, 0, stack.shape[1] - size))
    part = (slice(None), slice(row, row + size), slice(column, column + size))
    unit = stack.median_sigma
    data = stack.image[part].astype(np.float64) / unit
    variance = np.where(stack.good[part], stack.variance[part] / unit**2, 1e6).astype(np.float64)
    cell = ((row + size // 2) // stack.cell_shape[0], (column + size // 2) // stack.cell_shape[1])
    gaussian = gaussian_kernel(STARRED_FWHM, stack.kernel_size)
    narrow = np.stack([divide_kernels(kernels[cell], gaussian) for kernels in stack.kernels])
    positions, fluxes = point_candidates(coadd, stack.cell_shape)
    inside = np.all(
        (positions >= (column + 2, row + 2)) & (positions < (column + size - 2, row + size - 2)), axis=1
    )
    # From the middle of the cutout.
    offset = positions[inside] - (column + (size - 1) / 2, row + (size - 1) / 2)
    epochs = len(data)
    model, init, up, down, fixed = setup_model(
        data,
        variance,
        narrow,
        xs=offset[:, 0],
        ys=offset[:, 1],
        subsampling_factor=1,
        initial_a=np.tile(fluxes[inside] / unit, epochs),
        astrometric_bound=_ASTROMETRIC_BOUND,
    )
    fixed["kwargs_background"] = {"mean": np.zeros(epochs)}
    for name in ("dx", "dy"):
        fixed["kwargs_analytic"][name] = init["kwargs_analytic"][name]
    down["kwargs_analytic"]["a"] = np.zeros(len(init["kwargs_analytic"]["a"]))
    down["kwargs_background"]["h"] = np.zeros(size**2)
    mean = np.sum(data / variance, axis=0) / np.sum(1 / variance, axis=0)
    points = np.asarray(model.getDeconvolved(init)[0]) if inside.any() else 0.0
    init["kwargs_background"]["h"] = np.maximum(mean - points, 0.0).ravel()
    weights = propagate_noise(
        model,
        np.sqrt(variance),
        init,
        wavelet_type_list=["starlet"],
        method="MC",
        num_samples=200,
        seed=1,
        likelihood_type="chi2",
        upsampling_factor=1,
    )[0]
    stages = list(zip((("c_x", "c_y"), ()), _ITERATIONS, strict=True))
    if not inside.any():
        fixed["kwargs_analytic"] = dict(init["kwargs_analytic"])
        stages = stages[-1:]
    for names, iterations in stages:
        kept = fixed["kwargs_analytic"] | {name: init["kwargs_analytic"][name] for name in names}
        parameters = ParametersDeconv(init, fixed | {"kwargs_analytic": kept}, kwargs_up=up, kwargs_down=down)
        loss = Loss(
            data,
            model,
            parameters,
            variance,
            regularization_terms="l1_starlet",
            regularization_strength_scales=STARRED_LAMBDAS[0],
            regularization_strength_hf=STARRED_LAMBDAS[1],
            W=weights,
        )
        optimizer = Optimizer(loss, parameters, method="l-bfgs-b")
        optimizer.minimize(maxiter=iterations, ftol=1e-9, gtol=1e-9)
        init = parameters.best_fit_values(as_kwargs=True)
    deconvolved, _ = model.getDeconvolved(init)
    first = (cutout.row - row, cutout.column - column)
    return (np.asarray(deconvolved) * unit)[
        first[0] : first[0] + cutout.size, first[1] : first[1] + cutout.size
    ].astype(np.float32)
