# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Restore with ImageMM instead of AstroClearNet.

The pipeline pipelines/restoreCoaddImageMM.yaml applies it to RestoreCoaddTask.
"""

from lsst.drp.restore import ImageMMTask

config.restorer.retarget(ImageMMTask)

# Each realization of the noise takes all steps again.
config.characterize.numRealizations = 3
