# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training from a seed to weights, interrupted or not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

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


@pytest.mark.slow
def test_training_is_reproducible_and_resumable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lsst.drp.restore.training import train as module

    plan = module.Plan(**PLAN)
    whole = module.train(plan, tmp_path / "whole", workers=1)
    for a, b in zip(whole, module.train(plan, tmp_path / "again", workers=1), strict=True):
        np.testing.assert_array_equal(a, b)

    crops = module.Crops
    for last in (1, 2):

        def stop(*args: object, seed: tuple[int, int], last: int = last, **kwargs: object) -> object:
            if seed[1] == last:
                raise KeyboardInterrupt
            return crops(*args, seed=seed, **kwargs)

        monkeypatch.setattr(module, "Crops", stop)
        with pytest.raises(KeyboardInterrupt):
            module.train(plan, tmp_path / "parts", workers=1)
    monkeypatch.setattr(module, "Crops", crops)
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
