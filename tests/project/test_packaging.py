# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The package as it is found, built and installed."""

import ast
import dataclasses
import email
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import lsst.drp.restore
from lsst.daf.butler import Butler
from lsst.pipe.base import Pipeline
from lsst.resources import ResourcePath

TOP = Path(__file__).resolve().parents[2]
PIPELINE = "resource://lsst.drp.restore/pipelines/restoreCoadd.yaml"


@dataclasses.dataclass(frozen=True)
class Environment:
    """A virtual environment outside of the checkout."""

    directory: Path

    def run(self, *arguments: str) -> str:
        """Run its Python; return the standard output."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        result = subprocess.run(
            [str(self.directory / "venv/bin/python"), *arguments],
            cwd=self.directory,
            env=clean,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, f"{shlex.join(arguments)}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def run_script(self, entry_point: str, command: str) -> str:
        """Run the function of a console script with the command's words."""
        module, function = entry_point.split(":")
        return self.run("-c", f"from {module} import {function}; {function}()", *shlex.split(command))

    def butler(self, command: str) -> str:
        return self.run_script("lsst.daf.butler.cli.butler:main", command)

    def pipetask(self, command: str) -> str:
        return self.run_script("lsst.ctrl.mpexec.cli.pipetask:main", command)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing a former build has left in
    the checkout gets into it.
    """
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, source)
    for name in ("python", "bps", "config", "pipelines"):
        ignore = shutil.ignore_patterns("*.egg-info", "*.dist-info", "__pycache__")
        shutil.copytree(TOP / name, source / name, symlinks=True, ignore=ignore)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", "dist", "."], cwd=source, check=True)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A virtual environment that has the wheel and sees the dependencies of
    the one that runs the tests, but not the package installed there.
    """
    environment = Environment(tmp_path_factory.mktemp("installed"))
    venv = environment.directory / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = str(venv / "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True)
    # A .pth file only extends the path: the .pth files over there, such as the
    # one of an editable install, are not read.  The virtual environment may be
    # inside of the checkout; what else is there is not a dependency.
    dependencies = [
        path
        for path in sys.path
        if os.path.isdir(path)
        and (Path(path).is_relative_to(sys.prefix) or not Path(path).is_relative_to(TOP))
    ]
    site_packages = environment.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    Path(site_packages, "dependencies.pth").write_text("\n".join(dependencies))
    return environment


def loaded(code: str) -> set[str]:
    """Return the modules that a new process has loaded after some code."""
    code += "; import sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(result.stdout.split())


def test_import_is_light() -> None:
    """Importing the package and its commands loads nothing heavy: every call
    of ``butler`` and every process of ``pipetask`` pays for it.
    """
    alone = loaded("import lsst.drp.restore")
    assert not {name for name in alone if re.match(r"(lsst\.(?!drp)|numpy|astropy|scipy|matplotlib)", name)}
    # Modules of the package come with the first of their names.
    assert {name for name in alone if name.startswith("lsst.drp.restore.")} == set()
    commands = loaded("import lsst.drp.restore.cli; lsst.drp.restore.cli.get_cli_subcommands()")
    assert not commands & {"tensorflow", "keras", "lsst.images", "matplotlib.pyplot", "galsim", "piff"}


def test_exports() -> None:
    """Names that the package exports are those of its stub, which type
    checkers and editors read; each can be imported and has its description.
    """
    (assignment,) = (
        node
        for node in ast.walk(ast.parse(Path(lsst.drp.restore.__file__).with_suffix(".pyi").read_text()))
        if isinstance(node, ast.Assign)
    )
    assert dir(lsst.drp.restore) == sorted(lsst.drp.restore.__all__) == ast.literal_eval(assignment.value)
    for name in lsst.drp.restore.__all__:
        exported = getattr(lsst.drp.restore, name)
        if callable(exported):
            assert exported.__name__ == name
            assert exported.__doc__
    assert callable(lsst.drp.restore.reference_coadd), "the function, not the module of the same name"
    with pytest.raises(AttributeError, match="RestoreCoad"):
        lsst.drp.restore.RestoreCoad  # noqa: B018


def imported(folder: str) -> dict[str, str]:
    """Find the packages of others that a folder's modules import: for each,
    a module that does.
    """
    found: dict[str, str] = {}
    for path in sorted((TOP / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            found |= dict.fromkeys(names, str(path.relative_to(TOP)))
    own = {path.stem for path in (TOP / "tests").rglob("*.py")} | {"benchmarks", *sys.stdlib_module_names}
    return {
        name: path
        for name, path in found.items()
        if name.split(".")[0] not in own and not name.startswith("lsst.drp.restore")
    }


# Another backend of Keras, and modules that only the full Science Pipelines
# have: used where they are there.
OPTIONAL = {"jax", "torch", "lsst.afw", "lsst.geom", "lsst.skymap"}
# Distributions whose import has another name.
DISTRIBUTIONS = {"PIL": "pillow", "skimage": "scikit-image", "starlink": "starlink-pyast", "yaml": "pyyaml"}
DISTRIBUTIONS |= {"starred": "starred-astro"}


@pytest.mark.parametrize(
    ("folder", "extras"), [("python", ["bps"]), ("benchmarks", ["benchmarks"]), ("tests", ["bps", "test"])]
)
def test_imports_are_declared(folder: str, extras: list[str]) -> None:
    """Every package that is imported is a dependency of its own, whatever else
    brings it along.
    """
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"]]
    for extra in extras:
        requirements += project["optional-dependencies"][extra]
    declared = {re.split(r"[\[>]", requirement)[0] for requirement in requirements}
    for name, path in imported(folder).items():
        if not any(f"{name}.".startswith(f"{module}.") for module in OPTIONAL):
            top = name.split(".")[0]
            candidates = {DISTRIBUTIONS.get(top, top.replace("_", "-"))}
            if top == "lsst":
                # lsst.pipe.base.connections is in lsst-pipe-base.
                parts = name.split(".")
                candidates = {"-".join(parts[:length]) for length in range(2, len(parts) + 1)}
            assert candidates & declared, f"{path} imports {name}, which pyproject.toml does not declare"


def test_same_files_two_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipelines and configurations are the same files as package resources and
    in an EUPS product.
    """
    monkeypatch.setenv("DRP_RESTORE_DIR", str(TOP))
    for directory, pattern in (("pipelines", "*.yaml"), ("config", "*.py"), ("bps", "*.yaml")):
        paths = sorted((TOP / directory).rglob(pattern))
        assert paths
        for path in paths:
            name = path.relative_to(TOP)
            resource = ResourcePath(f"resource://lsst.drp.restore/{name}")
            product = ResourcePath(f"$DRP_RESTORE_DIR/{name}")
            assert resource.read() == product.read() == path.read_bytes()
    by_resource, by_product = (
        Pipeline.from_uri(uri) for uri in (PIPELINE, "$DRP_RESTORE_DIR/pipelines/restoreCoadd.yaml")
    )
    assert by_resource.task_labels == by_product.task_labels == {"restoreCoadd", "detectRestoredSources"}


def test_wheel_content(wheel: Path) -> None:
    """The wheel holds every module, page, pipeline and configuration, and
    nothing else.
    """
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = Path("lsst/drp/restore")
    source = TOP / "python" / package
    expected = {
        str(package / path.relative_to(source))
        for path in source.rglob("*.py")
        if path.name != "version.py" and "config" not in path.relative_to(source).parts
    }
    for pattern in ("*.html", "*.npz", "*.pyi", "py.typed"):
        found = [str(package / path.relative_to(source)) for path in source.rglob(pattern)]
        assert found, pattern
        expected.update(found)
    for directory, pattern in (("pipelines", "*.yaml"), ("config", "*.py"), ("bps", "*.yaml")):
        expected |= {str(package / path.relative_to(TOP)) for path in (TOP / directory).rglob(pattern)}
    assert files - {str(package / "version.py")} == expected


def test_wheel_metadata(wheel: Path) -> None:
    """The metadata that pip and an index show are complete."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
        files = archive.namelist()
    assert metadata["Name"] == "lsst-drp-restore"
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert any(file.endswith(".dist-info/licenses/LICENSE") for file in files)
    for field in ("Version", "Summary", "Author", "Keywords", "Requires-Python"):
        assert metadata[field], field
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload(decode=True).strip() == (TOP / "README.md").read_bytes().strip()
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    extras = set(metadata.get_all("Provides-Extra", []))
    assert extras >= {"benchmarks", "bps", "docs", "gpu", "test"}
    # Every dependency has a lowest and a highest version.
    for requirement in metadata.get_all("Requires-Dist", []):
        assert ">=" in requirement and "<" in requirement or "setuptools" in requirement, requirement


@pytest.mark.slow
def test_wheel_runs_outside_of_checkout(installed: Environment) -> None:
    """The installed wheel finds its own modules, pipeline and commands."""
    where = installed.run("-c", "import lsst.drp.restore as package; print(package.__file__)")
    assert Path(where.strip()).is_relative_to(installed.directory)
    shown = installed.pipetask(f"build -p {PIPELINE} --show pipeline")
    assert "class: lsst.drp.restore.RestoreCoaddTask" in shown
    paper = PIPELINE.replace("restoreCoadd.yaml", "restoreCoaddPaper.yaml")
    configured = installed.pipetask(f"build -p {paper} --show config=restoreCoadd::*maxEpochs")
    assert "restorer.maxEpochs=450" in configured
    hsc = PIPELINE.replace("restoreCoadd.yaml", "HSC/restoreCoaddPaper.yaml")
    configured = installed.pipetask(f"build -p {hsc} --show config=restoreCoadd::*connections.direct_warps")
    assert "connections.direct_warps='deepCoadd_directWarp'" in configured
    commands = installed.butler("--help")
    for command in ("register-tract", "simulate-exposures", "ingest-exposures", "inspect-restored"):
        assert command in commands


@pytest.mark.slow
def test_wheel_restores_a_patch(installed: Environment) -> None:
    """The installed wheel goes all the way from an empty directory to a
    restored coadd.
    """
    installed.butler("create repo")
    installed.butler(
        "register-tract repo small --ra 150 --dec 2.2 --patch-size 60 --patch-border 15 --cell-size 30"
    )
    installed.butler("simulate-exposures repo --skymap small --n-visits 3 --detectors 1 1 --psf gaussian")
    installed.pipetask(
        f"run --register-dataset-types -b repo -i sim -o u/test/restored -p {PIPELINE} "
        """-d "skymap='small' AND tract=0 AND patch=0 AND band='i'" """
        "-c restoreCoadd:characterize.numRealizations=2"
    )
    with Butler.from_config(str(installed.directory / "repo"), collections="u/test/restored") as butler:
        restored = butler.get("restored_coadd", skymap="small", tract=0, patch=0, band="i")
    assert restored.image.array.shape == (90, 90)
    assert restored.image.array.min() >= 0
    assert restored.image.array.max() > 0


def write_candidate(path: Path, before: str) -> None:
    """Write an executable that runs this Python after a statement that changes
    what a candidate is checked for (its third argument).
    """
    code = f"import sys; {before}; exec(sys.argv[1])"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -c {shlex.quote(code)} "$3"\n')
    path.chmod(0o755)


def find_python(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run bin/find-python where nothing but ``home`` holds candidates."""
    environment = {"HOME": str(home), "PATH": str(home / "bin"), **variables}
    return subprocess.run(
        [str(TOP / "bin/find-python")],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory with every kind of unusable Python."""
    shim = tmp_path / "bin/python3.13"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.13: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    write_candidate(tmp_path / "bin/python3.12", "sys.modules['ensurepip'] = None")
    write_candidate(tmp_path / "bin/python3", "sys.version_info = (3, 11, 9, 'final', 0)")
    write_candidate(tmp_path / "bin/python", "sys.version_info = (3, 14, 0, 'final', 0)")
    write_candidate(tmp_path / ".pyenv/versions/3.13.1/bin/python3.13", "sys.modules['_ssl'] = None")
    return tmp_path


def test_find_python_takes_what_works(home: Path) -> None:
    write_candidate(home / ".pyenv/versions/3.12.7/bin/python3.12", "sys._base_executable = '/good/python'")
    result = find_python(home)
    assert (result.returncode, result.stdout, result.stderr) == (0, "/good/python\n", "")


def test_find_python_prints_a_real_interpreter() -> None:
    """The path it prints is a base interpreter that can make an environment."""
    result = find_python(Path("/"), PYTHON=sys.executable)
    assert result.returncode == 0, result.stderr
    code = "import sys, venv; assert sys.prefix == sys.base_prefix"
    subprocess.run([result.stdout.strip(), "-I", "-c", code], check=True)


def test_find_python_without_any(home: Path) -> None:
    result = find_python(home)
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "PYTHON=" in result.stderr


def test_find_python_obeys_the_user(home: Path) -> None:
    """A Python named by the user is taken or refused, never replaced."""
    write_candidate(home / "bin/mine", "sys._base_executable = '/mine/python'")
    write_candidate(home / "bin/python3.13", "sys._base_executable = '/good/python'")
    assert find_python(home, PYTHON="mine").stdout == "/mine/python\n"
    refused = find_python(home, PYTHON=str(home / "bin/python3"))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert len(refused.stderr.splitlines()) == 1
    assert str(home / "bin/python3") in refused.stderr
