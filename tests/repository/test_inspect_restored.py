# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restored patches listed by ``butler inspect-restored`` from a real
repository, and shown in a real browser.
"""

from __future__ import annotations

import copy
import math
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from click.testing import CliRunner, Result
from PIL import Image
from repositories import simulate_repository

from lsst.ctrl.mpexec.cli.pipetask import cli as pipetask
from lsst.daf.butler import Butler
from lsst.daf.butler.cli.butler import cli as butler_command
from lsst.drp.restore.repository.campaign.columns import COLUMNS
from lsst.drp.restore.repository.campaign.find import find_patches
from lsst.drp.restore.repository.campaign.patches import Patch, State, sort_patches
from lsst.drp.restore.repository.campaign.thumbnails import draw_thumbnail
from lsst.drp.restore.simulation.config import SimulationConfig

PIPELINE = "resource://lsst.drp.restore/pipelines/restoreCoadd.yaml"
PATCH_5 = "skymap='test' AND tract=0 AND patch=5"
DATA_ID = {"skymap": "test", "tract": 0, "band": "i"}
COPIED = ("restored_coadd", "restored_coadd_reference", "restored_coadd_training", "restored_coadd_plot")
QUICK = {"restorer.computeDevice": "cpu", "characterize.numRealizations": 2}
NOT_5 = ("--where", "tract=0 AND patch != 5")
FAILING = {"fitKernels.mode": "gaussian", "fitKernels.initialFwhm": "[1.0, 2.0]"}


def restore(repo: Path, run: str, patch: int, **config: Any) -> Result:
    """Restore a patch by ``pipetask``."""
    return CliRunner().invoke(
        pipetask,
        [
            *("run", "-b", str(repo), "-i", "sim", "--output-run", run, "--register-dataset-types"),
            *("-p", f"{PIPELINE}#restoreCoadd", "-d", f"skymap='test' AND tract=0 AND patch={patch}"),
            *(item for k, v in (QUICK | config).items() for item in ("-c", f"restoreCoadd:{k}={v}")),
        ],
    )


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a campaign of 12 patches in ``u/run``, copies of one
    that was restored, with other metrics; ``u/failed`` and ``u/idle`` have one
    patch each whose task failed or found nothing to do.
    """
    root = simulate_repository(
        tmp_path_factory.mktemp("campaign") / "repo",
        SimulationConfig(skymap="test", n_visits=3, detector_size=110, seed=11, patch=5),
        patch_size=70,
        cell_size=50,
        n_patches=(4, 4),
    )
    result = restore(root, "u/run", 5)
    assert result.exit_code == 0, result.output
    assert restore(root, "u/failed", 6, **FAILING).exit_code != 0
    result = restore(root, "u/idle", 9, **{"buildStack.minExposures": 4})
    assert result.exit_code == 0, result.output
    with Butler.from_config(str(root), writeable=True, run="u/run") as butler:
        originals = {name: butler.get(name, DATA_ID, patch=5) for name in COPIED[:3]}
        metrics = butler.get("restored_coadd_metrics", DATA_ID, patch=5)
        for patch in (0, 1, 2, 3, 4, 7, 8, 10, 11, 12, 13):
            butler.put(_changed(metrics, patch), "restored_coadd_metrics", DATA_ID, patch=patch)
            for name, dataset in originals.items():
                # One without the reference, one without any image.
                if patch < 12 or (patch == 12 and name == "restored_coadd"):
                    butler.put(dataset, name, DATA_ID, patch=patch)
    return root


def _changed(metrics: dict[str, Any], patch: int) -> dict[str, Any]:
    """Return the metrics of a patch: most are as good as their neighbors."""
    metrics = copy.deepcopy(metrics)
    metrics |= {"converged": True, "inconsistent_fraction": 0.01, "no_data_fraction": 0.01, "pedestal": 0.0}
    metrics["loss"] = 0.5 + 0.001 * patch
    metrics["sharpness"]["restored"] = metrics["sharpness"]["reference_coadd"] + 0.5
    metrics["ssim"]["reference_coadd"] = 0.98
    match patch:
        case 1:
            metrics["converged"] = False
            metrics["inconsistent_fraction"] = 0.123
        case 2:
            metrics["loss"] = 0.65
        case 3:
            metrics["no_data_fraction"] = 0.12
            metrics["n_exposures"], metrics["n_dropped"] = 1, 2
        case 4:
            # Of an older version.
            del metrics["no_data_fraction"], metrics["ssim"], metrics["kernel_fraction"]
        case 7:
            metrics["loss"] = math.nan
    return metrics


def inspect(repo: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(butler_command, ["inspect-restored", str(repo), *map(str, arguments)])


def test_worst_patches_come_first_with_the_reasons(repo: Path, tmp_path: Path) -> None:
    result = inspect(repo, "u/run", "u/failed", "u/idle", "--output", tmp_path / "patches.csv")
    assert result.exit_code == 0, result.output
    assert "12 restored patches: " in result.output
    assert "1 failed; 1 had nothing to restore" in result.output
    table = Table.read(tmp_path / "patches.csv", format="ascii.csv")
    assert set(COLUMNS) < set(table.colnames)
    assert len(table) == 14
    # How good a training of a moment is nobody knows.
    assert [patch for patch in table["patch"] if patch != 5][:5] == [6, 1, 7, 2, 3]
    assert table["patch"][-1] == 9
    warnings = {row["patch"]: str(row["warnings"]) for row in table}
    assert warnings[6].startswith("failed: initialFwhm has 2 values for 3 exposures")
    assert warnings[1] == "did not converge; 12% of the pixels inconsistent with the exposures"
    assert warnings[2].startswith("unusually high loss (0.650; median of the band 0.51")
    assert warnings[3] == "12% of the pixels without data; only 1 exposure; 2 visit images could not be used"
    assert warnings[7] == "the loss is not a number"
    assert warnings[9].startswith("nothing to restore: ")
    assert "minExposures=4" in warnings[9]
    for line in result.output.splitlines():
        assert line == line.rstrip()
    # What the task itself wrote, and where the patch is.
    row = table[list(table["patch"]).index(5)]
    assert all(np.isfinite(row[name]) for name in COLUMNS)
    assert row["ra"] == pytest.approx(150.0, abs=0.01)
    assert row["dec"] == pytest.approx(2.0, abs=0.01)


def test_metrics_that_are_missing_are_no_reason_to_fail(repo: Path, tmp_path: Path) -> None:
    result = inspect(repo, "u/run", "--where", "tract=0 AND patch=4", "--output", tmp_path / "patches.ecsv")
    assert result.exit_code == 0, result.output
    assert "\N{EN DASH}" in result.output
    (row,) = Table.read(tmp_path / "patches.ecsv")
    assert math.isnan(row["no_data"])
    assert math.isnan(row["ssim"])
    assert row["loss"] == pytest.approx(0.504)
    assert not row["warnings"]


def test_metrics_that_cannot_be_read_are_listed(repo: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(repo, tmp_path / "repo"))
    with Butler.from_config(str(copied)) as butler:
        path = butler.getURI("restored_coadd_metrics", DATA_ID, patch=8, collections="u/run").ospath
    Path(path).write_text("loss: [")
    result = inspect(copied, "u/run", "--html", tmp_path / "page.html", "--limit", 1)
    assert result.exit_code == 0, result.output
    assert "1 without readable metrics" in result.output
    assert "the metrics cannot be read" in result.output


@pytest.mark.parametrize(
    ("options", "patches"),
    [
        (["--sort", "inconsistent", "--limit", "1", *NOT_5], [1]),
        (["--sort", "exposures", "--limit", "1", *NOT_5], [3]),
        # What is not a number is worse than any number; what is missing comes
        # last either way.
        (["--sort", "loss", "--limit", "2", *NOT_5], [7, 2]),
        (["--sort", "ssim", "--where", "tract=0 AND patch IN (3, 4)"], [3, 4]),
        (["--sort", "ssim", "--where", "tract=0 AND patch IN (3, 4)", "--reverse"], [3, 4]),
        (["--sort", "patch", "--limit", "3"], [0, 1, 2]),
        (["--sort", "patch", "--reverse", "--limit", "1"], [13]),
        (["--band", "i", "--band", "r", "--sort", "patch", "--limit", "1"], [0]),
    ],
)
def test_order_and_selection(repo: Path, tmp_path: Path, options: list[str], patches: list[int]) -> None:
    result = inspect(repo, "u/run", *options, "--output", tmp_path / "patches.fits")
    assert result.exit_code == 0, result.output
    assert list(Table.read(tmp_path / "patches.fits")["patch"]) == patches


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["sim"], "No restored patches ('restored_coadd_metrics') in sim."),
        (["u/run", "--band", "g"], "in band g"),
        (["u/run", "--where", "skymap='test' AND tract=0 AND patch=99"], "patch=99"),
        (["u/run", "--where", "color='i'"], "color"),
        (["u/run", "--sort", "beauty"], "--sort 'beauty' is none of warnings, patch, exposures"),
        (["u/run", "--output", "patches.xls"], "does not end with one of .csv, .ecsv, .fits"),
        (["u/run", "--html", "no/such/folder/page.html", "--no-thumbnails"], "no/such/folder"),
    ],
)
def test_what_is_not_there_is_said(repo: Path, arguments: list[str], message: str) -> None:
    result = inspect(repo, *arguments)
    assert result.exit_code == 1, result.output
    assert message in result.output
    assert "Traceback" not in result.output


def test_repository_without_any_restored_patch(tmp_path: Path) -> None:
    Butler.makeRepo(tmp_path / "repo")
    result = inspect(tmp_path / "repo")
    assert result.exit_code == 1
    assert "No restored patches ('restored_coadd_metrics') in this repository." in result.output


def test_all_runs_of_a_repository_are_listed(repo: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(repo, tmp_path / "repo"))
    with Butler.from_config(str(copied), writeable=True, run="u/again") as butler:
        metrics = butler.get("restored_coadd_metrics", DATA_ID, patch=5, collections="u/run")
        butler.put(metrics, "restored_coadd_metrics", DATA_ID, patch=5)
        both = find_patches(butler, where=PATCH_5).patches
        assert [patch.run for patch in both] == ["u/again", "u/run"]
        # In a search path the first one wins, and its own images are shown.
        (patch,) = find_patches(butler, ["u/again", "u/run"], where=PATCH_5).patches
        assert patch.run == "u/again"
        assert not patch.datasets
    assert "u/again" in inspect(copied, "--where", PATCH_5).output


class Page(HTMLParser):
    """Cells, pictures and references of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self._inside = False
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")
            self._inside = True
        elif tag == "img":
            self.images.append(values)
        self.links += [value for name in ("src", "href") if (value := values.get(name)) is not None]

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data


def test_page(repo: Path, tmp_path: Path) -> None:
    path = tmp_path / "my campaign.html"
    result = inspect(repo, "u/run", "u/failed", "--html", path)
    assert result.exit_code == 0, result.output
    page = Page(path)
    titles, *rows = page.rows
    assert not titles
    assert len(rows) == 13
    assert rows[0][1].startswith("tract 0, patch 6, i")
    assert rows[0][2].startswith("failed: initialFwhm")
    warnings = {row[1].split(",")[1]: row[2] for row in rows}
    assert warnings[" patch 1"] == "did not converge12% of the pixels inconsistent with the exposures"
    # Patch 13 has no images, patch 6 failed.
    assert len(page.images) == 11
    assert next(row for row in rows if "patch 13" in row[1])[3] == "no images"
    for image in page.images:
        assert image["loading"] == "lazy"
        assert str(image["src"]).startswith("my%20campaign_images/")
        picture = Image.open(tmp_path / str(image["src"]).replace("%20", " "))
        assert picture.size == (int(str(image["width"])), int(str(image["height"])))
    assert page.tags.count("polyline") == 12 - 2
    # Nothing is loaded from elsewhere: but for the figure, which is in the
    # repository.
    figures = [link for link in page.links if link.startswith("file://")]
    assert len(figures) == 1
    assert not [link for link in page.links if ":" in link and link not in figures]
    assert not {"link", "iframe"} & set(page.tags)

    # Pictures that are there are not drawn again.
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "my campaign_images").iterdir()}
    assert inspect(repo, "u/run", "--html", path, "--limit", "9").exit_code == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert len(Page(path).rows) == 10

    result = inspect(repo, "u/run", "--html", tmp_path / "plain.html", "--no-thumbnails")
    assert result.exit_code == 0, result.output
    assert not Page(tmp_path / "plain.html").images
    assert not (tmp_path / "plain_images").exists()


def test_texts_of_the_data_are_escaped(repo: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(repo, tmp_path / "repo"))
    with Butler.from_config(str(copied)) as butler:
        path = butler.getURI("restoreCoadd_log", DATA_ID, patch=6, collections="u/failed").ospath
    text = Path(path).read_text()
    reason = "initialFwhm has 2 values for 3 exposures"
    assert reason in text
    # The Butler checks the size of its files.
    Path(path).write_text(text.replace(reason, "<script>1</script> & $head".ljust(len(reason))))
    result = inspect(copied, "u/failed", "--html", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    page = Page(tmp_path / "page.html")
    assert page.tags.count("script") == 1
    assert page.rows[1][2].startswith("failed: <script>1</script> & $head")


def test_images_that_cannot_be_read_are_said(repo: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(repo, tmp_path / "repo"))
    with Butler.from_config(str(copied)) as butler:
        for name in ("restored_coadd", "restored_coadd_reference", "restored_coadd_training"):
            uri = butler.getURI(name, DATA_ID, patch=8, collections="u/run")
            Path(uri.ospath).write_bytes(b"no FITS file")
    result = inspect(copied, "u/run", "--where", "tract=0 AND patch=8", "--html", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    page = Page(tmp_path / "page.html")
    assert page.rows[1][3] == "the images cannot be read"
    assert "polyline" not in page.tags


def find_chromium() -> str:
    """Return a browser, or skip the test."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (path := shutil.which(name)) is not None:
            return path
    pytest.skip("There is no Chromium here.")


def test_page_in_a_browser(repo: Path, tmp_path: Path) -> None:
    """The scripts run: the patches are counted, sorted and chosen."""
    chromium = find_chromium()
    path = tmp_path / "page.html"
    assert inspect(repo, "u/run", "u/failed", "--html", path).exit_code == 0
    # What a person would do, and a record of what is seen then.
    path.write_text(
        path.read_text("utf-8")
        .replace(
            "</body>",
            """<pre id="seen"></pre><script>
            const seen = [];
            const look = () => seen.push(Array.from(document.querySelectorAll("tbody tr"))
              .filter(row => row.offsetHeight > 0)
              .map(row => row.cells[1].querySelector("b").textContent.match(/patch (\\d+)/)[1]).join());
            const click = name => Array.from(document.querySelectorAll("th button"))
              .find(button => button.textContent === name).click();
            look();
            ["loss", "loss", "patch", "rank"].forEach(name => { click(name); look(); });
            const find = document.getElementById("find");
            find.value = "CONVERGE"; find.dispatchEvent(new Event("input")); look();
            find.value = ""; find.dispatchEvent(new Event("input"));
            const show = document.getElementById("show");
            show.value = "remark"; show.dispatchEvent(new Event("change")); look();
            addEventListener("load", () => {
              const image = document.querySelector("img");
              seen.push(image.naturalWidth + "x" + image.naturalHeight);
              seen.push(document.getElementById("count").textContent);
              document.getElementById("seen").textContent = seen.join("|");
            });
            </script></body>""".replace("\\\\d", "\\d"),
        )
        .replace('loading="lazy"', ""),
        "utf-8",
    )
    result = subprocess.run(
        [
            chromium,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1600,1000", "--dump-dom"),
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert '<pre id="seen">' in result.stdout, result.stderr
    seen = result.stdout.split('<pre id="seen">')[1].split("</pre>")[0].split("|")
    by_number = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13]
    worst, by_loss, by_loss_reversed, by_patch, again, found, chosen, size, count = seen
    assert [patch for patch in worst.split(",") if patch != "5"][:5] == ["6", "1", "7", "2", "3"]
    assert by_loss.split(",")[0] == "7"
    assert by_loss_reversed.split(",")[-2:] == ["7", "6"]
    assert by_loss.split(",")[-1] == "6"
    assert by_patch == ",".join(map(str, by_number))
    assert again == worst
    assert "1" in found.split(",") and "2" not in found.split(",")
    assert chosen == "3"
    assert size == "1036x256"
    assert count == "1 of 13 patches shown"


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("shape", [(300, 520), (40, 30), (600, 600)])
def test_thumbnail(shape: tuple[int, int], factor: int) -> None:
    """A star is where it belongs, as bright in large pixels as in small ones,
    and pixels without data are green.
    """
    rng = np.random.default_rng(1)
    reference = rng.normal(size=shape).astype(np.float32)
    reference[: shape[0] // 4] = np.nan
    reference[-shape[0] // 8 :, : shape[1] // 8] += 10.0
    restored = np.nan_to_num(reference).repeat(factor, axis=0).repeat(factor, axis=1) / factor**2
    picture = np.asarray(draw_thumbnail(reference, restored)).astype(int)
    assert picture.shape == (256, 1036, 3)
    scale = 256 / max(shape)
    y0, x0 = ((256 - round(extent * scale)) // 2 for extent in shape)
    bright = (y0 + round(shape[0] * scale / 16), x0 + round(shape[1] * scale / 16))
    dark = (y0 + round(shape[0] * scale / 2), x0 + round(shape[1] * scale / 2))
    for panel in (0, 260):
        around = picture[:, panel : panel + 256]
        assert around[bright].mean() > around[dark].mean() + 40
    green = picture[255 - y0 - 2, x0 + 5]
    assert green[1] > green[0] + 30
    assert np.ptp(picture[255 - y0 - 2, 260 + x0 + 5]) == 0
    np.testing.assert_allclose(picture[:, :256][bright], picture[:, 260:516][bright], atol=3)


def test_thumbnails_of_what_there_is() -> None:
    image = np.random.default_rng(1).normal(size=(50, 50)).astype(np.float32)
    empty = np.full((50, 50), np.nan, np.float32)
    assert np.ptp(np.asarray(draw_thumbnail(None, None))[:, :256]) == 0
    only = np.asarray(draw_thumbnail(None, image))
    assert np.ptp(only[:, :256]) == 0
    assert np.ptp(only[:, 260:516]) > 0
    assert np.asarray(draw_thumbnail(empty, empty)).shape == (256, 1036, 3)


def test_order_of_patches_without_anything() -> None:
    def patch(number: int, state: State = State.RESTORED, **values: float | None) -> Patch:
        return Patch(skymap="s", tract=0, patch=number, band="i", run="r", state=state, values=values)

    patches = [patch(1, State.NO_WORK), patch(2, loss=None), patch(3, loss=0.5), patch(4, State.FAILED)]
    assert [item.patch for item in sort_patches(patches)] == [4, 3, 2, 1]
    assert [item.patch for item in sort_patches(patches, "loss")] == [3, 1, 2, 4]
