# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""LSSTComCam, as drp_pipe and obs_lsst process it (DP1).

Dataset types have their default names: visit_image, direct_warp, deep_coadd.
"""

config.warpStorageClass = "ExposureF"
# The coadds of DP1 have no cells.
config.coaddStorageClass = "ExposureF"

config.patchGeometry = "skymap"
