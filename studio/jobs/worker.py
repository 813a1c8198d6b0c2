"""The worker: takes the next job, walks `generate`, writes down what it says; measures and trains in between.

Knows verbs by their names, which are imported where they run. Refuses to know what a job does between two events, and
who keeps the worker alive.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from studio.errors import DiskFull, JobError, StudioError
from studio.events import GenerationEvent, ModelReady, RunFinished, RunStarted
from studio.jobs.table import Job, JobState, JobTable, Numbered
from studio.records.runs import RunStore
from studio.storage import FileLock

VERB = "studio.generate:generate"
"""What a job runs: `module:function`, called like `studio.generate.generate`."""
PRELOAD_VERB = "studio.jobs.preload:preload"
"""What loads a preset ahead of time."""
MEASURE_VERB = "studio.profiling:measure"
"""What measures a model, where somebody asks for it: called with a preset's name."""
TRAIN_VERB = "studio.finetune:go_on"
"""What trains a version: called with its id, and walked to its end."""
LOOK_SECONDS = 0.05
"""How often a worker writes down what was said and looks whether it is to stop, and the queue looks after it."""
IDLE_SECONDS = 0.2
"""How often an idle worker looks for a job."""

log = logging.getLogger(__name__)


class Worker:
    """Does the jobs of one folder, one after the other, for as long as it is wanted."""

    def __init__(self, folder: Path, store: RunStore, verb: str, *, unwanted: threading.Event) -> None:
        self.store = store
        self.verb = verb
        self.unwanted = unwanted
        self._lock = FileLock(folder / "worker.lock")
        self._book = JobTable(folder)
        self._diary = JobTable(folder, durable=False)
        self._state: dict[str, Any] = {
            "pid": os.getpid(),
            "state": "starting",
            "preset": None,
            "job": None,
            "reason": "",
            "measuring": None,
            "training": None,
        }

    def run(self) -> None:
        try:
            while not self._lock.try_acquire():
                if self.unwanted.wait(LOOK_SECONDS):
                    return
            recover(self._book, self.store)
            self._say(state="starting")
            verb, warm = self._prepare()
            self._say(state="ready")
            while not self.unwanted.is_set():
                try:
                    job = self._book.claim(os.getpid())
                    preset = None if job is not None else self._book.take_note("warm")
                    wanted = None if job is not None or preset else self._book.take_note("measure")
                    training = None if job is not None or preset or wanted else self._book.take_note("train")
                except DiskFull as full:  # no reason to lose the loaded model
                    log.warning("%s", full)
                    self.unwanted.wait(1.0)
                    continue
                if job is not None:
                    self._say(state="busy", job=job.id)
                    self._do(job, verb)
                    self._say(state="ready", job=None)
                elif preset is not None:
                    self._warm(warm, preset)
                elif wanted is not None:
                    self._measure(wanted)
                elif training is not None:
                    self._train(**training)
                else:
                    self.unwanted.wait(IDLE_SECONDS)
        finally:
            self._lock.release()
            self._book.close()
            self._diary.close()

    def _prepare(self) -> tuple[Callable[..., Any], Callable[[str], object] | None]:
        """Import what is heavy now, not when somebody waits for their first clip.

        Returns:
            The verb, and what loads a model ahead of time.
        """
        try:
            verb = _imported(self.verb)
            if self.verb == VERB:
                importlib.import_module("studio.pipelines")
            return verb, _imported(PRELOAD_VERB) if self.verb == VERB else None
        except Exception as error:
            self._say(state="dead", reason=f"The worker cannot work here: {error}.")
            raise

    def _warm(self, warm: Callable[..., object] | None, preset: str) -> None:
        """Load a preset before anybody asks. A failure is told to the first who asks."""
        if warm is None:
            return
        self._say(state="starting")
        try:
            warm(preset, store=self.store)
            self._say(state="ready", preset=preset)
        except Exception as error:
            log.warning("preset %s was not loaded ahead of time: %s", preset, error)
            self._say(state="ready")

    def _measure(self, wanted: dict[str, Any]) -> None:
        """Measure a model, saying how far it is; what went wrong stays to be read until the next is measured."""
        told: dict[str, Any] = {"preset": wanted["preset_name"], "running": True, "done": 0, "total": 0, "error": ""}
        looked = time.monotonic()

        def check() -> None:
            nonlocal looked
            if time.monotonic() - looked < LOOK_SECONDS:
                return
            looked = time.monotonic()
            if self.unwanted.is_set() or self._book.note("stop measuring") is not None:
                raise JobError("The measuring was stopped; nothing was changed.")

        self._say(state="measuring", measuring=told)
        try:
            for step in _imported(MEASURE_VERB)(store=self.store, check=check, **wanted):
                told |= {name: getattr(step, name) for name in ("done", "total") if hasattr(step, name)}
                self._say(measuring=told)
        except StudioError as error:
            told["error"] = str(error)
        except Exception as error:
            log.exception("measuring %s failed", wanted["preset_name"])
            told["error"] = f"Something went wrong: {type(error).__name__}: {error}."
        self._say(state="ready", preset=wanted["preset_name"], measuring=told | {"running": False})

    def _train(self, version_id: str, **how: Any) -> None:
        """Train a version; what happens to it stands in its own folder."""
        self._say(state="training", training=version_id)
        try:
            stream = _imported(TRAIN_VERB)(version_id, store=self.store, **how)
            with contextlib.closing(stream):
                for _ in stream:
                    if self.unwanted.is_set() or self._book.note("stop training") == version_id:
                        break
        except StudioError as error:
            log.warning("version %s: %s", version_id, error)
        except Exception:
            log.exception("training version %s failed", version_id)
        self._say(state="ready", preset=None, training=None)

    def _say(self, **changes: Any) -> None:
        self._state |= changes
        with suppress(StudioError):
            self._book.set_note("worker", self._state)

    def _do(self, job: Job, verb: Callable[..., Any]) -> None:
        stop, keep = threading.Event(), threading.Event()
        telling = _Telling(self._diary, job.id, stop, keep, self.unwanted)
        telling.start()
        state: JobState = "complete"
        error: StudioError | None = None
        finished = False
        try:
            stream = verb(
                job.request, store=self.store, owner=job.owner, stop=lambda: "keep" if keep.is_set() else None
            )
            for event in stream:
                telling.tell(event)
                finished = isinstance(event, RunFinished)
                if isinstance(event, ModelReady):
                    self._say(preset=job.request.preset)
                if stop.is_set() and not finished:
                    stream.close()
                    break
        except StudioError as failure:
            state, error = "failed", failure
        except Exception as failure:
            log.exception("job %s failed", job.id)
            state, error = "failed", StudioError(f"Something went wrong: {type(failure).__name__}: {failure}.")
        else:
            if not finished and stop.is_set():
                state = self._how_it_stopped(telling.run_id)
            elif not finished:
                state, error = "failed", JobError("The work ended without a clip and without a reason.")
        if state == "interrupted":
            error = stopped_with_the_studio()
        rest = telling.end()
        while True:
            try:
                self._book.end(job.id, state, error, rest)
                return
            except DiskFull as full:
                # The job has ended; only saying so must wait until there is room for one line.
                log.warning("%s", full)
                if self.unwanted.wait(1.0):
                    return

    def _how_it_stopped(self, run_id: str | None) -> JobState:
        """After its stream was closed: the clip may have been on disk already, and then it is complete."""
        with suppress(StudioError):
            if run_id is not None and self.store.get(run_id).state == "complete":
                return "complete"
        return "interrupted" if self.unwanted.is_set() else "cancelled"


def _imported(verb: str) -> Callable[..., Any]:
    """The function that `module:function` names."""
    module_name, _, function_name = verb.partition(":")
    return getattr(importlib.import_module(module_name), function_name)


class _Telling(threading.Thread):
    """Writes down what a stream says, a batch at a time, and passes on that it is to stop."""

    def __init__(
        self,
        diary: JobTable,
        job_id: str,
        stop: threading.Event,
        keep: threading.Event,
        unwanted: threading.Event,
    ) -> None:
        super().__init__(name=f"telling {job_id[:8]}", daemon=True)
        self.run_id: str | None = None
        self._diary = diary
        self._job_id = job_id
        self._stop_wanted = stop
        self._keep_wanted = keep
        self._unwanted = unwanted
        self._ended = threading.Event()
        self._guard = threading.Lock()
        self._untold: list[Numbered] = []
        self._number = 0

    def tell(self, event: GenerationEvent) -> None:
        with self._guard:
            self._number += 1
            self._untold.append((self._number, event))
        if isinstance(event, RunStarted):
            self.run_id = event.run_id
            with suppress(StudioError):  # at once: a crash in the next moment must find the run
                self._write()

    def run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            with suppress(StudioError):  # a full disk: told when there is room again, or with the job's end
                self._write()
                wanted = self._diary.wanted_stop(self._job_id)
                if wanted == "cancel" or self._unwanted.is_set():
                    self._stop_wanted.set()
                elif wanted == "keep":
                    self._keep_wanted.set()

    def _write(self) -> None:
        with self._guard:
            if self._untold:
                self._diary.write_events(self._job_id, self._untold)
                self._untold.clear()

    def end(self) -> list[Numbered]:
        """Stop, and hand back what is not written yet."""
        self._ended.set()
        self.join()
        return self._untold


def recover(book: JobTable, store: RunStore) -> None:
    """Mark what a crash left. Only for the holder of the lock: a job that runs without a worker runs no more."""
    left = book.running()
    if left is not None:
        state: Literal["cancelled", "interrupted"] = "cancelled" if left["stop"] == "cancel" else "interrupted"
        error = None if state == "cancelled" else stopped_with_the_studio()
        settle(store, left["run_id"], state, error)
        book.end(left["id"], state, error)
    store.sweep()


def settle(
    store: RunStore,
    run_id: str | None,
    state: Literal["interrupted", "cancelled", "failed"],
    error: StudioError | None,
) -> None:
    with suppress(StudioError):
        if run_id is not None:
            store.settle(run_id, state=state, error=error)


def stopped_with_the_studio() -> JobError:
    return JobError("The studio stopped while this job was running.", way_out="Run it again.")
