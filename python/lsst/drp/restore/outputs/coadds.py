# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""From arrays to the datasets that are written: coadds with mask, PSF and
provenance, and the network's weights.
"""

from __future__ import annotations

__all__ = (
    "make_direct_warp",
    "make_measurable_coadd",
    "make_reference_coadd",
    "make_restored_coadd",
    "make_weights_table",
)

from collections.abc import Mapping, Sequence

import astropy.table
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
from lsst.images.cells import CellCoadd, CellGridBounds, CellIJ, CellPointSpreadFunction, CoaddProvenance

from ..restoration.characterize import Characterization
from ..restoration.measurable import Measurable
from ..restoration.restoration import Restoration
from ..stack.exposure_stack import ExposureStack, expand_cells
from ..stack.oversampling import split_pixels
from ..stack.reference_coadd import ReferenceCoadd, constrained_pixels
from ..warping.patch_geometry import PatchGeometry
from ..warping.stack_input import StackInput

# Planes of the pipeline's own coadds keep their names and meaning (conversion
# to lsst.afw needs no more than that: it writes other planes under their own
# names).
_COADD_PLANES = {plane.name: plane for plane in get_legacy_deep_coadd_mask_planes().values()}

_RESTORED_SCHEMA = MaskSchema(
    [
        _COADD_PLANES["NO_DATA"],
        MaskPlane("FEW_EXPOSURES", "Fewer exposures than configured have data for this pixel."),
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


_MEASURABLE_SCHEMA = MaskSchema(
    [
        *(_COADD_PLANES[name] for name in ("NO_DATA", "INEXACT_PSF")),
        MaskPlane("FEW_EXPOSURES", "Fewer exposures than configured have data for this pixel."),
    ]
)

# Warps have the planes of their visit images.
_WARP_SCHEMA = MaskSchema(get_legacy_visit_image_mask_planes().values())

# Fraction of the exposures' weight under a source's PSF that is on good
# pixels, below which the PSF of what the restoration lost counts as inexact.
MIN_COVERAGE = 0.8


def make_restored_coadd(
    restoration: Restoration,
    character: Characterization,
    stack: ExposureStack,
    reference: ReferenceCoadd,
    inputs: Sequence[StackInput],
    geometry: PatchGeometry,
    band: str,
    few_exposures: int,
) -> CellCoadd:
    """Make the dataset ``restored_coadd``.

    Parameters
    ----------
    restoration : `Restoration`
        The latent image and how it was found.
    character : `Characterization`
        Its variance, noise, PSF and dubious pixels.
    stack : `ExposureStack`
        The exposures it was restored from.
    reference : `ReferenceCoadd`
        Coadd of the same exposures; its number of exposures in each pixel is
        used.
    inputs : `~collections.abc.Sequence` [`StackInput`]
        The visit images in the stack.
    geometry : `PatchGeometry`
        The pixel grid of the latent image: the patch's, `refined` by the
        stack's factor.
    band : `str`
        Name of the band.
    few_exposures : `int`
        Pixels with fewer exposures than this get the mask plane
        ``FEW_EXPOSURES``.

    Returns
    -------
    coadd : `lsst.images.cells.CellCoadd`
        The latent image on the patch, nJy, with its variance, noise
        realizations and PSF (`CharacterizeTask`), and the mask planes
        ``NO_DATA`` (no exposure has a good pixel here), ``FEW_EXPOSURES``,
        ``INCONSISTENT`` and ``NOT_CONVERGED`` (then on all pixels).

    Notes
    -----
    The model also fills small holes in the data (the core of a star that is
    saturated in all exposures): pixels with ``NO_DATA`` have a value as long
    as a good pixel is within reach of a PSF kernel (`constrained_pixels`), and
    are NaN where nothing constrains them.  Cells in which no exposure has a PSF are
    missing: NaN, and no PSF.
    """
    factor = stack.oversampling
    constrained = split_pixels(constrained_pixels(stack, reference), factor)
    image, variance, *noise = (
        np.where(constrained, plane, np.float32(np.nan))
        for plane in (restoration.image, character.variance, *character.noise_realizations)
    )

    mask = Mask(0, schema=_RESTORED_SCHEMA, bbox=geometry.outer_bbox)
    mask.set("NO_DATA", split_pixels(reference.n_exposures == 0, factor))
    mask.set("FEW_EXPOSURES", split_pixels(reference.n_exposures < few_exposures, factor))
    mask.set("INCONSISTENT", split_pixels(character.inconsistent, factor))
    if not restoration.converged:
        mask.set("NOT_CONVERGED")
    return _make_coadd(
        image,
        variance,
        mask,
        character.kernels,
        ~stack.has_kernel.any(axis=0),
        inputs,
        geometry,
        band,
        noise,
    )


def make_measurable_coadd(
    measurable: Measurable,
    stack: ExposureStack,
    reference: ReferenceCoadd,
    inputs: Sequence[StackInput],
    geometry: PatchGeometry,
    band: str,
    few_exposures: int,
) -> CellCoadd:
    """Make the dataset ``restored_coadd_measurable``.

    Parameters
    ----------
    measurable : `Measurable`
        The image to measure on.
    stack : `ExposureStack`
        The exposures it was made from.
    reference : `ReferenceCoadd`
        Coadd of the same exposures; its number of exposures in each pixel is
        used.
    inputs : `~collections.abc.Sequence` [`StackInput`]
        The visit images in the stack.
    geometry : `PatchGeometry`
        The pixel grid of the patch.
    band : `str`
        Name of the band.
    few_exposures : `int`
        Pixels with fewer exposures than this get the mask plane
        ``FEW_EXPOSURES``.

    Returns
    -------
    coadd : `lsst.images.cells.CellCoadd`
        The image, nJy, with its variance, PSF and noise realizations, NaN
        where nothing constrains it (`constrained_pixels`), and the mask planes

        - ``NO_DATA``: no exposure has a good pixel here; the value is the
          restored image's;
        - ``FEW_EXPOSURES``;
        - ``INEXACT_PSF``: so many pixels are missing under the PSF that light
          which the restored image lacks has another PSF than stated.
    """
    mask = Mask(0, schema=_MEASURABLE_SCHEMA, bbox=geometry.outer_bbox)
    mask.set("NO_DATA", reference.n_exposures == 0)
    mask.set("FEW_EXPOSURES", reference.n_exposures < few_exposures)
    mask.set("INEXACT_PSF", measurable.coverage < MIN_COVERAGE)
    return _make_coadd(
        measurable.image,
        measurable.variance,
        mask,
        measurable.kernels,
        ~stack.has_kernel.any(axis=0),
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


def make_weights_table(weights: Mapping[str, np.ndarray]) -> astropy.table.Table:
    """Make the dataset ``restored_coadd_weights``.

    Parameters
    ----------
    weights : `~collections.abc.Mapping` [`str`, `numpy.ndarray`]
        Weights of the network by name.

    Returns
    -------
    table : `astropy.table.Table`
        One row per number: ``name`` of the array, its ``shape`` (comma
        separated; empty for a scalar), ``index`` in the flattened array (C
        order), and ``value``.
    """
    names, shapes, indices, values = [], [], [], []
    for name, array in weights.items():
        names += [name] * array.size
        shapes += [",".join(map(str, array.shape))] * array.size
        indices.append(np.arange(array.size))
        values.append(np.asarray(array, np.float32).ravel())
    return astropy.table.Table(
        {
            "name": np.array(names, dtype=str),
            "shape": np.array(shapes, dtype=str),
            "index": np.concatenate(indices) if indices else np.array([], np.int64),
            "value": np.concatenate(values) if values else np.array([], np.float32),
        }
    )


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
    """Put the planes, the PSF and the provenance together.

    ``kernels`` has shape ``(cells_y, cells_x, k, k)``; ``missing`` tells which
    cells have none, shape ``(cells_y, cells_x)``.
    """
    bbox = geometry.outer_bbox
    bounds = CellGridBounds(
        grid=geometry.patch.cells,
        bbox=bbox,
        missing=frozenset(CellIJ(i=int(i), j=int(j)) for i, j in np.argwhere(missing)),
    )
    psf = np.where(missing[..., np.newaxis, np.newaxis], np.float32(np.nan), kernels)
    return CellCoadd(
        Image(image, bbox=bbox, unit=u.nJy, sky_projection=geometry.sky_projection),
        mask=mask,
        variance=Image(variance, bbox=bbox, unit=u.nJy**2),
        noise_realizations=[Image(noise, bbox=bbox, unit=u.nJy) for noise in noise_realizations],
        band=band,
        psf=CellPointSpreadFunction(psf, bounds=bounds),
        patch=geometry.patch,
        provenance=_make_provenance(inputs),
    )


def _make_provenance(inputs: Sequence[StackInput]) -> CoaddProvenance:
    """Tabulate the visit images and what each gave to each cell.

    Several instruments or filters become one comma-separated name.
    """
    table = CoaddProvenance.make_empty_input_table(len(inputs))
    for row, visit_image in zip(table, inputs, strict=True):
        for name in table.colnames:
            row[name] = getattr(visit_image, name)
    # lsst-images 30.2026.4300 can neither write nor read a table with more
    # than one name in these columns (as of HSC's two i filters).
    common = {name: ",".join(sorted(set(table[name]))) for name in ("instrument", "physical_filter")}
    for name, value in common.items():
        table[name] = np.full(len(table), value, dtype=object)

    gave = [np.argwhere(visit_image.unmasked_fraction > 0) for visit_image in inputs]
    contributions = CoaddProvenance.make_empty_contribution_table(sum(map(len, gave)))
    start = 0
    for visit_image, cells in zip(inputs, gave, strict=True):
        rows = slice(start, start + len(cells))
        i, j = cells.T
        contributions["cell_i"][rows], contributions["cell_j"][rows] = i, j
        contributions["instrument"][rows] = common["instrument"]
        for name in ("visit", "detector"):
            contributions[name][rows] = getattr(visit_image, name)
        for name in ("overlaps_center", "overlap_fraction", "unmasked_fraction", "weight"):
            contributions[name][rows] = getattr(visit_image, name)[i, j]
        for axes in ("xx", "yy", "xy"):
            contributions[f"psf_shape_{axes}"][rows] = getattr(visit_image, f"psf_{axes}")[i, j]
        # Set where the measurement failed, as flags of measurements are.
        contributions["psf_shape_flag"][rows] = ~np.isfinite(visit_image.psf_xx[i, j])
        start = rows.stop
    return CoaddProvenance(inputs=table, contributions=contributions)
