"""The table of jobs: `jobs.sqlite`, and every statement that touches it; shared by all processes.

Knows SQLite and records. Refuses to know processes, and what a job does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from studio.errors import ErrorRecord, JobError, RequestError, StudioError
from studio.records.run import utc_now
from studio.requests.work import (
    KINDS,
    ProfileModel,
    TrainVersion,
    WalkComparison,
    Work,
    WorkKind,
    kind_of,
    read_work,
    work_to_json,
)
from studio.storage import is_damage, lacks_room, no_room_for, open_database, rename, transaction

JobState = Literal["queued", "running", "complete", "failed", "cancelled", "interrupted"]
FINAL: frozenset[JobState] = frozenset({"complete", "failed", "cancelled", "interrupted"})

TABLE_VERSION = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work in the queue, or what became of it."""

    id: str
    """128 random bits, hexadecimal: whoever holds it may attach."""
    owner: str
    state: JobState
    position: int | None
    """Jobs before it in the order in which they will run; None where it is not waiting."""
    work: Work
    run_id: str | None
    """The run it made or makes, from the moment the run began; of a comparison, its latest."""
    created: str
    """ISO 8601, UTC, like `started` and `finished`."""
    started: str | None
    finished: str | None
    error: ErrorRecord | None
    """`StudioError.to_json`."""
    attempts: int
    """How often the work was begun, earlier jobs that this one retries included."""

    @property
    def kind(self) -> WorkKind:
        return kind_of(self.work)

    @property
    def final(self) -> bool:
        return self.state in FINAL


_STATES = ", ".join(repr(state) for state in get_args(JobState))
_SCHEMA = (
    f"""CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ({_STATES})),
        place INTEGER NOT NULL,
        kind TEXT NOT NULL,
        work TEXT NOT NULL,
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
    "CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    f"PRAGMA user_version = {TABLE_VERSION}",
)

_FROM_VERSION_1 = (
    # Then every job was a clip, and what its stream said was kept here as well as in the run's own log.
    "DROP TABLE events",
    "ALTER TABLE jobs RENAME COLUMN request TO work",
    "ALTER TABLE jobs ADD COLUMN kind TEXT NOT NULL DEFAULT 'clip'",
    f"PRAGMA user_version = {TABLE_VERSION}",
)


class JobTable:
    """`jobs.sqlite`. Every method is one transaction; one connection, used by one thread at a time."""

    def __init__(self, folder: Path) -> None:
        """Open the table in a folder, or begin one."""
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
        except sqlite3.Error as error:
            raise _trouble(error, folder) from error

    def _open(self) -> sqlite3.Connection:
        connection = open_database(self.path)
        try:
            with transaction(connection):
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version == 0:
                    for statement in _SCHEMA:
                        connection.execute(statement)
                elif version == 1:
                    _bring_up_to_date(connection, self.path.parent)
            if version not in (0, 1, TABLE_VERSION):
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
        rename(self.path, aside)

    def close(self) -> None:
        with self._guard:
            self._connection.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._guard:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise _trouble(error, self.path.parent) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection, transaction(connection):
            yield connection

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def add(
        self,
        work: Work,
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
            _add(connection, job_id, work, owner, front=front, retry_of=retry_of, attempts=attempts)
        return job_id

    def get(self, job_id: str, owner: str | None) -> Job:
        with self._reading() as connection:
            return self._job(_row(connection, job_id, owner), _line(connection))

    def select(
        self,
        owner: str | None,
        states: Iterable[JobState] | None,
        limit: int,
        kinds: Iterable[WorkKind] | None = None,
    ) -> list[Job]:
        """What runs, then what waits in the order in which it will run, then what has ended, newest first."""
        wanted = tuple(states) if states is not None else get_args(JobState)
        of_kinds = tuple(kinds) if kinds is not None else tuple(KINDS)
        with self._reading() as connection:
            line = _line(connection)
            rows = connection.execute(
                f"SELECT * FROM jobs WHERE state IN ({', '.join('?' * len(wanted))})"
                f" AND kind IN ({', '.join('?' * len(of_kinds))}) AND (? IS NULL OR owner = ?)"
                " ORDER BY finished IS NOT NULL, finished DESC",
                (*wanted, *of_kinds, owner, owner),
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
            work=read_work(row["kind"], row["work"]),
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

    def wanted_stop(self, job_id: str) -> Literal["cancel", "keep"] | None:
        with self._reading() as connection:
            row = connection.execute("SELECT stop FROM jobs WHERE id = ?", (job_id,)).fetchone()
            return None if row is None else row["stop"]

    def others_wait(self) -> bool:
        """Whether somebody would be served, or nobody is to be, if the job that runs made room."""
        with self._reading() as connection:
            if _note(connection, "paused"):
                return True
            return connection.execute("SELECT 1 FROM jobs WHERE state = 'queued' LIMIT 1").fetchone() is not None

    def running(self) -> sqlite3.Row | None:
        """The one job that runs: id, kind, run_id, worker, stop."""
        with self._reading() as connection:
            columns = "id, kind, run_id, worker, stop"
            return connection.execute(f"SELECT {columns} FROM jobs WHERE state = 'running'").fetchone()

    def made(self, job_id: str, run_id: str) -> None:
        """The job has begun this run."""
        with self._writing() as connection:
            connection.execute("UPDATE jobs SET run_id = ? WHERE id = ?", (run_id, job_id))

    def queue_again(self, job_id: str) -> None:
        """Work that is not done makes room: the same job waits again, behind its owner's others."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE jobs SET state = 'queued', worker = NULL, attempts = attempts - 1, place ="
                " (SELECT coalesce(max(other.place), 0) + 1 FROM jobs AS other"
                "  WHERE other.state = 'queued' AND other.owner = jobs.owner)"
                " WHERE id = ? AND state = 'running' AND stop IS NULL",
                (job_id,),
            )

    def end(self, job_id: str, state: JobState, error: StudioError | None) -> None:
        """The job's last transaction: how it ended."""
        with self._writing() as connection:
            _end(connection, job_id, state, error)

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


def _add(
    connection: sqlite3.Connection,
    job_id: str,
    work: Work,
    owner: str,
    *,
    front: bool = False,
    retry_of: str | None = None,
    attempts: int = 0,
) -> None:
    lowest, highest = connection.execute(
        "SELECT coalesce(min(place), 0), coalesce(max(place), 0) FROM jobs WHERE state = 'queued' AND owner = ?",
        (owner,),
    ).fetchone()
    place = lowest - 1 if front else highest + 1
    written = json.dumps(work_to_json(work))
    connection.execute(
        "INSERT INTO jobs (id, owner, state, place, kind, work, created, attempts, retry_of)"
        " VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, ?)",
        (job_id, owner, place, kind_of(work), written, utc_now(), attempts, retry_of),
    )


def _bring_up_to_date(connection: sqlite3.Connection, folder: Path) -> None:
    """From the first version, in which trainings and measurings were notes, and comparisons had a driver."""
    for statement in _FROM_VERSION_1:
        connection.execute(statement)
    waiting: list[tuple[Work, str]] = []
    if isinstance(note := _note(connection, "train"), dict):
        waiting.append((TrainVersion.model_validate(note), "local"))
    if isinstance(note := _note(connection, "measure"), dict):
        fields = {name: value for name, value in note.items() if name in ProfileModel.model_fields}
        waiting.append((ProfileModel(preset=note["preset_name"], **fields), "local"))
    for path in sorted((folder / ".comparisons").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_bytes())
            if record["state"] == "running" and record.get("door") == "page":
                waiting.append((WalkComparison(comparison_id=path.stem), record["owner"]))
    for work, owner in waiting:
        _add(connection, secrets.token_hex(16), work, owner)
    connection.execute("DELETE FROM notes WHERE name != 'paused'")


def _end(connection: sqlite3.Connection, job_id: str, state: JobState, error: StudioError | None) -> None:
    connection.execute(
        "UPDATE jobs SET state = ?, finished = ?, error = ? WHERE id = ? AND finished IS NULL",
        (state, utc_now(), None if error is None else json.dumps(error.to_json()), job_id),
    )


def _trouble(error: sqlite3.Error, folder: Path) -> StudioError:
    if lacks_room(error):
        return no_room_for("the queue", folder)
    return JobError(f"The queue cannot be used: {error}.", field=str(folder), way_out="Try again.")
