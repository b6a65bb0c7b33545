# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The documentation is built, as ``make docs`` does it, and complete."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from doc_pages import TOP

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


def test_docs_build(site: Path) -> None:
    (module,) = yaml.safe_load((TOP / "doc/manifest.yaml").read_text())["modules"]
    assert module == "lsst.drp.restore"
    index = (site / module / "index.html").read_text()
    for name in ("quick-start", "rubin-stack", "own-exposures", "reading-results", "how-it-works", "api"):
        assert f'href="{name}.html"' in index


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


def test_pictures_are_small() -> None:
    for picture in (TOP / "doc/_static").rglob("*.*"):
        assert picture.stat().st_size < 300_000, f"{picture} is too large for the repository"
