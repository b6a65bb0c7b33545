# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.
import numpy as np
import pytest
from stacks import make_restoration, star_field

from lsst.drp.restore.errors import DivergedError
from lsst.drp.restore.restoration.divergence import describe_extreme, require_finite, retry_diverged
from lsst.utils.logging import getLogger

LOG = getLogger("lsst.test")


@pytest.mark.parametrize("failures", [0, 1])
def test_second_try_has_a_smaller_rate(failures: int, caplog: pytest.LogCaptureFixture) -> None:
    factors: list[float] = []

    def train(factor: float) -> str:
        factors.append(factor)
        if len(factors) <= failures:
            raise DivergedError("The loss is nan.")
        return "trained"

    assert retry_diverged(train, LOG) == ("trained", failures)
    assert factors == [1.0, 0.25][: failures + 1]
    assert ("The loss is nan. Retrying" in caplog.text) == bool(failures)


def test_second_failure_is_an_error() -> None:
    factors: list[float] = []

    def train(factor: float) -> None:
        factors.append(factor)
        raise DivergedError("The loss is nan.")

    with pytest.raises(DivergedError):
        retry_diverged(train, LOG)
    assert factors == [1.0, 0.25]


def test_no_second_try() -> None:
    factors: list[float] = []

    def train(factor: float) -> None:
        factors.append(factor)
        raise DivergedError("The loss is nan.")

    with pytest.raises(DivergedError):
        retry_diverged(train, LOG, 0.0)
    assert factors == [1.0]


def test_latent_image_that_is_not_finite_is_an_error() -> None:
    stack, latent, _ = star_field(n=2, shape=(64, 64), n_stars=4)
    restoration = make_restoration(stack, latent)
    assert require_finite(restoration, stack) is restoration
    restoration.latent[3, 4] = np.inf
    with pytest.raises(DivergedError, match="1 of the .* pixels of the restored image are not finite"):
        require_finite(restoration, stack)


def test_the_most_extreme_good_pixel_is_described() -> None:
    stack, _, _ = star_field(n=3, shape=(64, 64), n_stars=4)
    stack.image[1, 3, 4] = -1e9
    stack.image[2, 3, 4] = 1e12
    stack.good[1, 3, 4], stack.good[2, 3, 4] = True, False
    assert describe_extreme(stack) == "the most extreme good pixel has 1e+09 nJy, on visit 1"
