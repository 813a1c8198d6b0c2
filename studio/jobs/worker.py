"""The worker: takes the next job, walks the verb of its work, and says how it ended.

Knows verbs by their names, which are imported where they run. Refuses to know what a job does between two events, and
who keeps the worker alive.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast

from pydantic import TypeAdapter, ValidationError

from studio.errors import DiskFull, JobError, StudioError
from studio.events import (
    ComparisonFinished,
    EnlargementFinished,
    InsertionFinished,
    MapsFinished,
    ModelReady,
    ProfilingFinished,
    RunFinished,
    RunStarted,
    StopWish,
    TrainingFinished,
    TrainingForecast,
)
from studio.jobs.table import Job, JobState, JobTable
from studio.jobs.verbs import PRELOAD, VERBS, Verb, imported
from studio.records.runs import RunStore
from studio.requests.work import WorkKind
from studio.storage import FileLock

LOOK_SECONDS = 0.05
"""How often a worker looks whether its job is to stop, and the queue looks after the worker."""
IDLE_SECONDS = 0.2
"""How often an idle worker looks for a job."""
GOES_ON: frozenset[WorkKind] = frozenset({"comparison", "enlargement"})
"""Work in parts: it gives the turn back between two of them, and goes on by itself after the studio was stopped."""
_ENDS = (
    RunFinished,
    TrainingFinished,
    TrainingForecast,
    ProfilingFinished,
    ComparisonFinished,
    EnlargementFinished,
    MapsFinished,
    InsertionFinished,
)
"""What a stream says last, when its work is done."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Starting:
    """The worker imports what is heavy, or loads a model."""

    state: Literal["starting"] = "starting"


@dataclass(frozen=True, kw_only=True)
class Ready:
    """It waits for work."""

    preset: str | None = None
    """The model that is loaded."""
    state: Literal["ready"] = "ready"


@dataclass(frozen=True, kw_only=True)
class Busy:
    """It does a job."""

    job: str
    kind: WorkKind
    preset: str | None = None
    """The model that is loaded."""
    state: Literal["busy"] = "busy"


@dataclass(frozen=True, kw_only=True)
class Dead:
    """There is none."""

    reason: str = ""
    state: Literal["dead"] = "dead"


WorkerState: TypeAlias = Starting | Ready | Busy | Dead
_STATES: TypeAdapter[WorkerState] = TypeAdapter(WorkerState)


def state_to_note(state: WorkerState) -> dict[str, object]:
    return {"pid": os.getpid()} | _STATES.dump_python(state, mode="json")


def state_of_note(note: object, pid: int | None) -> WorkerState | None:
    """What the worker with that process id wrote, or any with None; None where it wrote nothing that can be read."""
    if not isinstance(note, dict) or (pid is not None and note.get("pid") != pid):
        return None
    try:
        return _STATES.validate_python({name: value for name, value in note.items() if name != "pid"})
    except ValidationError:  # another version's
        return None


class Worker:
    """Does the jobs of one folder, one after the other, for as long as it is wanted."""

    def __init__(
        self, folder: Path, store: RunStore, verbs: Mapping[WorkKind, str] | None = None, *, unwanted: threading.Event
    ) -> None:
        """A worker that has not begun.

        Args:
            folder: Where the queue is kept.
            store: Where runs are kept.
            verbs: What does each kind of work, where that is not the usual.
            unwanted: Set when it is to end.
        """
        self.store = store
        self.verbs = {**VERBS, **(verbs or {})}
        self.unwanted = unwanted
        self._lock = FileLock(folder / "worker.lock")
        self._table = JobTable(folder)
        self._preset: str | None = None

    def run(self) -> None:
        try:
            while not self._lock.try_acquire():
                if self.unwanted.wait(LOOK_SECONDS):
                    return
            recover(self._table, self.store)
            self._tell(Starting())
            self._import_heavy()
            self._tell(Ready())
            while not self.unwanted.is_set():
                try:
                    job = self._table.claim(os.getpid())
                    preset = None if job is not None else self._table.take_note("preload")
                except DiskFull as full:  # no reason to lose the loaded model
                    log.warning("%s", full)
                    self.unwanted.wait(1.0)
                    continue
                if job is not None:
                    self._tell(Busy(job=job.id, kind=job.kind, preset=self._preset))
                    self._do(job)
                    self._tell(Ready(preset=self._preset))
                elif isinstance(preset, str):
                    self._preload(preset)
                else:
                    self.unwanted.wait(IDLE_SECONDS)
        finally:
            self._lock.release()
            self._table.close()

    def _import_heavy(self) -> None:
        """Import what is heavy now, not when somebody waits for their first clip."""
        try:
            imported(self.verbs["clip"])
            if self.verbs["clip"] == VERBS["clip"]:
                importlib.import_module("studio.pipelines")
        except Exception as error:
            self._tell(Dead(reason=f"The worker cannot work here: {error}."))
            raise

    def _preload(self, preset: str) -> None:
        """Load a preset before anybody asks. A failure is told to the first who asks."""
        if self.verbs["clip"] != VERBS["clip"]:
            return
        self._tell(Starting())
        try:
            imported(PRELOAD)(preset, store=self.store, gives_way=self._is_wanted)
            self._preset = preset
        except Exception as error:
            log.warning("preset %s was not loaded ahead of time: %s", preset, error)
        self._tell(Ready(preset=self._preset))

    def _is_wanted(self) -> bool:
        """Whether there is something better to do than what nobody has asked for."""
        return self.unwanted.is_set() or self._table.others_wait()

    def _tell(self, state: WorkerState) -> None:
        with suppress(StudioError):
            self._table.set_note("worker", state_to_note(state))

    def _do(self, job: Job) -> None:
        watch = _StopWatch(self._table, job, self.unwanted)
        state: JobState = "complete"
        error: StudioError | None = None
        finished = False
        try:
            with watch:
                finished = self._walk(job, watch)
        except StudioError as failure:
            state, error = "failed", failure
        except Exception as failure:
            log.exception("job %s failed", job.id)
            state, error = "failed", StudioError(f"Something went wrong: {type(failure).__name__}: {failure}.")
        again = job.kind in GOES_ON and not finished and error is None and watch.stop_asked_for is None
        if not (finished or again) and error is None:
            if watch.wish is None:
                state, error = "failed", JobError("The work ended without a result and without a reason.")
            else:
                state = self._how_it_stopped(job)
        if job.kind != "clip":
            self._preset = None  # training unloads it, measuring and comparing may have loaded another
        self._end(job, state, stopped_with_the_studio() if state == "interrupted" else error, again=again)

    def _walk(self, job: Job, watch: _StopWatch) -> bool:
        """Follow the work to its end or until it is to stop; whether it came to its end."""
        verb = cast(Verb, imported(self.verbs[job.kind]))
        finished = False
        with contextlib.closing(verb(job.work, store=self.store, owner=job.owner, stop=watch)) as stream:
            for event in stream:
                if isinstance(event, RunStarted):
                    watch.run_id = event.run_id
                    self._table.made(job.id, event.run_id)  # at once: a crash in the next moment must find the run
                elif isinstance(event, ModelReady) and job.kind == "clip":
                    self._preset = job.work.preset  # pyright: ignore[reportAttributeAccessIssue]
                    self._tell(Busy(job=job.id, kind=job.kind, preset=self._preset))
                finished = isinstance(event, _ENDS) and not (
                    job.kind == "comparison" and isinstance(event, RunFinished)
                )
                if watch() == "cancel" and not finished:
                    break
        return finished

    def _end(self, job: Job, state: JobState, error: StudioError | None, *, again: bool) -> None:
        while True:
            try:
                if again:
                    self._table.queue_again(job.id)
                else:
                    self._table.end(job.id, state, error)
                return
            except DiskFull as full:
                # The job has ended; only saying so must wait until there is room for one line.
                log.warning("%s", full)
                if self.unwanted.wait(1.0):
                    return

    def _how_it_stopped(self, job: Job) -> JobState:
        """After its stream was closed: the clip may have been on disk already, and then it is complete."""
        if job.kind == "clip":
            run_id = self._table.get(job.id, None).run_id
            with suppress(StudioError):
                if run_id is not None and self.store.get(run_id).state == "complete":
                    return "complete"
        return "interrupted" if self.unwanted.is_set() else "cancelled"


class _StopWatch(threading.Thread):
    """Looks now and then whether a job is to stop, so that whoever works can ask as often as they like."""

    def __init__(self, table: JobTable, job: Job, unwanted: threading.Event) -> None:
        super().__init__(name=f"stop watch {job.id[:8]}", daemon=True)
        self.wish: StopWish | None = None
        self.stop_asked_for: Literal["cancel", "keep"] | None = None
        """What somebody asked for; else the wish is the queue's own."""
        self.run_id: str | None = None
        self._table = table
        self._job = job
        self._unwanted = unwanted
        self._ended = threading.Event()

    def __call__(self) -> StopWish | None:
        return self.wish

    def __enter__(self) -> _StopWatch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            with suppress(StudioError):  # a full disk
                self._look()

    def _look(self) -> None:
        self.stop_asked_for = self._table.wanted_stop(self._job.id)
        if self._unwanted.is_set() or self.stop_asked_for == "cancel":
            self.wish = "cancel"
        elif self.stop_asked_for == "keep":
            self.wish = "keep"
        elif self._job.kind in GOES_ON:
            self.wish = "give way" if self._table.others_wait() else None


def recover(table: JobTable, store: RunStore) -> None:
    """Mark what a crash left. Only for the holder of the lock: a job that runs without a worker runs no more."""
    left = table.running()
    if left is not None:
        state: Literal["cancelled", "interrupted"] = "interrupted" if left["stop"] is None else "cancelled"
        error = None if state == "cancelled" else stopped_with_the_studio()
        settle(store, left["run_id"], state, error)
        if state == "interrupted" and left["kind"] in GOES_ON:
            table.queue_again(left["id"])
        else:
            table.end(left["id"], state, error)
    store.sweep()


def settle(
    store: RunStore,
    run_id: str | None,
    state: Literal["interrupted", "cancelled", "failed"],
    error: StudioError | None,
) -> None:
    """Say on disk how a run ended whose writer is gone; one that had ended by itself is left as it is."""
    with suppress(StudioError):
        if run_id is not None:
            store.settle(run_id, state=state, error=error)


def stopped_with_the_studio() -> JobError:
    return JobError("The studio stopped while this job was running.", way_out="Run it again.")
