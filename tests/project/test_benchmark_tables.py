# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Command lines, jobs and tables of the benchmarks, from results that are made
up.
"""

import argparse
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bands, scale, seeds
from benchmarks.command import Command, add_fields, add_jobs
from benchmarks.jobs import Job, run_jobs
from benchmarks.tables import block


def test_block() -> None:
    lines = block(
        "title", ("a", "long header"), {"row": [1.25, float("nan")], "a longer name" * 3: [2.0, "x"]}, ".1f"
    )
    assert lines[0] == "title" and lines[-1] == ""
    assert lines[1].split() == ["a", "long", "header"]
    assert lines[2].split() == ["row", "1.2", "-"]
    assert lines[3].endswith("x") and lines[3].startswith("a longer name" * 3 + " ")
    # Columns are aligned, however long the names of rows and columns are.
    assert len({len(line) for line in lines[1:-1]}) == 1


def report() -> tuple[int, str]:
    """Print, and say in which process and with how many threads."""
    print("printed by a job", flush=True)
    logging.getLogger("benchmark").warning("a warning of a job")
    return os.getpid(), os.environ["OMP_NUM_THREADS"]


def test_jobs_are_alone_and_quiet(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    jobs: list[Job] = [(name, report, ()) for name in ("a", "b")]
    with pytest.MonkeyPatch.context() as patch:
        # Set by the jobs' environment; restored here.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL"):
            patch.setenv(name, "7")
        done = run_jobs(jobs, 2, tmp_path / "log", threads=3)
    processes = {done[name][0] for name in ("a", "b")}
    assert len(processes) == 2 and os.getpid() not in processes
    assert {done[name][1] for name in ("a", "b")} == {"3"}
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "2 of 2: " in printed.err and "printed by a job" not in printed.err
    assert (tmp_path / "log").read_text() == "printed by a job\n" * 2
    # The main process still logs.
    assert logging.getLogger("benchmark").isEnabledFor(logging.WARNING)


def test_common_options(capsys: pytest.CaptureFixture) -> None:
    seen = []

    def add_options(parser: argparse.ArgumentParser) -> None:
        add_fields(parser, seeds=(1, 2), size=64, visits=3)
        add_jobs(parser)

    command = Command(
        name="example",
        description="First paragraph.\n\nSecond.",
        add_options=add_options,
        run=lambda options, folder: seen.append((options.seeds, folder.is_dir())),
    )
    options = command.parse(["--seeds", "5", "--workers", "4"])
    assert (options.seeds, options.size, options.visits, options.workers) == ([5], 64, 3, 4)
    command.main([])
    assert seen == [([1, 2], True)]
    assert capsys.readouterr().out == "0.0 minutes in all\n"
    with pytest.raises(SystemExit):
        command.parse(["--help"])
    shown = capsys.readouterr().out
    assert "python -m benchmarks.example" in shown and "First paragraph." in shown and "Second" not in shown


@pytest.mark.parametrize(("option", "value"), [("--size", "1000"), ("--visits", "4")])
def test_scale_refuses(option: str, value: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        scale.COMMAND.parse([option, value])
    assert "must be" in capsys.readouterr().err


def test_table_of_seeds() -> None:
    # Three seeds and the mean image; two faint stars and a bright one.
    flux = np.array([[0.9, 0.8, 1.0], [1.0, 1.0, 1.0], [1.1, 1.2, 1.0], [1.0, 1.0, 1.0]])
    result = seeds.SeedResult(
        flux=flux,
        snr=np.array([10.0, 12.5, 100.0]),
        psnr=np.array([20.0, 21.0, 22.0, 23.0]),
        loss=np.array([0.5, 0.5, 0.5, 0.4]),
        steps=np.array([100, 200, 300]),
        seconds=np.array([1.0, 2.0, 3.0]),
        spread=0.25,
    )
    lines = seeds.format_table([result]).splitlines()
    table = {line[:70].split(": ")[0]: line for line in lines}
    assert "21.00 +- 1.00, 23.00" in table["PSNR, dB"]
    assert "0.5000 +- 0.0000, 0.4000" in table["loss"]
    # Scatters of 0.1 and 0.2 over the seeds; noise of 1/10 and 1/12.5.
    assert "+0.0% +- 15.0%, 20.0%; +0.0%; 9.0%; 2" in table["flux, S/N 10 to 20"]
    assert "+0.0% +- 0.0%, 0.0%; +0.0%; 1.0%; 1" in table["flux, S/N over 50"]
    assert "nan" in table["flux, S/N 5 to 10"]
    assert "200, 2" in lines[-1]
    assert any(line.startswith("scatter of bright pixels") and "25.0%" in line for line in lines)


def test_table_of_bands() -> None:
    def measured(psnr: float, error: float) -> dict[str, object]:
        flux = [error - 0.1, error, error + 0.1]
        return {"psnr": psnr, "flux": flux * 2, "snr": [7.0] * 3 + [30.0] * 3}

    results = {
        seed: {"alone": measured(20.0, -0.2), "together": measured(20.0 + seed, 0.0)} for seed in (1, 2, 3)
    }
    table = bands.format_table(results)
    assert "20, 21" in table
    assert table.splitlines()[1].endswith("+2")
    assert "aperture, S/N 5 to 10: alone -0.200 +- 0.148 (9); together +0.000 +- 0.148 (9)" in table
    assert "aperture, S/N 20 to 50: alone -0.200" in table
