# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Hyper Suprime-Cam, as drp_pipe and obs_subaru process it.

After that pipeline's last step the visit images are also there with the final
calibrations, as dataset type pvi.
"""

config.connections.visit_images = "calexp"
config.connections.direct_warps = "deepCoadd_directWarp"
config.warpStorageClass = "ExposureF"
config.connections.coadd = "deepCoadd_calexp"
config.coaddStorageClass = "ExposureF"

# Rings of tracts with patches of 4000 pixels and a border of 100, which those
# at the edge of a tract do not have there: cells of 150 or 100 pixels.
config.patchGeometry = "skymap"
