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
limit, *names = sys.argv[1:]
if again := names[-1] == "again":
    names.pop()
try:
    print("took", gpus.claim_gpu(names, float(limit)), flush=True)
except TimeoutError as err:
    print("gave up:", err, flush=True)
if again:
    for order in (names, names, names[::-1]):
        print("took", gpus.claim_gpu(order), flush=True)
sys.stdin.read()
"""

Claim = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def claim(tmp_path: Path) -> Iterator[Claim]:
    """Starts a process that claims one of the GPUs named and then waits."""
    environment = dict(os.environ, TMPDIR=str(tmp_path))
    with ExitStack() as stack:

        def start(*names: str, limit: float = 600.0) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", CLAIM, str(limit), *names],
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
    assert message.startswith("Waiting for a GPU for 600 s at most")
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


def test_waits_no_longer_than_the_limit(claim: Claim, tmp_path: Path) -> None:
    first = claim("a")
    assert said(first) == "took 0"
    second = claim("a", limit=0.5)
    assert said(second).startswith("Waiting for a GPU for 0.5 s at most")
    message = said(second)
    (lock,) = tmp_path.iterdir()
    assert message.startswith("gave up: No GPU became free within 0.5 s") and str(lock) in message
    assert "computeDevice='cpu'" in message
    # Another one is free: the limit does not matter.
    assert said(claim("a", "b", limit=0.0)) == "took 1"
    # The process that gave up holds nothing.
    third = claim("a", limit=600.0)
    assert said(third).startswith("Waiting")
    first.kill()
    assert said(third) == "took 0"


def test_a_process_keeps_its_gpu(claim: Claim) -> None:
    """However often it asks, and in whatever order."""
    first = claim("a", "b", "again")
    assert [said(first) for _ in range(4)] == ["took 0", "took 0", "took 0", "took 1"]
    assert said(claim("a", "b")) == "took 1"


def test_without_cuda() -> None:
    """CUDA's own list; empty rather than an error where there is none."""
    names = gpus.cuda_gpus()
    assert len(set(names)) == len(names)
    if not Path("/dev/nvidiactl").exists():
        assert names == []
