# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Settings of every test."""

import os

import hypothesis

# TensorFlow reads this when it is imported: errors only, not what it thinks of
# the machine's instruction set.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# The same examples everywhere, and no limit on the time of one: the first call
# of many a function imports or compiles what the others use.
hypothesis.settings.register_profile("reproducible", deadline=None, derandomize=True)
hypothesis.settings.load_profile("reproducible")
