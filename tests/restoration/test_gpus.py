# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A GPU for each process: with real locks and processes, without GPUs."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lsst.drp.restore.restoration import gpus

# The module alone: the package takes seconds to import.
CLAIM = f"""
import importlib.util, logging, sys
spec = importlib.util.spec_from_file_location("gpus", {gpus.__file__!r})
gpus = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpus)
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
print("took", gpus.claim_gpu(sys.argv[1:]), flush=True)
sys.stdin.read()
"""

Claim = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def claim(tmp_path: Path) -> Iterator[Claim]:
    """Starts a process that claims one of the GPUs named and then waits."""
    environment = dict(os.environ, TMPDIR=str(tmp_path))
    with ExitStack() as stack:

        def start(*names: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", CLAIM, *names],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_each_process_has_its_own(claim: Claim) -> None:
    """Also where the GPUs are numbered otherwise, or only some are visible."""
    first = claim("a", "b", "c")
    assert said(first) == "took 0"
    second = claim("c", "a")
    assert said(second) == "took 0"
    third = claim("a", "b", "c")
    assert said(third) == "took 1"


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_waits_until_a_process_ends(claim: Claim, tmp_path: Path, end: str) -> None:
    first = claim("GPU/0")
    assert said(first) == "took 0"
    second = claim("GPU/0")
    message = said(second)
    assert message.startswith("Waiting for a GPU")
    assert "computeDevice='cpu'" in message
    (lock,) = tmp_path.iterdir()
    assert str(lock) in message
    assert int(lock.read_text()) == first.pid
    if end == "kill":
        first.kill()
    else:
        first.communicate("")
    assert said(second) == "took 0"
    assert int(lock.read_text()) == second.pid


def test_a_process_keeps_its_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpus, "_claimed", {})
    assert [gpus.claim_gpu(["a", "b"]) for _ in range(3)] == [0, 0, 0]
    assert gpus.claim_gpu(["b", "a"]) == 1
    for descriptor in gpus._claimed.values():
        os.close(descriptor)


def test_without_cuda() -> None:
    """CUDA's own list; empty rather than an error where there is none."""
    names = gpus.cuda_gpus()
    assert len(set(names)) == len(names)
    if not Path("/dev/nvidiactl").exists():
        assert names == []
