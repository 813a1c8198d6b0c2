"""What keeps a worker process alive, and kills one that will not stop.

Knows the worker's life and its jobs' ends. Refuses to know torch, what a verb does, and who submits work.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from studio.errors import JobError, StudioError
from studio.jobs.process import cause_of_death, kill
from studio.jobs.table import JobTable
from studio.jobs.worker import (
    GOES_ON,
    LOOK_SECONDS,
    Dead,
    Starting,
    Worker,
    WorkerState,
    recover,
    settle,
    state_of_note,
    stopped_with_the_studio,
)
from studio.records.runs import RunStore
from studio.requests.work import WorkKind
from studio.storage import FileLock

CANCEL_SECONDS = 10.0
"""How long a worker may take to stop before it is killed. One that is only slow stops within a block of a step or at
the end of decoding; killed, it loses the model, and where blocks take long, loading takes longer."""
KEEP_SECONDS = 60.0
"""The same where what was reached is to be kept: decoding it takes its time."""
PATIENCE_SECONDS: Mapping[WorkKind, float] = {
    "training": 600.0,
    "profile": 30.0,
    "comparison": 30.0,
    "enlarger training": 60.0,
}
"""The same for work that ends after a step, or after what was made has been scored."""
LONGEST_BACK_OFF_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A worker that lived this long is started again at once when it dies."""

log = logging.getLogger(__name__)


class WorkerKeeper:
    """One queue's worker, between `start` and `close`: a process, or a thread of this one."""

    def __init__(
        self,
        folder: Path,
        table: JobTable,
        store: RunStore,
        *,
        in_process: bool,
        verbs: Mapping[WorkKind, str],
        cancel_seconds: float,
        keep_seconds: float,
    ) -> None:
        """Nothing is begun yet; the arguments are those of `JobQueue`."""
        self.folder = folder
        self.store = store
        self.in_process = in_process
        self.verbs = dict(verbs)
        self.cancel_seconds = cancel_seconds
        self.keep_seconds = keep_seconds
        self.worker_pid: int | None = None
        self._table = table
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble = ""

    def start(self) -> None:
        """Mark what a crash left, and begin; returns at once."""
        if self._thread is not None:
            return
        self._recover_if_nobody_works()
        self._closing.clear()
        self._thread = threading.Thread(
            target=self._work_here if self.in_process else self._look_after_workers, name="jobs", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the worker; a job that was running is interrupted."""
        if self._thread is not None:
            self._closing.set()
            self._thread.join()
            self._thread = None
            self._recover_if_nobody_works()

    def state(self) -> WorkerState:
        """How the worker is."""
        pid = self.worker_pid
        if pid is None and self._thread is not None:
            return Dead(reason=self._trouble) if self._trouble else Starting()
        if pid is None:
            # This queue does not work; the lock says whether another's worker does.
            lock = FileLock(self.folder / "worker.lock")
            if lock.try_acquire():
                lock.release()
                return Dead(reason=self._trouble)
        return state_of_note(self._table.note("worker"), pid) or Starting()

    def _recover_if_nobody_works(self) -> None:
        lock = FileLock(self.folder / "worker.lock")
        if lock.try_acquire():
            try:
                recover(self._table, self.store)
            finally:
                lock.release()

    def _work_here(self) -> None:
        self.worker_pid = os.getpid()
        try:
            Worker(self.folder, self.store, self.verbs, unwanted=self._closing).run()
        except Exception as error:
            log.exception("the worker ended")
            self._trouble = str(error)
        finally:
            self.worker_pid = None

    def _look_after_workers(self) -> None:
        """The thread that keeps one worker process alive. It is also the one that starts it: see `die_with_parent`."""
        deaths = 0
        while not self._closing.is_set():
            began = time.monotonic()
            try:
                worker = self._start_worker()
            except OSError as error:
                self._trouble = f"The worker cannot be started: {error}."
                log.error(self._trouble)
                deaths += 1
            else:
                stopped_it = self._watch(worker)
                self.worker_pid = None
                with suppress(StudioError):
                    self._record_death(worker, stopped_it)
                lived = time.monotonic() - began
                deaths = 0 if stopped_it or lived > STEADY_SECONDS else deaths + 1
            if deaths > 1:
                self._closing.wait(min(0.5 * 2 ** (deaths - 2), LONGEST_BACK_OFF_SECONDS))

    def _start_worker(self) -> subprocess.Popen[bytes]:
        # A session of its own: a Ctrl-C at the terminal is ours to handle, and a kill takes what the worker started.
        worker = subprocess.Popen(
            [
                *(sys.executable, "-m", "studio.jobs", "--worker", str(self.folder)),
                *("--runs", str(self.store.folder), "--parent", str(os.getpid())),
                *(f"--verb={kind}={verb}" for kind, verb in self.verbs.items()),
            ],
            stdin=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            start_new_session=True,
        )
        self.worker_pid = worker.pid
        self._trouble = ""
        return worker

    def _watch(self, worker: subprocess.Popen[bytes]) -> bool:
        """Stay with a worker until it is gone; True where it was we who ended it."""
        wished_since: dict[tuple[str, str], float] = {}
        while worker.poll() is None:
            if self._closing.wait(LOOK_SECONDS):
                kill(worker)
                return True
            with suppress(StudioError):
                job = self._table.running()
                if job is None or job["worker"] != worker.pid or job["stop"] is None:
                    continue
                since = wished_since.setdefault((job["id"], job["stop"]), time.monotonic())
                usual = self.keep_seconds if job["stop"] == "keep" else self.cancel_seconds
                patience = PATIENCE_SECONDS.get(job["kind"], usual)
                if time.monotonic() - since > patience:
                    log.warning("job %s did not stop within %.0f s; its worker is killed", job["id"], patience)
                    kill(worker)
                    return True
        return False

    def _record_death(self, worker: subprocess.Popen[bytes], stopped_it: bool) -> None:
        """Say what became of the job that a worker left unfinished, and of its run."""
        if worker.stdin is not None:
            worker.stdin.close()
        kill(worker)  # what it had started may have outlived it
        last = state_of_note(self._table.note("worker"), worker.pid)
        last_words = last.reason if isinstance(last, Dead) else ""
        reason = JobError(last_words) if last_words else cause_of_death(worker.returncode)
        if not stopped_it:
            self._trouble = reason.message
            log.warning("%s", reason.message)
        left = self._table.running()
        if left is None or left["worker"] != worker.pid:
            return
        if left["stop"] is not None:
            state, error = "cancelled", None
        elif stopped_it or worker.returncode in (-signal.SIGTERM, -signal.SIGINT):
            state, error = "interrupted", stopped_with_the_studio()
        else:
            state, error = "failed", reason
        # The run before the job: who hears that the job has ended may look at its run at once.
        settle(self.store, left["run_id"], state, error)
        self.store.sweep()
        if state == "interrupted" and left["kind"] in GOES_ON:
            self._table.queue_again(left["id"])
        else:
            self._table.end(left["id"], state, error)
