# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from coadd_case import BBOX, CELLS, FEW, SHAPE, make_geometry, make_inputs, make_restored, make_stack
from stacks import make_restoration

import lsst.images
from lsst.daf.butler import Butler, DatasetType
from lsst.drp.restore.outputs.coadds import (
    make_direct_warp,
    make_measurable_coadd,
    make_reference_coadd,
    make_restored_coadd,
)
from lsst.drp.restore.outputs.pixel_flags import flag_pixels
from lsst.drp.restore.outputs.restored_stack import RestoredStack
from lsst.drp.restore.repository.register import register_instrument
from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.drp.restore.warping.stack_input import StackInput
from lsst.images import BoundsError, Box, get_legacy_deep_coadd_mask_planes
from lsst.images.cells import CellCoadd, CellIJ
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

DATA_ID = {"skymap": "test", "tract": 0, "patch": 5, "band": "i"}


@dataclasses.dataclass
class Case:
    restored: RestoredStack
    inputs: list[StackInput]
    restored_coadd: CellCoadd
    measurable_coadd: CellCoadd
    reference_coadd: CellCoadd


@pytest.fixture(scope="module")
def case() -> Case:
    geometry, restored = make_geometry(), make_restored()
    inputs, flags = make_inputs(make_stack()), flag_pixels(restored, few_exposures=FEW)
    return Case(
        restored,
        inputs,
        make_restored_coadd(restored, flags, inputs, geometry, "i"),
        make_measurable_coadd(restored, flags, inputs, geometry, "i"),
        make_reference_coadd(restored.reference, inputs, geometry, "i"),
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, case: Case) -> Iterator[tuple[Butler, Path]]:
    """A repository with both coadds in it."""
    root = tmp_path_factory.mktemp("pack") / "repo"
    Butler.makeRepo(str(root))
    with Butler.from_config(str(root), writeable=True, run="out") as butler:
        region = ConvexPolygon(
            [
                UnitVector3d(LonLat.fromDegrees(*where))
                for where in ((150, 2), (150.1, 2), (150.1, 2.1), (150, 2.1))
            ]
        )
        # Bands exist as those of physical filters.
        register_instrument(butler, "Cam", {0: "left", 7: "right"}, {"i_1": "i", "i_2": "i"})
        registry = butler.registry
        registry.insertDimensionData(
            "skymap", dict(name="test", hash=b"12345", tract_max=1, patch_nx_max=3, patch_ny_max=2)
        )
        registry.insertDimensionData("tract", dict(skymap="test", id=0, region=region))
        registry.insertDimensionData(
            "patch", dict(skymap="test", tract=0, id=5, cell_x=2, cell_y=1, region=region)
        )
        for name, coadd in (
            ("restored_coadd", case.restored_coadd),
            ("restored_coadd_measurable", case.measurable_coadd),
            ("restored_coadd_reference", case.reference_coadd),
        ):
            dataset_type = DatasetType(
                name, ("skymap", "tract", "patch", "band"), "CellCoadd", universe=butler.dimensions
            )
            registry.registerDatasetType(dataset_type)
            butler.put(coadd, dataset_type, DATA_ID)
    with Butler.from_config(str(root), collections="out") as butler:
        yield butler, root


def test_restored_coadd(case: Case) -> None:
    coadd, restoration = case.restored_coadd, case.restored.restoration
    assert (coadd.skymap, coadd.tract, coadd.band, coadd.patch.id) == ("test", 0, "i", 5)
    assert coadd.bbox == BBOX
    assert coadd.unit == u.nJy
    assert coadd.variance.unit == u.nJy**2
    np.testing.assert_array_equal(coadd.mask.get("INCONSISTENT"), case.restored.characterization.inconsistent)
    count = np.count_nonzero(case.restored.stack.good, axis=0)
    np.testing.assert_array_equal(coadd.mask.get("NO_DATA"), count == 0)
    np.testing.assert_array_equal(coadd.mask.get("FEW_EXPOSURES"), count < FEW)
    assert not coadd.mask.get("NOT_CONVERGED").any()
    # The model fills a hole and the edge of the data, but not what is further
    # away than its kernels reach, and not a missing cell.
    image = coadd.image.array
    finite = np.isfinite(image)
    np.testing.assert_array_equal(image[finite], restoration.image[finite])
    (noise,) = coadd.noise_realizations
    for plane, given in (
        (coadd.variance.array, case.restored.characterization.variance),
        (noise.array, case.restored.characterization.noise_realizations[0]),
    ):
        np.testing.assert_array_equal(plane, np.where(finite, given, np.nan))
    assert finite[25, 30]
    assert not finite[:6].any()
    assert finite[6:40].all()
    assert not finite[40:, 60:].any()
    assert finite[40:, :60].all()


def test_not_converged_is_set_everywhere(case: Case) -> None:
    restored = make_restored(converged=False)
    flags = flag_pixels(restored, few_exposures=FEW)
    coadd = make_restored_coadd(restored, flags, case.inputs, make_geometry(), "i")
    assert coadd.mask.get("NOT_CONVERGED").all()


def test_psf_of_the_restored_coadd(case: Case) -> None:
    psf = case.restored_coadd.psf
    kernel = psf.compute_kernel_image(x=7030.0, y=4030.0)
    np.testing.assert_array_equal(kernel.array, case.restored.characterization.kernels[1, 1])
    assert kernel.bbox == Box.factory[-2:3, -2:3]
    assert psf.bounds.missing == {CellIJ(i=2, j=3)}
    with pytest.raises(BoundsError):
        psf.compute_kernel_image(x=7070.0, y=4050.0)


def test_measurable_coadd(case: Case) -> None:
    coadd, measurable = case.measurable_coadd, case.restored.measurable
    assert coadd.unit == u.nJy
    np.testing.assert_array_equal(coadd.image.array, measurable.image)
    np.testing.assert_array_equal(coadd.variance.array, measurable.variance)
    assert coadd.variance.unit == u.nJy**2
    (noise,) = coadd.noise_realizations
    np.testing.assert_array_equal(noise.array, measurable.noise_realizations[0])
    np.testing.assert_array_equal(coadd.mask.get("NO_DATA"), case.restored.reference.n_exposures == 0)
    np.testing.assert_array_equal(coadd.mask.get("FEW_EXPOSURES"), case.restored.reference.n_exposures < FEW)
    np.testing.assert_array_equal(coadd.mask.get("INEXACT_PSF"), measurable.coverage < 0.8)
    assert coadd.psf.bounds.missing == {CellIJ(i=2, j=3)}
    np.testing.assert_array_equal(coadd.psf[CellIJ(i=1, j=2)].array, measurable.kernels[1, 2])


def test_reference_coadd(case: Case) -> None:
    coadd, reference = case.reference_coadd, case.restored.reference
    np.testing.assert_array_equal(coadd.image.array, reference.image)
    np.testing.assert_array_equal(coadd.variance.array, reference.variance)
    assert coadd.unit == u.nJy
    for i in range(CELLS[0]):
        for j in range(CELLS[1]):
            if (i, j) != (2, 3):
                np.testing.assert_array_equal(coadd.psf[CellIJ(i=i, j=j)].array, reference.kernels[i, j])
    assert coadd.psf.bounds.missing == {CellIJ(i=2, j=3)}
    assert np.argwhere(coadd.mask.get("CLIPPED")).tolist() == [[30, 40]]
    np.testing.assert_array_equal(coadd.mask.get("NO_DATA"), np.isnan(reference.image))
    # Two of four exposures have a PSF in the right column of cells.
    in_cell = np.full(SHAPE, 4)
    in_cell[:, 60:] = 2
    in_cell[40:, 60:] = 0
    for plane in ("REJECTED", "INEXACT_PSF"):
        np.testing.assert_array_equal(coadd.mask.get(plane), reference.n_exposures < in_cell)


@pytest.mark.parametrize("name", ["restored_coadd", "restored_coadd_reference"])
def test_round_trip(repository: tuple[Butler, Path], case: Case, name: str) -> None:
    butler, _ = repository
    put = case.restored_coadd if name == "restored_coadd" else case.reference_coadd
    got = butler.get(name, DATA_ID)
    assert isinstance(got, CellCoadd)
    np.testing.assert_array_equal(got.image.array, put.image.array)
    np.testing.assert_array_equal(got.variance.array, put.variance.array)
    assert got.mask == put.mask
    assert got.mask.schema.descriptions == put.mask.schema.descriptions
    assert (got.unit, got.band, got.patch, got.bbox) == (put.unit, put.band, put.patch, put.bbox)
    assert got.psf.bounds == put.psf.bounds
    for cell in put.psf.bounds.cell_indices():
        np.testing.assert_array_equal(got.psf[cell].array, put.psf[cell].array)
    for table in ("inputs", "contributions"):
        read, written = getattr(got.provenance, table), getattr(put.provenance, table)
        assert set(read.colnames) == set(written.colnames) and len(read) == len(written) > 0
        for column in set(read.colnames) - {"polygon"}:
            np.testing.assert_array_equal(read[column], written[column])
    for one, other in zip(got.provenance.inputs["polygon"], put.provenance.inputs["polygon"], strict=True):
        np.testing.assert_allclose(one.x_vertices, other.x_vertices)
        np.testing.assert_allclose(one.y_vertices, other.y_vertices)
    sky, expected = (
        coadd.sky_projection.pixel_to_sky(x=np.array([7011.0]), y=np.array([4050.0])) for coadd in (got, put)
    )
    assert sky.separation(expected)[0].arcsec < 1e-6


def test_components_and_cutouts(repository: tuple[Butler, Path], case: Case) -> None:
    butler, _ = repository
    put = case.restored_coadd
    np.testing.assert_array_equal(butler.get("restored_coadd.image", DATA_ID).array, put.image.array)
    assert butler.get("restored_coadd.mask", DATA_ID) == put.mask
    assert butler.get("restored_coadd.bbox", DATA_ID) == BBOX
    assert butler.get("restored_coadd.psf", DATA_ID).bounds == put.psf.bounds
    assert len(butler.get("restored_coadd.provenance", DATA_ID).inputs) == 8
    box = Box.factory[4025:4045, 7005:7031]
    cutout = butler.get("restored_coadd", DATA_ID, parameters={"bbox": box})
    assert cutout.bbox == box
    np.testing.assert_array_equal(cutout.image.array, put.image.array[25:45, 5:31])
    np.testing.assert_array_equal(
        cutout.mask.get("FEW_EXPOSURES"), put.mask.get("FEW_EXPOSURES")[25:45, 5:31]
    )
    table = cutout.provenance.contributions
    assert set(table["cell_i"]) == {1, 2}
    assert set(table["cell_j"]) == {0, 1}


def test_geometry_can_be_read_back(repository: tuple[Butler, Path]) -> None:
    """A restored coadd can define the patch of the next restoration."""
    butler, _ = repository
    geometry = PatchGeometry.from_coadd(butler.getDeferred("restored_coadd", DATA_ID))
    assert geometry.patch == make_geometry().patch


class FakeLegacyMask:
    """What `lsst.images.Mask.to_legacy` needs of `lsst.afw.image.Mask`, which
    exists in the full Science Pipelines only.
    """

    def __init__(self, shape: tuple[int, int]):
        self.array = np.zeros(shape, np.int32)
        # The planes that every afw mask starts with.
        names = ("BAD", "SAT", "INTRP", "CR", "EDGE", "DETECTED", "DETECTED_NEGATIVE", "SUSPECT", "NO_DATA")
        self.planes = {name: bit for bit, name in enumerate(names)}

    def addMaskPlane(self, name: str) -> int:  # noqa: N802
        bit = self.planes.setdefault(name, len(self.planes))
        assert bit < 32
        return bit

    def get(self, name: str) -> np.ndarray:
        return (self.array & (1 << self.planes[name])) != 0


def fake_module(name: str, monkeypatch: pytest.MonkeyPatch, **contents: Any) -> types.ModuleType:
    """Make a module that can be imported."""
    module = types.ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.mark.parametrize("name", ["restored_coadd", "reference_coadd"])
def test_mask_planes_survive_conversion_to_afw(
    case: Case, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the map that `CellCoadd.to_legacy` uses."""
    image = fake_module("lsst.afw.image", monkeypatch, Mask=FakeLegacyMask)
    monkeypatch.setattr(lsst, "afw", fake_module("lsst.afw", monkeypatch, image=image), raising=False)
    fake_module("lsst.geom", monkeypatch)
    monkeypatch.setattr(Box, "to_legacy", lambda self: self.shape)
    mask = getattr(case, name).mask
    legacy = mask.to_legacy(get_legacy_deep_coadd_mask_planes())
    for plane in mask.schema.names:
        np.testing.assert_array_equal(legacy.get(plane), mask.get(plane))


@dataclasses.dataclass(frozen=True)
class FakeLegacyImage:
    """What is used of `lsst.afw.image.Image`, of any type of pixels."""

    array: np.ndarray
    deep: bool
    dtype: type
    xy0: tuple[int, int]


class FakeStitchedPsf:
    """`lsst.cell_coadds.StitchedPsf`: an afw PSF whose images are made in
    Python and cast to ``Image<double>`` by their caller in C++.
    """

    def __init__(self, images: dict[tuple[int, int], FakeLegacyImage], grid: Any) -> None:
        self.images = images

    def computeKernelImage(self, x: int, y: int) -> FakeLegacyImage:  # noqa: N802
        image = self.images[x, y]
        if image.dtype is not np.float64:
            name = {np.float32: "ImageF"}[image.dtype]
            raise RuntimeError(f"Unable to cast Python instance of type {name} to Image<double>")
        return image


@pytest.mark.parametrize("name", ["restored_coadd", "measurable_coadd", "reference_coadd", "direct_warp"])
def test_psf_can_be_drawn_in_afw(
    case: Case, name: str, monkeypatch: pytest.MonkeyPatch, repository: tuple[Butler, Path]
) -> None:
    """From memory and from a file, by the conversion of `CellCoadd`."""
    image = fake_module("lsst.afw.image", monkeypatch, Image=FakeLegacyImage, ImageD=FakeLegacyImage)
    monkeypatch.setattr(lsst, "afw", fake_module("lsst.afw", monkeypatch, image=image), raising=False)
    geom = fake_module("lsst.geom", monkeypatch, Point2I=lambda x, y: (x, y), Extent2I=lambda x, y: (x, y))
    monkeypatch.setattr(lsst, "geom", geom, raising=False)
    fake_module("lsst.skymap", monkeypatch, Index2D=lambda x, y: (x, y))
    fake_module(
        "lsst.cell_coadds",
        monkeypatch,
        GridContainer=type("GridContainer", (dict,), {"__init__": lambda self, shape: None}),
        StitchedPsf=FakeStitchedPsf,
        UniformGrid=lambda cell, shape, min: types.SimpleNamespace(shape=shape),
    )
    coadds = [make_warp(case) if name == "direct_warp" else getattr(case, name)]
    if name == "restored_coadd":
        coadds.append(repository[0].get(name, DATA_ID))
    for coadd in coadds:
        drawn = coadd.psf.to_legacy().computeKernelImage(x=2, y=1)
        np.testing.assert_array_equal(drawn.array, coadd.psf[CellIJ(i=1, j=2)].array)


def make_warp(case: Case) -> CellCoadd:
    """Make a warp of the third exposure."""
    stack = make_stack()
    one = dataclasses.replace(
        stack,
        image=stack.image[2:3],
        variance=stack.variance[2:3],
        good=stack.good[2:3],
        kernels=stack.kernels[2:3],
        correlation=stack.correlation[2:3],
        names=stack.names[2:3],
    )
    inputs = [item for item in case.inputs if item.exposure == 2]
    return make_direct_warp(one, inputs, make_geometry(), "i")


def test_direct_warp_is_one_exposure(case: Case) -> None:
    stack, warp = make_stack(), make_warp(case)
    good = stack.good[2]
    np.testing.assert_array_equal(warp.image.array, np.where(good, stack.image[2], np.nan))
    np.testing.assert_array_equal(warp.variance.array, np.where(good, stack.variance[2], np.nan))
    np.testing.assert_array_equal(warp.mask.get("NO_DATA"), ~good)
    # It does not reach the right column of cells.
    assert warp.psf.bounds.missing == {CellIJ(i=i, j=3) for i in range(CELLS[0])}
    np.testing.assert_array_equal(warp.psf[CellIJ(i=1, j=2)].array, stack.kernels[2, 1, 2])
    assert set(warp.provenance.inputs["visit"]) == {103}


def test_direct_warp_of_several_exposures_is_refused(case: Case) -> None:
    with pytest.raises(ValueError, match="one exposure, not 4"):
        make_direct_warp(make_stack(), case.inputs, make_geometry(), "i")


def test_restored_coadd_of_smaller_pixels(case: Case) -> None:
    """Flags and unconstrained pixels are those of the exposures' pixels."""
    stack = dataclasses.replace(case.restored.stack, oversampling=2)
    shape = tuple(2 * size for size in SHAPE)
    rng = np.random.default_rng(7)
    restored = dataclasses.replace(
        case.restored,
        stack=stack,
        restoration=make_restoration(stack, rng.exponential(size=stack.latent_shape)),
        characterization=dataclasses.replace(
            case.restored.characterization,
            variance=rng.exponential(size=shape).astype(np.float32),
            noise_realizations=[],
        ),
    )
    flags = flag_pixels(restored, few_exposures=FEW)
    coadd = make_restored_coadd(restored, flags, case.inputs, make_geometry(), "i")
    assert coadd.bbox == Box.factory[8000:8120, 14000:14160]
    for plane in ("NO_DATA", "FEW_EXPOSURES", "INCONSISTENT"):
        expected = case.restored_coadd.mask.get(plane).repeat(2, axis=0).repeat(2, axis=1)
        np.testing.assert_array_equal(coadd.mask.get(plane), expected)
    finite = np.isfinite(case.restored_coadd.image.array).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(np.isfinite(coadd.image.array), finite)
    np.testing.assert_array_equal(coadd.image.array[finite], restored.restoration.image[finite])
