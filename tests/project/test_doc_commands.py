# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Every command that the documentation shows.

The commands of the pages in `EXECUTED` that use the repositories these pages
make are run in this order, with options appended that make images and trainings
small.  Other ``pipetask run`` commands on these repositories get their quantum
graph built; ``bps submit`` is run by test_campaign.py.  Commands that need
other data, another installation or much time are parsed by the parser of the
program, and their pipelines and configurations are loaded and validated.
"""

from __future__ import annotations

import importlib
import re
import runpy
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from click.testing import CliRunner, Result
from doc_pages import FOLDER, TOP, Command, blocks, commands, pages, settings
from packaging.requirements import Requirement

from lsst.ctrl.bps.cli.bps import cli as bps
from lsst.ctrl.mpexec.cli.pipetask import cli as pipetask
from lsst.daf.butler.cli.butler import cli as butler
from lsst.pex.config import FieldValidationError
from lsst.pipe.base import Pipeline

PIPELINE = "resource://lsst.drp.restore/pipelines/restoreCoadd.yaml"
APPLICATIONS = {"bps": bps, "butler": butler, "pipetask": pipetask}

# Pages whose commands are run, in the order in which a reader would.
EXECUTED = (
    "quick-start.md",
    "own-exposures.md",
    "rubin-stack.md",
    "reading-results.md",
    "figures.md",
    "inspect.md",
    "sources.md",
    "campaign.md",
)
# The repositories that these pages make.
REPOSITORIES = {"demo/campaign", "demo/repo", "repo"}

# Appended to the commands, where the last of several values counts.
SMALL = {
    "register-tract": "--patch-size 60 --patch-border 15 --cell-size 30",
    "simulate-exposures": "--n-visits 3 --detectors 1 1 --psf gaussian --warps",
    "run": "-c restoreCoadd:characterize.numRealizations=2",
}

# What "..." stands for: the quick start's command.
REST = ("-b", "demo/repo", "-i", "sim", "-o", "u/doc/restored", "-p", PIPELINE)
REST += ("-d", "skymap='demo' AND tract=0 AND patch=0 AND band='i'")

ALL = [command for page in pages() for command in commands(page)]


def expand(words: tuple[str, ...]) -> list[str]:
    """Return the words of a command with "..." written out."""
    where = words.index("...") if "..." in words else len(words)
    return [*words[:where], *(REST if "..." in words else ()), *words[where + 1 :]]


def repository(words: list[str]) -> str:
    """Return the repository that a command names."""
    if words[0] == "pipetask":
        return words[words.index("-b") + 1] if "-b" in words else ""
    return words[2] if words[0] == "butler" and len(words) > 2 else ""


def invoke(words: list[str]) -> Result:
    """Run a command here."""
    return CliRunner().invoke(APPLICATIONS[words[0]], words[1:])


def exposure_wcs(center: tuple[float, float]) -> WCS:
    """Return the WCS of the exposures, with pixels of 0.2 arcsec."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.2]
    wcs.wcs.crpix = center
    wcs.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600]
    return wcs


def star(x: np.ndarray, y: np.ndarray, flux: float, seeing: float) -> np.ndarray:
    """Return a Gaussian of a FWHM in arcsec."""
    sigma = seeing / 0.2 / 2.355
    return flux * np.exp(-(x**2 + y**2) / 2 / sigma**2) / (2 * np.pi * sigma**2)


def write_exposures(folder: Path) -> None:
    """Write the FITS files of the page's table: three images of two stars."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:120, :120]
    for name, seeing in zip("abc", (0.71, 0.64, 0.83), strict=True):
        image = rng.normal(0, 1, x.shape)
        for x0, y0, flux in ((50, 60, 3000), (72, 65, 500)):
            image += star(x - x0, y - y0, flux, seeing)
        header = exposure_wcs((60.5, 60.5)).to_header()
        fits.writeto(folder / f"{name}.fits", image.astype(np.float32), header)
        fits.writeto(folder / f"{name}.weight.fits", np.ones(x.shape, np.float32))


def write_frames(folder: Path) -> None:
    """Write the frames of the page: three images of twelve stars with a WCS, a
    zero point and nothing else.
    """
    folder.mkdir()
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:160, :160]
    stars = [(*rng.uniform(10, 150, 2), flux) for flux in np.geomspace(800, 20000, 12)]
    for n, seeing in enumerate((0.71, 0.64, 0.83)):
        header = exposure_wcs((80.5, 80.5)).to_header()
        header.update({"DATE-OBS": f"2025-11-20T02:0{n}:00", "EXPTIME": 30.0, "FILTER": "i", "MAGZP": 27.0})
        image = rng.normal(0, 1, x.shape)
        for x0, y0, flux in stars:
            image += star(x - x0, y - y0, flux, seeing)
        fits.writeto(folder / f"{n}.fits", image.astype(np.float32), header)


# The commands that are run.
RUN = [
    command
    for page in EXECUTED
    for command in commands(FOLDER / page)
    if not command.inline and "..." not in command.words and repository(list(command.words)) in REPOSITORIES
]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Command, Result]]:
    """The results of all commands of `RUN`; the working directory is the one
    they were run in.
    """
    folder = tmp_path_factory.mktemp("session")
    (folder / "config").symlink_to(TOP / "config")
    (table,) = blocks(FOLDER / "own-exposures.md", "text")
    (folder / "exposures.ecsv").write_text(table)
    write_exposures(folder)
    write_frames(folder / "frames")
    results = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("demo").mkdir()
        for command in RUN:
            words = list(command.words)
            if words[1] in SMALL and not any("#" in word for word in words):
                words += SMALL[words[1]].split()
            results[command] = invoke(words)
        yield results


def parse(words: list[str], *, cut_short: bool = False) -> None:
    """Let the program's own parser read a command, without running it.

    Parameters
    ----------
    words : `list` [`str`]
        The command.
    cut_short : `bool`, optional
        Whether arguments that the program demands may be missing.
    """
    group = APPLICATIONS[words[0]]
    top = click.Context(group, info_name=words[0])
    command = group.get_command(top, words[1])
    assert command is not None, f"no command {words[1]!r}"
    if "--help" in words:
        return
    try:
        command.make_context(words[1], words[2:], parent=top)
    except click.MissingParameter:
        if not cut_short:
            raise


def load_pipeline(words: list[str]) -> None:
    """Load the pipeline of a command and apply its settings."""
    values = [
        (words[k], words[k + 1])
        for k in range(len(words) - 1)
        if words[k] in ("-c", "-C", "--config", "--config-file")
    ]
    uris = [words[k + 1] for k in range(len(words) - 1) if words[k] in ("-p", "--pipeline")]
    pipeline = Pipeline.from_uri(uris[-1])
    for option, value in values:
        label, _, setting = value.partition(":")
        assert label in pipeline.task_labels, f"no task {label!r}"
        if option in ("-C", "--config-file"):
            pipeline.addConfigFile(label, setting)
        else:
            field, _, text = setting.partition("=")
            pipeline.addConfigOverride(label, field, text)
    # Tasks and configurations are made, and validated, here.
    pipeline.to_graph()


def check(command: Command) -> None:
    """Check a command that is not run."""
    words = expand(command.words)
    match words:
        case ["bps" | "butler" | "pipetask", _, *_]:
            parse(words, cut_short=command.inline)
            if words[:2] == ["bps", "submit"] and not command.inline:
                assert Path(words[2]).exists()
            if words[0] == "pipetask" and "-p" in words:
                load_pipeline(words)
        case ["make", target]:
            assert re.search(rf"^{target}:", (TOP / "Makefile").read_text(), re.MULTILINE)
        case ["pip", "install", what] if what.startswith("."):
            assert (found := re.fullmatch(r"\.(?:\[(\w+)\])?", what))
            project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
            assert found[1] is None or found[1] in project["optional-dependencies"]
        case ["pip", "install", *requirements]:
            project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
            needed = {(item := Requirement(text)).name: item.specifier for text in project["dependencies"]}
            for requirement in map(Requirement, requirements):
                # Those of the project, and no version that it refuses.
                versions = [item.version.replace("*", "0") for item in requirement.specifier]
                assert all(version in needed[requirement.name] for version in versions)
        case ["export", "KERAS_BACKEND=torch"]:
            pass
        case ["python", "-m", name, *arguments]:
            module = importlib.import_module(name)
            if arguments:
                module.COMMAND.parse(arguments)
        case ["setup", "-r", ".", "drp_restore"]:
            assert (TOP / "ups/drp_restore.table").exists()
        case ["scons"]:
            assert (TOP / "SConstruct").exists()
        case _:
            raise AssertionError(f"nothing is known about {command}")


@pytest.mark.parametrize("command", ALL, ids=str)
def test_command_is_understood(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRP_RESTORE_DIR", str(TOP))
    monkeypatch.chdir(tmp_path)
    for name in ("bps", "config"):
        (tmp_path / name).symlink_to(TOP / name)
    (tmp_path / "exposures.ecsv").touch()
    (tmp_path / "frames").mkdir()
    check(command)


def run_with(*words: str) -> tuple[str, ...]:
    return ("pipetask", "run", "-b", "repo", "-i", "sim", "-o", "out", "-p", *words)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ("butler", "register-tract", "repo", "s", "--ra", "1", "--dec", "2", "--size", "9"),
            click.UsageError,
        ),
        (("butler", "register-tract", "repo"), click.UsageError),
        (("butler", "missing", "repo"), AssertionError),
        (("bps", "submit", "bps/missing.yaml"), AssertionError),
        (run_with(PIPELINE.replace("Coadd", "Missing")), FileNotFoundError),
        (run_with(PIPELINE, "-c", "restoreCoadd:restorer.missing=1"), AttributeError),
        (run_with(PIPELINE, "-c", "restoreCoadd:superResolution=9"), FieldValidationError),
        (run_with(PIPELINE, "-c", "missing:superResolution=2"), AssertionError),
        (("make", "missing"), AssertionError),
        (("pip", "install", ".[missing]"), AssertionError),
        (("python", "-m", "benchmarks.missing"), ImportError),
        (("rm", "-r", "repo"), AssertionError),
    ],
)
def test_mistakes_are_found(words: tuple[str, ...], error: type[Exception]) -> None:
    """The checks above fail for wrong commands."""
    with pytest.raises(error):
        check(Command(page="page", words=words, inline=False))


def test_quick_start_is_the_demo() -> None:
    """The page shows the commands that ``make demo`` runs."""
    demo = runpy.run_path(str(TOP / "bin/demo"))
    shown = [command for command in commands(FOLDER / "quick-start.md") if not command.inline]
    text = "\n".join(" ".join(command.words) for command in shown)
    for line in demo["COMMANDS"].replace("\n    ", " ").replace('"', "").strip().splitlines():
        assert re.sub(r"(--cores-per-quantum) \d+", r"\1 4", line) in text


@pytest.mark.parametrize("command", RUN, ids=str)
@pytest.mark.slow
def test_command_runs(command: Command, session: dict[Command, Result]) -> None:
    result = session[command]
    if "--skip-existing" in command.words:
        # As documented for a run that is complete.
        assert result.exit_code == 1
        assert "QuantumGraph was empty" in result.output
    else:
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    if "query-datasets" in command.words:
        assert "restored_coadd_measurable" in result.output


@pytest.mark.slow
def test_commands_leave_what_pages_say(session: dict[Command, Result]) -> None:
    ran = [" ".join(command.words[:2]) for command in session]
    assert ran.count("pipetask run") == 4
    for name in ("create", "register-tract", "simulate-exposures", "ingest-exposures"):
        assert f"butler {name}" in ran
    assert len(list(Path("results").rglob("*.fits"))) == 2
    assert len(list(Path("figures").rglob("*.png"))) == 2


@pytest.mark.parametrize(
    "page", [page for page in pages() if blocks(page, "python")], ids=lambda page: page.name
)
@pytest.mark.slow
def test_python_runs(page: Path, session: dict[Command, Result]) -> None:
    """Blocks of Python read the output of the commands."""
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), {})


@pytest.mark.parametrize(
    "command",
    [
        command
        for command in ALL
        if command.words[:2] == ("pipetask", "run")
        and repository(expand(command.words)) in REPOSITORIES
        and ("..." in command.words or command.page not in EXECUTED)
    ],
    ids=str,
)
@pytest.mark.slow
def test_graph_is_built(
    command: Command, session: dict[Command, Result], caplog: pytest.LogCaptureFixture
) -> None:
    """Runs with other settings find their inputs."""
    words = ["qgraph" if word == "run" else word for word in expand(command.words)]
    result = invoke([word for word in words if word != "--register-dataset-types"])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    (found,) = re.findall(r"QuantumGraph contains (\d+) quant", caplog.text)
    assert int(found) > 0


@pytest.mark.parametrize("setting", sorted({text for page in pages() for text in settings(page)}))
def test_setting_exists(setting: str) -> None:
    load_pipeline(["-p", PIPELINE, "-c", setting])


def test_links_lead_somewhere() -> None:
    """Relative links of all pages name files that exist."""
    for page in pages():
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
