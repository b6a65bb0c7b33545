# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
"""Networks that nobody has trained."""

from __future__ import annotations

import keras
import numpy as np

from lsst.drp.restore.restoration.sky_network import build_network


def random_network() -> keras.Model:
    """A network with random weights, none of them zero."""
    # Keras' initializers have the seed of the process.
    keras.utils.set_random_seed(0)
    network = build_network()
    rng = np.random.default_rng(1)
    network.set_weights(
        [
            array + rng.normal(0, 0.3 * np.prod(array.shape[:3]) ** -0.5, array.shape)
            for array in network.get_weights()
        ]
    )
    return network
