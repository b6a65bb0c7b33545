# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The documentation is built, as ``make docs`` does it, and complete."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from doc_pages import FOLDER, TOP, inline_code, pages

import lsst.drp.restore


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built without a warning from a copy of ``doc/``."""
    folder = tmp_path_factory.mktemp("docs")
    ignore = shutil.ignore_patterns("_build", "api")
    shutil.copytree(TOP / "doc", folder / "doc", ignore=ignore)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "doc", "html"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "html"


@pytest.mark.slow
def test_docs_build(site: Path) -> None:
    (module,) = yaml.safe_load((TOP / "doc/manifest.yaml").read_text())["modules"]
    assert module == "lsst.drp.restore"
    index = (site / module / "index.html").read_text()
    for name in ("quick-start", "rubin-stack", "own-exposures", "reading-results", "how-it-works", "api"):
        assert f'href="{name}.html"' in index


@pytest.mark.slow
def test_docs_have_the_whole_api(site: Path) -> None:
    """All modules have a page, with all that they offer on it."""
    pages = site / "lsst.drp.restore/api"
    package = Path(lsst.drp.restore.__file__).parent
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        # What is run by "python -m" has no API.
        if parts[0] not in ("config", "version") and parts[-1] != "__main__":
            name = ".".join(("lsst.drp.restore", *(part for part in parts if part != "__init__")))
            assert (pages / f"{name}.html").exists(), f"no page for {name}"
    text = (pages / "lsst.drp.restore.restoration.consistency.html").read_text()
    assert 'id="lsst.drp.restore.restoration.consistency.ConsistencyConfig.priorScale"' in text
    assert "Standard deviation of the prior" in text


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    package = Path(lsst.drp.restore.__file__).parent
    for code in inline_code(page):
        if re.fullmatch(r"[\w/.-]+\.(py|ipynb|npz)", code):
            assert (package / code).is_file() or (TOP / code).is_file(), f"{page.name} names {code}"


def test_every_room_is_described() -> None:
    """The README and the page on the API list the rooms."""
    readme, api = (TOP / "README.md").read_text(), (FOLDER / "api.rst").read_text()
    rooms = [path.parent.name for path in Path(lsst.drp.restore.__file__).parent.glob("*/__init__.py")]
    assert "stack" in rooms
    for room in rooms:
        assert f"`.../{room}/`" in readme
        assert f"\n``{room}``\n" in api


def row(table: str, header: str, name: str) -> dict[str, float]:
    """Look up a row of the first table of a report with such a header."""
    lines = table.splitlines()
    (first, *_) = (k for k, line in enumerate(lines) if header in line)
    (values,) = (line for line in lines[first:][: lines[first:].index("")] if line.startswith(f"{name} "))
    columns = re.split(r"\s{2,}", lines[first].strip())
    return dict(zip(columns, map(float, values.removeprefix(name).split()), strict=True))


def test_readme_has_the_numbers_of_the_benchmark() -> None:
    """Numbers that the README cannot include are those of the report."""
    readme, report = (TOP / "README.md").read_text(), (FOLDER / "quality.txt").read_text()
    ours, theirs = (row(report, "PSNR@2.5", name)["PSNR@2.5"] for name in ("restored_coadd", "ImageMM"))
    assert f"({ours:.1f} and {theirs:.1f} dB at a common resolution)" in readme
    assert f"{ours - theirs:.0f} dB closer to the truth than ImageMM" in readme
    assert f"stars have {row(report, '/coadd', 'restored_coadd')['/coadd']:.2f} of the FWHM" in readme


def test_pictures_are_small() -> None:
    for picture in (TOP / "doc/_static").rglob("*.*"):
        assert picture.stat().st_size < 300_000, f"{picture} is too large for the repository"
