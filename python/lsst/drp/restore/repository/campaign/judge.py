# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Criteria for suspicious images and unusual data, applied to the metrics of
restored patches.
"""

from __future__ import annotations

__all__ = ("find_outliers", "find_problems", "find_remarks")

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from .columns import COLUMNS, finite_values

# Limits of a restored image without problems.
_MAX_INCONSISTENT = 0.05
# Noise alone gives at most 0.5, whatever huberDelta is.
_MAX_LOSS = 0.75
# In units of the coadd's noise.
_MAX_PEDESTAL = 0.5

# Limits of its input data.
_MAX_NO_DATA = 0.05
_MAX_CLIPPED = 0.02
# Fraction of the visit images.
_MAX_DROPPED = 0.2
_MIN_EXPOSURES = 3
_MIN_KERNEL = 0.95

# Loss and SSIM depend on the field, so patches are compared with the other
# patches of their band.  An outlier is further from the median than this many
# robust standard deviations, and than this fraction of the distance between
# the median and the value of a perfect image.
_OUTLIER_SIGMA = 5.0
_OUTLIER_FRACTION = 0.1
# With fewer patches there is no useful median.
_MIN_PATCHES = 8
_COMPARED = (
    ("loss", 0.0, "unusually high loss ({:.3f}; median of the band {:.3f})"),
    ("ssim", 1.0, "unusually unlike the coadd (SSIM {:.3f}; median of the band {:.3f})"),
)

# Standard deviation over median absolute deviation of a Gaussian.
_SIGMA_PER_MAD = 1.4826


def find_problems(values: Mapping[str, float | None], *, converged: bool) -> Iterator[str]:
    """Find reasons why a restored image is suspicious, from its own metrics.

    Parameters
    ----------
    values : `~collections.abc.Mapping` [`str`, `float` or `None`]
        Values of `COLUMNS` by name.
    converged : `bool`
        Whether the restoration converged.

    Yields
    ------
    problem : `str`
        Description of one problem.
    """
    if not converged:
        yield "did not converge"
    loss = values["loss"]
    if loss is not None and not np.isfinite(loss):
        yield "the loss is not a number"
    elif loss is not None and loss > _MAX_LOSS:
        yield f"the exposures differ from it by more than their noise (loss {loss:.2f}, noise gives 0.5)"
    if (fraction := values["inconsistent"]) is not None and fraction > _MAX_INCONSISTENT:
        yield f"{fraction:.0%} of the pixels inconsistent with the exposures"
    pedestal, noise = values["pedestal"], values["sky_noise"]
    if noise and pedestal is not None and pedestal > _MAX_PEDESTAL * noise:
        yield f"empty sky is at {pedestal:.3g} nJy per pixel (noise of the coadd: {noise:.3g})"


def find_remarks(values: Mapping[str, float | None]) -> Iterator[str]:
    """Find unusual properties of the input data of a patch.

    Parameters
    ----------
    values : `~collections.abc.Mapping` [`str`, `float` or `None`]
        Values of `COLUMNS` by name.

    Yields
    ------
    remark : `str`
        Description of one property.
    """
    if (fraction := values["no_data"]) is not None and fraction > _MAX_NO_DATA:
        yield f"{fraction:.0%} of the pixels without data"
    exposures, dropped = values["exposures"], values["dropped"]
    if exposures is not None and exposures < _MIN_EXPOSURES:
        yield f"only {exposures:.0f} exposure" + "s" * (exposures != 1)
    if exposures is not None and dropped is not None and dropped > _MAX_DROPPED * (exposures + dropped):
        yield f"{dropped:.0f} visit images could not be used"
    if suspect := values["suspect"]:
        yield f"suspect exposures: {suspect:.0f} (named in the log)"
    if (fraction := values["clipped"]) is not None and fraction > _MAX_CLIPPED:
        yield f"{fraction:.1%} of the pixels clipped as outliers"
    if (kernel := values["kernel"]) is not None and kernel < _MIN_KERNEL:
        yield f"a PSF kernel contains only {kernel:.0%} of the flux"
    if (sharper := values["sharper"]) is not None and sharper < 0:
        yield "no sharper than the coadd"


def find_outliers(band: Sequence[Mapping[str, float | None]]) -> list[tuple[str, ...]]:
    """Compare the patches of a band with each other.

    Parameters
    ----------
    band : `~collections.abc.Sequence` \
            [`~collections.abc.Mapping` [`str`, `float` or `None`]]
        Values of `COLUMNS` by name for each patch of the band.

    Returns
    -------
    problems : `list` [`tuple` [`str`, ...]]
        Descriptions of the values of each patch that are outliers among those
        of all patches; all empty if there are too few patches.
    """
    problems: list[tuple[str, ...]] = [()] * len(band)
    for name, perfect, text in _COMPARED:
        values = [patch.get(name) for patch in band]
        known = finite_values(values)
        if known.size < _MIN_PATCHES:
            continue
        median = float(np.median(known))
        sigma = _SIGMA_PER_MAD * float(np.median(np.abs(known - median)))
        limit = max(_OUTLIER_SIGMA * sigma, _OUTLIER_FRACTION * abs(median - perfect))
        sign = 1 if COLUMNS[name].high_is_worse else -1
        for i, value in enumerate(values):
            if value is not None and sign * (value - median) > limit:
                problems[i] += (text.format(value, median),)
    return problems
