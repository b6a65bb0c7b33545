# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The arrays of a warp, whichever library it was written with."""

from __future__ import annotations

__all__ = ("StoredWarp", "ToSky", "WarpImage", "warp_from_images")

import dataclasses
from collections.abc import Callable, Sequence

import astropy.units as u
import numpy as np

from lsst.images import Box, MaskedImage, SkyProjection

from .psf_drawing import KernelImages

type ToSky = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Function from arrays x and y, pixels of the tract, to right ascension and
declination, radians.
"""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StoredWarp:
    """A warp as it is stored, before any check.

    Parameters
    ----------
    bbox : `lsst.images.Box`
        Its pixels in the tract.
    image : `numpy.ndarray`
        Pixels in the stored unit, `numpy.float32`, shape of the box.
    variance : `numpy.ndarray`
        Variance of ``image``, same type and shape.
    scale : `numpy.float32` or `None`
        Flux of that unit, nJy; `None` if it is not known.
    scale_problem : `str`
        Why it is not known, after the name of the warp.
    mask_planes : `frozenset` [`str`]
        Names of the mask planes.
    masked : `~collections.abc.Callable`
        Function from names of mask planes to the pixels that have one of them
        set, `bool`, shape of the box.
    psf : `KernelImages` or `None`
        PSF model, in pixels of the tract.
    to_sky : `ToSky` or `None`
        Its sky projection.
    """

    bbox: Box
    image: np.ndarray
    variance: np.ndarray
    scale: np.float32 | None
    scale_problem: str
    mask_planes: frozenset[str]
    masked: Callable[[Sequence[str]], np.ndarray]
    psf: KernelImages | None
    to_sky: ToSky | None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class WarpImage:
    """A warp in nJy.

    Parameters
    ----------
    bbox : `lsst.images.Box`
        Its pixels in the tract.
    image : `numpy.ndarray`
        Flux per pixel, nJy, `numpy.float32`, shape of the box.
    variance : `numpy.ndarray`
        Variance of ``image``, nJy**2, same type and shape.
    masked : `numpy.ndarray` of `bool`
        Pixels in which one of the bad mask planes is set, same shape.
    psf : `KernelImages` or `None`
        PSF model, in pixels of the tract.
    to_sky : `ToSky`
        Its sky projection.
    """

    bbox: Box
    image: np.ndarray
    variance: np.ndarray
    masked: np.ndarray
    psf: KernelImages | None
    to_sky: ToSky


def warp_from_images(warp: MaskedImage) -> StoredWarp:
    """Take the arrays of a warp of lsst.images.

    Parameters
    ----------
    warp : `lsst.images.MaskedImage`
        The warp.

    Returns
    -------
    stored : `StoredWarp`
        Its arrays.
    """
    projection, unit = warp.sky_projection, warp.unit
    scale = np.float32(unit.to(u.nJy)) if unit is not None and unit.is_equivalent(u.nJy) else None

    def masked(planes: Sequence[str]) -> np.ndarray:
        return (warp.mask.array & warp.mask.schema.bitmask(*planes)).any(axis=-1)

    return StoredWarp(
        bbox=warp.bbox,
        image=warp.image.array,
        variance=warp.variance.array,
        scale=scale,
        scale_problem=f"has pixels in {unit}",
        mask_planes=frozenset(warp.mask.schema.names),
        masked=masked,
        psf=getattr(warp, "psf", None),
        to_sky=_to_sky(projection) if projection is not None else None,
    )


def _to_sky(projection: SkyProjection) -> ToSky:
    def to_sky(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sky = projection.pixel_to_sky_transform.apply_forward(x=x, y=y)
        return sky.x, sky.y

    return to_sky
