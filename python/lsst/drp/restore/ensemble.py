# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The mean of several restorations, which differ by their random seed, and
what it depends on the seed.
"""

from __future__ import annotations

__all__ = ("average_restorations", "member_name", "member_weights")

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import astropy.table
import numpy as np

from .exposure_stack import ExposureStack
from .restoration import Restoration


def average_restorations(members: Iterable[Restoration], loss: Callable[[np.ndarray], float]) -> Restoration:
    """Average restorations of the same exposures.

    Parameters
    ----------
    members : `~collections.abc.Iterable` [`Restoration`]
        The restorations, refined; at least one.  They are taken one after the
        other, and only one latent image is kept besides the sums.
    loss : `~collections.abc.Callable`
        Takes a latent image and returns its loss per good pixel.

    Returns
    -------
    mean : `Restoration`
        The first one as it is if it is the only one.  Otherwise

        - ``latent`` is the mean and ``spread`` the variance of this mean, the
          members' variance over their number;
        - ``repeat`` is the mean of what the members make of other exposures;
        - ``steps``, ``seconds`` and ``n_retries`` are sums, and
          ``warm_start`` and ``initial_loss`` are means;
        - ``converged`` tells whether all of them are;
        - ``history`` has the rows of all, with a column ``member``;
        - ``weights`` has those of all: the first member's under their own
          names, the others' under `member_name`.
    """
    facts: list[Restoration] = []
    weights: dict[str, np.ndarray] = {}
    mean = squares = np.zeros((0, 0))
    for k, member in enumerate(members):
        if k == 1:
            mean = facts[0].latent.astype(np.float64)
            squares = np.zeros_like(mean)
        if k:
            # Welford's sums: no digits are lost, whatever the brightness.
            difference = member.latent - mean
            mean += difference / (k + 1)
            squares += difference * (member.latent - mean)
            facts.append(dataclasses.replace(member, latent=mean[:0]))
        else:
            facts.append(member)
        weights |= {member_name(k, name): value for name, value in member.weights.items()}
    first = facts[0]
    if len(facts) == 1:
        return first

    repeats = [member.repeat for member in facts]

    def repeat(other: ExposureStack) -> np.ndarray:
        total = repeats[0](other)
        for again in repeats[1:]:
            total = total + again(other)
        return total / np.float32(len(repeats))

    histories = [member.history.copy() for member in facts]
    for k, history in enumerate(histories):
        history["member"] = np.full(len(history), k)
        history["member"].description = "Number of the restoration, counted from 0."
    latent = mean.astype(np.float32)
    return dataclasses.replace(
        first,
        latent=latent,
        spread=(squares / (len(facts) * (len(facts) - 1))).astype(np.float32),
        converged=all(member.converged for member in facts),
        history=astropy.table.vstack(histories),
        weights=weights,
        steps=sum(member.steps for member in facts),
        loss=loss(latent),
        seconds=sum(member.seconds for member in facts),
        repeat=repeat,
        n_members=len(facts),
        n_retries=sum(member.n_retries for member in facts),
        warm_start=float(np.mean([member.warm_start for member in facts])),
        initial_loss=float(np.mean([member.initial_loss for member in facts])),
    )


def member_name(member: int, name: str) -> str:
    """Name a weight of one of several restorations.

    Parameters
    ----------
    member : `int`
        Number of the restoration, counted from 0.
    name : `str`
        Name of the weight in its network.

    Returns
    -------
    name : `str`
        The name, for all but the first one with a prefix.
    """
    return f"member_{member}/{name}" if member else name


def member_weights(weights: Mapping[str, np.ndarray], member: int) -> dict[str, np.ndarray]:
    """Select the weights of one of several restorations.

    Parameters
    ----------
    weights : `~collections.abc.Mapping` [`str`, `numpy.ndarray`]
        ``Restoration.weights`` of one restoration or of the mean of several.
    member : `int`
        Number of the restoration, counted from 0.

    Returns
    -------
    weights : `dict` [`str`, `numpy.ndarray`]
        Weights by their names in the network; empty if there are none of this
        number.
    """
    prefix = member_name(member, "")
    return {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if (name.startswith(prefix) if prefix else not name.startswith("member_"))
    }
