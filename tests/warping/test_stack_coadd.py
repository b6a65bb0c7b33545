# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""A coadd as a stack of one exposure."""

from __future__ import annotations

import logging
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from coadds import CoaddHandle, make_coadd, make_tables
from handles import formatter_error
from warps import GEOMETRY, gaussian_kernel, make_afw_warp, make_warp

from lsst.drp.restore import InputError, StackCoaddConfig, StackCoaddTask
from lsst.drp.restore.stack.subtract_sky import SubtractSkyTask
from lsst.drp.restore.warping.stack_input import StackedInputs
from lsst.images import Mask, MaskSchema, get_legacy_deep_coadd_mask_planes
from lsst.images.cells import CellCoadd, CellGridBounds, CellIJ, CellPointSpreadFunction
from lsst.images.fields import ChebyshevField
from lsst.pipe.base import NoWorkFound


def stack(coadd: Any, error: Exception | None = None, **config: Any) -> StackedInputs:
    """Stack a coadd."""
    chosen = StackCoaddConfig()
    chosen.update(**config)
    return StackCoaddTask(config=chosen).run([CoaddHandle(coadd, error)], GEOMETRY, "i")


def test_pixels_variance_mask_and_psf_of_the_coadd() -> None:
    coadd = make_coadd(provenance=make_tables())
    coadd.mask.set("SATURATED", np.indices(coadd.bbox.shape)[0] == 20)
    coadd.image.array[40, 50] = np.nan
    result = stack(coadd, correlation=1.5)
    good = np.ones(coadd.bbox.shape, bool)
    good[20], good[40, 50] = False, False
    assert result.stack.n_exposures == 1 and result.stack.names == ("tract 0 patch 3 i coadd",)
    np.testing.assert_array_equal(result.stack.good[0], good)
    np.testing.assert_array_equal(result.stack.image[0][good], coadd.image.array[good])
    np.testing.assert_array_equal(result.stack.variance[0][good], 4.0)
    np.testing.assert_allclose(result.stack.correlation, 1.5, rtol=1e-6)
    np.testing.assert_allclose(result.stack.kernels[0, 1, 2], gaussian_kernel()[3:-3, 3:-3], atol=1e-7)
    assert result.seeing[0] == pytest.approx(3.0, abs=0.05) and result.dropped == []
    # The visits are those of the coadd.
    assert [(one.visit, one.detector, one.exposure) for one in result.inputs] == [
        (7, 1, 0),
        (7, 2, 0),
        (9, 1, 0),
    ]


def test_correlation_is_measured() -> None:
    """Noise that was smoothed has more power at low frequencies than its
    variance says.
    """
    coadd = make_coadd()
    noise = np.random.default_rng(3).normal(0.0, 2.0, (coadd.bbox.y.size + 1, coadd.bbox.x.size + 1))
    coadd.image.array[:] = 0.5 * (noise[1:, 1:] + noise[:-1, 1:] + noise[1:, :-1] + noise[:-1, :-1])
    # 4 at frequency zero, and 2.8 at the 0.16 cycles per pixel where it is measured.
    assert np.median(stack(coadd).stack.correlation) == pytest.approx(2.8, rel=0.15)
    assert np.median(stack(make_coadd()).stack.correlation) == pytest.approx(1.0, abs=0.2)


def test_empty_cells(caplog: pytest.LogCaptureFixture) -> None:
    """A cell that no visit covers has no PSF and no pixels."""
    coadd = make_coadd()
    grid = GEOMETRY.patch.cells
    kernels = np.tile(gaussian_kernel(), (2, 3, 1, 1))
    kernels[1, 2] = np.nan
    bounds = CellGridBounds(grid=grid, bbox=grid.bbox, missing=frozenset({CellIJ(i=1, j=2)}))
    parts = {"mask": coadd.mask, "variance": coadd.variance, "band": "i", "patch": GEOMETRY.patch}
    psf = CellPointSpreadFunction(kernels, bounds=bounds)
    # Whether its pixels are NaN or zero.
    zero = CellCoadd(coadd.image, psf=psf, **parts)
    with caplog.at_level(logging.INFO):
        result = stack(zero, correlation=1.0)
    expected = np.array([[True, True, True], [True, True, False]])
    np.testing.assert_array_equal(result.stack.has_kernel[0], expected)
    assert not result.stack.good[0, 40:, 80:].any() and result.stack.good[0, :40].all()
    assert "is not used in 1 of its 6 cells" in caplog.text
    assert "visits not known, 1 of 6 cells are empty" in caplog.text
    zero.image.array[40:, 80:] = np.nan
    np.testing.assert_array_equal(stack(zero, correlation=1.0).stack.good, result.stack.good)


def test_inexact_psf(caplog: pytest.LogCaptureFixture) -> None:
    """Pixels with INEXACT_PSF are used, unless they are configured to be bad."""
    like = make_coadd()
    mask = Mask(0, schema=MaskSchema(get_legacy_deep_coadd_mask_planes().values()), bbox=like.bbox)
    mask.set("INEXACT_PSF", np.indices(like.bbox.shape)[1] < 30)
    coadd = CellCoadd(
        like.image, mask=mask, variance=like.variance, psf=like.psf, band="i", patch=GEOMETRY.patch
    )
    with caplog.at_level(logging.INFO):
        result = stack(coadd, correlation=1.0)
    assert result.stack.good.all()
    np.testing.assert_array_equal(result.inexact_psf, np.indices(like.bbox.shape)[1] < 30)
    assert stack(like, correlation=1.0).inexact_psf is None
    assert "25.0% of the pixels have the mask plane INEXACT_PSF and are used" in caplog.text
    with caplog.at_level(logging.INFO):
        good = stack(coadd, correlation=1.0, badMaskPlanes=["NO_DATA", "INEXACT_PSF"]).stack.good[0]
    assert "INEXACT_PSF and are not used" in caplog.text
    assert not good[:, :30].any() and good[:, 30:].all()


def test_background_on_or_off(caplog: pytest.LogCaptureFixture) -> None:
    """After the sky subtraction, the state of the coadd's background does not
    matter.
    """
    coadd = make_coadd()
    background = ChebyshevField(coadd.bbox, np.array([[60.0, 5.0], [-8.0, 0.0]]), unit=u.nJy)
    coadd.image.array[:] += background.render(coadd.bbox, dtype=np.float32).array
    coadd.backgrounds.add("local", background)
    images = []
    for state, name in (("none is", None), ("'local' is", "local")):
        coadd.apply_background(name)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            result = stack(coadd)
        assert f"the background models 'local', of which {state} subtracted" in caplog.text
        images.append(SubtractSkyTask().run(result.stack).stack.image[0])
    assert abs(images[0].mean()) < 0.2
    np.testing.assert_allclose(images[0], images[1], atol=0.2)


@pytest.mark.usefixtures("geom")
def test_coadds_of_afw() -> None:
    """Those of HSC and DP1, with other names of mask planes."""
    coadd = make_afw_warp(mean=57.54, unit=None)
    coadd.mask.array[20] |= coadd.mask.getPlaneBitMask(["SAT"])
    coadd.mask.array[30] |= coadd.mask.getPlaneBitMask(["INTRP"])
    result = stack(coadd, correlation=1.0)
    inside = GEOMETRY.outer_bbox.slice_within(GEOMETRY.outer_bbox.padded(7))
    columns = slice(40, None)
    assert not result.stack.good[0, 13, columns].any() and result.stack.good[0, 23, columns].all()
    good = result.stack.good[0]
    np.testing.assert_allclose(
        result.stack.image[0][good], 57.54 * coadd.image.array[inside][good], rtol=1e-6
    )
    assert result.inputs == []


def test_coadds_that_cannot_be_restored() -> None:
    coadd = make_coadd()
    coadd.mask.set("NO_DATA", np.ones(coadd.bbox.shape, bool))
    with pytest.raises(NoWorkFound, match=r"(?s)The coadd of patch 3 .*all are masked by one of NO_DATA"):
        stack(coadd)
    empty = make_coadd()
    empty.image.array[:] = np.nan
    with pytest.raises(NoWorkFound, match="cannot be restored: .*no data on the patch"):
        stack(empty)
    damaged = formatter_error(EOFError("Compressed file ended"))
    with pytest.raises(InputError, match="cannot be decoded.*Repair or replace the dataset"):
        stack(make_warp(), damaged)
