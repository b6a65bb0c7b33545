# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""AstroClearNet as published (arXiv:2302.02030 and Sukurdeep, Navarro &
Budavari, Astronomy and Computing).

The pipeline pipelines/restoreCoaddPaper.yaml applies it to RestoreCoaddTask.
"""

from lsst.drp.restore import PublishedNetTask

# Its defaults are the papers' settings.
config.restorer.retarget(PublishedNetTask)

# The exposures of the papers are taken as the pipeline subtracted their sky.
config.sky.order = -1

# The latent image is the network's output (equation 6), as it is.
