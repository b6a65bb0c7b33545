# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""AstroClearNet as published (arXiv:2302.02030 and Sukurdeep, Navarro &
Budavari, Astronomy and Computing).

The pipeline pipelines/restoreCoaddPaper.yaml applies it to RestoreCoaddTask.
"""

restorer = config.restorer  # noqa: F821

# Section 3.4: parallel depthwise convolutions, ReLU, batch normalization,
# concatenation, a pointwise convolution and a last ReLU.  The number and size
# of the convolutions are not published; these are the default's.
restorer.kernelSizes = [1, 3, 5, 7, 9, 11]
restorer.normalizeInput = False
restorer.leakiness = 0.0
restorer.batchNormalization = True
restorer.hiddenFilters = []
restorer.hiddenKernelSizes = []
restorer.brightnessWindow = 0
restorer.projectedOutput = False

# Equation 5; delta is not published.
restorer.huberDelta = 1.0

# Section 3.3: Adam, 0.002, times 0.95 every 1000 steps, 450 epochs.
restorer.learningRate = 0.002
restorer.learningRateDecay = 0.95
restorer.learningRateDecaySteps = 1000
restorer.maxGradientNorm = 0.0
restorer.maxEpochs = 450

# Whole-field epochs with the statistics of the whole field; nothing held out.
restorer.cropSize = 0
restorer.validationFraction = 0.0

# The exposures of the papers are taken as the pipeline subtracted their sky.
config.sky.order = -1  # noqa: F821

# The latent image is the network's output (equation 6), as it is.
config.refine.steps = 0  # noqa: F821
