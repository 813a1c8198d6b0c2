"""Jobs: the durable queue. The page submits and attaches; a process of its own does the work, one job at a time.

    with JobQueue(store=RunStore()) as queue:
        job = queue.submit(request)
        async for number, event in queue.follow(job.id):
            ...

What was submitted survives a closed tab, a reload and a killed server: jobs and what their streams said lie in
`jobs.sqlite`, in the runs' folder. Three parts, one file each would be torn apart, so they stand here in this order:

    _Book       the tables, and every statement that touches them; shared by all processes
    _Worker     takes the next job, walks `generate`, writes down what it says
    JobQueue    what the page sees; keeps a worker process alive, and kills one that will not stop

Two workers never overlap: whoever works holds `worker.lock`, which the operating system takes back only when that
process is gone. A job is stopped softly first, by closing its stream; a worker that has not answered in time is killed
with everything it started.

Knows queues, processes and their ends. Refuses to know what a job does between two events, and torch: the verb is
imported by name, and only where it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import logging
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from studio.errors import DiskFull, JobError, RequestError, StudioError
from studio.events import (
    GenerationEvent,
    ModelReady,
    PreviewFrame,
    RunFinished,
    RunStarted,
    event_from_json,
    event_to_json,
)
from studio.request import GenerationRequest, read_request, request_to_json
from studio.runs import RunStore, utc_now
from studio.storage import FileLock, is_damage, lacks_room, no_room_for, open_database, transaction

JobState = Literal["queued", "running", "complete", "failed", "cancelled", "interrupted"]
FINAL: frozenset[JobState] = frozenset({"complete", "failed", "cancelled", "interrupted"})

VERB = "studio.generate:generate"
"""What a job runs: `module:function`, called like `studio.generate.generate`."""
MEASURE_VERB = "studio.calibrate:measure"
"""What measures a model, where somebody asks for it: called with a preset's name."""
TRAIN_VERB = "studio.finetune:go_on"
"""What trains a version: called with its id, and walked to its end."""
BOOK_VERSION = 1
KEPT_EVENT_LOGS = 200
"""Finished jobs whose events can still be replayed; of older ones only the job itself is kept."""
MAX_JOBS = 50
"""Jobs waiting or running in all, where owners are limited."""
CANCEL_SECONDS = 2.0
"""How long a worker may take to stop before it is killed."""
KEEP_SECONDS = 60.0
"""The same where what was reached is to be kept: decoding it takes its time."""
KILL_SECONDS = 0.2
"""How long to wait for the programs of a killed worker to be gone; some systems leave their entries for longer."""
WORKER_NICENESS = 5
"""How far the worker stands back behind the page, from 0 to 19."""
LOOK_SECONDS = 0.05
"""How often a worker writes down what was said and looks whether it is to stop, and the queue looks after it."""
IDLE_SECONDS = 0.2
"""How often an idle worker looks for a job."""
LONGEST_BACK_OFF_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A worker that lived this long is started again at once when it dies."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One request in the queue, or what became of it."""

    id: str
    """128 random bits, hexadecimal: whoever holds it may attach."""
    owner: str
    state: JobState
    position: int | None
    """Jobs before it in the order in which they will run; None where it is not waiting."""
    request: GenerationRequest
    run_id: str | None
    """The run it made, from the moment the run began."""
    created: str
    """ISO 8601, UTC, like `started` and `finished`."""
    started: str | None
    finished: str | None
    error: dict[str, Any] | None
    """`StudioError.to_json`."""
    attempts: int
    """How often the request was begun, earlier jobs that this one retries included."""

    @property
    def final(self) -> bool:
        return self.state in FINAL


# ---------------------------------------------------------------------------------------------------------------------
# The book

_STATES = ", ".join(repr(state) for state in get_args(JobState))
_BOOK_SCHEMA = (
    f"""CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ({_STATES})),
        place INTEGER NOT NULL,
        request TEXT NOT NULL,
        run_id TEXT,
        created TEXT NOT NULL,
        started TEXT,
        finished TEXT,
        error TEXT,
        attempts INTEGER NOT NULL CHECK (attempts >= 0),
        retry_of TEXT REFERENCES jobs (id),
        worker INTEGER,
        stop TEXT CHECK (stop IN ('cancel', 'keep')),
        CHECK ((finished IS NULL) = (state IN ('queued', 'running'))),
        CHECK (state != 'running' OR (started IS NOT NULL AND worker IS NOT NULL))
    )""",
    "CREATE INDEX jobs_by_state ON jobs (state, place)",
    "CREATE INDEX jobs_by_owner ON jobs (owner, started)",
    # One worker, one job: the schema itself refuses a second one.
    "CREATE UNIQUE INDEX one_running ON jobs (state) WHERE state = 'running'",
    """CREATE TABLE events (
        job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        kind TEXT NOT NULL,
        record TEXT NOT NULL,
        PRIMARY KEY (job_id, number)
    ) WITHOUT ROWID""",
    "CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    f"PRAGMA user_version = {BOOK_VERSION}",
)

_Numbered = tuple[int, GenerationEvent]


class _Book:
    """`jobs.sqlite`. Every method is one transaction; one connection, used by one thread at a time."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        """Open the book, or begin one.

        Args:
            folder: Where it lies.
            durable: Whether a commit waits for the disk. A killed process loses nothing either way; a power cut may
                take the last moments of what was not durable, but tears nothing.
        """
        self.path = folder / "jobs.sqlite"
        self._guard = threading.RLock()
        try:
            try:
                self._connection = self._open()
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                self._set_aside(error)
                self._connection = self._open()
            if not durable:
                self._connection.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error as error:
            raise _book_trouble(error, folder) from error

    def _open(self) -> sqlite3.Connection:
        connection = open_database(self.path)
        try:
            with transaction(connection):
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version == 0:
                    for statement in _BOOK_SCHEMA:
                        connection.execute(statement)
            if version not in (0, BOOK_VERSION):
                raise JobError(
                    f"The queue in {self.path} was written by another version of the studio.",
                    field=str(self.path),
                    value=version,
                    way_out="Move the file away to begin a new queue; the runs are not in it.",
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_aside(self, error: sqlite3.Error) -> None:
        """A queue that cannot be read must not keep the studio shut; the file is kept for whoever can mend it."""
        aside = self.path.with_name(f"jobs.damaged-{int(time.time())}.sqlite")
        log.error("the queue is damaged (%s); it is kept as %s and a new one is begun", error, aside.name)
        for ending in ("-wal", "-shm", "-journal"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        os.replace(self.path, aside)

    def close(self) -> None:
        with self._guard:
            self._connection.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._guard:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise _book_trouble(error, self.path.parent) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection, transaction(connection):
            yield connection

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def add(
        self,
        request: GenerationRequest,
        owner: str,
        *,
        front: bool = False,
        retry_of: str | None = None,
        attempts: int = 0,
        most_per_owner: int | None = None,
        most: int | None = None,
    ) -> str:
        job_id = secrets.token_hex(16)
        with self._writing() as connection:
            _refuse_a_flood(connection, owner, most_per_owner, most)
            lowest, highest = connection.execute(
                "SELECT coalesce(min(place), 0), coalesce(max(place), 0) FROM jobs"
                " WHERE state = 'queued' AND owner = ?",
                (owner,),
            ).fetchone()
            connection.execute(
                "INSERT INTO jobs (id, owner, state, place, request, created, attempts, retry_of)"
                " VALUES (?, ?, 'queued', ?, ?, ?, ?, ?)",
                (
                    job_id,
                    owner,
                    lowest - 1 if front else highest + 1,
                    json.dumps(request_to_json(request)),
                    utc_now(),
                    attempts,
                    retry_of,
                ),
            )
        return job_id

    def get(self, job_id: str, owner: str | None) -> Job:
        with self._reading() as connection:
            return self._job(_row(connection, job_id, owner), _line(connection))

    def select(self, owner: str | None, states: Iterable[JobState] | None, limit: int) -> list[Job]:
        """What runs, then what waits in the order in which it will run, then what has ended, newest first."""
        wanted = tuple(states) if states is not None else get_args(JobState)
        with self._reading() as connection:
            line = _line(connection)
            rows = connection.execute(
                f"SELECT * FROM jobs WHERE state IN ({', '.join('?' * len(wanted))}) AND (? IS NULL OR owner = ?)"
                " ORDER BY finished IS NOT NULL, finished DESC",
                (*wanted, owner, owner),
            ).fetchmany(max(limit, 0) + len(line))
        place = {job_id: number for number, job_id in enumerate(line)}
        rows.sort(key=lambda row: (row["finished"] is not None, place.get(row["id"], -1)))
        jobs = []
        for row in rows[: max(limit, 0)]:
            try:
                jobs.append(self._job(row, line))
            except RequestError as error:  # written by another version; a claim will say so for good
                log.warning("job %s cannot be read: %s", row["id"], error)
        return jobs

    def _job(self, row: sqlite3.Row, line: list[str]) -> Job:
        return Job(
            **{name: row[name] for name in ("id", "owner", "state", "run_id", "created", "started", "finished")},
            position=line.index(row["id"]) if row["state"] == "queued" and row["id"] in line else None,
            request=read_request(row["request"]),
            error=None if row["error"] is None else json.loads(row["error"]),
            attempts=row["attempts"],
        )

    def move(self, job_id: str, position: int, owner: str | None) -> None:
        with self._writing() as connection:
            row = _row(connection, job_id, owner)
            if row["state"] != "queued":
                raise JobError(
                    "Only a job that waits can be moved.", field="job", value=job_id, way_out=f"It is {row['state']}."
                )
            mine = connection.execute(
                "SELECT id FROM jobs WHERE state = 'queued' AND owner = ? AND id != ? ORDER BY place",
                (row["owner"], job_id),
            ).fetchall()
            order = [each["id"] for each in mine]
            order.insert(max(position, 0), job_id)
            connection.executemany("UPDATE jobs SET place = ? WHERE id = ?", list(enumerate(order)))

    def ask_to_stop(self, job_id: str, how: Literal["cancel", "keep"], owner: str | None) -> None:
        """A waiting job is cancelled at once; a running one is asked; one that has ended is left alone."""
        with self._writing() as connection:
            state = _row(connection, job_id, owner)["state"]
            if state == "queued":
                _end(connection, job_id, "cancelled", None)
            elif state == "running":
                # Keeping may be given up for stopping at once, but not the other way round.
                connection.execute(
                    "UPDATE jobs SET stop = ? WHERE id = ? AND (stop IS NULL OR stop = 'keep')", (how, job_id)
                )

    def claim(self, worker: int) -> Job | None:
        """Take the next job, unless the queue is paused."""
        with self._reading() as connection:  # so that idling costs no write lock
            if connection.execute("SELECT 1 FROM jobs WHERE state = 'queued' LIMIT 1").fetchone() is None:
                return None
        with self._writing() as connection:
            line = [] if _note(connection, "paused") else _line(connection)
            if not line:
                return None
            connection.execute(
                "UPDATE jobs SET state = 'running', started = ?, worker = ?, attempts = attempts + 1 WHERE id = ?",
                (utc_now(), worker, line[0]),
            )
            row = _row(connection, line[0], None)
            try:
                return self._job(row, [])
            except RequestError as error:
                _end(connection, row["id"], "failed", error)
                return None

    def wanted_stop(self, job_id: str) -> str | None:
        with self._reading() as connection:
            row = connection.execute("SELECT stop FROM jobs WHERE id = ?", (job_id,)).fetchone()
            return None if row is None else row["stop"]

    def running(self) -> sqlite3.Row | None:
        """The one job that runs: id, run_id, worker, stop."""
        with self._reading() as connection:
            return connection.execute("SELECT id, run_id, worker, stop FROM jobs WHERE state = 'running'").fetchone()

    def end(self, job_id: str, state: JobState, error: StudioError | None, events: Sequence[_Numbered] = ()) -> None:
        """The job's last transaction: what was said last, how it ended, and what need not be kept."""
        with self._writing() as connection:
            _write_events(connection, job_id, events)
            _end(connection, job_id, state, error)

    # -- events -------------------------------------------------------------------------------------------------------

    def write_events(self, job_id: str, events: Sequence[_Numbered]) -> None:
        with self._writing() as connection:
            _write_events(connection, job_id, events)

    def events(self, job_id: str, after: int, owner: str | None) -> tuple[bool, list[_Numbered]]:
        """Whether the job was final, and the events after that number."""
        with self._reading() as connection:
            # The state first: what a final job had to say is in the book by the time it is final.
            final = _row(connection, job_id, owner)["state"] in FINAL
            rows = connection.execute(
                "SELECT number, record FROM events WHERE job_id = ? AND number > ? ORDER BY number", (job_id, after)
            ).fetchall()
        found = []
        for row in rows:
            with suppress(ValueError, TypeError, KeyError):  # an event of another version
                found.append((row["number"], event_from_json(json.loads(row["record"]))))
        return final, found

    # -- notes --------------------------------------------------------------------------------------------------------

    def note(self, name: str) -> Any:
        with self._reading() as connection:
            return _note(connection, name)

    def set_note(self, name: str, value: Any) -> None:
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, json.dumps(value)))

    def take_note(self, name: str) -> Any:
        """Read a note and strike it out."""
        if self.note(name) is None:
            return None
        with self._writing() as connection:
            value = _note(connection, name)
            connection.execute("DELETE FROM notes WHERE name = ?", (name,))
            return value


def _row(connection: sqlite3.Connection, job_id: str, owner: str | None) -> sqlite3.Row:
    row = connection.execute("SELECT * FROM jobs WHERE id = ?", (str(job_id),)).fetchone()
    if row is None or (owner is not None and row["owner"] != owner):
        raise JobError(
            f"There is no job {str(job_id)[:40]!r}.", field="job", value=job_id, way_out="Look in the queue."
        )
    return row


def _note(connection: sqlite3.Connection, name: str) -> Any:
    row = connection.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
    return None if row is None else json.loads(row["value"])


def _line(connection: sqlite3.Connection) -> list[str]:
    """The waiting jobs in the order in which they will run: owners in turn, each owner's own in their order.

    The turn goes first to whoever was served least recently, so that nobody waits behind another's hundred jobs.
    """
    waiting: dict[str, list[str]] = {}
    for row in connection.execute("SELECT id, owner FROM jobs WHERE state = 'queued' ORDER BY place, created"):
        waiting.setdefault(row["owner"], []).append(row["id"])
    if len(waiting) > 1:
        served = {
            owner: connection.execute("SELECT max(started) FROM jobs WHERE owner = ?", (owner,)).fetchone()[0] or ""
            for owner in waiting
        }
        waiting = dict(sorted(waiting.items(), key=lambda each: served[each[0]]))
    longest = max((len(jobs) for jobs in waiting.values()), default=0)
    return [jobs[turn] for turn in range(longest) for jobs in waiting.values() if turn < len(jobs)]


def _refuse_a_flood(connection: sqlite3.Connection, owner: str, most_per_owner: int | None, most: int | None) -> None:
    mine, everyones = connection.execute(
        "SELECT count(*) FILTER (WHERE owner = ?), count(*) FROM jobs WHERE state IN ('queued', 'running')", (owner,)
    ).fetchone()
    if most_per_owner is not None and mine >= most_per_owner:
        raise JobError(
            f"You have {mine} jobs in the queue; at most {most_per_owner} are taken.",
            field="queue",
            value=mine,
            way_out="Wait for one of them, or cancel one.",
        )
    if most is not None and everyones >= most:
        raise JobError(
            f"The queue is full: {everyones} jobs are waiting.", field="queue", value=everyones, way_out="Try later."
        )


def _write_events(connection: sqlite3.Connection, job_id: str, events: Sequence[_Numbered]) -> None:
    connection.executemany(
        "INSERT INTO events (job_id, number, kind, record) VALUES (?, ?, ?, ?)",
        [(job_id, number, type(event).__name__, json.dumps(event_to_json(event))) for number, event in events],
    )
    for _, event in events:
        if isinstance(event, RunStarted):
            connection.execute("UPDATE jobs SET run_id = ? WHERE id = ?", (event.run_id, job_id))


def _end(connection: sqlite3.Connection, job_id: str, state: JobState, error: StudioError | None) -> None:
    connection.execute(
        "UPDATE jobs SET state = ?, finished = ?, error = ? WHERE id = ? AND finished IS NULL",
        (state, utc_now(), None if error is None else json.dumps(error.to_json()), job_id),
    )
    connection.execute(
        "DELETE FROM events WHERE job_id = :job AND kind = :preview"
        " AND number < (SELECT max(number) FROM events WHERE job_id = :job AND kind = :preview)",
        {"job": job_id, "preview": PreviewFrame.__name__},
    )
    connection.execute(
        "DELETE FROM events WHERE job_id IN"
        " (SELECT id FROM jobs WHERE finished IS NOT NULL ORDER BY finished DESC LIMIT -1 OFFSET ?)",
        (KEPT_EVENT_LOGS,),
    )


def _book_trouble(error: sqlite3.Error, folder: Path) -> StudioError:
    if lacks_room(error):
        return no_room_for("the queue", folder)
    return JobError(f"The queue cannot be used: {error}.", field=str(folder), way_out="Try again.")


# ---------------------------------------------------------------------------------------------------------------------
# The worker


class _Worker:
    """Does the jobs of one folder, one after the other, for as long as it is wanted."""

    def __init__(self, folder: Path, store: RunStore, verb: str, *, unwanted: threading.Event) -> None:
        self.store = store
        self.verb = verb
        self.unwanted = unwanted
        self._lock = FileLock(folder / "worker.lock")
        self._book = _Book(folder)
        self._diary = _Book(folder, durable=False)
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
            _recover(self._book, self.store)
            self._say(state="starting")
            verb, warm = self._prepare()
            self._say(state="ready")
            while not self.unwanted.is_set():
                try:
                    job = self._book.claim(os.getpid())
                    preset = None if job is not None else self._book.take_note("warm")
                    wanted = None if job is not None or preset else self._book.take_note("measure")
                    version = None if job is not None or preset or wanted else self._book.take_note("train")
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
                elif version is not None:
                    self._train(version)
                else:
                    self.unwanted.wait(IDLE_SECONDS)
        finally:
            self._lock.release()
            self._book.close()
            self._diary.close()

    def _prepare(self) -> tuple[Callable[..., Any], Callable[[str], object] | None]:
        """Import what is heavy now, not when somebody waits for their first clip.

        Returns:
            The verb, and the `warm` of its module where it has one.
        """
        try:
            verb = _imported(self.verb)
            if self.verb == VERB:
                importlib.import_module("studio.pipelines")
            return verb, getattr(importlib.import_module(self.verb.partition(":")[0]), "warm", None)
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

    def _train(self, version_id: str) -> None:
        """Train a version; what happens to it stands in its own folder."""
        self._say(state="training", training=version_id)
        try:
            stream = _imported(TRAIN_VERB)(version_id, store=self.store)
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
            stream = verb(job.request, store=self.store, owner=job.owner, keep=keep)
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
            error = _stopped_with_the_studio()
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
        diary: _Book,
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
        self._untold: list[_Numbered] = []
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

    def end(self) -> list[_Numbered]:
        """Stop, and hand back what is not written yet."""
        self._ended.set()
        self.join()
        return self._untold


def _recover(book: _Book, store: RunStore) -> None:
    """Mark what a crash left. Only for the holder of the lock: a job that runs without a worker runs no more."""
    left = book.running()
    if left is not None:
        state: Literal["cancelled", "interrupted"] = "cancelled" if left["stop"] == "cancel" else "interrupted"
        error = None if state == "cancelled" else _stopped_with_the_studio()
        _settle(store, left["run_id"], state, error)
        book.end(left["id"], state, error)
    store.sweep()


def _settle(
    store: RunStore,
    run_id: str | None,
    state: Literal["interrupted", "cancelled", "failed"],
    error: StudioError | None,
) -> None:
    with suppress(StudioError):
        if run_id is not None:
            store.settle(run_id, state=state, error=error)


def _stopped_with_the_studio() -> JobError:
    return JobError("The studio stopped while this job was running.", way_out="Run it again.")


# ---------------------------------------------------------------------------------------------------------------------
# The queue


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
        verb: str = VERB,
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
            verb: What a job runs, as `module:function`. The module may also have `warm(preset_name, store=…)`.
            max_jobs_per_owner: Waiting and running jobs that one owner may have; None sets no limits at all.
            max_jobs: The same for all owners together, where owners are limited.
            cancel_seconds: See `CANCEL_SECONDS`.
            keep_seconds: See `KEEP_SECONDS`.
        """
        self.folder = (folder or store.folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.store = store
        self.in_process = in_process
        self.verb = verb
        self.max_jobs_per_owner = max_jobs_per_owner
        self.max_jobs = None if max_jobs_per_owner is None else max_jobs
        self.cancel_seconds = cancel_seconds
        self.keep_seconds = keep_seconds
        self._book = _Book(self.folder)
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
        self._book.close()

    def _recover_if_nobody_works(self) -> None:
        lock = FileLock(self.folder / "worker.lock")
        if lock.try_acquire():
            try:
                _recover(self._book, self.store)
            finally:
                lock.release()

    def _work_here(self) -> None:
        self._worker_pid = os.getpid()
        try:
            _Worker(self.folder, self.store, self.verb, unwanted=self._closing).run()
        except Exception as error:
            log.exception("the worker ended")
            self._trouble = str(error)
        finally:
            self._worker_pid = None

    # -- what the page does -------------------------------------------------------------------------------------------

    def submit(self, request: GenerationRequest, *, owner: str = "local", front: bool = False) -> Job:
        """Write a job down; when this returns, it survives whatever happens to the studio.

        Raises:
            JobError: the owner, or the queue, has as many jobs as are taken.
            DiskFull: no room to write it down.
        """
        return self.get(
            self._book.add(request, owner, front=front, most_per_owner=self.max_jobs_per_owner, most=self.max_jobs)
        )

    def get(self, job_id: str, *, owner: str | None = None) -> Job:
        """The job of that id.

        Raises:
            JobError: there is none, or it is somebody else's.
        """
        return self._book.get(job_id, owner)

    def jobs(
        self, *, owner: str | None = None, states: Iterable[JobState] | None = None, limit: int = 100
    ) -> list[Job]:
        """What runs, then what waits in the order in which it will run, then what has ended, newest first."""
        return self._book.select(owner, states, limit)

    @property
    def paused(self) -> bool:
        """Whether no further job is begun. Survives a restart."""
        return bool(self._book.note("paused"))

    def pause(self) -> None:
        """Begin no further job; the one that runs goes on."""
        self._book.set_note("paused", True)

    def resume(self) -> None:
        self._book.set_note("paused", False)

    def move(self, job_id: str, position: int, *, owner: str | None = None) -> Job:
        """Put a waiting job at that position, from 0, among its owner's waiting jobs.

        Raises:
            JobError: it does not wait, is not there, or is somebody else's.
        """
        self._book.move(job_id, position, owner)
        return self.get(job_id)

    def cancel(self, job_id: str, *, keep: bool = False, owner: str | None = None) -> Job:
        """Ask a job to stop; one that has ended is left as it is.

        Args:
            job_id: Which.
            keep: Stop after the current step and keep what was reached, as a partial clip.
            owner: Who asks.
        """
        self._book.ask_to_stop(job_id, "keep" if keep else "cancel", owner)
        return self.get(job_id)

    def retry(self, job_id: str, *, owner: str | None = None) -> Job:
        """The same request as a new job.

        Raises:
            JobError: it has not ended yet, is not there, or is somebody else's.
        """
        old = self.get(job_id, owner=owner)
        if not old.final:
            raise JobError(f"The job is {old.state}; it can be retried when it has ended.", field="job", value=job_id)
        return self.get(
            self._book.add(
                old.request,
                old.owner,
                retry_of=old.id,
                attempts=old.attempts,
                most_per_owner=self.max_jobs_per_owner,
                most=self.max_jobs,
            )
        )

    def events(self, job_id: str, *, after: int = 0, owner: str | None = None) -> list[tuple[int, GenerationEvent]]:
        """What the job's stream has said after that event, numbered from 1 in order.

        Of a job that has ended only the last preview is kept, so its numbers have gaps.
        """
        return self._book.events(job_id, after, owner)[1]

    async def follow(
        self, job_id: str, *, after: int = 0, owner: str | None = None
    ) -> AsyncIterator[tuple[int, GenerationEvent]]:
        """Replay what was said after that event, then go along until the job has ended."""
        while True:
            final, events = await asyncio.to_thread(self._book.events, job_id, after, owner)
            for after, event in events:
                yield after, event
            if final:
                return
            await asyncio.sleep(LOOK_SECONDS)

    def warm(self, preset_name: str) -> None:
        """Ask the worker to load a preset when it has nothing else to do."""
        self._book.set_note("warm", preset_name)

    def measure(self, preset_name: str, **fields: Any) -> None:
        """Ask the worker to measure a preset for its caches, instead of whatever else waits to be measured.

        Args:
            preset_name: Which.
            **fields: Request fields over the preset's defaults, such as num_inference_steps.
        """
        self._book.take_note("stop measuring")  # here, so that a stop is heard even before the worker has begun
        self._book.set_note("measure", {"preset_name": preset_name} | fields)

    def waits_to_be_measured(self) -> str | None:
        """The preset that was asked for and that the worker has not begun."""
        asked = self._book.note("measure")
        return None if asked is None else asked["preset_name"]

    def stop_measuring(self) -> None:
        """Ask the worker to leave off, within a block."""
        self._book.take_note("measure")
        self._book.set_note("stop measuring", True)

    def train(self, version_id: str) -> None:
        """Ask the worker to train a version, or to go on with it, when it has no clip to make.

        Raises:
            JobError: another one waits already.
        """
        waits = self.waits_to_be_trained()
        if waits not in (None, version_id):
            raise JobError(
                f"Version {waits} waits to be trained already.", field="version", value=waits, way_out="Wait for it."
            )
        if self._book.note("stop training") == version_id:
            self._book.take_note("stop training")
        self._book.set_note("train", version_id)

    def waits_to_be_trained(self) -> str | None:
        """The version that was asked for and that the worker has not begun."""
        return self._book.note("train")

    def stop_training(self) -> None:
        """Ask the worker to leave off after the step under way; what was learnt is kept."""
        waited = self._book.take_note("train")
        stopped = self.worker_state()["training"] or waited
        if stopped is not None:
            self._book.set_note("stop training", stopped)

    def worker_state(self) -> dict[str, Any]:
        """How the worker is.

        `state` (starting, ready, busy, measuring, training, dead), `preset` it holds, `job` it does, the version it is
        `training`, `reason`, and what it is `measuring` or measured last: `preset`, `running`, `done` of `total` clips,
        `error`.
        """
        told = self._book.note("worker") or {}
        nothing = {"preset": None, "job": None, "reason": self._trouble, "measuring": None, "training": None}
        pid = self._worker_pid
        if pid is None and self._thread is not None:
            return nothing | {"state": "dead" if self._trouble else "starting"}
        if pid is None:
            # This queue does not work; the lock says whether another's worker does.
            lock = FileLock(self.folder / "worker.lock")
            if lock.try_acquire():
                lock.release()
                return nothing | {"state": "dead"}
        elif told.get("pid") != pid:
            return nothing | {"state": "starting"}
        return {name: told.get(name) for name in ("state", *nothing)}

    # -- looking after the worker -------------------------------------------------------------------------------------

    def _look_after_workers(self) -> None:
        """The thread that keeps one worker process alive. It is also the one that starts it: see `_die_with_parent`."""
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
                    self._bury(worker, stopped_it)
                lived = time.monotonic() - began
                deaths = 0 if stopped_it or lived > STEADY_SECONDS else deaths + 1
            if deaths > 1:
                self._closing.wait(min(0.5 * 2 ** (deaths - 2), LONGEST_BACK_OFF_SECONDS))

    def _start_worker(self) -> subprocess.Popen[bytes]:
        # A session of its own: a Ctrl-C at the terminal is ours to handle, and a kill takes what the worker started.
        worker = subprocess.Popen(
            [
                *(sys.executable, "-m", "studio.jobs", "--worker", str(self.folder)),
                *("--runs", str(self.store.folder), "--verb", self.verb, "--parent", str(os.getpid())),
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
        asked: dict[tuple[str, str], float] = {}
        while worker.poll() is None:
            if self._closing.wait(LOOK_SECONDS):
                _kill(worker)
                return True
            with suppress(StudioError):
                job = self._book.running()
                if job is None or job["worker"] != worker.pid or job["stop"] is None:
                    continue
                since = asked.setdefault((job["id"], job["stop"]), time.monotonic())
                patience = self.keep_seconds if job["stop"] == "keep" else self.cancel_seconds
                if time.monotonic() - since > patience:
                    log.warning("job %s did not stop within %.0f s; its worker is killed", job["id"], patience)
                    _kill(worker)
                    return True
        return False

    def _bury(self, worker: subprocess.Popen[bytes], stopped_it: bool) -> None:
        """Say what became of the job that a worker left unfinished, and of its run."""
        if worker.stdin is not None:
            worker.stdin.close()
        _kill(worker)  # what it had started may have outlived it
        told = self._book.note("worker") or {}
        last_words = told.get("reason") if told.get("pid") == worker.pid else ""
        reason = JobError(last_words) if last_words else _cause_of_death(worker.returncode)
        if not stopped_it:
            self._trouble = reason.message
            log.warning("%s", reason.message)
        left = self._book.running()
        if left is None or left["worker"] != worker.pid:
            return
        if left["stop"] is not None:
            state, error = "cancelled", None
        elif stopped_it or worker.returncode in (-signal.SIGTERM, -signal.SIGINT):
            state, error = "interrupted", _stopped_with_the_studio()
        else:
            state, error = "failed", reason
        # The run before the job: who hears that the job has ended may look at its run at once.
        _settle(self.store, left["run_id"], state, error)
        self.store.sweep()
        self._book.end(left["id"], state, error)


def _kill(worker: subprocess.Popen[bytes]) -> None:
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


def _cause_of_death(status: int) -> JobError:
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


# ---------------------------------------------------------------------------------------------------------------------
# The worker's process


def _die_with_parent(parent: int) -> None:
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


def _give_way() -> None:
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


def main(arguments: list[str] | None = None) -> None:
    """`python -m studio.jobs --worker FOLDER …`: what a queue starts; nobody else needs to."""
    parser = argparse.ArgumentParser(prog="python -m studio.jobs", description="The worker of a job queue.")
    parser.add_argument("--worker", type=Path, required=True, metavar="FOLDER", help="where the queue is kept")
    parser.add_argument("--runs", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--verb", default=VERB, help="what a job runs, as module:function")
    parser.add_argument("--parent", type=int, required=True, help="process that this one must not outlive")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="worker: %(message)s")
    _die_with_parent(chosen.parent)
    _give_way()
    _Worker(chosen.worker, RunStore(chosen.runs), chosen.verb, unwanted=threading.Event()).run()


if __name__ == "__main__":
    main()
