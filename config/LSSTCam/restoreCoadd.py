# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""LSSTCam, as drp_pipe and obs_lsst process it (DP2).

Dataset types have their default names: visit_image, direct_warp, deep_coadd.
"""

config.warpStorageClass = "ExposureF"

config.patchGeometry = "skymap"

# Pixels near bright stars and at the edge of the field are left out of the
# pipeline's own coadds, too.
config.buildStack.badMaskPlanes.extend(["ITL_DIP", "PARTLY_VIGNETTED", "SPIKE", "VIGNETTED"])
config.stackWarps.badMaskPlanes.extend(["PARTLY_VIGNETTED", "SPIKE"])
