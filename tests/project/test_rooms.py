# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""What each room of the package may import, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lsst.drp.restore

PACKAGE = Path(lsst.drp.restore.__file__).parent
NAME = "lsst.drp.restore"

# Room: the rooms it may import; what stands in a room's own list may also be
# one module.  All may import errors.
ROOMS = {
    "stack": (),
    "warping": ("stack",),
    "restoration": ("stack",),
    "psf_fitting": ("stack", "restoration"),
    "sources": ("stack",),
    # Geometry and the classes of results, not what makes them.
    "outputs": (
        "stack",
        "sources",
        "warping.patch_geometry",
        "warping.stack_input",
        "restoration.restoration",
        "restoration.measurable",
        "restoration.characterize",
        "restoration.network_weights",
        "psf_fitting.kernel_fit",
    ),
    "repository": ("stack", "warping", "outputs", "instrument"),
    "simulation": ("stack", "warping", "outputs", "repository"),
    "training": ("stack", "restoration", "simulation"),
    "cli": ("warping", "outputs", "repository", "simulation"),
    "": ("stack", "warping", "restoration", "psf_fitting", "sources", "outputs", "repository"),
}

# Room: packages that must not be imported there, at any depth of its source.
BUTLER = "lsst.daf.butler"
FORBIDDEN = {
    "stack": ("keras", "tensorflow", "lsst.images", BUTLER, "lsst.afw", "galsim", "lsst.pipe.base.connectionTypes"),
    "warping": ("keras", "tensorflow"),
    "restoration": ("lsst.images", "lsst.afw", BUTLER),
    "psf_fitting": ("lsst.images", "lsst.afw", BUTLER),
    "sources": ("keras", "tensorflow", "lsst.images", "lsst.afw", BUTLER),
    "outputs": ("keras", "tensorflow", "lsst.afw"),
    "repository": ("keras", "tensorflow"),
    "simulation": ("keras", "tensorflow"),
    "cli": ("keras", "tensorflow"),
    "": ("keras", "tensorflow"),
}


def room_of(module: str) -> str:
    """Return the room of ``stack.outliers``, and '' for a top file."""
    first, _, rest = module.partition(".")
    return first if rest or (PACKAGE / first).is_dir() else ""


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Find the modules that a file imports, by absolute name, and whether
    another name of ``typing.TYPE_CHECKING`` stands around it.
    """
    package = [*NAME.split("."), *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, True
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *filter(None, [node.module])])
            yield name, False
            for alias in node.names:
                yield f"{name}.{alias.name}", False


def modules() -> list[str]:
    """Return all modules of the package, relative to it."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "config":
            found.append(".".join(parts))
    return found


def source(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


@pytest.mark.parametrize("module", modules())
def test_rooms_keep_their_contracts(module: str) -> None:
    room = room_of(module)
    for name, _ in imports(source(module)):
        for package in FORBIDDEN.get(room, ()):
            assert not (name + ".").startswith(package + "."), f"{module} imports {name}"
        if not name.startswith(NAME + "."):
            continue
        target = name.removeprefix(NAME + ".")
        if not any((PACKAGE / p).exists() for p in (target.replace(".", "/"), target.replace(".", "/") + ".py")):
            continue  # A class or function of a module, that was looked at.
        if (PACKAGE / target.replace(".", "/")).is_dir() or room_of(target) == room or target == "errors":
            continue
        allowed = ROOMS[room]
        assert any((target + ".").startswith(permitted + ".") for permitted in allowed), f"{module} imports {name}"


def test_all_rooms_have_a_contract() -> None:
    rooms = {room_of(module) for module in modules()}
    assert rooms == set(ROOMS)
