# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The page with the restored patches of a campaign, read by a parser and shown
in a browser.
"""

from __future__ import annotations

import math
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from campaigns import DATA_ID
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lsst.daf.butler import Butler
from lsst.drp.restore.repository.campaign.columns import COLUMNS
from lsst.drp.restore.repository.campaign.find import find_patches
from lsst.drp.restore.repository.campaign.page import write_page
from lsst.drp.restore.repository.campaign.patches import Campaign, Patch, State

# Elements without an end tag.
VOID = {"meta", "input", "img"}


class Page(HTMLParser):
    """Cells, pictures and references of a page, every element of which must be
    closed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.values: list[list[str | None]] = []
        self.titles: list[str] = []
        self.summary = ""
        self._open: list[str] = []
        self.feed(path.read_text("utf-8"))
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
            self.values.append([])
        elif tag == "td":
            self.rows[-1].append("")
            self.values[-1].append(values.get("data-v"))
        elif tag == "img":
            self.images.append(values)
        self.links += [value for name in ("src", "href") if (value := values.get(name)) is not None]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self._open:
            self.rows[-1][-1] += data
        elif self._open[-1:] == ["title"]:
            self.titles.append(data)
        elif self._open[-1:] == ["p"] and not self.rows:
            self.summary += data


def write(
    repo: Path, path: Path, *collections: str, limit: int | None = None, thumbnails: bool = True
) -> Page:
    """Write a page and read it."""
    with Butler.from_config(str(repo), collections=collections) as butler:
        found = find_patches(butler, collections)
        write_page(butler, found, found.patches[:limit], path, thumbnails=thumbnails)
    return Page(path)


@pytest.fixture(scope="module")
def empty_repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("empty") / "repo")
    Butler.makeRepo(root)
    return root


# HTML has no control characters, and parsers take \r for \n.
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30)
MARKUP = st.sampled_from(
    ["<script>alert(1)</script>", "a & b", '"><b>', "{{ 1 + 1 }}", "</td>", "&lt;", "$head"]
)


@settings(max_examples=30)
@given(st.lists(st.one_of(TEXTS, MARKUP), min_size=6, max_size=6), st.floats())
def test_texts_are_escaped(
    empty_repository: str, tmp_path_factory: pytest.TempPathFactory, texts: list[str], loss: float
) -> None:
    """Whatever the names and messages are, they are shown as they are."""
    title, skymap, band, run, problem, remark = texts
    item = Patch(
        **{"skymap": skymap, "tract": 1, "patch": 2, "band": band, "run": run},
        values=dict.fromkeys(COLUMNS) | {"loss": loss},
        problems=(problem,),
        remarks=(remark,),
    )
    other = Patch(skymap="s", tract=0, patch=0, band="i", run="another run", state=State.FAILED)
    path = tmp_path_factory.mktemp("page") / "page.html"
    with Butler.from_config(empty_repository) as butler:
        write_page(butler, Campaign(title=title, patches=(item, other)), [item], path)
    page = Page(path)
    _, (rank, name, warnings, picture, *numbers, curve) = page.rows
    assert rank == "1" and picture == "no images" and curve == ""
    comma = f", {band}" if band else ""
    shown = [skymap, *([] if run == other.run else [run])]
    assert name.split("\n", 1)[0] == f"tract 1, patch 2{comma}".rstrip("\n") or "\n" in band
    assert all(text in name for text in shown)
    assert warnings == (problem + remark if item.warnings else "")
    assert "".join(page.titles) == f"Restored patches: {title}"
    assert page.tags.count("script") == 1
    known = [column for column in COLUMNS.values() if column.shown]
    assert numbers == [column.format(item.values[column.name]) for column in known]


def test_values_to_sort_by(empty_repository: str, tmp_path: Path) -> None:
    """What is not a number is worse than any number; what is not known has no
    value.
    """
    values = dict.fromkeys(COLUMNS) | {"loss": math.nan, "ssim": math.nan, "seeing": 0.75}
    items = tuple(
        Patch(skymap="s", tract=0, patch=number, band="i", run="r", values=values, remarks=("a", "b"))
        for number in (7, 3)
    )
    with Butler.from_config(empty_repository) as butler:
        write_page(butler, Campaign(title="", patches=items), items, tmp_path / "page.html", thumbnails=False)
    _, first, second = Page(tmp_path / "page.html").values
    assert (first[:3], second[:3]) == (["1", "1", "2"], ["2", "0", "2"])
    shown = [name for name, column in COLUMNS.items() if column.shown]
    by_name = dict(zip(shown, first[3:-1], strict=True))
    assert by_name["loss"] == "1e999" and by_name["ssim"] == "-1e999"
    assert by_name["seeing"] == "0.75" and by_name["exposures"] == ""


@pytest.mark.slow
def test_page(campaign: Path, tmp_path: Path) -> None:
    path = tmp_path / "my campaign.html"
    page = write(campaign, path, "u/run", "u/failed")
    titles, *rows = page.rows
    assert not titles
    assert len(rows) == 13
    assert rows[0][1].startswith("tract 0, patch 6, i")
    assert rows[0][2].startswith("failed: initialFwhm")
    warnings = {row[1].split(",")[1]: row[2] for row in rows}
    assert warnings[" patch 1"] == "did not converge12% of the pixels inconsistent with the exposures"
    assert page.summary.startswith("12 restored patches: ")
    # Patch 13 has no images, patch 6 failed.
    assert len(page.images) == 11
    assert next(row for row in rows if "patch 13" in row[1])[3] == "no images"
    assert next(row for row in rows if "patch 6" in row[1])[3] == ""
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


@pytest.mark.slow
def test_pictures_that_exist_are_not_drawn_again(campaign: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write(campaign, path, "u/run", limit=4)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "page_images").iterdir()}
    assert before
    page = write(campaign, path, "u/run", limit=5)
    assert len(page.rows) == 6
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.slow
def test_page_without_pictures(campaign: Path, tmp_path: Path) -> None:
    page = write(campaign, tmp_path / "plain.html", "u/run", thumbnails=False)
    assert len(page.rows) == 13
    assert not page.images
    assert [file.name for file in tmp_path.iterdir()] == ["plain.html"]


@pytest.mark.slow
def test_images_that_cannot_be_read(campaign: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(campaign, tmp_path / "repo"))
    with Butler.from_config(str(copied), collections="u/run") as butler:
        for name in ("restored_coadd", "restored_coadd_reference", "restored_coadd_training"):
            Path(butler.getURI(name, DATA_ID, patch=8).ospath).write_bytes(b"no FITS file")
        found = find_patches(butler, ["u/run"], where="tract=0 AND patch=8")
        write_page(butler, found, found.patches, tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert page.rows[1][3] == "the images cannot be read"
    assert "polyline" not in page.tags


def find_chromium() -> str:
    """Return a browser, or skip the test."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (path := shutil.which(name)) is not None:
            return path
    pytest.skip("There is no Chromium here.")


@pytest.mark.slow
def test_page_in_a_browser(campaign: Path, tmp_path: Path) -> None:
    """The scripts run: the patches are counted, sorted and chosen."""
    chromium = find_chromium()
    path = tmp_path / "page.html"
    write(campaign, path, "u/run", "u/failed")
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
