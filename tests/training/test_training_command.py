# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""``python -m lsst.drp.restore.training``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lsst.drp.restore.restoration.network_weights import read_weights
from lsst.drp.restore.training.__main__ import main


@pytest.mark.slow
def test_command_writes_weights_that_the_package_can_read(tmp_path: Path) -> None:
    output = tmp_path / "weights.npz"
    arguments = ["--folder", str(tmp_path / "training"), "--output", str(output), "--version", "test"]
    arguments += ["--samples", "2", "--steps", "1", "--epochs", "1", "--epochs", "1", "--workers", "1"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    with np.load(output) as stored:
        assert str(stored["version"]) == "test"
        shapes = [stored[f"weights_{k:03d}"].shape for k in range(len(stored.files) - 1)]
    assert shapes == [array.shape for array in read_weights()]
    assert (tmp_path / "training" / "loss.png").exists()
    wrong = CliRunner().invoke(main, [*arguments, "--epochs", "3"])
    assert wrong.exit_code == 2
    assert "each of 2 stages" in wrong.output
