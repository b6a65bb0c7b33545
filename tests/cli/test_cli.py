# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The subcommands that the package adds to ``butler``."""

from __future__ import annotations

import subprocess
import sys

from click.testing import CliRunner

from lsst.daf.butler.cli.butler import cli
from lsst.drp.restore.cli import get_cli_subcommands

# Packages that take long to import, or that only some commands need.
HEAVY = ("astropy", "galsim", "jinja2", "keras", "lsst.images", "matplotlib", "numpy", "scipy", "tensorflow")


def test_butler_has_the_commands() -> None:
    names = [command.name for command in get_cli_subcommands()]
    assert names == ["ingest-exposures", "inspect-restored", "register-tract", "simulate-exposures"]
    listed = CliRunner().invoke(cli, ["--help"]).output
    for name in names:
        assert name in listed
        result = CliRunner().invoke(cli, [str(name), "--help"])
        assert result.exit_code == 0 and "Usage:" in result.output


def test_commands_import_only_what_the_butler_itself_imports() -> None:
    code = (
        "import sys, lsst.daf.butler.cli.butler, lsst.daf.butler.cli.utils, lsst.daf.butler.cli.opt;"
        "before = set(sys.modules);"
        "import lsst.drp.restore.cli; lsst.drp.restore.cli.get_cli_subcommands();"
        f"print([name for name in {HEAVY!r} if name in sys.modules and name not in before])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
