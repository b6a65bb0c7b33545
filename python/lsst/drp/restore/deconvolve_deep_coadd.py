# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The restored coadd as the deconvolved coadd of the Science Pipelines."""

from __future__ import annotations

__all__ = (
    "DeconvolveDeepCoaddConfig",
    "DeconvolveDeepCoaddConnections",
    "DeconvolveDeepCoaddTask",
)

from typing import Any, ClassVar

import numpy as np
import scipy.ndimage

import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from lsst.images.cells import CellCoadd

from .warping.legacy import replace_pixels

_PATCH = ("skymap", "tract", "patch", "band")

# The restored coadd has a Gaussian PSF at the centers of the pixels, the deblender one integrated over them.
# These weights along each axis lead from one to the other to 0.8 % of the peak, and make no pixel negative.
_PIXEL = (0.055, 0.89, 0.055)


class DeconvolveDeepCoaddConnections(pipeBase.PipelineTaskConnections, dimensions=_PATCH):
    """Datasets of `DeconvolveDeepCoaddTask`."""

    restored_coadd = cT.Input(
        doc="The restored coadd.",
        name="restored_coadd",
        storageClass="CellCoadd",
        dimensions=_PATCH,
    )
    coadd = cT.Input(
        doc="The pipeline's own coadd of the patch.",
        name="deep_coadd",
        storageClass="ExposureF",
        dimensions=_PATCH,
    )
    deconvolved_coadd = cT.Output(
        doc="The coadd with the pixels of the restored coadd: the deblender's input.",
        name="deconvolved_deep_coadd",
        storageClass="ExposureF",
        dimensions=_PATCH,
    )


class DeconvolveDeepCoaddConfig(
    pipeBase.PipelineTaskConfig, pipelineConnections=DeconvolveDeepCoaddConnections
):
    """Configuration of `DeconvolveDeepCoaddTask`."""


class DeconvolveDeepCoaddTask(pipeBase.PipelineTask):
    """Write the restored coadd in place of the output of
    ``DeconvolveExposureTask`` of the Science Pipelines: same dimensions,
    storage class, resolution, mask, variance and ``ExposureInfo``.

    Notes
    -----
    The resolution is the model PSF of the deblender: a circular Gaussian with
    a standard deviation of 0.8 pixels, integrated over the pixels.
    """

    ConfigClass = DeconvolveDeepCoaddConfig
    _DefaultName: ClassVar[str] = "deconvolveDeepCoadd"
    config: DeconvolveDeepCoaddConfig

    def run(self, restored_coadd: CellCoadd, coadd: Any) -> pipeBase.Struct:
        """Make the deconvolved coadd.

        Parameters
        ----------
        restored_coadd : `lsst.images.cells.CellCoadd`
            The restored coadd, with the pixels of the patch.
        coadd : `lsst.afw.image.Exposure`
            The pipeline's own coadd.

        Returns
        -------
        outputs : `lsst.pipe.base.Struct`
            One attribute:

            ``deconvolved_coadd``
                Copy of the coadd with the restored pixels, in the coadd's
                unit; zero where nothing constrains them
                (`lsst.afw.image.Exposure`).

        Raises
        ------
        InputError
            Raised if the coadds do not overlap, or the coadd has no
            photometric calibration.
        """
        # NaN spreads to the pixels next to it: they are filled before.
        image = np.nan_to_num(restored_coadd.image.array, nan=0.0)
        for axis in (0, 1):
            image = scipy.ndimage.convolve1d(image, _PIXEL, axis=axis, mode="constant")
        return pipeBase.Struct(deconvolved_coadd=replace_pixels(coadd, image, restored_coadd.bbox))
