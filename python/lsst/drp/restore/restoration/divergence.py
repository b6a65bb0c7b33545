# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Trainings whose loss becomes infinite or NaN."""

from __future__ import annotations

__all__ = ("RETRY_FACTOR", "describe_extreme", "require_finite", "retry_diverged")

from collections.abc import Callable

import numpy as np

from lsst.utils.logging import LsstLogAdapter

from ..errors import DivergedError
from ..stack.exposure_stack import ExposureStack
from .restoration import Restoration

RETRY_FACTOR = 0.25
"""Factor on the learning rate with which a training that diverged is repeated:
small enough to matter, and large enough for the epochs that there are.
"""


def retry_diverged[T](
    train: Callable[[float], T], log: LsstLogAdapter, factor: float = RETRY_FACTOR
) -> tuple[T, int]:
    """Repeat a training once if it diverges, with a smaller learning rate.

    Parameters
    ----------
    train : `~collections.abc.Callable`
        Takes a factor on the learning rate, and trains from fresh weights.
    log : `lsst.utils.logging.LsstLogAdapter`
        Logger of a warning.
    factor : `float`, optional
        The factor for the second time; 0 for no second time.

    Returns
    -------
    result : `T`
        Result of ``train``.
    n_retries : `int`
        Number of trainings that diverged before: 0 or 1.

    Raises
    ------
    DivergedError
        Raised if the last training diverges.
    """
    try:
        return train(1.0), 0
    except DivergedError as err:
        if not factor:
            raise
        log.warning("%s Retrying from fresh weights with %g of the learning rate.", err, factor)
    return train(factor), 1


def require_finite(restoration: Restoration, stack: ExposureStack) -> Restoration:
    """Check a latent image.

    Parameters
    ----------
    restoration : `Restoration`
        The image and how it was found.
    stack : `ExposureStack`
        The exposures it was restored from.

    Returns
    -------
    restoration : `Restoration`
        The same.

    Raises
    ------
    DivergedError
        Raised if a pixel of the image is infinite or NaN.
    """
    finite = np.isfinite(restoration.latent)
    if not finite.all():
        raise DivergedError(
            f"{np.count_nonzero(~finite)} of the {finite.size} pixels of the restored image are not finite. "
            f"Mask pixels of the exposures that should not be fitted: {describe_extreme(stack)}."
        )
    return restoration


def describe_extreme(stack: ExposureStack) -> str:
    """Describe the good pixel of a stack that is farthest from zero.

    Parameters
    ----------
    stack : `ExposureStack`
        The exposures.

    Returns
    -------
    text : `str`
        Part of a sentence.
    """
    extremes = [np.abs(image).max(initial=0.0, where=good) for _, image, _, good in stack.planes()]
    k = int(np.argmax(extremes))
    return f"the most extreme good pixel has {extremes[k]:.3g} {stack.unit}, on {stack.names[k]}"
