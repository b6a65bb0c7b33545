# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Numbers that decide what the trained network is shown, in common to its
training and its use.
"""

from __future__ import annotations

__all__ = ("MAX_FACTOR", "NO_DATA_NOISE", "PENALTY", "STEPS")

STEPS = 30
"""Accelerated majorize-minimize steps of the first estimate, on the exposures'
own pixels.
"""

PENALTY = 1.0
"""L1 penalty of the first estimate in units of the standard deviation with
which the exposures measure the flux of a point source: pixels below this
significance go to zero.
"""

MAX_FACTOR = 4.0
"""Largest factor (and its inverse the smallest) by which such a step changes a
pixel.
"""

NO_DATA_NOISE = 10.0
"""Noise that the network is told where there are no data, in units of the
sky's; no pixel has more.
"""
