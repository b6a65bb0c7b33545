# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The command line of the benchmarks: options that several of them have, and
how they are run.
"""

from __future__ import annotations

__all__ = ("Command", "add_fields", "add_jobs")

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """The command line of a benchmark.

    Parameters
    ----------
    name : `str`
        Name of its module in `benchmarks`.
    description : `str` or `None`
        Docstring of the module; the first paragraph is shown.
    add_options : `~collections.abc.Callable`
        Adds options to the parser that it is called with.
    run : `~collections.abc.Callable`
        Prints the results; called with the options and a folder for temporary
        files.
    """

    name: str
    description: str | None
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Path], None]

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """Read the options.

        Parameters
        ----------
        arguments : `~collections.abc.Sequence` [`str`], optional
            Arguments of the command line; by default those of this process.

        Returns
        -------
        options : `argparse.Namespace`
            The options.
        """
        first = (self.description or "").partition("\n\n")[0]
        parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{self.name}", description=first)
        self.add_options(parser)
        return parser.parse_args(arguments)

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Run the benchmark and print the time that it took.

        Parameters
        ----------
        arguments : `~collections.abc.Sequence` [`str`], optional
            See `parse`.
        """
        start = time.perf_counter()
        options = self.parse(arguments)
        with tempfile.TemporaryDirectory() as folder:
            self.run(options, Path(folder))
        print(f"{(time.perf_counter() - start) / 60:.1f} minutes in all")


def add_fields(parser: argparse.ArgumentParser, *, seeds: Sequence[int], size: int, visits: int) -> None:
    """Add the options of simulated fields.

    Parameters
    ----------
    parser : `argparse.ArgumentParser`
        Parser to add ``--seeds``, ``--size`` and ``--visits`` to.
    seeds : `~collections.abc.Sequence` [`int`]
        Default seeds, one for each field.
    size : `int`
        Default height and width, pixels.
    visits : `int`
        Default number of exposures.
    """
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=list(seeds), help="seeds of the fields")
    add("--size", type=int, default=size, help="height and width of a field, pixels, a multiple of 64")
    add("--visits", type=int, default=visits, help="number of exposures")


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """Add the options of `~benchmarks.jobs.run_jobs`.

    Parameters
    ----------
    parser : `argparse.ArgumentParser`
        Parser to add ``--workers`` and ``--log`` to.
    """
    add = parser.add_argument
    add("--workers", type=int, default=2, help="number of processes, one thread each")
    add("--log", type=Path, default=Path(os.devnull), help="file for the output of the jobs  [default: none]")
