# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The restoration, in a process that is killed while it writes its outputs."""

import os
import signal
from typing import Any, ClassVar

from matplotlib.figure import Figure

from lsst.drp.restore import RestoreCoaddTask
from lsst.pipe.base import Struct


class KillingFigure(Figure):
    """A figure of which one can be written; SIGKILL comes before the second.

    The order in which outputs are written is not defined: some are on disk
    then, and others are not.
    """

    saved: ClassVar[int] = 0

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        if KillingFigure.saved:
            os.kill(os.getpid(), signal.SIGKILL)
        KillingFigure.saved += 1
        super().savefig(*args, **kwargs)


class KilledWriteTask(RestoreCoaddTask):
    """Restores, and is killed when it writes the second of its figures."""

    _DefaultName: ClassVar[str] = "restoreCoadd"

    def run(self, *args: Any, **kwargs: Any) -> Struct:
        outputs = super().run(*args, **kwargs)
        for name in ("restored_coadd_plot", "restored_coadd_training_plot", "restored_coadd_kernels_plot"):
            setattr(outputs, name, KillingFigure())
        return outputs
