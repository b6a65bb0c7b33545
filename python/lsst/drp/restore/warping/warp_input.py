# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Reading of one warp: all detectors of a visit on the grid of a patch."""

from __future__ import annotations

__all__ = ("WarpInput",)

from collections.abc import Collection, Sequence
from typing import ClassVar

from lsst.images import MaskedImage

from ..errors import InputError
from .handle_input import HandleInput
from .legacy import other_plane_name, warp_from_afw
from .warp_image import StoredWarp, WarpImage, warp_from_images

_REMEDY = "or restore from visit images (inputType='visit_image')"


class WarpInput(HandleInput):
    """One warp behind a deferred handle.

    A warp is an afw ``ExposureF``, or an image of lsst.images with ``psf`` and
    ``sky_projection``: a `~lsst.images.cells.CellCoadd` of one visit, which is
    the one class that can be stored with a tract's pixel frame and a PSF.

    Parameters
    ----------
    handle : `lsst.daf.butler.DeferredDatasetHandle`
        Handle of the dataset; or anything with its ``dataId`` and ``get``.
    """

    ALL_DETECTORS: ClassVar[int] = 65535
    """Number for all detectors of a visit in the provenance of warps (`int`):
    the largest one that its table can hold.
    """

    def __str__(self) -> str:
        return f"{self.instrument} visit {self.visit} warp"

    @property
    def detector(self) -> int:
        """`ALL_DETECTORS` (`int`)."""
        return self.ALL_DETECTORS

    def read(self, bad_mask_planes: Sequence[str], *, needs_psf: bool = True) -> WarpImage:
        """Read the warp.

        Parameters
        ----------
        bad_mask_planes : `~collections.abc.Sequence` [`str`]
            Names of mask planes, those of lsst.afw (``SAT``) or of lsst.images
            (``SATURATED``), whichever the warp has.
        needs_psf : `bool`, optional
            Whether a warp without a PSF is an error.

        Returns
        -------
        image : `WarpImage`
            The warp.

        Raises
        ------
        InputError
            Raised if the warp lacks a mask plane, a PSF or a sky projection,
            or has no unit of flux.
        DamagedInputError
            Raised if the file is damaged.
        """
        stored = self._read_stored()
        if needs_psf:
            self._require(stored.psf, "PSF")
        to_sky = self._require(stored.to_sky, "sky projection")
        if (scale := stored.scale) is None:
            raise InputError(
                f"{self} {stored.scale_problem}, so that its pixels cannot be converted to nJy. Make it "
                f"again from calibrated images, {_REMEDY}.",
                dataset=str(self),
            )
        names = [name if name in stored.mask_planes else other_plane_name(name) for name in bad_mask_planes]
        planes = self._present_planes(names, stored.mask_planes)
        return WarpImage(
            bbox=stored.bbox,
            image=stored.image * scale,
            variance=stored.variance * scale**2,
            masked=stored.masked(planes),
            psf=stored.psf,
            to_sky=to_sky,
        )

    def _read_stored(self) -> StoredWarp:
        """Read the dataset, of either library."""
        warp = self._read_dataset()
        return warp_from_images(warp) if isinstance(warp, MaskedImage) else warp_from_afw(warp)

    def _present_planes(self, wanted: Sequence[str], present: Collection[str]) -> Sequence[str]:
        """Return those of the mask planes that the dataset has: all, or it is
        an error.
        """
        self._check_planes(wanted, present)
        return wanted

    def _require[C](self, component: C | None, name: str) -> C:
        """Return a component that must not be `None`."""
        if component is None:
            raise InputError(f"{self} has no {name}. Make it again with one, {_REMEDY}.", dataset=str(self))
        return component
