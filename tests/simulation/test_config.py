# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Options of a simulation, and its streams of random numbers."""

from __future__ import annotations

import pytest

from lsst.drp.restore.simulation.config import BANDS, SimulationConfig, Stream


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"psf": "airy"}, "psf must be"),
        ({"n_visits": 0}, "n_visits must be positive"),
        ({"cosmic_rays": -1.0}, "cosmic_rays must not be negative"),
        ({"seeing_range": (0.9, 0.5)}, "seeing_range goes from 0.9 down to 0.5"),
        ({"detectors": (0, 2)}, "at least one detector"),
        ({"moffat_beta": 1.0}, "no finite flux"),
    ],
)
def test_bad_option(option: dict[str, object], message: str) -> None:
    """An impossible option is refused with the reason."""
    with pytest.raises(ValueError, match=message):
        SimulationConfig(skymap="field", **option)


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(ValueError, match="Cannot simulate: psf must be .*; n_visits must be .*; noise_seed"):
        SimulationConfig(skymap="field", psf="airy", n_visits=0, noise_seed=-1)


def test_colors_need_a_known_band() -> None:
    assert SimulationConfig(skymap="field", band="narrow").physical_filter == "SimCam-narrow"
    with pytest.raises(ValueError, match=f"band must be one of {', '.join(BANDS)}, not 'narrow'"):
        SimulationConfig(skymap="field", band="narrow", color=(0.1, 0.0))


def test_names() -> None:
    config = SimulationConfig(skymap="field", collection="u/me", instrument="Cam", band="r")
    assert (config.run, config.physical_filter) == ("u/me/run", "Cam-r")


def test_streams_are_independent_and_reproducible() -> None:
    config = SimulationConfig(skymap="field", seed=3)
    draws = {
        (stream, key): config.generator(stream, *key).random()
        for stream in Stream
        for key in ((), (1,), (2,), (1, 2))
    }
    assert len(set(draws.values())) == len(draws)
    other = SimulationConfig(skymap="field", seed=3, n_visits=20)
    assert other.generator(Stream.PSF, 1, 2).random() == draws[Stream.PSF, (1, 2)]


def test_noise_has_a_seed_of_its_own() -> None:
    plain, seeded = SimulationConfig(skymap="field"), SimulationConfig(skymap="field", noise_seed=9)
    for stream in Stream:
        same = plain.generator(stream, 1).random() == seeded.generator(stream, 1).random()
        assert same == (stream is not Stream.NOISE)
