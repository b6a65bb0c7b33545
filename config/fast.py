# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restore without a network: the steps of the refinement alone, from a constant
image.

The pipeline pipelines/restoreCoaddFast.yaml applies it to RestoreCoaddTask.
"""

from lsst.drp.restore import ImageMMTask

config.restorer.retarget(ImageMMTask)
config.restorer.maxSteps = 0

# Those that the network's image would have been ahead by, too.
config.refine.steps = 40
