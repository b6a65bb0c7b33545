# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Mistakes in one exposure, and in all of them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable

import numpy as np
import pytest
from decam import arrays, require
from stacks import moffat_kernel, star_field

from lsst.drp.restore import ExposureStack, RestorationError
from lsst.drp.restore.stack.exposure_checks import (
    CheckExposuresConfig,
    CheckExposuresTask,
    ExposureChecks,
)
from lsst.drp.restore.stack.from_arrays import stack_arrays
from lsst.drp.restore.stack.subtract_sky import SubtractSkyTask

WRONG = 2


def run(stack: ExposureStack, *, check_kernels: bool = True, **limits: list[float]) -> ExposureChecks:
    config = CheckExposuresConfig()
    config.update(**limits)
    background = SubtractSkyTask().run(stack)
    task = CheckExposuresTask(config=config)
    return task.run(background.stack, background.rms, check_kernels=check_kernels)


@pytest.fixture(scope="module")
def field() -> ExposureStack:
    """Stars on noise of 10 nJy, and 10 electrons per nJy."""
    stack = star_field(n=5, shape=(160, 160), n_stars=16, flux=(300.0, 20000.0), bad_fraction=0.01)[0]
    return dataclasses.replace(stack, image=10.0 * stack.image, variance=100.0 * stack.variance)


def spoil(
    stack: ExposureStack, mistake: Callable[[ExposureStack, int], None], exposures: range
) -> ExposureStack:
    """Return a copy with a mistake in some exposures."""
    stack = dataclasses.replace(
        stack,
        **{name: getattr(stack, name).copy() for name in ("image", "variance", "good", "kernels")},
    )
    for t in exposures:
        mistake(stack, t)
    return stack


def zero_point_23_9(stack: ExposureStack, t: int) -> None:
    """23.9 for 30: fluxes are too high."""
    scale = np.float32(10 ** (0.4 * 6.1))
    stack.image[t] *= scale
    stack.variance[t] *= scale**2


def zero_point_too_high(stack: ExposureStack, t: int) -> None:
    scale = np.float32(10 ** (-0.4 * 6.1))
    stack.image[t] *= scale
    stack.variance[t] *= scale**2


def sigma_for_variance(stack: ExposureStack, t: int) -> None:
    stack.variance[t] = np.sqrt(stack.variance[t])


def weight_for_variance(stack: ExposureStack, t: int) -> None:
    stack.variance[t] = 1.0 / stack.variance[t]


def wcs_off(stack: ExposureStack, t: int) -> None:
    stack.image[t] = np.roll(stack.image[t], (35, -12), axis=(0, 1))
    stack.variance[t] = np.roll(stack.variance[t], (35, -12), axis=(0, 1))
    stack.good[t] = np.roll(stack.good[t], (35, -12), axis=(0, 1))


def psf_off_center(stack: ExposureStack, t: int) -> None:
    stack.kernels[t] = np.roll(stack.kernels[t], 3, axis=-1)


def psf_too_narrow(stack: ExposureStack, t: int) -> None:
    stack.kernels[t] = moffat_kernel(1.4)


def psf_too_wide(stack: ExposureStack, t: int) -> None:
    stack.kernels[t] = moffat_kernel(10.0)


def no_photons(stack: ExposureStack, t: int) -> None:
    stack.variance[t][stack.good[t]] = 100.0


MISTAKES = [
    (zero_point_23_9, "275 times the flux (-6.10 mag)", "zero point", True),
    (zero_point_too_high, "(+6.10 mag)", "zero point", True),
    (sigma_for_variance, "3.1 times the stated noise", "standard deviation", True),
    (weight_for_variance, "times the stated noise", "is it a weight", True),
    (wcs_off, "off by +35.0 pixels in y and -12.0 in x", "WCS", True),
    (psf_off_center, "3.0 pixels off center", "pixel origin", True),
    (psf_too_narrow, "times as wide as its PSF kernel", "FWHM", True),
    (psf_too_wide, "times as wide as its PSF kernel", "FWHM", True),
    (no_photons, "same in bright sources", "photon noise", False),
]


@pytest.mark.parametrize(("mistake", "finding", "cause", "is_fatal"), MISTAKES)
def test_a_mistake_in_one_exposure_has_its_message(
    field: ExposureStack,
    caplog: pytest.LogCaptureFixture,
    mistake: Callable[[ExposureStack, int], None],
    finding: str,
    cause: str,
    is_fatal: bool,
) -> None:
    with caplog.at_level(logging.WARNING):
        checks = run(spoil(field, mistake, range(WRONG, WRONG + 1)))
    [warning] = [record.getMessage() for record in caplog.records]
    assert warning.startswith("Dropping visit 2: " if is_fatal else "visit 2: ")
    assert finding.removeprefix("3.1") in warning and cause in warning
    expected = np.arange(field.n_exposures) == WRONG
    np.testing.assert_array_equal([bool(found) for found in checks.findings], expected)
    np.testing.assert_array_equal(checks.dropped, expected & is_fatal)
    np.testing.assert_array_equal(checks.stack.good.any(axis=(1, 2)), ~checks.dropped)
    np.testing.assert_array_equal(checks.stack.has_kernel.any(axis=(1, 2)), ~checks.dropped)


@pytest.mark.parametrize(
    ("mistake", "is_refused"),
    [
        # Nothing in the exposures knows the right zero point.
        (zero_point_23_9, None),
        (sigma_for_variance, False),
        (weight_for_variance, True),
        (psf_off_center, True),
        # Galaxies look the same.
        (psf_too_narrow, False),
        (psf_too_wide, True),
        (no_photons, False),
    ],
)
def test_a_mistake_in_all_exposures(
    field: ExposureStack, mistake: Callable[[ExposureStack, int], None], is_refused: bool | None
) -> None:
    wrong = spoil(field, mistake, range(field.n_exposures))
    if is_refused:
        with pytest.raises(RestorationError, match="5 of 5 exposures .* visit 0: .* visit 4: .* limits"):
            run(wrong)
        return
    checks = run(wrong)
    assert not checks.dropped.any()
    assert all(checks.findings) == (is_refused is not None)


@pytest.mark.parametrize("mistake", [zero_point_23_9, wcs_off])
def test_of_two_exposures_both_are_suspect(
    field: ExposureStack, mistake: Callable[[ExposureStack, int], None]
) -> None:
    wrong = spoil(field, mistake, range(1, 2))
    pair = {
        name: getattr(wrong, name)[:2] for name in ("image", "variance", "good", "kernels", "correlation")
    }
    with pytest.raises(RestorationError, match=r"2 of 2 exposures .* visit 0: .* visit 1: "):
        run(dataclasses.replace(wrong, names=wrong.names[:2], **pair))


def test_another_field(field: ExposureStack, caplog: pytest.LogCaptureFixture) -> None:
    wrong = spoil(field, lambda stack, t: None, range(0))
    other = star_field(seed=8, n=1, shape=(160, 160), n_stars=30, flux=(300.0, 20000.0))[0]
    wrong.image[WRONG], wrong.variance[WRONG] = 10.0 * other.image[0], 100.0 * other.variance[0]
    wrong.good[WRONG], wrong.kernels[WRONG] = other.good[0], other.kernels[0]
    with caplog.at_level(logging.WARNING):
        assert np.flatnonzero(run(wrong).dropped).tolist() == [WRONG]
    assert "Dropping visit 2: none of its " in caplog.text and "mirrored" in caplog.text


def test_a_good_stack_stays_as_it_is(field: ExposureStack, caplog: pytest.LogCaptureFixture) -> None:
    task = CheckExposuresTask()
    with caplog.at_level(logging.INFO):
        checks = task.run(field)
    assert checks.stack is field
    assert not any(checks.findings) and not checks.dropped.any()
    np.testing.assert_allclose(checks.noise, 1.0, atol=0.08)
    np.testing.assert_allclose(checks.flux_noise, 1.0, atol=0.15)
    np.testing.assert_allclose(checks.flux_scale, 1.0, atol=0.01)
    np.testing.assert_allclose(checks.shift, 0.0, atol=0.05)
    np.testing.assert_allclose(checks.width_ratio, 1.0, atol=0.02)
    np.testing.assert_allclose(checks.kernel_offset, 0.0, atol=1e-5)
    # The sky's noise is that of 10,000 electrons.
    np.testing.assert_allclose(checks.photons, 0.01, rtol=0.1)
    assert (checks.n_common >= 9).all()
    [message] = [record.getMessage() for record in caplog.records]
    assert message.endswith(checks.table()) and "visit 3" in message
    metrics = checks.metrics()
    assert list(metrics) == list(field.names)
    assert metrics["visit 1"]["n_common"] == checks.n_common[1]
    assert metrics["visit 1"]["findings"] == "" and metrics["visit 1"]["dropped"] is False


def test_correlated_noise_that_is_not_stated(field: ExposureStack) -> None:
    rng = np.random.default_rng(4)
    wrong = spoil(field, lambda stack, t: None, range(0))
    noise = rng.normal(size=(wrong.shape[0] + 1, wrong.shape[1] + 1))
    smooth = (noise[1:, 1:] + noise[:-1, 1:] + noise[1:, :-1] + noise[:-1, :-1]) / 2
    wrong.image[WRONG] = np.where(field.image[WRONG] > 60.0, field.image[WRONG], 10.0 * smooth)
    [finding] = run(wrong).findings[WRONG]
    assert "correlated more than stated" in finding.text and not finding.is_fatal
    correlation = wrong.correlation.copy()
    correlation[WRONG] = 4.0
    assert not any(run(dataclasses.replace(wrong, correlation=correlation)).findings)


def test_a_sky_that_is_not_subtracted(field: ExposureStack) -> None:
    wrong = spoil(field, lambda stack, t: None, range(0))
    wrong.image[WRONG] += 500.0
    [finding] = run(wrong).findings[WRONG]
    assert "sky not subtracted" in finding.text and not finding.is_fatal


def test_limits(field: ExposureStack) -> None:
    def a_quarter_magnitude(stack: ExposureStack, t: int) -> None:
        stack.image[t] *= 1.3
        stack.variance[t] *= 1.3**2

    wrong = spoil(field, a_quarter_magnitude, range(WRONG, WRONG + 1))
    assert [finding.is_fatal for finding in run(wrong).findings[WRONG]] == [False]
    assert run(wrong, fluxScale=[1.1, 1.2]).dropped[WRONG]
    assert not run(wrong, fluxScale=[1.5, 2.0]).findings[WRONG]
    off = spoil(field, zero_point_23_9, range(WRONG, WRONG + 1))
    assert not run(off, fluxScale=[1.1, np.inf]).dropped.any()
    config = CheckExposuresConfig()
    config.fluxScale = [2.0, 1.5]
    with pytest.raises(ValueError, match="fluxScale"):
        config.validate()


def test_kernels_that_are_fitted_are_not_checked(field: ExposureStack) -> None:
    wrong = spoil(field, psf_off_center, range(field.n_exposures))
    assert not any(run(wrong, check_kernels=False).findings)


def test_a_stack_without_sources() -> None:
    stack = star_field(n=3, n_stars=0)[0]
    checks = run(stack)
    assert not any(checks.findings)
    assert np.isnan(checks.flux_scale).all() and np.isnan(checks.shift).all()
    np.testing.assert_allclose(checks.noise, 1.0, atol=0.08)


def test_an_exposure_without_good_pixels(field: ExposureStack) -> None:
    def masked(stack: ExposureStack, t: int) -> None:
        stack.good[t] = False

    checks = run(spoil(field, masked, range(WRONG, WRONG + 1)))
    assert not any(checks.findings) and np.isnan(checks.noise[WRONG])


def test_real_exposures_have_no_findings() -> None:
    require()
    data = {name: arrays()[name] for name in ("image", "variance", "mask", "psf")}
    stack = stack_arrays(
        **data, unit="adu", kernel_size=25, cell_size=None, normalize_psf=True, correlation=1.0, names=None
    ).stack
    checks = run(stack)
    assert checks.findings == ((),) * 10
    assert np.count_nonzero(checks.n_common) >= 8
    np.testing.assert_allclose(checks.noise, 0.9, atol=0.1)
