# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Exposures of a patch on one pixel grid, and what NumPy, SciPy and sep can do to them."""
