# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The imports of each room of the package, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import lsst.drp.restore

NAME = "lsst.drp.restore"
PACKAGE = Path(lsst.drp.restore.__file__).parent

# Rooms and modules that a room may import, beside itself and errors.  The room
# "" has the files at the top: the tasks, restore() and the instruments.
ALLOWED = {
    "stack": (),
    "warping": ("stack",),
    "restoration": ("stack",),
    "psf_fitting": ("stack", "restoration"),
    "sources": ("stack",),
    # The classes of results, not what makes them.
    "outputs": (
        "stack",
        "sources",
        "warping.patch_geometry",
        "warping.stack_input",
        "restoration.characterize",
        "restoration.measurable",
        "restoration.network_weights",
        "restoration.restoration",
        "psf_fitting.kernel_fit",
    ),
    "repository": ("stack", "warping", "outputs", "instrument"),
    "simulation": ("stack", "warping", "outputs", "repository"),
    "training": ("stack", "restoration", "simulation"),
    "cli": ("warping", "outputs", "repository", "simulation"),
    "": ("stack", "warping", "restoration", "psf_fitting", "sources", "outputs", "repository"),
}

# Packages that must not be imported in a room, not even inside of a function.
NETWORKS = ("keras", "tensorflow")
IMAGES = ("lsst.images", "lsst.afw", "lsst.daf.butler")
FORBIDDEN = {
    "stack": (*NETWORKS, *IMAGES, "galsim"),
    "warping": NETWORKS,
    "restoration": IMAGES,
    "psf_fitting": IMAGES,
    "sources": (*NETWORKS, *IMAGES),
    "outputs": (*NETWORKS, "lsst.afw"),
    "repository": NETWORKS,
    "simulation": NETWORKS,
    "training": IMAGES,
    "cli": NETWORKS,
    "": NETWORKS,
}


def modules() -> list[str]:
    """Return all modules of the package, by their names in it."""
    paths = (path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py")))
    return [".".join(path.with_suffix("").parts) for path in paths if path.parts[0] != "config"]


MODULES = modules()


def room_of(module: str) -> str:
    room, _, rest = module.partition(".")
    return room if rest else ""


def imports(module: str) -> Iterator[str]:
    """Find the imports of a module, anywhere in its source, by absolute name."""
    path = PACKAGE.joinpath(*module.split("."))
    package = [*NAME.split("."), *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.with_suffix(".py").read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def within(name: str, packages: Iterable[str]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("module", MODULES)
def test_rooms_keep_their_contracts(module: str) -> None:
    room = room_of(module)
    for name in imports(module):
        assert not within(name, FORBIDDEN[room]), f"{module} imports {name}"
        # Names of classes and functions are not in the list; their modules are.
        target = name.removeprefix(f"{NAME}.")
        if target in MODULES and target not in ("errors", "__init__") and room_of(target) != room:
            assert within(target, ALLOWED[room]), f"{module} imports {target}"


@pytest.mark.parametrize("module", MODULES)
def test_exported_names_are_a_tuple(module: str) -> None:
    """Not a string: a name in parentheses without a comma is no tuple."""
    for node in ast.parse(PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            assert node.targets[0].id != "__all__" or isinstance(ast.literal_eval(node.value), tuple)


def test_every_room_has_a_contract() -> None:
    assert {room_of(module) for module in MODULES} == set(ALLOWED) == set(FORBIDDEN)


TESTS = Path(__file__).parents[1]

# Data without behavior: the tests of restore_stack look at them.
WITHOUT_TESTS = {"outputs.restored_stack"}


@pytest.mark.parametrize(
    "module", [m for m in MODULES if m.rpartition(".")[2] not in ("__init__", "__main__")]
)
def test_every_module_has_its_tests(module: str) -> None:
    """In the folder of its room; pipelines has those of the files at the top."""
    *parents, name = module.split(".")
    folder = TESTS / (room_of(module) or "pipelines")
    names = {f"test_{name}.py", *(f"test_{parent}_{name}.py" for parent in parents)}
    found = any((folder / name).exists() for name in names)
    assert found != (module in WITHOUT_TESTS), f"{module} has no tests in {folder.name}/"
