# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Quality of the pixels of the outputs: mask planes, and pixels that are NaN."""

from __future__ import annotations

__all__ = ("PixelFlags", "flag_pixels")

import dataclasses

import numpy as np

from ..stack.oversampling import split_pixels
from ..stack.reference_coadd import constrained_pixels
from .restored_stack import RestoredStack

# Fraction of the exposures' weight under the PSF of a source that is on good
# pixels, below which the PSF of the flux that the restored image lacks counts
# as inexact.
_MIN_COVERAGE = 0.8


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PixelFlags:
    """Quality of pixels, `bool`, all of shape ``(height, width)``.

    Parameters
    ----------
    constrained : `numpy.ndarray`
        The exposures constrain the restored image (see `constrained_pixels`);
        it is NaN elsewhere.
    no_data : `numpy.ndarray`
        Mask plane ``NO_DATA``: no exposure has a good pixel.
    few_exposures : `numpy.ndarray`
        Mask plane ``FEW_EXPOSURES``: fewer exposures than configured have a
        good pixel.
    inconsistent : `numpy.ndarray`
        Mask plane ``INCONSISTENT``: the exposures are inconsistent with the
        restored image.
    inexact_psf : `numpy.ndarray`
        Mask plane ``INEXACT_PSF`` of the measurable coadd: too many pixels are
        missing under the PSF of a source for its PSF to be exact, or the coadd
        that was restored has the plane there.
    """

    constrained: np.ndarray
    no_data: np.ndarray
    few_exposures: np.ndarray
    inconsistent: np.ndarray
    inexact_psf: np.ndarray

    def refined(self, oversampling: int) -> PixelFlags:
        """Return the flags at the pixels of the restored image.

        Parameters
        ----------
        oversampling : `int`
            Parts of a pixel along each axis.

        Returns
        -------
        flags : `PixelFlags`
            Those of the pixel for each of its parts, shape
            ``(height*oversampling, width*oversampling)``.
        """
        return PixelFlags(
            **{
                field.name: split_pixels(getattr(self, field.name), oversampling)
                for field in dataclasses.fields(self)
            }
        )

    def blank(self, plane: np.ndarray) -> np.ndarray:
        """Replace pixels that are not constrained by NaN.

        Parameters
        ----------
        plane : `numpy.ndarray`
            Restored image, its variance or its noise, shape of the flags.

        Returns
        -------
        blanked : `numpy.ndarray`
            A copy, same shape and type.
        """
        return np.where(self.constrained, plane, np.float32(np.nan))


def flag_pixels(
    restored: RestoredStack, *, few_exposures: int, inexact_psf: np.ndarray | None = None
) -> PixelFlags:
    """Decide on the quality of the pixels.

    Parameters
    ----------
    restored : `RestoredStack`
        The restored exposures.
    few_exposures : `int`
        Pixels with fewer exposures than this are ``FEW_EXPOSURES``.
    inexact_psf : `numpy.ndarray` of `bool`, optional
        Pixels of which the PSF is known to be inexact: of a coadd that was
        restored.

    Returns
    -------
    flags : `PixelFlags`
        Flags at the pixels of the exposures.
    """
    n_exposures = restored.reference.n_exposures
    few_pixels = restored.measurable.coverage < _MIN_COVERAGE
    return PixelFlags(
        constrained=constrained_pixels(restored.stack, restored.reference),
        no_data=n_exposures == 0,
        few_exposures=n_exposures < few_exposures,
        inconsistent=restored.characterization.inconsistent,
        inexact_psf=few_pixels if inexact_psf is None else few_pixels | inexact_psf,
    )
