# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The pipeline task that restores a patch in several bands: bands with few
exposures see where the others have their light.
"""

from __future__ import annotations

__all__ = (
    "RestoreMultibandCoaddConfig",
    "RestoreMultibandCoaddConnections",
    "RestoreMultibandCoaddTask",
)

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

import lsst.pex.config as pexConfig
import lsst.pipe.base as pipeBase
import lsst.pipe.base.connectionTypes as cT
from lsst.daf.butler import DatasetRef
from lsst.images import MaskedImage

from .outputs.datasets import describe_patch
from .outputs.restored_stack import RestoredStack
from .restoration.restoration import BandImage
from .restore_coadd import RestoreCoaddConfig, RestoreCoaddTask
from .restore_coadd_connections import RestoreCoaddConnections
from .stack.depth import point_depth
from .stack.exposure_stack import ExposureStack
from .transactions import all_or_nothing
from .warping.patch_geometry import PatchGeometry
from .warping.stack_input import StackedInputs


class RestoreMultibandCoaddConnections(RestoreCoaddConnections, dimensions=("skymap", "tract", "patch")):
    """Datasets of `RestoreMultibandCoaddTask`: those of `RestoreCoaddTask`,
    one for each band.
    """

    def __init__(self, *, config: RestoreMultibandCoaddConfig):
        super().__init__(config=config)
        for name in (*self.outputs, "coadd"):
            setattr(self, name, dataclasses.replace(getattr(self, name), multiple=True))
        self._bands = frozenset(config.bands)

    def adjustQuantum(
        self,
        inputs: dict[str, tuple[cT.BaseInput, Collection[Any]]],
        outputs: dict[str, tuple[cT.Output, Collection[Any]]],
        label: str,
        data_id: Any,
    ) -> tuple[
        Mapping[str, tuple[cT.BaseInput, Collection[Any]]], Mapping[str, tuple[cT.Output, Collection[Any]]]
    ]:
        """Leave out the bands that are not to be restored.

        Parameters
        ----------
        inputs, outputs : `dict`
            Connections and datasets by the connections' names.
        label : `str`
            Label of the task.
        data_id : `lsst.daf.butler.DataCoordinate`
            The patch.

        Returns
        -------
        inputs, outputs : `~collections.abc.Mapping`
            Those that have been changed.
        """
        if self._bands:
            for datasets in (inputs, outputs):
                for name, (connection, refs) in datasets.items():
                    if name in self.outputs or name in ("visit_images", "direct_warps", "coadd"):
                        kept = [ref for ref in refs if ref.dataId["band"] in self._bands]
                        datasets[name] = (connection, kept)  # type: ignore[assignment]
        super().adjustQuantum(inputs, outputs, label, data_id)
        return inputs, outputs


class RestoreMultibandCoaddConfig(RestoreCoaddConfig, pipelineConnections=RestoreMultibandCoaddConnections):
    """Configuration of `RestoreMultibandCoaddTask`."""

    bands = pexConfig.ListField[str](
        doc="Bands to restore; empty for all that the patch has visit images of.", default=[]
    )
    shareStructure = pexConfig.Field[bool](
        doc="Constrain the restoration of a band by the restored images of deeper bands. False "
        "restores band by band.",
        default=True,
    )


class RestoreMultibandCoaddTask(RestoreCoaddTask):
    """Restore one patch in several bands.

    Notes
    -----
    The deepest band is restored as `RestoreCoaddTask` does it.  Every other
    band is constrained by the restored images of deeper bands:
    `share_structure` for the default, input channels for `PublishedNetTask`.
    All exposures of all bands are in memory, or in temporary files, at the
    same time.

    The variance of a band does not include the noise of the deeper bands'
    images.
    """

    ConfigClass = RestoreMultibandCoaddConfig
    _DefaultName: ClassVar[str] = "restoreMultibandCoadd"
    config: RestoreMultibandCoaddConfig

    def runQuantum(
        self,
        butlerQC: pipeBase.QuantumContext,
        inputRefs: pipeBase.InputQuantizedConnection,
        outputRefs: pipeBase.OutputQuantizedConnection,
    ) -> None:
        """Translate between the Butler and `run_bands`.

        Parameters
        ----------
        butlerQC : `lsst.pipe.base.QuantumContext`
            Reads and writes the datasets.
        inputRefs : `lsst.pipe.base.InputQuantizedConnection`
            Input datasets.
        outputRefs : `lsst.pipe.base.OutputQuantizedConnection`
            Output datasets.
        """
        inputs = butlerQC.get(inputRefs)
        coadds = {str(handle.dataId["band"]): handle for handle in inputs.get("coadd", [])}
        assert butlerQC.quantum.dataId is not None
        data_id = dict(butlerQC.quantum.dataId.required)
        geometry = self._geometry(inputs, data_id, next(iter(coadds.values()), None))
        visit_images: dict[str, list[Any]] = {}
        for handle in inputs[self._input_name]:
            visit_images.setdefault(str(handle.dataId["band"]), []).append(handle)
        results = self.run_bands(
            visit_images,
            geometry,
            coadds={band: self._read_coadd(handle) for band, handle in coadds.items() if self._compares},
            num_cores=butlerQC.resources.num_cores,
        )
        with all_or_nothing(butlerQC):
            for name, refs in outputRefs:
                for ref in [refs] if isinstance(refs, DatasetRef) else refs:
                    if (of_band := results.get(str(ref.dataId["band"]))) is not None:
                        butlerQC.put(getattr(of_band, name), ref)

    def run_bands(
        self,
        visit_images: Mapping[str, Sequence[Any]],
        geometry: PatchGeometry,
        *,
        coadds: Mapping[str, MaskedImage] | None = None,
        num_cores: int = 1,
    ) -> dict[str, pipeBase.Struct]:
        """Restore a patch in several bands.

        Parameters
        ----------
        visit_images : `~collections.abc.Mapping` [`str`, \
                `~collections.abc.Sequence` [handle]]
            Deferred handles of the visit images, by band.
        geometry : `PatchGeometry`
            The pixel grid of the patch.
        coadds : `~collections.abc.Mapping` [`str`, \
                `lsst.images.MaskedImage`], optional
            The pipeline's coadds of the patch, for comparison, by band.
        num_cores : `int`, optional
            CPU cores to use.

        Returns
        -------
        outputs : `dict` [`str`, `lsst.pipe.base.Struct`]
            Output datasets as of `RestoreCoaddTask.run`, by band; without the bands
            that have too few visit images.

        Raises
        ------
        lsst.pipe.base.NoWorkFound
            Raised if no band has enough visit images.
        RestorationError
            Raised if an input or the configuration is wrong, or a training
            fails.
        """
        # Before the work of hours: it may be impossible.
        factor = self.config.superResolution
        geometry.refined(factor)
        n_visits = {band: self._stacker.count_exposures(images) for band, images in visit_images.items()}
        inputs: dict[str, StackedInputs] = {}
        reasons = []
        for band, images in visit_images.items():
            n_others = sum(n_visits.values()) - n_visits[band]
            try:
                inputs[band] = self._stacker.run(
                    images, geometry, band, oversampling=factor, n_other_exposures=n_others
                )
            except pipeBase.NoWorkFound as err:
                self.log.warning("Leaving out band %s: %s", band, err)
                reasons.append(str(err))
        if not inputs:
            raise pipeBase.NoWorkFound(" ".join(reasons) or f"Patch {geometry.patch.id} has no visit images.")
        results = self.restore_bands(
            {band: one.stack for band, one in inputs.items()},
            n_threads=num_cores,
            patch=describe_patch(geometry, ""),
        )
        return {
            band: self.make_outputs(result, inputs[band], geometry, band, (coadds or {}).get(band))
            for band, result in results.items()
        }

    def restore_bands(
        self, stacks: Mapping[str, ExposureStack], *, n_threads: int = 1, patch: str = ""
    ) -> dict[str, RestoredStack]:
        """Restore stacks of exposures of the same patch: the part of
        `run_bands` that knows only arrays.

        Parameters
        ----------
        stacks : `~collections.abc.Mapping` [`str`, `ExposureStack`]
            The exposures by band, on the same pixels.
        n_threads : `int`, optional
            CPU threads to use.
        patch : `str`, optional
            Data ID of the patch: random numbers differ between patches.

        Returns
        -------
        results : `dict` [`str`, `RestoredStack`]
            The restored exposures by band, the deepest band first.

        Raises
        ------
        RestorationError
            Raised if the configuration is wrong, or a training fails.
        """
        depths = {band: point_depth(stack) for band, stack in stacks.items()}
        results: dict[str, RestoredStack] = {}
        other_bands: list[BandImage] = []
        for band in sorted(depths, key=lambda band: -depths[band]):
            seen = tuple(other_bands) if self.config.shareStructure else ()
            self.log.info(
                "Band %s: %d exposures, 5 sigma for a point source at %.4g %s%s.",
                band,
                stacks[band].n_exposures,
                5.0 / np.sqrt(depths[band]) if depths[band] else np.inf,
                stacks[band].unit,
                "" if not seen else f", with the structure seen in {', '.join(results)}",
            )
            results[band] = self.restore(
                stacks[band], n_threads=n_threads, other_bands=seen, patch=patch + band
            )
            restoration = results[band].restoration
            other_bands.append(
                BandImage(
                    latent=restoration.latent,
                    error=restoration.error,
                    noise=results[band].stack.median_sigma,
                )
            )
        return results
