# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Coadds as datasets: pixels with mask, PSF and provenance."""

from __future__ import annotations

__all__ = (
    "make_direct_warp",
    "make_measurable_coadd",
    "make_reference_coadd",
    "make_restored_coadd",
)

from collections.abc import Sequence

import astropy.units as u
import numpy as np

from lsst.images import (
    Image,
    Mask,
    MaskPlane,
    MaskSchema,
    get_legacy_deep_coadd_mask_planes,
    get_legacy_visit_image_mask_planes,
)
from lsst.images.cells import CellCoadd, CellGridBounds, CellIJ, CellPointSpreadFunction

from ..stack.exposure_stack import ExposureStack, expand_cells
from ..stack.reference_coadd import ReferenceCoadd
from ..warping.patch_geometry import PatchGeometry
from ..warping.stack_input import StackInput
from .pixel_flags import PixelFlags
from .provenance_table import make_provenance
from .restored_stack import RestoredStack

# Planes of the pipeline's own coadds keep their names and meaning (conversion
# to lsst.afw needs no more than that: it writes other planes under their own
# names).
_COADD_PLANES = {plane.name: plane for plane in get_legacy_deep_coadd_mask_planes().values()}

_FEW_EXPOSURES = MaskPlane("FEW_EXPOSURES", "Fewer exposures than configured have data for this pixel.")

_RESTORED_SCHEMA = MaskSchema(
    [
        _COADD_PLANES["NO_DATA"],
        _FEW_EXPOSURES,
        MaskPlane(
            "INCONSISTENT",
            "The exposures contradict the restored image: something varies or moves, is not masked, or its "
            "PSF is not the model's.",
        ),
        MaskPlane(
            "NOT_CONVERGED",
            "The restoration ran out of steps, or failed, before its loss stopped falling.",
        ),
    ]
)

_REFERENCE_SCHEMA = MaskSchema(
    [_COADD_PLANES[name] for name in ("NO_DATA", "CLIPPED", "REJECTED", "INEXACT_PSF")]
)

_MEASURABLE_SCHEMA = MaskSchema([_COADD_PLANES["NO_DATA"], _COADD_PLANES["INEXACT_PSF"], _FEW_EXPOSURES])

# Warps have the planes of their visit images.
_WARP_SCHEMA = MaskSchema(get_legacy_visit_image_mask_planes().values())


def make_restored_coadd(
    restored: RestoredStack,
    flags: PixelFlags,
    inputs: Sequence[StackInput],
    geometry: PatchGeometry,
    band: str,
) -> CellCoadd:
    """Make the dataset ``restored_coadd``.

    Parameters
    ----------
    restored : `RestoredStack`
        The restored exposures.
    flags : `PixelFlags`
        Quality of the exposures' pixels.
    inputs : `~collections.abc.Sequence` [`StackInput`]
        The visit images in the stack.
    geometry : `PatchGeometry`
        The pixel grid of the patch.
    band : `str`
        Name of the band.

    Returns
    -------
    coadd : `lsst.images.cells.CellCoadd`
        The latent image, nJy, on the pixels of the patch, `refined` by the
        oversampling of the stack, with its variance, noise realizations and
        PSF (`CharacterizeTask`), and the mask planes ``NO_DATA``,
        ``FEW_EXPOSURES``, ``INCONSISTENT`` (see `PixelFlags`) and
        ``NOT_CONVERGED`` (of all pixels or of none).

    Notes
    -----
    The model also fills small holes in the data (the core of a star that is
    saturated in all exposures): pixels with ``NO_DATA`` have a value as long
    as a good pixel is within reach of a PSF kernel, and are NaN where nothing
    constrains them.  Cells in which no exposure has a PSF are missing: NaN, and
    no PSF.
    """
    restoration, characterization = restored.restoration, restored.characterization
    oversampling = restored.stack.oversampling
    geometry, flags = geometry.refined(oversampling), flags.refined(oversampling)
    mask = Mask(0, schema=_RESTORED_SCHEMA, bbox=geometry.outer_bbox)
    mask.set("NO_DATA", flags.no_data)
    mask.set("FEW_EXPOSURES", flags.few_exposures)
    mask.set("INCONSISTENT", flags.inconsistent)
    if not restoration.converged:
        mask.set("NOT_CONVERGED")
    return _make_coadd(
        flags.blank(restoration.image),
        flags.blank(characterization.variance),
        mask,
        characterization.kernels,
        _cells_without_psf(restored.stack),
        inputs,
        geometry,
        band,
        [flags.blank(noise) for noise in characterization.noise_realizations],
    )


def make_measurable_coadd(
    restored: RestoredStack,
    flags: PixelFlags,
    inputs: Sequence[StackInput],
    geometry: PatchGeometry,
    band: str,
) -> CellCoadd:
    """Make the dataset ``restored_coadd_measurable``.

    Parameters
    ----------
    restored : `RestoredStack`
        The restored exposures.
    flags : `PixelFlags`
        Quality of the exposures' pixels.
    inputs : `~collections.abc.Sequence` [`StackInput`]
        The visit images in the stack.
    geometry : `PatchGeometry`
        The pixel grid of the patch.
    band : `str`
        Name of the band.

    Returns
    -------
    coadd : `lsst.images.cells.CellCoadd`
        The image for photometry, nJy, with its variance, PSF and noise
        realizations, NaN where the exposures do not constrain it, and the mask
        planes ``NO_DATA`` (the value is the restored image's),
        ``FEW_EXPOSURES`` and ``INEXACT_PSF`` (see `PixelFlags`).
    """
    measurable = restored.measurable
    mask = Mask(0, schema=_MEASURABLE_SCHEMA, bbox=geometry.outer_bbox)
    mask.set("NO_DATA", flags.no_data)
    mask.set("FEW_EXPOSURES", flags.few_exposures)
    mask.set("INEXACT_PSF", flags.inexact_psf)
    # MeasurableTask has blanked the planes.
    return _make_coadd(
        measurable.image,
        measurable.variance,
        mask,
        measurable.kernels,
        _cells_without_psf(restored.stack),
        inputs,
        geometry,
        band,
        measurable.noise_realizations,
    )


def make_reference_coadd(
    reference: ReferenceCoadd, inputs: Sequence[StackInput], geometry: PatchGeometry, band: str
) -> CellCoadd:
    """Make the dataset ``restored_coadd_reference``.

    Parameters
    ----------
    reference : `ReferenceCoadd`
        Weighted and clipped mean of the exposures.
    inputs : `~collections.abc.Sequence` [`StackInput`]
        The visit images in it.
    geometry : `PatchGeometry`
        The pixel grid of the patch.
    band : `str`
        Name of the band.

    Returns
    -------
    coadd : `lsst.images.cells.CellCoadd`
        The mean, nJy, with its variance and PSF, NaN where no exposure has
        data, and the mask planes ``NO_DATA``, ``CLIPPED``, ``REJECTED`` and
        ``INEXACT_PSF`` of the pipeline's coadds.
    """
    missing = ~reference.weights.any(axis=0)
    cells = geometry.patch.cells
    in_cell = np.count_nonzero(reference.weights, axis=0)
    expected = expand_cells(in_cell, cells.cell_shape)
    incomplete = reference.n_exposures < expected

    mask = Mask(0, schema=_REFERENCE_SCHEMA, bbox=geometry.outer_bbox)
    mask.set("NO_DATA", reference.n_exposures == 0)
    mask.set("CLIPPED", reference.clipped.any(axis=0))
    mask.set("REJECTED", incomplete)
    mask.set("INEXACT_PSF", incomplete)
    return _make_coadd(
        reference.image, reference.variance, mask, reference.kernels, missing, inputs, geometry, band
    )


def make_direct_warp(
    stack: ExposureStack, inputs: Sequence[StackInput], geometry: PatchGeometry, band: str
) -> CellCoadd:
    """Make the dataset ``direct_warp``: a coadd of one visit.

    Parameters
    ----------
    stack : `ExposureStack`
        One exposure.
    inputs : `~collections.abc.Sequence` [`StackInput`]
        The visit images in it.
    geometry : `PatchGeometry`
        The pixel grid of the patch.
    band : `str`
        Name of the band.

    Returns
    -------
    warp : `lsst.images.cells.CellCoadd`
        The pixels, nJy, with their variance and PSF; NaN with the mask plane
        ``NO_DATA`` where they are not good.

    Raises
    ------
    ValueError
        Raised if the stack has several exposures.
    """
    if stack.n_exposures != 1:
        raise ValueError(f"A warp is made of one exposure, not {stack.n_exposures}.")
    good = stack.good[0]
    mask = Mask(0, schema=_WARP_SCHEMA, bbox=geometry.outer_bbox)
    mask.set("NO_DATA", ~good)
    nan = np.float32(np.nan)
    return _make_coadd(
        np.where(good, stack.image[0], nan),
        np.where(good, stack.variance[0], nan),
        mask,
        stack.kernels[0],
        ~stack.has_kernel[0],
        inputs,
        geometry,
        band,
    )


def _cells_without_psf(stack: ExposureStack) -> np.ndarray:
    """Return the cells in which no exposure has a PSF (`bool`)."""
    return ~stack.has_kernel.any(axis=0)


def _make_coadd(
    image: np.ndarray,
    variance: np.ndarray,
    mask: Mask,
    kernels: np.ndarray,
    missing: np.ndarray,
    inputs: Sequence[StackInput],
    geometry: PatchGeometry,
    band: str,
    noise_realizations: Sequence[np.ndarray] = (),
) -> CellCoadd:
    """Assemble a coadd.

    ``kernels`` has shape ``(cells_y, cells_x, k, k)``; ``missing`` are the cells
    without one, `bool`, shape ``(cells_y, cells_x)``.
    """
    bbox = geometry.outer_bbox
    bounds = CellGridBounds(
        grid=geometry.patch.cells,
        bbox=bbox,
        missing=frozenset(CellIJ(i=int(i), j=int(j)) for i, j in np.argwhere(missing)),
    )
    # lsst.afw draws PSFs in double precision only: of kernels of another type it
    # raises a RuntimeError.
    psf = np.where(missing[..., np.newaxis, np.newaxis], np.nan, kernels.astype(np.float64))
    return CellCoadd(
        Image(image, bbox=bbox, unit=u.nJy, sky_projection=geometry.sky_projection),
        mask=mask,
        variance=Image(variance, bbox=bbox, unit=u.nJy**2),
        noise_realizations=[Image(noise, bbox=bbox, unit=u.nJy) for noise in noise_realizations],
        band=band,
        psf=CellPointSpreadFunction(psf, bounds=bounds),
        patch=geometry.patch,
        provenance=make_provenance(inputs),
    )
