"""Processes and their ends: a worker dies with its page, gives way to it, and is killed with all that it started.

Knows signals and sessions. Refuses to know jobs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from studio.errors import JobError

KILL_SECONDS = 0.2
"""How long to wait for the programs of a killed worker to be gone; some systems leave their entries for longer."""
WORKER_NICENESS = 5
"""How far the worker stands back behind the page, from 0 to 19."""


def die_with_parent(parent: int) -> None:
    """Leave nothing running when the page is gone, however it went.

    The page holds the other end of standard input: its end is the page's. On Linux the kernel is asked as well, for a
    worker stuck inside a C call never gets to read. That request is tied to the *thread* that started the worker,
    which is why one long-lived thread of the queue does.
    """

    # Moved off descriptor 0, so that no program the worker starts inherits it or reads from it.
    page = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def read_to_the_end() -> None:
        with suppress(OSError):
            while os.read(page, 4096):
                pass
        _end_group()

    threading.Thread(target=read_to_the_end, name="parent", daemon=True).start()
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1  # PR_SET_PDEATHSIG, linux/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, int(signal.SIGKILL))
        if os.getppid() != parent:
            _end_group()


def give_way() -> None:
    """The page stays quick while a model keeps every core busy: whoever watches comes first, the work second."""
    if sys.platform == "win32":
        return
    os.nice(WORKER_NICENESS)
    # Linux may weigh sessions against each other instead of processes, and the worker is a session of its own.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(WORKER_NICENESS))


def _end_group() -> None:
    """End this process and what it started. A run under way is found without a writer, and marked interrupted."""
    if sys.platform != "win32" and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def kill(worker: subprocess.Popen[bytes]) -> None:
    """End a worker and all that it started, and wait until it is gone."""
    if sys.platform == "win32":
        worker.kill()
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    if sys.platform != "win32":  # what it had started is not ours to wait for, and dies a moment later
        limit = time.monotonic() + KILL_SECONDS
        with suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < limit:
                os.killpg(worker.pid, 0)
                time.sleep(0.005)


def cause_of_death(status: int) -> JobError:
    way_out = "Run it again; a new worker is ready for it."
    if status == -9:
        return JobError(
            "The worker was killed by the system, most likely because memory ran out.",
            way_out="Choose a smaller size, fewer frames or stronger offloading, and run it again.",
        )
    if status < 0:
        name = signal.strsignal(-status) or f"signal {-status}"
        return JobError(f"The worker crashed: {name}.", value=status, way_out=way_out)
    return JobError(f"The worker ended without a word, with status {status}.", value=status, way_out=way_out)
