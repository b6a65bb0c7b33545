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

import astropy.units as u
import numpy as np
import pytest
from astropy.wcs import WCS
from stacks import make_restoration as restoration_of

import lsst.images
from lsst.daf.butler import Butler, DatasetType
from lsst.drp.restore.outputs.coadds import (
    make_measurable_coadd,
    make_reference_coadd,
    make_restored_coadd,
    make_weights_table,
)
from lsst.drp.restore.repository.register import register_instrument
from lsst.drp.restore.restoration.characterize import Characterization
from lsst.drp.restore.restoration.measurable import Measurable
from lsst.drp.restore.restoration.restoration import Restoration
from lsst.drp.restore.stack.exposure_stack import ExposureStack
from lsst.drp.restore.stack.reference_coadd import ReferenceCoadd, reference_coadd
from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.drp.restore.warping.stack_input import StackInput
from lsst.images import (
    YX,
    BoundsError,
    Box,
    Polygon,
    SkyProjection,
    TractFrame,
    get_legacy_deep_coadd_mask_planes,
)
from lsst.images.cells import CellCoadd, CellGrid, CellIJ, PatchDefinition
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

SHAPE = (60, 80)
CELL = (20, 20)
CELLS = (3, 4)
KERNEL_SIZE = 5
BBOX = Box.from_shape(SHAPE, start=YX(y=4000, x=7000))
FEW = 3
DATA_ID = {"skymap": "test", "tract": 0, "patch": 5, "band": "i"}


def make_geometry() -> PatchGeometry:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [1.0, 1.0]
    wcs.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600]
    tract_bbox = Box.from_shape((10000, 10000))
    return PatchGeometry(
        skymap="test",
        tract=0,
        patch=PatchDefinition(
            id=5,
            index=YX(y=1, x=2),
            inner_bbox=BBOX.padded(-10),
            cells=CellGrid(bbox=BBOX, cell_shape=YX(y=CELL[0], x=CELL[1])),
        ),
        sky_projection=SkyProjection.from_fits_wcs(
            wcs, TractFrame(skymap="test", tract=0, bbox=tract_bbox), pixel_bounds=tract_bbox
        ),
    )


def make_stack() -> ExposureStack:
    """Four exposures; the last two miss the right column of cells, no
    exposure has cell (2, 3), and no pixel is good in a hole and a band.
    """
    rng = np.random.default_rng(1)
    n = 4
    kernels = rng.uniform(0.01, 0.04, (n, *CELLS, KERNEL_SIZE, KERNEL_SIZE)).astype(np.float32)
    good = rng.uniform(size=(n, *SHAPE)) < 0.9
    kernels[2:, :, 3] = 0
    good[2:, :, 60:] = False
    kernels[:, 2, 3] = 0
    good[:, 40:, 60:] = False
    good[:, 25, 30] = False
    good[:, :8, :] = False
    sigma = np.array([1.0, 1.5, 0.8, 1.2])[:, None, None]
    image = rng.normal(size=(n, *SHAPE)) * sigma
    image[1, 30, 40] = 400.0
    good[:, 30, 40] = True
    return ExposureStack(
        image=np.where(good, image, 0).astype(np.float32),
        variance=np.where(good, sigma**2, np.inf).astype(np.float32),
        good=good,
        kernels=kernels,
        correlation=np.ones(kernels.shape[:3], np.float32),
        cell_shape=CELL,
        names=tuple(f"Cam visit {visit}" for visit in (101, 102, 103, 104)),
    )


def make_inputs(stack: ExposureStack) -> list[StackInput]:
    """Two detectors, left and right, of each visit."""
    rng = np.random.default_rng(2)
    inputs = []
    for t in range(stack.n_exposures):
        for detector, columns in ((0, slice(0, 40)), (7, slice(40, 80))):
            mine = np.zeros(SHAPE, bool)
            mine[:, columns] = stack.good[t][:, columns]
            count = mine.reshape(CELLS[0], CELL[0], CELLS[1], CELL[1]).sum(axis=(1, 3))
            moments = np.where(count > 0, rng.uniform(1, 3, (3, *CELLS)), np.nan)
            if t == 0 and detector == 0:
                moments[:, 1, 1] = np.nan
            box = Box.factory[4000:4060, 7000 + columns.start : 7000 + columns.stop]
            inputs.append(
                StackInput(
                    instrument="Cam",
                    visit=101 + t,
                    detector=detector,
                    physical_filter="i_1" if t < 3 else "i_2",
                    day_obs=20240301 + t,
                    exposure=t,
                    polygon=Polygon.from_box(box),
                    overlap_fraction=np.where(count > 0, rng.uniform(0.5, 1, CELLS), 0),
                    overlaps_center=count > 200,
                    unmasked_fraction=count / (CELL[0] * CELL[1]),
                    weight=np.where(count > 0, rng.uniform(0.5, 1, CELLS), 0),
                    kernel_fraction=np.where(count > 0, 0.97, np.nan),
                    psf_xx=moments[0],
                    psf_yy=moments[1],
                    psf_xy=moments[2],
                )
            )
    return inputs


def make_restoration(converged: bool = True) -> Restoration:
    rng = np.random.default_rng(3)
    stack = make_stack()
    return restoration_of(stack, rng.exponential(size=stack.latent_shape), converged=converged)


def make_measurable(reference: ReferenceCoadd) -> Measurable:
    rng = np.random.default_rng(4)
    nothing = reference.n_exposures == 0
    image, variance, noise = (np.where(nothing, np.nan, rng.exponential(size=SHAPE)) for _ in range(3))
    return Measurable(
        image=image.astype(np.float32),
        variance=variance.astype(np.float32),
        kernels=rng.uniform(size=(*CELLS, KERNEL_SIZE, KERNEL_SIZE)).astype(np.float32),
        coverage=np.linspace(0, 1, SHAPE[0], dtype=np.float32)[:, np.newaxis] * np.ones(SHAPE, np.float32),
        noise_realizations=[noise.astype(np.float32)],
    )


def make_character() -> Characterization:
    rng = np.random.default_rng(6)
    return Characterization(
        variance=rng.exponential(size=SHAPE).astype(np.float32),
        kernels=rng.uniform(size=(*CELLS, KERNEL_SIZE, KERNEL_SIZE)).astype(np.float32),
        noise_realizations=[rng.normal(size=SHAPE).astype(np.float32)],
        inconsistent=rng.uniform(size=SHAPE) < 0.1,
        pedestal=0.1,
        residuals=np.full(5, 3.0, np.float32),
        beyond=np.zeros(5, int),
    )


@dataclasses.dataclass
class Case:
    stack: ExposureStack
    reference: ReferenceCoadd
    inputs: list[StackInput]
    restoration: Restoration
    character: Characterization
    measurable: Measurable
    restored_coadd: CellCoadd
    measurable_coadd: CellCoadd
    reference_coadd: CellCoadd


@pytest.fixture(scope="module")
def case() -> Case:
    stack, geometry, restoration = make_stack(), make_geometry(), make_restoration()
    reference, inputs = reference_coadd(stack), make_inputs(stack)
    stack = stack.without(reference.clipped)
    measurable, character = make_measurable(reference), make_character()
    return Case(
        stack,
        reference,
        inputs,
        restoration,
        character,
        measurable,
        make_restored_coadd(restoration, character, stack, reference, inputs, geometry, "i", FEW),
        make_measurable_coadd(measurable, stack, reference, inputs, geometry, "i", FEW),
        make_reference_coadd(reference, inputs, geometry, "i"),
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


def expected_contributions(inputs: list[StackInput]) -> set[tuple]:
    rows = set()
    for visit_image in inputs:
        for i in range(CELLS[0]):
            for j in range(CELLS[1]):
                if visit_image.unmasked_fraction[i, j] == 0:
                    continue
                rows.add(
                    (
                        i,
                        j,
                        visit_image.instrument,
                        visit_image.visit,
                        visit_image.detector,
                        bool(visit_image.overlaps_center[i, j]),
                        float(visit_image.overlap_fraction[i, j]),
                        float(visit_image.unmasked_fraction[i, j]),
                        float(visit_image.weight[i, j]),
                    )
                )
    return rows


def test_restored_coadd(case: Case) -> None:
    coadd, restoration = case.restored_coadd, case.restoration
    assert (coadd.skymap, coadd.tract, coadd.band, coadd.patch.id) == ("test", 0, "i", 5)
    assert coadd.bbox == BBOX
    assert coadd.unit == u.nJy
    assert coadd.variance.unit == u.nJy**2
    np.testing.assert_array_equal(coadd.mask.get("INCONSISTENT"), case.characterization.inconsistent)
    count = np.count_nonzero(case.stack.good, axis=0)
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
        (coadd.variance.array, case.characterization.variance),
        (noise.array, case.characterization.noise_realizations[0]),
    ):
        np.testing.assert_array_equal(plane, np.where(finite, given, np.nan))
    assert finite[25, 30]
    assert not finite[:6].any()
    assert finite[6:40].all()
    assert not finite[40:, 60:].any()
    assert finite[40:, :60].all()


def test_not_converged_is_set_everywhere(case: Case) -> None:
    coadd = make_restored_coadd(
        make_restoration(converged=False),
        case.characterization,
        case.stack,
        case.reference,
        case.inputs,
        make_geometry(),
        "i",
        FEW,
    )
    assert coadd.mask.get("NOT_CONVERGED").all()


def test_psf_of_the_restored_coadd(case: Case) -> None:
    psf = case.restored_coadd.psf
    kernel = psf.compute_kernel_image(x=7030.0, y=4030.0)
    np.testing.assert_array_equal(kernel.array, case.characterization.kernels[1, 1])
    assert kernel.bbox == Box.factory[-2:3, -2:3]
    assert psf.bounds.missing == {CellIJ(i=2, j=3)}
    with pytest.raises(BoundsError):
        psf.compute_kernel_image(x=7070.0, y=4050.0)


def test_measurable_coadd(case: Case) -> None:
    coadd, measurable = case.measurable_coadd, case.measurable
    assert coadd.unit == u.nJy
    np.testing.assert_array_equal(coadd.image.array, measurable.image)
    np.testing.assert_array_equal(coadd.variance.array, measurable.variance)
    assert coadd.variance.unit == u.nJy**2
    (noise,) = coadd.noise_realizations
    np.testing.assert_array_equal(noise.array, measurable.noise_realizations[0])
    np.testing.assert_array_equal(coadd.mask.get("NO_DATA"), case.reference.n_exposures == 0)
    np.testing.assert_array_equal(coadd.mask.get("FEW_EXPOSURES"), case.reference.n_exposures < FEW)
    np.testing.assert_array_equal(coadd.mask.get("INEXACT_PSF"), measurable.coverage < 0.8)
    assert coadd.psf.bounds.missing == {CellIJ(i=2, j=3)}
    np.testing.assert_array_equal(coadd.psf[CellIJ(i=1, j=2)].array, measurable.kernels[1, 2])


def test_reference_coadd(case: Case) -> None:
    coadd, reference = case.reference_coadd, case.reference
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
    sky, expected = (
        coadd.sky_projection.pixel_to_sky(x=np.array([7011.0]), y=np.array([4050.0])) for coadd in (got, put)
    )
    assert sky.separation(expected)[0].arcsec < 1e-6


@pytest.mark.parametrize("name", ["restored_coadd", "restored_coadd_reference"])
def test_provenance_survives(repository: tuple[Butler, Path], case: Case, name: str) -> None:
    butler, _ = repository
    provenance = butler.get(name, DATA_ID).provenance
    assert len(provenance.inputs) == len(case.inputs)
    for row, visit_image in zip(provenance.inputs, case.inputs, strict=True):
        for column in ("instrument", "visit", "detector", "day_obs"):
            assert row[column] == getattr(visit_image, column)
        assert row["physical_filter"] == "i_1,i_2"
        np.testing.assert_allclose(row["polygon"].x_vertices, visit_image.polygon.x_vertices)
        np.testing.assert_allclose(row["polygon"].y_vertices, visit_image.polygon.y_vertices)
    table = provenance.contributions
    rows = {
        (
            int(row["cell_i"]),
            int(row["cell_j"]),
            str(row["instrument"]),
            int(row["visit"]),
            int(row["detector"]),
            bool(row["overlaps_center"]),
            float(row["overlap_fraction"]),
            float(row["unmasked_fraction"]),
            float(row["weight"]),
        )
        for row in table
    }
    assert rows == expected_contributions(case.inputs)
    assert len(table) == len(rows)
    by_key = {(visit_image.visit, visit_image.detector): visit_image for visit_image in case.inputs}
    flagged = 0
    for row in table:
        visit_image = by_key[int(row["visit"]), int(row["detector"])]
        i, j = int(row["cell_i"]), int(row["cell_j"])
        for axes in ("xx", "yy", "xy"):
            np.testing.assert_equal(row[f"psf_shape_{axes}"], getattr(visit_image, f"psf_{axes}")[i, j])
        assert row["psf_shape_flag"] == np.isnan(visit_image.psf_xx[i, j])
        flagged += bool(row["psf_shape_flag"])
    assert flagged == 1


@pytest.mark.parametrize("name", ["restored_coadd", "restored_coadd_reference"])
def test_every_cell_with_data_has_provenance(case: Case, name: str) -> None:
    """`CellCoadd.to_legacy_cell_coadd` looks up the inputs of each cell that
    is not missing.
    """
    coadd = getattr(case, name.replace("restored_coadd_reference", "reference_coadd"))
    table = coadd.provenance.contributions
    with_inputs = {(int(i), int(j)) for i, j in zip(table["cell_i"], table["cell_j"], strict=True)}
    assert with_inputs == {cell.as_tuple() for cell in coadd.bounds.cell_indices()}
    assert len(with_inputs) == 11


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


@pytest.mark.parametrize("name", ["restored_coadd", "reference_coadd"])
def test_mask_planes_survive_conversion_to_afw(
    case: Case, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the map that `CellCoadd.to_legacy` uses."""
    image = types.ModuleType("lsst.afw.image")
    image.Mask = FakeLegacyMask
    afw = types.ModuleType("lsst.afw")
    afw.image = image
    monkeypatch.setitem(sys.modules, "lsst.afw", afw)
    monkeypatch.setattr(lsst, "afw", afw, raising=False)
    monkeypatch.setitem(sys.modules, "lsst.afw.image", image)
    monkeypatch.setitem(sys.modules, "lsst.geom", types.ModuleType("lsst.geom"))
    monkeypatch.setattr(Box, "to_legacy", lambda self: self.shape)
    mask = getattr(case, name).mask
    legacy = mask.to_legacy(get_legacy_deep_coadd_mask_planes())
    for plane in mask.schema.names:
        np.testing.assert_array_equal(legacy.get(plane), mask.get(plane))


def test_weights_table_holds_all_weights() -> None:
    rng = np.random.default_rng(4)
    weights = {
        "conv/kernel": rng.normal(size=(3, 3, 4, 2)).astype(np.float32),
        "conv/bias": np.zeros(2, np.float32),
        "scale": np.array(0.5, np.float32),
    }
    table = make_weights_table(weights)
    assert table.colnames == ["name", "shape", "index", "value"]
    assert len(table) == 72 + 2 + 1
    restored = {}
    for name in dict.fromkeys(table["name"]):
        rows = table[table["name"] == name]
        rows.sort("index")
        shape = tuple(map(int, filter(None, rows["shape"][0].split(","))))
        restored[name] = np.array(rows["value"]).reshape(shape)
    assert restored.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(restored[name], array)
        assert restored[name].dtype == np.float32


def test_weights_table_survives_the_butler(tmp_path: Path) -> None:
    weights = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(1.5, np.float32)}
    Butler.makeRepo(str(tmp_path / "repo"))
    with Butler.from_config(str(tmp_path / "repo"), run="out") as butler:
        dataset_type = DatasetType("weights", (), "ArrowAstropy", universe=butler.dimensions)
        butler.registry.registerDatasetType(dataset_type)
        butler.put(make_weights_table(weights), dataset_type)
        table = butler.get(dataset_type)
    assert list(table["name"]) == ["a"] * 6 + ["b"]
    assert list(table["shape"]) == ["2,3"] * 6 + [""]
    np.testing.assert_array_equal(table["value"], [0, 1, 2, 3, 4, 5, 1.5])
