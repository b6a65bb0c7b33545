# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The restoration, and a report of the threads that its quantum may use."""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ClassVar
from unittest import mock

from threadpoolctl import threadpool_info

from lsst.drp.restore import RestoreCoaddTask


@contextmanager
def executors_of(package: str) -> Iterator[list[int | None]]:
    """Return a context that collects the sizes of all thread pools that a
    package's modules make, `None` for as many threads as there are cores.
    """
    sizes: list[int | None] = []
    make = ThreadPoolExecutor.__init__

    def watched(self: ThreadPoolExecutor, max_workers: int | None = None, *args: Any, **kwargs: Any) -> None:
        if sys._getframe(1).f_globals["__name__"].startswith(package):
            sizes.append(max_workers)
        make(self, max_workers, *args, **kwargs)

    with mock.patch.object(ThreadPoolExecutor, "__init__", watched):
        yield sizes


class ThreadReportTask(RestoreCoaddTask):
    """Puts a report of the threads into the task's metadata."""

    _DefaultName: ClassVar[str] = "restoreCoadd"

    def runQuantum(self, butlerQC: Any, inputRefs: Any, outputRefs: Any) -> None:
        with executors_of("lsst.drp.restore") as sizes:
            super().runQuantum(butlerQC, inputRefs, outputRefs)
        import tensorflow as tf

        self.metadata["process"] = os.getpid()
        self.metadata["start_method"] = multiprocessing.get_start_method()
        self.metadata["executors"] = [-1 if size is None else size for size in sizes]
        self.metadata["intra_op"] = tf.config.threading.get_intra_op_parallelism_threads()
        self.metadata["inter_op"] = tf.config.threading.get_inter_op_parallelism_threads()
        self.metadata["pools"] = [pool["num_threads"] for pool in threadpool_info()]
