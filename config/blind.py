# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Fit the PSF kernels to the exposures instead of taking them from PSF models
(appendix A of Sukurdeep, Navarro & Budavari).

The pipeline pipelines/restoreCoaddBlind.yaml applies it to RestoreCoaddTask.
"""

config.fitKernels.mode = "gaussian"

# The PSF models are not even looked at: they may be missing or wrong.
config.buildStack.psf = "gaussian"
