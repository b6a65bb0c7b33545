# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""From seeds to weights, interrupted or not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lsst.drp.restore.restoration.network_weights import read_weights
from lsst.drp.restore.training.__main__ import main

# Not imported at the top of the module: Keras.
PLAN = {
    "samples": 3,
    "sample_size": 96,
    "stages": ((1, 2), (2, 1)),
    "steps": 2,
    "batch": 2,
    "crop_size": 64,
    "seed": 5,
}


def test_training_is_reproducible_and_resumable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lsst.drp.restore.training import train as module

    plan = module.Plan(**PLAN)
    whole = module.train(plan, tmp_path / "whole", workers=1)
    for a, b in zip(whole, module.train(plan, tmp_path / "again", workers=1), strict=True):
        np.testing.assert_array_equal(a, b)

    save = module._save
    for last in (1, 2):

        def stop(checkpoint: Path, *args: object, last: int = last) -> None:
            save(checkpoint, *args)
            if module._epochs(checkpoint) == last:
                raise KeyboardInterrupt

        monkeypatch.setattr(module, "_save", stop)
        with pytest.raises(KeyboardInterrupt):
            module.train(plan, tmp_path / "parts", workers=1)
    monkeypatch.setattr(module, "_save", save)
    parts = module.train(plan, tmp_path / "parts", workers=1)
    losses, others = (np.load(tmp_path / name / "checkpoint.npz")["losses"] for name in ("whole", "parts"))
    assert len(losses) == len(others) == 3
    assert losses[0] == others[0]
    # It goes on with the same crops, in another order: nearly the same steps of Adam.
    np.testing.assert_allclose(losses, others, rtol=0.1)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, atol=6 * plan.learning_rate)
    # What is done is not done again.
    again = module.train(plan, tmp_path / "whole", workers=1)
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_array_equal(a, b)

    module.plot_losses(tmp_path / "whole", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="another plan"):
        module.train(dataclasses.replace(plan, seed=6), tmp_path / "whole", workers=1)


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
