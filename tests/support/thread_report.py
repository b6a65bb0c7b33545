# This file is part of drp_restore.
#
# Use of this source code is governed by a 3-clause BSD-style
# license that can be found in the LICENSE file.

"""The restoration, and a report of the threads that its quantum has used."""

import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

from threadpoolctl import threadpool_info

from lsst.drp.restore import RestoreCoaddTask


class ThreadWatch(threading.Thread):
    """Notes the CPU time of the process's threads, of those that end as well."""

    def __init__(self) -> None:
        super().__init__(name="watch", daemon=True)
        self.seconds: dict[str, float] = {}
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.05):
            self.look()

    def look(self) -> None:
        for task in Path("/proc/self/task").iterdir():
            try:
                fields = (task / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            self.seconds[task.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self._done.set()
        self.join()
        self.look()
        self.seconds.pop(str(self.native_id), None)


class ThreadReportTask(RestoreCoaddTask):
    """Puts a report of the threads into the task's metadata."""

    _DefaultName: ClassVar[str] = "restoreCoadd"

    def runQuantum(self, butlerQC: Any, inputRefs: Any, outputRefs: Any) -> None:
        watch = ThreadWatch()
        watch.start()
        wall, cpu = time.perf_counter(), time.process_time()
        super().runQuantum(butlerQC, inputRefs, outputRefs)
        watch.stop()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        import tensorflow as tf

        self.metadata["process"] = os.getpid()
        self.metadata["start_method"] = multiprocessing.get_start_method()
        self.metadata["cpu_per_wall"] = cpu / wall
        self.metadata["thread_seconds"] = sorted(watch.seconds.values())
        self.metadata["intra_op"] = tf.config.threading.get_intra_op_parallelism_threads()
        self.metadata["inter_op"] = tf.config.threading.get_inter_op_parallelism_threads()
        self.metadata["pools"] = [pool["num_threads"] for pool in threadpool_info()]
