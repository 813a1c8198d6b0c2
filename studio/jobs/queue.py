"""The queue as the page sees it: what keeps a worker process alive, and kills one that will not stop.

Knows the table and the worker's life. Refuses to know torch, and what a verb does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from studio.errors import JobError, StudioError
from studio.events import RunFinished
from studio.jobs.process import cause_of_death, kill
from studio.jobs.table import Job, JobState, JobTable
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
from studio.records.event_log import EventTail, Numbered
from studio.records.run import EVENTS
from studio.records.runs import RunStore
from studio.requests.work import Work, WorkKind
from studio.storage import FileLock

MAX_JOBS = 50
"""Jobs waiting or running in all, where owners are limited."""
CANCEL_SECONDS = 2.0
"""How long a worker may take to stop before it is killed."""
KEEP_SECONDS = 60.0
"""The same where what was reached is to be kept: decoding it takes its time."""
PATIENCE_SECONDS: Mapping[WorkKind, float] = {"training": 600.0, "profile": 30.0, "comparison": 30.0}
"""The same for work that ends after a step, or after what was made has been scored."""
LONGEST_BACK_OFF_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A worker that lived this long is started again at once when it dies."""

log = logging.getLogger(__name__)


class JobQueue:
    """The queue as the page sees it.

    Submitting, listing and attaching work as soon as it exists; jobs are done between `start` and `close`. Several
    queues may stand on one folder, in one process or many: one of their workers works, the others wait for its lock.
    With `owner=None` one sees and moves everything; any other owner only what is theirs.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        store: RunStore,
        in_process: bool = False,
        verbs: Mapping[WorkKind, str] | None = None,
        max_jobs_per_owner: int | None = None,
        max_jobs: int = MAX_JOBS,
        cancel_seconds: float = CANCEL_SECONDS,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        """Open the queue.

        Args:
            folder: Where it is kept; None takes the runs' folder.
            store: Where runs are kept.
            in_process: Work in a thread of this process (ZeroGPU, where the verb forks by itself). Nothing can be
                killed then: a job that does not stop softly runs on.
            verbs: What does each kind of work, as `module:function`, where that is not the usual.
            max_jobs_per_owner: Waiting and running jobs that one owner may have; None sets no limits at all.
            max_jobs: The same for all owners together, where owners are limited.
            cancel_seconds: See `CANCEL_SECONDS`.
            keep_seconds: See `KEEP_SECONDS`.
        """
        self.folder = (folder or store.folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.store = store
        self.in_process = in_process
        self.verbs = dict(verbs or {})
        self.max_jobs_per_owner = max_jobs_per_owner
        self.max_jobs = None if max_jobs_per_owner is None else max_jobs
        self.cancel_seconds = cancel_seconds
        self.keep_seconds = keep_seconds
        self._table = JobTable(self.folder)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._worker_pid: int | None = None
        self._trouble = ""

    # -- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> JobQueue:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Mark what a crash left, and start to work. Returns at once; torch is imported behind it."""
        if self._thread is not None:
            return
        self._recover_if_nobody_works()
        self._closing.clear()
        self._thread = threading.Thread(
            target=self._work_here if self.in_process else self._look_after_workers, name="jobs", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop working. What waits stays in the queue; a job that was running is interrupted and can be retried."""
        if self._thread is not None:
            self._closing.set()
            self._thread.join()
            self._thread = None
            self._recover_if_nobody_works()
        self._table.close()

    def _recover_if_nobody_works(self) -> None:
        lock = FileLock(self.folder / "worker.lock")
        if lock.try_acquire():
            try:
                recover(self._table, self.store)
            finally:
                lock.release()

    def _work_here(self) -> None:
        self._worker_pid = os.getpid()
        try:
            Worker(self.folder, self.store, self.verbs, unwanted=self._closing).run()
        except Exception as error:
            log.exception("the worker ended")
            self._trouble = str(error)
        finally:
            self._worker_pid = None

    # -- what the page does -------------------------------------------------------------------------------------------

    def submit(self, work: Work, *, owner: str = "local", front: bool = False) -> Job:
        """Write work down as a job; when this returns, it survives whatever happens to the studio.

        Raises:
            JobError: the owner, or the queue, has as many jobs as are taken.
            DiskFull: no room to write it down.
        """
        return self.get(
            self._table.add(work, owner, front=front, most_per_owner=self.max_jobs_per_owner, most=self.max_jobs)
        )

    def get(self, job_id: str, *, owner: str | None = None) -> Job:
        """The job of that id.

        Raises:
            JobError: there is none, or it is somebody else's.
        """
        return self._table.get(job_id, owner)

    def jobs(
        self,
        *,
        owner: str | None = None,
        states: Iterable[JobState] | None = None,
        kinds: Iterable[WorkKind] | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """What runs, then what waits in the order in which it will run, then what has ended, newest first."""
        return self._table.select(owner, states, limit, kinds)

    def job_for(self, work: Work, *, owner: str | None = None) -> Job | None:
        """The job that does this work or is to do it; None where none is, or no more."""
        alive = self.jobs(owner=owner, states=("running", "queued"))
        return next((job for job in alive if job.work == work), None)

    @property
    def paused(self) -> bool:
        """Whether no further job is begun. Survives a restart."""
        return bool(self._table.note("paused"))

    def pause(self) -> None:
        """Begin no further job; the one that runs goes on."""
        self._table.set_note("paused", True)

    def resume(self) -> None:
        self._table.set_note("paused", False)

    def move(self, job_id: str, position: int, *, owner: str | None = None) -> Job:
        """Put a waiting job at that position, from 0, among its owner's waiting jobs.

        Raises:
            JobError: it does not wait, is not there, or is somebody else's.
        """
        self._table.move(job_id, position, owner)
        return self.get(job_id)

    def cancel(self, job_id: str, *, keep: bool = False, owner: str | None = None) -> Job:
        """Ask a job to stop; one that has ended is left as it is.

        Args:
            job_id: Which.
            keep: Stop after the current step and keep what was reached, as a partial clip. Trainings and comparisons
                keep it in any case.
            owner: Who asks.
        """
        self._table.ask_to_stop(job_id, "keep" if keep else "cancel", owner)
        return self.get(job_id)

    def retry(self, job_id: str, *, owner: str | None = None) -> Job:
        """The same work as a new job; what had parts goes on where it stood.

        Raises:
            JobError: it has not ended yet, is not there, or is somebody else's.
        """
        old = self.get(job_id, owner=owner)
        if not old.final:
            raise JobError(f"The job is {old.state}; it can be retried when it has ended.", field="job", value=job_id)
        return self.get(
            self._table.add(
                old.work,
                old.owner,
                retry_of=old.id,
                attempts=old.attempts,
                most_per_owner=self.max_jobs_per_owner,
                most=self.max_jobs,
            )
        )

    def tail(self, job: Job, *, after: int = 0) -> EventTail | None:
        """The log of the run that a job makes, after that line; None before it makes one."""
        if job.run_id is None:
            return None
        return EventTail(self.store.folder / job.run_id / EVENTS, after=after)

    def events(self, job_id: str, *, after: int = 0, owner: str | None = None) -> list[Numbered]:
        """What has been said of the job's run after that event, numbered from 1 in order.

        Of previews only the latest is kept, so the numbers have gaps.
        """
        job = self.get(job_id, owner=owner)
        tail = self.tail(job, after=after)
        if tail is None:
            return []
        return [*tail.read(), *self.last_word(job, tail)]

    def last_word(self, job: Job, tail: EventTail) -> list[Numbered]:
        """That the clip is there: the run's own record says so, not its log."""
        with suppress(StudioError):
            if job.state == "complete" and job.run_id is not None:
                run = self.store.get(job.run_id)
                event = RunFinished(run_id=run.id, partial=run.partial, seconds=run.total_seconds)
                return [(tail.number + 1, event)]
        return []

    async def follow(self, job_id: str, *, after: int = 0, owner: str | None = None) -> AsyncIterator[Numbered]:
        """Replay what was said after that event, then go along until the job has ended."""
        tail: EventTail | None = None
        while True:
            # The job first: what a final job had to say is in its log by the time it is final.
            job = await asyncio.to_thread(self.get, job_id, owner=owner)
            tail = tail or self.tail(job, after=after)
            if tail is not None:
                for numbered in await asyncio.to_thread(tail.read):
                    yield numbered
                for numbered in self.last_word(job, tail):
                    yield numbered
            if job.final:
                return
            await asyncio.sleep(LOOK_SECONDS)

    def preload(self, preset_name: str) -> None:
        """Ask the worker to load a preset when it has nothing else to do."""
        self._table.set_note("preload", preset_name)

    def worker_state(self) -> WorkerState:
        """How the worker is."""
        pid = self._worker_pid
        if pid is None and self._thread is not None:
            return Dead(reason=self._trouble) if self._trouble else Starting()
        if pid is None:
            # This queue does not work; the lock says whether another's worker does.
            lock = FileLock(self.folder / "worker.lock")
            if lock.try_acquire():
                lock.release()
                return Dead(reason=self._trouble)
        return state_of_note(self._table.note("worker"), pid) or Starting()

    # -- looking after the worker -------------------------------------------------------------------------------------

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
                self._worker_pid = None
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
        self._worker_pid = worker.pid
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
