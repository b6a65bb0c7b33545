# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Settings of every test."""

import os
from pathlib import Path

import hypothesis
import pytest

# TensorFlow reads this when it is imported: errors only, not what it thinks of
# the machine's instruction set.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# The same examples everywhere, and no limit on the time of one: the first call
# of many a function imports or compiles what the others use.
hypothesis.settings.register_profile("reproducible", deadline=None, derandomize=True)
hypothesis.settings.load_profile("reproducible")


@pytest.fixture(scope="session")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a campaign, see `campaigns.make_campaign`; tests that
    change it copy it first.
    """
    from campaigns import make_campaign

    return make_campaign(tmp_path_factory.mktemp("campaign") / "repo")
