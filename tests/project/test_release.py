# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Requirements of a release: license headers, changes, a citation."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

TOP = Path(__file__).resolve().parents[2]
HEADER = """\
# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""
# Folders with sources.
FOLDERS = (".ci", "benchmarks", "bin", "bps", "config", "doc", "notebooks", "python", "tests")
# Written by tools, or the same files by another way.
GENERATED = {"__pycache__", "_build", "api", "results", "version.py"}
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())


def sources() -> list[Path]:
    """Return all source files that can have a comment as their header."""
    found = [TOP / "Makefile", TOP / "SConstruct"]
    for folder in FOLDERS:
        for path in (TOP / folder).rglob("*"):
            parts = path.relative_to(TOP).parts
            if path.is_file() and not GENERATED.intersection(parts):
                programs = path.suffix in (".py", ".sh") or path.name == "SConscript"
                if programs or folder in (".ci", "bin"):
                    found.append(path)
    return found


def test_sources_have_their_license() -> None:
    """The header is at the top, behind at most a line for the interpreter and
    one for the editor; nothing else claims a copyright.
    """
    found = sources()
    assert len(found) > 100
    for path in found:
        text = path.read_text()
        before, header, _ = text.partition(HEADER)
        assert header, f"{path} has no license header"
        assert all(re.match(r"#!|# -\*-", line) for line in before.splitlines()), path
        assert not re.search(r"^#\s*(\(c\)|copyright)", text, re.IGNORECASE | re.MULTILINE), path


def test_license_names_its_owner() -> None:
    license = (TOP / "LICENSE").read_text()
    (owner,) = (author["name"] for author in PROJECT["project"]["authors"])
    assert license.startswith("BSD 3-Clause License")
    assert f"\nCopyright {owner}\n" in license


def test_changes_are_recorded() -> None:
    """Every fragment has a name and a type that towncrier knows, and all of
    them make a text.
    """
    kinds = {kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]}
    fragments = [path for path in (TOP / "doc/changes").iterdir() if path.name != "README.rst"]
    for path in fragments:
        assert re.fullmatch(rf"\d+\.({'|'.join(kinds)})(\.\d+)?\.rst", path.name), path
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "1.0"]
    text = subprocess.run(command, cwd=TOP, check=True, capture_output=True, text=True).stdout
    words = " ".join(text.split())
    for path in fragments:
        assert " ".join(path.read_text().split()) in words


def test_citation() -> None:
    """The citation file names this version, and the two papers."""
    citation = yaml.safe_load((TOP / "CITATION.cff").read_text())
    project = PROJECT["project"]
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == project["version"]
    assert citation["license"] == project["license"]
    assert {"message", "title", "authors"} <= set(citation)
    for number in ("2302.02030", "2504.06463"):
        (paper,) = (paper for paper in citation["references"] if number in paper["url"])
        assert paper["title"] in " ".join((TOP / "README.md").read_text().split())
        assert {author["family-names"] for author in paper["authors"]} >= {"Navarro", "Sukurdeep", "Budavári"}


def test_readme_is_short() -> None:
    assert len((TOP / "README.md").read_text().splitlines()) < 120
