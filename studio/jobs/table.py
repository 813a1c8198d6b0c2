"""The book of jobs: the tables, and every statement that touches them; shared by all processes.

Knows SQLite and records. Refuses to know processes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from studio.errors import JobError, RequestError, StudioError
from studio.events import GenerationEvent, PreviewFrame, RunStarted, event_from_json, event_to_json
from studio.records.runs import utc_now
from studio.requests.generation import GenerationRequest, read_request, request_to_json
from studio.storage import is_damage, lacks_room, no_room_for, open_database, transaction

JobState = Literal["queued", "running", "complete", "failed", "cancelled", "interrupted"]
FINAL: frozenset[JobState] = frozenset({"complete", "failed", "cancelled", "interrupted"})

BOOK_VERSION = 1
KEPT_EVENT_LOGS = 200
"""Finished jobs whose events can still be replayed; of older ones only the job itself is kept."""

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

Numbered = tuple[int, GenerationEvent]
"""An event of a job, and its number from 1."""


class JobTable:
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

    def end(self, job_id: str, state: JobState, error: StudioError | None, events: Sequence[Numbered] = ()) -> None:
        """The job's last transaction: what was said last, how it ended, and what need not be kept."""
        with self._writing() as connection:
            _write_events(connection, job_id, events)
            _end(connection, job_id, state, error)

    # -- events -------------------------------------------------------------------------------------------------------

    def write_events(self, job_id: str, events: Sequence[Numbered]) -> None:
        with self._writing() as connection:
            _write_events(connection, job_id, events)

    def events(self, job_id: str, after: int, owner: str | None) -> tuple[bool, list[Numbered]]:
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


def _write_events(connection: sqlite3.Connection, job_id: str, events: Sequence[Numbered]) -> None:
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
