# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""PSFs of simulated exposures."""

from __future__ import annotations

import galsim
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from simulations import NO_SOURCES, ONE_DETECTOR, read, read_all, simulate

from lsst.daf.butler import Butler
from lsst.drp.restore.simulation.camera import SimulatedCamera, SimulatedVisit
from lsst.drp.restore.simulation.config import SimulationConfig
from lsst.drp.restore.simulation.psf import SimulatedPsf, gaussian_radius, moffat_radius
from lsst.images import Box


def test_psf_varies(butler: Butler) -> None:
    """The PSF changes over each detector and from visit to visit."""
    simulate(butler, catalog=NO_SOURCES, n_visits=2, psf_variation=0.08, seed=5, detectors=(2, 1))
    kernels = [image.psf.compute_kernel_image(x=5.0, y=5.0).array for image in read_all(butler)]
    assert len({kernel.max() for kernel in kernels}) == 4
    for image in read_all(butler):
        first, second = (image.psf.compute_kernel_image(x=a, y=a).array for a in (2.0, 97.0))
        assert np.abs(first - second).max() > 2e-3 * first.max()


def test_seeing(butler: Butler) -> None:
    """Peaks of the PSFs are those of Moffat profiles of the stated seeing."""
    summary = simulate(butler, catalog=NO_SOURCES, n_visits=2, psf_variation=0.0, **ONE_DETECTOR)
    for row in summary.visits:
        assert 0.5 <= row["seeing"] <= 0.95
        kernel = read(butler, row["visit"], 0).psf.compute_kernel_image(x=50.0, y=50.0).array
        moffat = galsim.Moffat(beta=3.5, fwhm=row["seeing"] / 0.2)
        expected = moffat.drawImage(nx=101, ny=101, scale=1.0).array
        assert kernel.max() == pytest.approx(expected.max(), rel=2e-3)
    assert np.ptp(summary.visits["seeing"]) > 0.05


@pytest.mark.parametrize("loss", [0.1, 1e-3])
def test_radius_holds_the_flux(loss: float) -> None:
    """By GalSim's own profiles."""
    for profile, radius in (
        (galsim.Gaussian(fwhm=3.0), gaussian_radius(3.0, loss)),
        (galsim.Moffat(beta=3.5, fwhm=3.0), moffat_radius(3.0, 3.5, loss)),
    ):
        assert profile.calculateFWHM() == pytest.approx(3.0, rel=1e-3)
        r = np.linspace(0.0, radius, 4001)
        middle = 0.5 * (r[1:] + r[:-1])
        surface = np.array([profile.xValue(x, 0.0) for x in middle])
        assert np.sum(2 * np.pi * middle * surface * np.diff(r)) == pytest.approx(1 - loss, abs=1e-3)


def test_radius_reaches_the_faintest_pixel() -> None:
    for profile, radius in (
        (galsim.Gaussian(fwhm=3.0), gaussian_radius(3.0, 0.5, 1e-4)),
        (galsim.Moffat(beta=3.5, fwhm=3.0), moffat_radius(3.0, 3.5, 0.5, 1e-4)),
    ):
        assert profile.xValue(radius, 0.0) == pytest.approx(1e-4, rel=0.05)
    # A pixel fainter than the peak of the profile: nothing has to be drawn.
    assert gaussian_radius(3.0, 1.0, 10.0) == moffat_radius(3.0, 3.5, 1.0, 10.0) == 0.0


@pytest.mark.parametrize("kind", ["piff", "kernel", "gaussian"])
def test_profile_is_what_is_stored(kind: str) -> None:
    config = SimulationConfig(skymap="field", psf=kind, detector_size=100)
    camera = SimulatedCamera.fitting(config, Box.from_shape((200, 200)), 0.2)
    visit = SimulatedVisit.draw(config, 1, SkyCoord(150.0, 2.0, unit="deg"))
    psf = SimulatedPsf.draw(camera, visit, 2)
    stored = psf.stored.compute_kernel_image(x=30.0, y=60.0).array
    profile, method = psf.profile(30.0, 60.0)
    size = stored.shape[0]
    drawn = profile.drawImage(nx=size, ny=size, scale=1.0, method=method, dtype=float).array
    np.testing.assert_allclose(drawn / drawn.sum(), stored, atol=1e-3 * stored.max())
    assert 2 * psf.radius(config.psf_loss, np.inf) + 1 == pytest.approx(size, abs=4)
