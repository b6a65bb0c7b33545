# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Training of the weights shipped with the package, on simulated skies:
``python -m lsst.drp.restore.training``.
"""
