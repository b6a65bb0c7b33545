# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""Configurations of ``bps submit`` in ``bps/restoreCoadd``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from doc_pages import TOP

from lsst.ctrl.bps import BPS_DEFAULTS, BPS_SEARCH_ORDER, BpsConfig
from lsst.ctrl.bps.initialize import translate_command_line_values

BPS = TOP / "bps" / "restoreCoadd"


def load_config(site: str, directory: Path, **options: Any) -> BpsConfig:
    """Read a file as ``bps submit`` does; the plugin is always Parsl's."""
    config = BpsConfig(
        str(BPS / f"{site}.yaml"),
        search_order=BPS_SEARCH_ORDER,
        defaults=BPS_DEFAULTS,
        wms_service_class_fqn="lsst.ctrl.bps.parsl.ParslService",
    )
    options = {"butler_config": "demo/campaign", "input": "sim", "output": "u/me/campaign"} | options
    translate_command_line_values(config, **options)
    config[".bps_defined.timestamp"] = "now"
    config[".bps_defined.operator"] = "me"
    config[".bps_defined.uniqProcName"] = "u_me_campaign_now"
    config[".bps_defined.submitPath"] = str(directory)
    return config


def seconds_per_patch(config: BpsConfig) -> int:
    labels = ("restoreCoadd", "detectRestoredSources")
    return sum(config[f".pipetask.{label}.requestWalltime"] for label in labels)
