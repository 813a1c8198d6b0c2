"""The queue as the page sees it.

Knows the table, and the logs of what jobs make. Refuses to know torch, what a verb does, and how it is kept at work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from studio.errors import JobError, StudioError
from studio.events import RunFinished
from studio.jobs.keeper import CANCEL_SECONDS, KEEP_SECONDS, WorkerKeeper
from studio.jobs.table import Job, JobState, JobTable
from studio.jobs.worker import LOOK_SECONDS, WorkerState
from studio.records.event_log import EventTail, Numbered
from studio.records.run import EVENTS
from studio.records.runs import RunStore
from studio.requests.work import Work, WorkKind

MAX_JOBS = 50
"""Jobs waiting or running in all, where owners are limited."""


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
        self.max_jobs_per_owner = max_jobs_per_owner
        self.max_jobs = None if max_jobs_per_owner is None else max_jobs
        self._table = JobTable(self.folder)
        self._keeper = WorkerKeeper(
            self.folder,
            self._table,
            store,
            in_process=in_process,
            verbs=verbs or {},
            cancel_seconds=cancel_seconds,
            keep_seconds=keep_seconds,
        )

    # -- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> JobQueue:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Mark what a crash left, and start to work. Returns at once; torch is imported behind it."""
        self._keeper.start()

    def close(self) -> None:
        """Stop working. What waits stays in the queue; a job that was running is interrupted and can be retried."""
        self._keeper.close()
        self._table.close()

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
        return self._keeper.state()

    @property
    def worker_pid(self) -> int | None:
        """The process that works for this queue; None where none does just now."""
        return self._keeper.worker_pid
