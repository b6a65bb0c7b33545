# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The notebooks, and the example of the page on arrays, as they are run."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from click.testing import CliRunner
from nbclient import NotebookClient
from repositories import simulate_repository

from lsst.ctrl.mpexec.cli.pipetask import cli as pipetask
from lsst.daf.butler import Butler
from lsst.drp.restore.simulation.config import SimulationConfig

TOP = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((TOP / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small patch that the pipeline restored by ImageMM, which takes
    seconds.
    """
    root = simulate_repository(
        tmp_path_factory.mktemp("notebooks") / "repo",
        SimulationConfig(
            skymap="test", n_visits=3, detector_size=180, detectors=(1, 1), seed=11, psf="gaussian"
        ),
        patch_size=100,
        cell_size=65,
    )
    command = ["run", "-b", str(root), "-i", "sim", "-o", "u/test/restored", "--register-dataset-types"]
    command += ["-p", "resource://lsst.drp.restore/pipelines/restoreCoaddImageMM.yaml"]
    command += ["-d", "skymap='test' AND tract=0 AND patch=0 AND band='i'"]
    command += [
        "-c",
        "restoreCoadd:restorer.maxSteps=20",
        "-c",
        "restoreCoadd:characterize.numRealizations=2",
    ]
    result = CliRunner().invoke(pipetask, command)
    assert result.exit_code == 0, result.output
    return root


def execute(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **parameters: Any
) -> nbformat.NotebookNode:
    """Run a notebook as Jupyter does, with other values of the variables in
    its cell of parameters.
    """
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    notebook = nbformat.read(TOP / "notebooks" / name, as_version=4)
    (index,) = (i for i, cell in enumerate(notebook.cells) if cell.metadata.get("tags") == ["parameters"])
    values = "\n".join(f"assert {name!r} in vars()\n{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(index + 1, nbformat.v4.new_code_cell(values))
    resources = {"metadata": {"path": str(TOP / "notebooks")}}
    return NotebookClient(notebook, kernel_name="python3", resources=resources).execute()


def outputs(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    """Return the outputs of one MIME type, or of ``stdout``."""
    found = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    if kind == "stdout":
        return [output.text for output in found if output.get("name") == kind]
    return [output.data[kind] for output in found if kind in output.get("data", {})]


def assert_pictures(notebook: nbformat.NotebookNode, number: int) -> None:
    pictures = [base64.b64decode(picture) for picture in outputs(notebook, "image/png")]
    assert len(pictures) == number
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 10_000 for picture in pictures)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert sum(cell.metadata.get("tags") == ["parameters"] for cell in notebook.cells) == 1


@pytest.mark.slow
def test_restored_coadds(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRP_RESTORE_REPO", str(repo))
    notebook = execute("restored_coadds.ipynb", tmp_path, monkeypatch, n_cutouts=2)
    # The sources on the patch; the cutouts.
    assert_pictures(notebook, 2)
    with Butler.from_config(str(repo), collections="u/test/restored") as butler:
        sources = butler.get("restored_source", skymap="test", tract=0, patch=0, band="i")
    number = np.count_nonzero(sources["detect_isPrimary"])
    printed = "".join(outputs(notebook, "stdout"))
    assert f"'patch': 0}}: {number} primary sources" in printed
    # The flux that the notebook measures itself is that of the list.
    here, listed = (
        np.array(re.search(rf"{where} +(\d+) \+- (\d+) nJy", printed).groups(), float)
        for where in ("measured here", "in the list")
    )
    assert abs(here[0] - listed[0]) < listed[1]
    assert "u/test/restored" in outputs(notebook, "text/html")[0]


@pytest.mark.slow
def test_restore_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = execute(
        "restore_arrays.ipynb",
        tmp_path,
        monkeypatch,
        size=110,
        n_exposures=4,
        n_stars=9,
        n_pairs=2,
        n_galaxies=2,
        num_threads=1,
        config={
            "restorer.computeDevice": "cpu",
            "characterize.numRealizations": 2,
        },
    )
    # The training, the images, the pairs, the fluxes.
    assert_pictures(notebook, 4)
    printed = "".join(outputs(notebook, "stdout"))
    stars, scatter, mean = re.search(
        r"(\d+) stars: scatter of (\S+) and mean of (\S+) standard", printed
    ).groups()
    # However short the training was.
    assert int(stars) > 2
    assert float(scatter) < 2.0
    assert abs(float(mean)) < 1.5


def test_example_of_the_page_on_arrays() -> None:
    text = (TOP / "doc/lsst.drp.restore/arrays.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    variables: dict[str, Any] = {}
    exec(example, variables)
    restored = variables["restored"]
    assert restored.image.shape == (70, 80)
    assert restored.image[40, 30] > 1.5 * restored.reference.image[40, 30]
    psf = restored.measurable.psf_at(40, 30)
    light = restored.measurable.image[28:53, 18:43]
    assert (psf * light).sum() / (psf**2).sum() == pytest.approx(1000, rel=0.1)
