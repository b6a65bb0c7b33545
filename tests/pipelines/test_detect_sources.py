# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The source list of a restored coadd and the truth, in a real repository."""

from __future__ import annotations

from typing import Any

import astropy.table
import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from click.testing import CliRunner
from skies import make_geometry
from stacks import moffat_kernel

from lsst.ctrl.mpexec.cli.pipetask import cli as pipetask
from lsst.daf.butler import Butler
from lsst.drp.restore import (
    DetectRestoredSourcesConfig,
    DetectRestoredSourcesConnections,
    DetectRestoredSourcesTask,
    InputError,
)
from lsst.drp.restore.repository.register_tract import register_tract
from lsst.drp.restore.simulation.config import SimulationConfig
from lsst.drp.restore.simulation.simulate import simulate_exposures
from lsst.drp.restore.sources.compare import format_source_metrics
from lsst.drp.restore.sources.source_table import COLUMNS
from lsst.drp.restore.warping.patch_geometry import PatchGeometry
from lsst.images import Image, Mask, MaskPlane, MaskSchema
from lsst.images.cells import CellCoadd, CellGridBounds, CellIJ, CellPointSpreadFunction
from lsst.pipe.base.testUtils import assertValidOutput, lintConnections

DATA_ID = {"skymap": "test", "tract": 0, "patch": 0, "band": "i"}
PIPELINE = "resource://lsst.drp.restore/pipelines/restoreCoadd.yaml"
OUTPUTS = {
    "restored_source": "ArrowAstropy",
    "restored_source_metrics": "StructuredDataDict",
    "restored_source_plot": "Plot",
}


def make_sky_catalog(geometry: PatchGeometry) -> astropy.table.Table:
    """Return stars apart from each other, the first ten faint, the last one
    saturated, and five close pairs.
    """
    rng = np.random.default_rng(4)
    box = geometry.outer_bbox
    y, x = np.mgrid[15 : box.y.size : 28, 15 : box.x.size : 28]
    places = np.stack([x.ravel(), y.ravel()], axis=1) + rng.uniform(-3, 3, (x.size, 2))
    rng.shuffle(places)
    flux = np.exp(rng.uniform(*np.log((1500.0, 20000.0)), len(places)))
    flux[:10] = rng.uniform(500.0, 700.0, 10)
    flux[-1] = 1.5e6
    second = places[10:15] + 3.4 * np.array([[1, 0], [0, 1], [0.7, 0.7], [-0.7, 0.7], [-1, 0]])
    sky = geometry.sky_projection.pixel_to_sky(
        x=np.append(places[:, 0], second[:, 0]) + box.x.start,
        y=np.append(places[:, 1], second[:, 1]) + box.y.start,
    )
    return astropy.table.Table({"ra": sky.ra, "dec": sky.dec, "flux_nJy": np.append(flux, flux[10:15])})


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A repository with a patch that the pipeline restored by ImageMM, which
    takes seconds.
    """
    root = str(tmp_path_factory.mktemp("sources") / "repo")
    Butler.makeRepo(root)
    with Butler.from_config(root, writeable=True) as butler:
        tract = register_tract(
            butler,
            "test",
            ra=150.0,
            dec=2.0,
            pixel_scale=0.2,
            patch_size=120,
            patch_border=30,
            cell_size=45,
            n_patches=(1, 1),
        )
        config = SimulationConfig(
            skymap="test",
            n_visits=5,
            detector_size=240,
            detectors=(1, 1),
            seed=101,
            psf="gaussian",
            catalog=make_sky_catalog(PatchGeometry.from_tract(tract, 0)),
        )
        simulate_exposures(butler, config)
    command = ["run", "-b", root, "-i", "sim", "--output-run", "run", "--register-dataset-types"]
    command += ["-p", PIPELINE.replace("Coadd.yaml", "CoaddImageMM.yaml")]
    command += ["-d", "skymap='test' AND tract=0 AND patch=0 AND band='i'"]
    command += ["-c", "restoreCoadd:restorer.maxSteps=60"]
    result = CliRunner().invoke(pipetask, command)
    assert result.exit_code == 0, result.output
    return root


@pytest.fixture(scope="module")
def read(repo: str) -> dict[str, Any]:
    """The outputs of the pipeline, and the truth."""
    with Butler.from_config(repo, collections=["run", "sim"]) as butler:
        names = ["restored_coadd", "restored_coadd_measurable", "restored_coadd_reference", "truth_catalog"]
        return {name: butler.get(name, DATA_ID) for name in names + list(OUTPUTS)[:2]} | {
            "geometry": PatchGeometry.from_tract(butler.get("tract_geometry", DATA_ID), 0),
            "plot": butler.getURI("restored_source_plot", DATA_ID).read(),
            "types": {name: butler.get_dataset_type(name).storageClass_name for name in OUTPUTS},
        }


@pytest.mark.slow
def test_datasets(read: dict[str, Any]) -> None:
    assert read["types"] == OUTPUTS
    assert read["plot"].startswith(b"\x89PNG")
    metrics, table = read["restored_source_metrics"], read["restored_source"]
    sources = table[table["deblend_nChild"] == 0]
    assert metrics["n_restored"] == len(sources) > 15
    assert metrics["n_primary"] == np.count_nonzero(table["detect_isPrimary"])
    assert 0.7 < metrics["n_restored"] / metrics["n_reference"] < 1.5
    assert metrics["matched_fraction"]["reference"] > 0.6
    assert metrics["median_separation_arcsec"] < 0.05
    assert metrics["flux_ratio"]["median"] == pytest.approx(1.0, abs=0.05)
    assert "on the restored coadd" in format_source_metrics(metrics)


@pytest.mark.slow
def test_table_keeps_its_types_units_and_descriptions(read: dict[str, Any]) -> None:
    table = read["restored_source"]
    assert table.colnames == [column.name for column in COLUMNS]
    for name, dtype, unit, description in COLUMNS:
        assert table[name].dtype == dtype
        assert table[name].description == description
        assert (table[name].unit or "") == u.Unit(unit)
    assert table["psfFlux"].unit == "nJy"
    assert set(table["tract"]) == set(table["patch"]) == {0}


@pytest.mark.slow
def test_sources_are_those_of_the_truth(read: dict[str, Any]) -> None:
    table, truth = read["restored_source"], read["truth_catalog"]
    truth.sort("id")
    sources = table[table["deblend_nChild"] == 0]
    x, y, flux = (np.asarray(truth[name]) for name in ("x", "y", "flux_nJy"))
    distance = np.hypot(
        np.asarray(sources["x"]) - x[:, np.newaxis], np.asarray(sources["y"]) - y[:, np.newaxis]
    )
    saturated = len(truth) - 6
    found = np.flatnonzero(np.hypot(x - x[saturated], y - y[saturated]) > 30)
    nearest, offset = distance.argmin(axis=1), distance.min(axis=1)
    # All that are bright enough, and nothing that is not on the sky.
    assert np.mean(offset[found] < 1.5) > 0.9
    far = np.hypot(sources["x"] - x[saturated], sources["y"] - y[saturated]) > 30
    assert np.all(distance[:, far].min(axis=0) < 2)

    single = np.setdiff1d(found, [*range(15), *range(len(truth) - 6, len(truth))])
    assert len(single) > 15
    assert np.sqrt(np.mean(offset[single] ** 2)) < 0.1
    of_single = sources[nearest[single]]
    pull = (np.asarray(of_single["psfFlux"]) - flux[single]) / of_single["psfFluxErr"]
    assert abs(np.median(pull)) < 0.8
    assert 0.5 < 1.4826 * np.median(np.abs(pull - np.median(pull))) < 1.6
    assert abs(np.median(of_single["psfFlux"] / flux[single]) - 1) < 0.02
    assert abs(np.median(of_single["apFlux"] / flux[single]) - 1) < 0.03
    assert np.median(of_single["psfChi2"]) < 1.5
    sky = SkyCoord(of_single["coord_ra"], of_single["coord_dec"])
    expected = SkyCoord(truth["ra"][single], truth["dec"][single])
    assert np.median(sky.separation(expected).arcsec) < 0.02

    # Most pairs are two, with the flux that each has.
    split = [k for k in range(10, 15) if nearest[k] != nearest[len(truth) - 15 + k]]
    assert len(split) >= 3
    for k in split:
        row = sources[nearest[k]]
        assert row["flag_blended"] and table[row["parent"] - 1]["deblend_nChild"] >= 2
        assert abs(row["psfFlux"] / flux[k] - 1) < 0.2
    # The core of a saturated star is missing, and is one source.
    assert np.count_nonzero(distance[saturated] < 8) == 1
    assert offset[saturated] < 1.5 and sources["flag_noData"][nearest[saturated]]


@pytest.mark.slow
def test_primary_sources_are_inside(read: dict[str, Any]) -> None:
    table, inner = read["restored_source"], read["geometry"].patch.inner_bbox
    column, row = np.rint(table["x"]), np.rint(table["y"])
    inside = (
        (column >= inner.x.start) & (column < inner.x.stop) & (row >= inner.y.start) & (row < inner.y.stop)
    )
    np.testing.assert_array_equal(table["detect_isPatchInner"], inside)
    assert 0 < np.count_nonzero(inside) < len(table)
    np.testing.assert_array_equal(table["detect_isPrimary"], inside & (table["deblend_nChild"] == 0))


@pytest.mark.slow
def test_results_repeat(read: dict[str, Any]) -> None:
    coadds = [read[f"restored_coadd{name}"] for name in ("", "_measurable", "_reference")]
    again = DetectRestoredSourcesTask().run(*coadds)
    assertValidOutput(DetectRestoredSourcesTask(), again)
    for name in again.restored_source.colnames:
        np.testing.assert_array_equal(again.restored_source[name], read["restored_source"][name])
    # NaN is not equal to itself.
    np.testing.assert_equal(again.restored_source_metrics, read["restored_source_metrics"])


def make_coadd(
    geometry: PatchGeometry, image: np.ndarray, *, fwhm: float = 3.6, missing_cell: bool = False
) -> CellCoadd:
    """Return a coadd of variance 1 with mask planes that are not set."""
    cells = geometry.patch.cells
    grid = CellGridBounds(
        grid=cells,
        bbox=cells.bbox,
        missing=frozenset({CellIJ(i=0, j=0)}) if missing_cell else frozenset(),
    )
    kernels = np.broadcast_to(moffat_kernel(fwhm), (cells.grid_size.i, cells.grid_size.j, 25, 25)).copy()
    if missing_cell:
        kernels[0, 0] = np.nan
    names = ["NO_DATA", "FEW_EXPOSURES", "INCONSISTENT", "NOT_CONVERGED", "INEXACT_PSF"]
    schema = MaskSchema([MaskPlane(name, name) for name in names])
    box = geometry.outer_bbox
    return CellCoadd(
        Image(image.astype(np.float32), bbox=box, unit=u.nJy, sky_projection=geometry.sky_projection),
        mask=Mask(0, schema=schema, bbox=box),
        variance=Image(np.where(np.isnan(image), np.nan, 1.0).astype(np.float32), bbox=box, unit=u.nJy**2),
        band="i",
        psf=CellPointSpreadFunction(kernels, bounds=grid),
        patch=geometry.patch,
    )


def make_sky(stars: list[tuple[int, int, float]], fwhm: float, geometry: PatchGeometry) -> np.ndarray:
    """Return an image of stars at pixel centers x, y (of the array)."""
    image = np.zeros(geometry.outer_bbox.shape)
    for x, y, flux in stars:
        padded = np.zeros((image.shape[0] + 24, image.shape[1] + 24))
        padded[y : y + 25, x : x + 25] = flux * moffat_kernel(fwhm)
        image += padded[12:-12, 12:-12]
    return image


def shifted_moffat(fwhm: float, y: float, x: float, geometry: PatchGeometry) -> np.ndarray:
    """Return an image of a star anywhere in its pixel."""
    rows, columns = np.indices(geometry.outer_bbox.shape)
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / 3.5) - 1)
    profile = (1 + ((rows - y) ** 2 + (columns - x) ** 2) / alpha**2) ** -3.5
    return profile / profile.sum()


def test_parents_flags_and_tract_pixels() -> None:
    geometry = make_geometry(cells=(4, 4), cell_size=30, start=(40, 70))
    # Alone; two blends, of which one is outside of the inner region.
    stars = [(60, 30, 900.0), (30, 80, 800.0), (33, 80, 700.0), (2, 20, 900.0), (2, 24, 900.0)]
    noise = np.random.default_rng(1).standard_normal(geometry.outer_bbox.shape)
    restored = make_coadd(geometry, make_sky(stars, 1.8, geometry), fwhm=1.8)
    measurable = make_coadd(geometry, make_sky(stars, 3.6, geometry) + noise)
    planes = {"NO_DATA": (60, 30), "INCONSISTENT": (29, 81), "INEXACT_PSF": (34, 79)}
    for name, (x, y) in planes.items():
        pixels = np.zeros(geometry.outer_bbox.shape, bool)
        pixels[y, x] = True
        (measurable if name == "INEXACT_PSF" else restored).mask.set(name, pixels)
    output = DetectRestoredSourcesTask().run(restored, measurable, measurable)
    table = output.restored_source
    assert len(table) == 7
    np.testing.assert_array_equal(table["id"], np.arange(1, 8))

    def source(x: float, y: float) -> astropy.table.Row:
        distance = np.hypot(table["x"] - 70 - x, table["y"] - 40 - y)
        assert distance.min() < 0.3
        return table[np.argmin(distance)]

    alone = source(60, 30)
    assert alone["parent"] == 0 and alone["detect_isPrimary"] and not alone["flag_blended"]
    assert alone["flag_noData"] and not alone["flag_inconsistent"] and not alone["flag_edge"]
    sky = geometry.sky_projection.pixel_to_sky(x=alone["x"], y=alone["y"])
    assert alone["coord_ra"] == pytest.approx(sky.ra.deg, abs=1e-9)
    left, right = source(30, 80), source(33, 80)
    assert left["parent"] == right["parent"] > 5
    assert left["flag_blended"] and left["flag_inconsistent"] and not left["flag_inexactPsf"]
    assert right["flag_inexactPsf"] and not right["flag_inconsistent"]
    parent = table[left["parent"] - 1]
    assert parent["deblend_nChild"] == 2 and parent["parent"] == 0
    assert parent["detect_isPatchInner"] and not parent["detect_isPrimary"]
    assert np.isnan(parent["psfFlux"]) and parent["flag_psfFlux"]
    assert parent["x"] == pytest.approx((left["x"] + right["x"]) / 2)
    outside = source(2, 20)
    assert outside["flag_edge"] and not outside["detect_isPatchInner"] and not outside["detect_isPrimary"]
    assert outside["parent"] not in (0, left["parent"])
    assert output.restored_source_metrics["n_blends"] == 2
    # The coadd shows the closer pair, 3 pixels at 3.6 FWHM, as one.
    assert output.restored_source_metrics["n_split"] >= 1


def test_restored_coadd_of_smaller_pixels() -> None:
    geometry = make_geometry(cells=(4, 4), cell_size=30, start=(40, 70))
    fine = geometry.refined(2)
    # A pair that is 2.5 pixels apart, and one alone; in small pixels.
    stars = [(60, 160, 900.0), (65, 160, 700.0), (131, 73, 900.0)]
    noise = np.random.default_rng(1).standard_normal(geometry.outer_bbox.shape)
    restored = make_coadd(fine, make_sky(stars, 2.0, fine), fwhm=2.0)
    flag = np.zeros(fine.outer_bbox.shape, bool)
    flag[73, 131] = True
    restored.mask.set("INCONSISTENT", flag)
    wide = sum(
        flux * shifted_moffat(3.6, (y + 0.5) / 2 - 0.5, (x + 0.5) / 2 - 0.5, geometry) for x, y, flux in stars
    )
    measurable = make_coadd(geometry, wide + noise)
    output = DetectRestoredSourcesTask().run(restored, measurable, measurable)
    table = output.restored_source[output.restored_source["deblend_nChild"] == 0]
    assert len(table) == 3
    for x, y, flux in stars:
        distance = np.hypot(table["x"] - 70 - (x + 0.5) / 2 + 0.5, table["y"] - 40 - (y + 0.5) / 2 + 0.5)
        found = table[np.argmin(distance)]
        assert distance.min() < 0.25
        assert found["psfFlux"] == pytest.approx(flux, rel=0.08)
        assert found["flag_inconsistent"] == (x == 131)


@pytest.mark.parametrize("value", ["noise", "nan", "zero"])
def test_empty_sky_is_a_table_with_the_same_columns(value: str) -> None:
    geometry = make_geometry()
    shape = geometry.outer_bbox.shape
    noise = {"noise": np.random.default_rng(3).standard_normal(shape), "nan": np.full(shape, np.nan)}
    image = noise.get(value, np.zeros(shape))
    restored, measurable = make_coadd(geometry, np.maximum(image, 0), fwhm=1.8), make_coadd(geometry, image)
    output = DetectRestoredSourcesTask().run(restored, measurable, measurable)
    table = output.restored_source
    assert len(table) == 0
    assert [(table[name].dtype, name) for name in table.colnames] == [
        (np.dtype(dtype), name) for name, dtype, _, _ in COLUMNS
    ]
    metrics = output.restored_source_metrics
    assert metrics["n_restored"] == metrics["n_primary"] == metrics["n_split"] == 0
    assert "0 on the restored coadd" in format_source_metrics(metrics)


def test_cell_without_psf() -> None:
    geometry = make_geometry()
    stars = [(15, 15, 900.0), (75, 75, 900.0)]
    noise = np.random.default_rng(1).standard_normal(geometry.outer_bbox.shape)
    restored = make_coadd(geometry, make_sky(stars, 1.8, geometry), fwhm=1.8, missing_cell=True)
    measurable = make_coadd(geometry, make_sky(stars, 3.6, geometry) + noise, missing_cell=True)
    table = DetectRestoredSourcesTask().run(restored, measurable, measurable).restored_source
    assert len(table) == 1
    assert table["x"][0] == pytest.approx(75, abs=0.2)


def test_coadds_of_different_patches_are_refused() -> None:
    one, other = make_geometry(), make_geometry(cells=(4, 5))
    coadds = [make_coadd(geometry, np.zeros(geometry.outer_bbox.shape)) for geometry in (one, other)]
    with pytest.raises(InputError, match="restored_coadd_measurable"):
        DetectRestoredSourcesTask().run(coadds[0], coadds[1], coadds[0])


def test_connections_and_configuration() -> None:
    lintConnections(DetectRestoredSourcesConnections)
    config = DetectRestoredSourcesConfig()
    config.find.value.minSignificance = 4.0
    config.validate()
    # Every setting has a unit or says what it is.
    for field in config.find.value._fields.values():
        assert len(field.doc) > 20
